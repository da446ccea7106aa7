use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use queue_format::{BuildTask, FailureReason};

use super::commit::Commit;
use super::snapshot::Snapshot;
use super::source_tree::{FileKind, SourceTree, TreeFile, list};
use super::{RepositoryCache, cache, incomplete};
use crate::evaluate::normalise_patch;
use crate::git::{Git, GitError};

/// A clean tree in a build context.
#[derive(Clone, Debug)]
pub struct Checkout {
    /// The context: `repo/` lies in it, the Dockerfile will.
    pub context_dir: PathBuf,
    /// The tree, with a `.git` in `repo/` that holds the base commit and nothing else.
    pub tree: SourceTree,
    /// When the base commit was made, or the pull request, whichever is later.
    pub date: jiff::Timestamp,
    /// What had to be left out.
    pub notes: Vec<String>,
}

/// Why there is no clean tree.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// No bare repository there.
    #[error(
        "no git repository at {repository}; fetch the mirror there, or submit again with another --repositories template"
    )]
    NoRepository {
        /// As the task names it.
        repository: String,
    },
    /// The base commit is missing.
    #[error("commit {commit} is not in {repository}: {why}; fetch the mirror again, or correct base_commit")]
    NoCommit {
        /// As the task names it.
        repository: String,
        /// The commit.
        commit: String,
        /// What was said.
        why: String,
    },
    /// The network is too slow for it, or the limit too tight.
    #[error(
        "{repository} was not fetched within {seconds} s; raise fetch_timeout_seconds in [worker], or keep a mirror of it \
         where the nodes see it"
    )]
    FetchTimedOut {
        /// As the task names it.
        repository: String,
        /// The limit.
        seconds: u64,
    },
    /// A patch does not apply.
    #[error("field {field:?} does not apply to {commit}: {why}")]
    Patch {
        /// `patch` or `test_patch`.
        field: &'static str,
        /// The base commit.
        commit: String,
        /// What git said, in one line.
        why: String,
    },
    /// git failed otherwise.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The node's disk.
    #[error("cannot write {}: {source}", path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ProvisionError {
    /// The reason under which the task fails; `None` where the node is at fault.
    #[must_use]
    pub fn reason(&self) -> Option<FailureReason> {
        match self {
            Self::NoRepository { .. } | Self::NoCommit { .. } => Some(FailureReason::Repository),
            Self::Patch { .. } => Some(FailureReason::Patch),
            Self::FetchTimedOut { .. } | Self::Git(_) | Self::Disk { .. } => None,
        }
    }
}

/// Puts the base commit of a task into `context_dir`, which exists and is empty.
///
/// The repository in it is one commit deep: it has no remote, no reflog, and one tag, the nearest that the base
/// descends from, so that builds which ask git for a version get a plausible one. Its files are only in git, unless a
/// checkout would change what is in them.
///
/// # Errors
/// The repository, the commit or a patch is not as the task says, or the node fails.
pub async fn provision(
    cache: &RepositoryCache,
    task: &BuildTask,
    context_dir: &Path,
) -> Result<Checkout, ProvisionError> {
    let repository = &task.repository;
    let bare = cache.locate(repository, &task.instance.base_commit).await?;
    let (commit, mirror, mut notes) = (&bare.commit, cache.git(&bare.dir), bare.notes.clone());
    let no_commit = |why| cache::no_commit(repository, &commit.id, why);
    let dir = context_dir.join("repo");
    let snapshot = Snapshot::new(&dir, &cache.git(&dir), &bare.dir.join("objects"));
    let (made, listed) = tokio::join!(snapshot.init(), list(&mirror, &commit.id));
    made?;
    let mut listing = listed.map_err(|error| match error.refusal() {
        Some(said) => no_commit(said.replace('\n', "; ")),
        None => error.into(),
    })?;
    let index = async {
        // Names that git takes from nobody.
        snapshot.seeing().run(&["read-tree", &commit.id]).await.map_err(|error| match error.refusal() {
            Some(said) => no_commit(said.replace('\n', "; ")),
            None => error.into(),
        })?;
        check_patches(snapshot.seeing(), task, context_dir, &dir).await
    };
    let nearest = ["describe", "--tags", "--abbrev=0", "--match=*[0-9]*", &commit.id];
    let (packed, mut checked, tag) =
        tokio::join!(snapshot.pack(commit, &listing), index, mirror.run(&nearest));
    let mut head = commit.id.clone();
    if let Err(error) = packed {
        snapshot.forget_pack()?;
        let Some(rest) = incomplete::take(snapshot.seeing(), commit, &mut listing).await? else {
            if listing.files.is_empty() {
                notes.push("the mirror has the content of none of its files".to_owned());
                return Err(no_commit(notes.join("; ")));
            }
            return Err(error.into());
        };
        head = rest.head;
        notes.push(rest.note);
        checked = check_patches(snapshot.seeing(), task, context_dir, &dir).await;
    }
    checked?;
    let is_shallow = head == commit.id && commit.has_parents;
    // Tags are a nicety.
    snapshot.finish(&head, is_shallow, tag.ok().as_deref()).await?;
    let git = snapshot.git();
    notes.extend(missing_submodules(git, &listing.files).await?);
    let tree = match is_changed_by_checkout(git, &listing.files).await? {
        true => {
            git.run(&["checkout-index", "--all", "--force", "--index"]).await?;
            SourceTree::written(&dir)
        }
        false => SourceTree::unwritten(&dir, git, listing.files),
    };
    Ok(Checkout { context_dir: context_dir.to_owned(), tree, date: date(commit, task), notes })
}

