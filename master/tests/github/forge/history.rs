//! The pull requests of a forge: made up, or a real repository's.

use std::path::Path;

use super::Pull;
use crate::common::git;

/// The issue that a pull request closes has its number above this.
pub(super) const ISSUES: u64 = 1000;

pub(super) fn text(dir: &Path, args: &[&str]) -> String {
    String::from_utf8(git(dir, args)).expect("UTF-8").trim().to_owned()
}

fn commit(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    std::fs::write(path, content).expect("written");
    git(dir, &["add", "."]);
    git(dir, &["commit", "--quiet", "--message", name]);
    text(dir, &["rev-parse", "HEAD"])
}

/// Changes a module and its test on a branch of its own, while the main branch goes on.
pub(super) fn merged(dir: &Path, number: u64) -> Pull {
    let merge_base = commit(dir, &format!("pkg/m{number}.py"), "x = 1\n");
    git(dir, &["checkout", "--quiet", "-b", &format!("fix-{number}")]);
    commit(dir, &format!("pkg/m{number}.py"), "x = 2\n");
    let head = commit(dir, &format!("tests/test_m{number}.py"), &format!("import pkg.m{number}\n"));
    git(dir, &["checkout", "--quiet", "main"]);
    let base = commit(dir, "CHANGES", &format!("{number}\n"));
    let issue = ISSUES + number;
    // Some name theirs twice, or by the name that the repository had.
    let (title, body, linked) = match number {
        1 => (format!("Fix #{issue}"), format!("Closes Owner/Name#{issue}"), vec![]),
        2 => ("Mend it".to_owned(), format!("Fixes old/name#{issue}"), vec![issue]),
        _ => ("Mend it".to_owned(), format!("Fixes: #{issue}"), vec![]),
    };
    Pull { number, merge_base, base, head, title, body, linked }
}

pub(super) fn made(dir: &Path, count: u64) -> Vec<Pull> {
    git(dir, &["init", "--quiet", "--initial-branch=main"]);
    commit(dir, "pkg/__init__.py", "");
    (1..=count).map(|number| merged(dir, number)).collect()
}

/// The last commits of a repository, each as if it had been merged: what a merge brought, or the commit alone.
pub(super) fn of_repository(git_dir: &Path, count: usize) -> Vec<Pull> {
    let limit = format!("--max-count={count}");
    let listed = text(git_dir, &["log", "--all", "--min-parents=1", &limit, "--format=%H %P"]);
    let mut commits: Vec<Vec<&str>> = listed.lines().map(|line| line.split(' ').collect()).collect();
    commits.reverse();
    let pull = |(index, commit): (usize, &Vec<&str>)| {
        let number = index as u64 + 1;
        let (base, head) = (commit[1], commit.get(2).unwrap_or(&commit[0]));
        Pull {
            number,
            merge_base: text(git_dir, &["merge-base", base, head]),
            base: base.to_owned(),
            head: (*head).to_owned(),
            title: text(git_dir, &["log", "-1", "--format=%s", head]),
            body: format!("Fixes: #{}", ISSUES + number),
            linked: Vec::new(),
        }
    };
    commits.iter().enumerate().map(pull).collect()
}
