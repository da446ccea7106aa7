//! Partial clones: repositories that have the blobs of those commits alone that somebody asked for, and a remote that has
//! the rest (<https://git-scm.com/docs/partial-clone>).

use std::collections::HashSet;
use std::path::Path;

use crate::git::{Git, GitError};

/// Missing trees come first, with all that is below them, then the missing blobs.
const ROUNDS_MAX: usize = 2;

/// What one fetch is asked for: git keeps a list of all of it, and so does the server.
const FETCHED_OBJECTS_MAX: usize = 1_000_000;

/// How many objects a server may have lost; each costs another question.
const LOST_OBJECTS_MAX: usize = 50;

/// Whether a repository may be a partial clone. Looks at the file, since most are none.
pub(super) fn is_partial(git_dir: &Path) -> bool {
    let config = std::fs::read_to_string(git_dir.join("config")).unwrap_or_default().to_ascii_lowercase();
    ["promisor", "partialclone"].iter().any(|word| config.contains(word))
}

/// Fetches what a repository lacks of a commit, all of it at once, but for what its server has lost. `fetching` is the
/// same with the time that takes. Gives whether the commit is whole now.
pub(super) async fn complete(git: &Git, fetching: &Git, commit: &str) -> Result<bool, GitError> {
    let mut lost = HashSet::new();
    let mut rounds = 0;
    while rounds < ROUNDS_MAX {
        let lacking = missing_objects(git, commit).await?;
        let wanted: String = lacking
            .iter()
            .filter(|object| !lost.contains(*object))
            .take(FETCHED_OBJECTS_MAX)
            .map(|object| format!("{object}\n"))
            .collect();
        if wanted.is_empty() {
            return Ok(lacking.is_empty());
        }
        let Some(remote) = remote(git).await? else { return Ok(false) };
        let options = ["--no-tags", "--no-write-fetch-head", "--filter=blob:none", "--no-auto-maintenance"];
        let fetch = [&["fetch", "--quiet"], &options[..], &["--stdin", "--", &remote]].concat();
        // There is nothing to negotiate: the server is told what is wanted, and sends just that, or nothing.
        let fetching = fetching.set("fetch.negotiationAlgorithm", "noop");
        match fetching.run_with_input(&fetch, wanted.as_bytes()).await {
            Ok(_) => rounds += 1,
            Err(error) => match lost_object(&error) {
                Some(object) if lost.len() < LOST_OBJECTS_MAX && lost.insert(object.to_owned()) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(missing_objects(git, commit).await?.is_empty())
}

/// The one object that a server says it does not have.
fn lost_object(error: &GitError) -> Option<&str> {
    error.refusal()?.split_once("not our ref ")?.1.split_whitespace().next()
}

/// The trees and blobs of a commit that are not there.
async fn missing_objects(git: &Git, commit: &str) -> Result<Vec<String>, GitError> {
    let walk = ["rev-list", "--objects", "--no-walk", "--missing=print", "--quiet", commit, "--"];
    let listed = git.run(&walk).await?;
    Ok(listed.lines().filter_map(|line| line.strip_prefix('?')).map(str::to_owned).collect())
}

/// The name of the remote that has the rest.
async fn remote(git: &Git) -> Result<Option<String>, GitError> {
    let keys = r"^(extensions\.partialclone|remote\..*\.promisor)$";
    let lines = match git.run(&["config", "--get-regexp", keys]).await {
        Ok(lines) => lines,
        Err(error) if error.refusal().is_some() => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(lines.lines().find_map(|line| {
        let (key, value) = line.split_once(' ').unwrap_or((line, "true"));
        let promisor = key.strip_prefix("remote.").and_then(|rest| rest.strip_suffix(".promisor"));
        let is_name = |name: &&str| !name.is_empty() && !name.starts_with('-');
        match promisor {
            Some(name) => Some(name).filter(|_| value == "true"),
            None => Some(value),
        }
        .filter(is_name)
        .map(str::to_owned)
    }))
}
