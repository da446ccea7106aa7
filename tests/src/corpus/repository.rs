//! One task: two trees, the commits made of them, and the patches between.

use std::fs;
use std::path::Path;

use queue_format::Instance;

use super::CorpusError;
use super::git::Git;
use super::sdist::unpack;
use super::table::{Edit, EditAt, Package, Release, Task};

/// What a task is made of, all of it verified.
pub(super) struct Sources<'a> {
    /// The row of the table.
    pub(super) task: &'a Task,
    /// Its package.
    pub(super) package: &'a Package,
    /// The base's and the fixed release's archive.
    pub(super) archives: [&'a Path; 2],
    /// Their rows.
    pub(super) releases: [&'a Release; 2],
}

/// Adds a task's commits to the package's repository and gives its row.
///
/// ```text
/// base release, tagged v<base>  ←  [edit of the base]  ←  fix and tests, branch <id>
/// ```
/// The base is a commit without a parent, so that it is the same whichever tasks are made; tools that take the
/// version from a tag find it, before an edit too.
pub(super) fn add_task(git: &Git, sources: &Sources<'_>) -> Result<Instance, CorpusError> {
    let Sources { task, package, archives: [base_archive, fixed_archive], releases: [base, fixed] } = sources;
    let scratch =
        tempfile::tempdir().map_err(CorpusError::io("create a directory in", &std::env::temp_dir()))?;
    let (tree, next) = (scratch.path().join("base"), scratch.path().join("fixed"));
    unpack(&task.package, base_archive, &tree)?;
    unpack(&task.package, fixed_archive, &next)?;

    let release = git.commit(&tree, None, &format!("Release {}", task.base), base.released_at)?;
    git.point(&format!("refs/tags/v{}", task.base), &release)?;
    let base_commit = if edit_tree(task, EditAt::Base, &tree)? {
        git.commit(&tree, Some(&release), &format!("Edit for {}", task.id), base.released_at)?
    } else {
        release
    };
    for path in task.fix.iter().chain(&task.tests) {
        take_over(task, path, &next, &tree)?;
    }
    edit_tree(task, EditAt::Fix, &tree)?;
    edit_tree(task, EditAt::Tests, &tree)?;
    let message = format!("Fix and tests of {}", task.fixed);
    let end_commit = git.commit(&tree, Some(&base_commit), &message, fixed.released_at)?;
    git.point(&branch(task), &end_commit)?;
    git.run(&["symbolic-ref", "HEAD", &branch(task)], &[])?;

    let patch = git.diff(&base_commit, &end_commit, &paths(task, &task.fix, EditAt::Fix))?;
    let mut test_patch = git.diff(&base_commit, &end_commit, &paths(task, &task.tests, EditAt::Tests))?;
    for edit in task.edits.iter().filter(|edit| edit.at == EditAt::TestPatch) {
        test_patch = edited(task, edit, "the test patch", &test_patch)?;
    }
    Ok(Instance {
        instance_id: task.id.clone(),
        repo: package.repository.clone(),
        base_commit,
        end_commit,
        problem_statement: task.problem_statement.trim().to_owned(),
        patch,
        test_patch,
        language: "python".to_owned(),
        version: task.base.clone(),
        pull_number: 0,
        repo_id: 0,
        created_at: fixed.released_at.to_string(),
        hints_text: String::new(),
        extra: serde_json::Map::new(),
    })
}

/// The reference that keeps a task's commits.
pub(super) fn branch(task: &Task) -> String {
    format!("refs/heads/{}", task.id)
}

/// Copies a file of the fixed release over the base's, or removes it where the fixed release has none.
fn take_over(task: &Task, path: &str, from: &Path, to: &Path) -> Result<(), CorpusError> {
    let (source, target) = (from.join(path), to.join(path));
    let refuse = |why: &str| {
        Err(CorpusError::Listed { task: task.id.clone(), file: path.to_owned(), why: why.to_owned() })
    };
    match (source.is_file(), target.is_file()) {
        (false, false) => return refuse("neither release has this file: mend tests or fix in the table"),
        (false, true) => fs::remove_file(&target).map_err(CorpusError::io("remove", &target))?,
        (true, was_there) => {
            let content = fs::read(&source).map_err(CorpusError::io("read", &source))?;
            if was_there && fs::read(&target).map_err(CorpusError::io("read", &target))? == content {
                return refuse("it is the same in both releases: take it off tests or fix in the table");
            }
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).map_err(CorpusError::io("create", parent))?;
            }
            fs::copy(&source, &target).map_err(CorpusError::io("write", &target))?;
        }
    }
    Ok(())
}

/// Makes the edits of one place; whether there were any.
fn edit_tree(task: &Task, at: EditAt, tree: &Path) -> Result<bool, CorpusError> {
    let mut any = false;
    for edit in task.edits.iter().filter(|edit| edit.at == at) {
        let path = tree.join(&edit.path);
        let before = fs::read_to_string(&path).map_err(CorpusError::io("read", &path))?;
        fs::write(&path, edited(task, edit, &edit.path, &before)?)
            .map_err(CorpusError::io("write", &path))?;
        any = true;
    }
    Ok(any)
}

/// The text after an edit.
fn edited(task: &Task, edit: &Edit, file: &str, before: &str) -> Result<String, CorpusError> {
    let Some(find) = &edit.find else {
        return Ok(before.to_owned() + &edit.text);
    };
    match before.matches(find.as_str()).count() {
        1 => Ok(before.replacen(find.as_str(), &edit.text, 1)),
        times => Err(CorpusError::Listed {
            task: task.id.clone(),
            file: file.to_owned(),
            why: format!("{find:?} is there {times} times, expected once: mend edits in the table"),
        }),
    }
}

/// Listed files and edited ones, each once.
fn paths<'a>(task: &'a Task, listed: &'a [String], at: EditAt) -> Vec<&'a str> {
    let mut paths: Vec<_> = listed.iter().map(String::as_str).collect();
    paths.extend(task.edits.iter().filter(|edit| edit.at == at).map(|edit| edit.path.as_str()));
    paths.sort_unstable();
    paths.dedup();
    paths
}
