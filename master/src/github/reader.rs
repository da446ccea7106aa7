use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::answer::Answer;
use super::candidate::{distinct, links, row};
use super::client::{Client, Queried};
use super::query::{self, Depth, Issue, Pull, Repository};
use super::{GithubError, IssueLink};
use crate::filter::{Filter, Judged, MISSING_FIELD, Stage};

pub(super) const JSON: &str = "application/vnd.github+json";
const DIFF: &str = "application/vnd.github.diff";

/// Issues that are asked for at once; each comes with its comments.
const ISSUES_MAX: usize = 10;

/// Times that one pull request, or one issue, may be too heavy; each second time less of it is asked for.
pub(super) const HEAVY_MAX: u32 = 8;

/// What a server gets to recover from what was too heavy the first time; twice as much each further time, up to a limit.
const HEAVY_PAUSE: Duration = Duration::from_millis(250);
const HEAVY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Lets a server recover after so many queries in a row that were too heavy.
pub(super) async fn recover(heavy: u32) {
    let pause = HEAVY_PAUSE.saturating_mul(1 << heavy.saturating_sub(1).min(16));
    tokio::time::sleep(pause.min(HEAVY_PAUSE_MAX)).await;
}

/// How much to ask of what was too heavy by itself so many times.
pub(super) fn depth(heavy: u32) -> Depth {
    match heavy {
        0..=1 => Depth::Whole,
        2..=3 => Depth::FewComments,
        _ => Depth::Bare,
    }
}

/// Reads what a row needs of pull requests, several at once.
pub(super) struct Reader<'a> {
    pub(super) client: &'a Client,
    pub(super) filter: &'a Filter,
}

impl Reader<'_> {
    /// The row of a pull request. What the filter turns away before it looks at patches is read without its diff.
    pub(super) async fn row(&self, found: &Repository, pull: &Pull) -> Result<Value, GithubError> {
        let repo = &found.name_with_owner;
        let linked = pull.closing_issues_references.iter().flat_map(|nodes| nodes.nodes.iter().flatten());
        let mut issues: Vec<Issue> = linked.cloned().collect();
        let links = links(repo, self.client.host(), pull, &issues);
        for chunk in links.chunks(ISSUES_MAX) {
            issues.extend(self.issues(chunk).await?);
        }
        distinct(&mut issues);
        let mut row = row(found, pull, &issues);
        let is_wanted = match self.filter.judge(row.clone()) {
            Judged::Accepted { .. } => true,
            Judged::Rejected { stage, .. } => stage >= Stage::Fix,
        };
        let diff = if is_wanted {
            self.diff(repo, pull).await?
        } else {
            Err("it was collected without its diff, for an earlier stage turned it away then".to_owned())
        };
        match diff {
            Ok((base, diff)) => (row["base_commit"], row["patch"]) = (base.into(), diff.into()),
            Err(why) => row[MISSING_FIELD] = why.into(),
        }
        Ok(row)
    }

    /// Of these issues those that there are and anybody may see, as many at once as the server bears.
    async fn issues(&self, links: &[IssueLink]) -> Result<Vec<Issue>, GithubError> {
        let (mut left, mut issues) = (links, Vec::new());
        let (mut at_once, mut heavy, mut heavy_alone) = (links.len(), 0, 0);
        while !left.is_empty() {
            let asked = &left[..at_once.min(left.len())];
            let (query, variables) = query::issues(asked, depth(heavy_alone));
            match self.client.query(&query, &variables).await? {
                Queried::Data((mut data, _)) => {
                    let found = data.as_object_mut().into_iter().flat_map(|data| data.values_mut());
                    issues
                        .extend(found.filter_map(|found| serde_json::from_value(found["issue"].take()).ok()));
                    left = &left[asked.len()..];
                    (heavy, heavy_alone) = (0, 0);
                }
                Queried::TooHeavy(why) => {
                    heavy += 1;
                    heavy_alone += u32::from(asked.len() == 1);
                    if heavy_alone >= HEAVY_MAX {
                        return Err(failed(&asked[0].repo, format!("an issue cannot be read: {why}")));
                    }
                    at_once = asked.len().div_ceil(2);
                    recover(heavy).await;
                }
            }
        }
        Ok(issues)
    }

    /// The merge base and the diff from there, or why there is none.
    async fn diff(&self, repo: &str, pull: &Pull) -> Result<Result<(String, String), String>, GithubError> {
        let path = format!("/repos/{repo}/compare/{}...{}", pull.base_ref_oid, pull.head_ref_oid);
        let compared = match self.client.get_doubtful(&format!("{path}?per_page=1"), JSON).await? {
            Ok(answer) if answer.status == StatusCode::OK => answer,
            Ok(Answer { status, .. }) => {
                return Ok(Err(format!("its commits cannot be compared: the server says {status}")));
            }
            Err(why) => return Ok(Err(format!("its commits cannot be compared: {why}"))),
        };
        let base = parsed(&path, &compared)?["merge_base_commit"]["sha"].as_str().map(str::to_owned);
        let Some(base) = base else { return Ok(Err("it has no merge base".to_owned())) };
        let diff = match self.client.get_doubtful(&path, DIFF).await? {
            Ok(answer) if answer.status == StatusCode::OK => answer.body,
            Ok(Answer { status, .. }) => {
                return Ok(Err(format!("there is no diff of it: the server says {status}")));
            }
            Err(why) => return Ok(Err(format!("there is no diff of it: {why}"))),
        };
        Ok(match String::from_utf8(diff) {
            Ok(diff) => Ok((base, diff)),
            Err(_) => Err("its diff is no UTF-8".to_owned()),
        })
    }
}

/// The JSON of a good answer.
pub(super) fn parsed(url: &str, answer: &Answer) -> Result<Value, GithubError> {
    match (answer.status, serde_json::from_slice(&answer.body)) {
        (StatusCode::OK, Ok(value)) => Ok(value),
        (StatusCode::OK, Err(error)) => Err(failed(url, error.to_string())),
        (status, body) => {
            let said = body.unwrap_or_else(|_| json!({}));
            Err(failed(url, format!("{status}: {}", said["message"].as_str().unwrap_or("no reason given"))))
        }
    }
}

pub(super) fn failed(url: &str, why: String) -> GithubError {
    GithubError::Failed { url: url.to_owned(), why }
}