/// Applies the test patch, then the fix, to an index and an object store of their own: the tree stays as it is,
/// and no blob of the fix gets into its repository.
async fn check_patches(
    git: &Git,
    task: &BuildTask,
    context_dir: &Path,
    tree_dir: &Path,
) -> Result<(), ProvisionError> {
    let unwritable = |source| ProvisionError::Disk { path: context_dir.to_owned(), source };
    let scratch = tempfile::tempdir_in(context_dir).map_err(unwritable)?;
    std::fs::copy(tree_dir.join(".git/index"), scratch.path().join("index")).map_err(unwritable)?;
    let git = git.writing_to(scratch.path());
    let patches = [("test_patch", &task.instance.test_patch), ("patch", &task.instance.patch)]
        .map(|(field, patch)| (field, normalise_patch(patch)));
    let file = scratch.path().join("patch");
    std::fs::write(&file, patches[0].1.as_bytes()).map_err(unwritable)?;
    let both = [Path::new("apply"), Path::new("--cached"), &file, Path::new("-")].map(Path::as_os_str);
    if git.run_with_input(&both, patches[1].1.as_bytes()).await.is_err() {
        // Which of them it was.
        for (field, patch) in &patches {
            if let Err(error) = git.run_with_input(&["apply", "--cached", "-"], patch.as_bytes()).await {
                let Some(said) = error.refusal() else { return Err(error.into()) };
                let (commit, why) = (task.instance.base_commit.clone(), said.replace('\n', "; "));
                return Err(ProvisionError::Patch { field, commit, why });
            }
        }
    }
    scratch.close().map_err(unwritable)
}

fn date(commit: &Commit, task: &BuildTask) -> jiff::Timestamp {
    let base = jiff::Timestamp::from_second(commit.seconds).unwrap_or_default();
    task.instance.created().map_or(base, |created| created.max(base))
}

/// Whether a checkout writes anything else than what is in git: other ends of lines, another encoding, an expanded `$Id$`.
/// Filters are none: there is no configuration that says what they are.
async fn is_changed_by_checkout(git: &Git, files: &[TreeFile]) -> Result<bool, GitError> {
    if !files.iter().any(|file| file.path.file_name().is_some_and(|name| name == ".gitattributes")) {
        return Ok(false);
    }
    let paths: Vec<u8> =
        files.iter().flat_map(|file| [file.path.as_os_str().as_bytes(), &b"\0"[..]].concat()).collect();
    let asked = ["check-attr", "--cached", "--stdin", "-z", "eol", "ident", "working-tree-encoding"];
    let said = git.bytes(&asked, &paths).await?;
    // `<path>`, `<attribute>`, `<value>`
    let words: Vec<&[u8]> = said.split(|byte| *byte == 0).collect();
    Ok(words.chunks_exact(3).any(|told| match told[1] {
        b"eol" => told[2] == b"crlf",
        _ => ![&b"unspecified"[..], b"unset"].contains(&told[2]),
    }))
}

async fn missing_submodules(git: &Git, files: &[TreeFile]) -> Result<Vec<String>, GitError> {
    let is_file = |file: &&TreeFile| matches!(file.kind, FileKind::Regular | FileKind::Executable);
    let named = |file: &&TreeFile| file.path == Path::new(".gitmodules");
    let Some(file) = files.iter().filter(is_file).find(named) else { return Ok(Vec::new()) };
    let modules = git.run(&["cat-file", "blob", &file.object]).await?;
    let paths = modules.lines().filter_map(|line| line.trim().strip_prefix("path")?.trim().strip_prefix('='));
    let told = |path: &str| format!("the submodule {} is empty: the cache has no mirror of it", path.trim());
    Ok(paths.map(told).collect())
}
