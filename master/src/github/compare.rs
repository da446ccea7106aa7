use reqwest::StatusCode;
use serde_json::Value;

use super::GithubError;
use super::answer::Answer;
use super::client::{Cause, Client, Failure};
use super::reader::JSON;

const DIFF: &str = "application/vnd.github.diff";

/// What a server says of the diff between two commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Diff {
    /// Their merge base, and the diff from there to the second.
    Read { base: String, patch: String },
    /// There is none, and never will be.
    Missing(String),
    /// It could not give it at this moment.
    Later(String),
}

/// The diff of what a branch with this head changed since it left the one with this base.
pub(super) async fn diff(client: &Client, repo: &str, base: &str, head: &str) -> Result<Diff, GithubError> {
    let path = format!("/repos/{repo}/compare/{base}...{head}");
    let none = "its commits cannot be compared";
    let compared = match read(client, &format!("{path}?per_page=1"), JSON, none).await? {
        Ok(compared) => compared,
        Err(diff) => return Ok(diff),
    };
    let compared: Value = match serde_json::from_slice(&compared) {
        Ok(compared) => compared,
        Err(error) => return Ok(Diff::Missing(format!("{none}: {error}"))),
    };
    let Some(base) = compared["merge_base_commit"]["sha"].as_str() else {
        return Ok(Diff::Missing("it has no merge base".to_owned()));
    };
    let patch = match read(client, &path, DIFF, "there is no diff of it").await? {
        Ok(patch) => patch,
        Err(diff) => return Ok(diff),
    };
    Ok(match String::from_utf8(patch) {
        Ok(patch) => Diff::Read { base: base.to_owned(), patch },
        Err(_) => Diff::Missing("its diff is no UTF-8".to_owned()),
    })
}

/// A body, or what the lack of it says of the diff.
async fn read(
    client: &Client,
    path: &str,
    accept: &str,
    none: &str,
) -> Result<Result<Vec<u8>, Diff>, GithubError> {
    Ok(match client.get(path, accept, None).await? {
        Ok(Answer { status: StatusCode::OK, body, .. }) => Ok(body),
        Ok(Answer { status, .. }) => Err(Diff::Missing(format!("{none}: the server says {status}"))),
        Err(Failure { why, cause: Cause::Asked }) => Err(Diff::Missing(format!("{none}: {why}"))),
        Err(Failure { why, cause: Cause::Network | Cause::Moment }) => {
            Err(Diff::Later(format!("{none}: {why}")))
        }
    })
}
