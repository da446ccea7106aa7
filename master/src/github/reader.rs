use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::candidate::{distinct, links, row};
use super::client::{Client, GRAPHQL, OUTAGES_MAX, Queried};
use super::compare::diff;
use super::query::{self, Depth, Issue, Pull, Repository};
use super::waiting::Waiting;
use super::{GithubError, IssueLink};
use crate::filter::{Filter, Judged, Stage};

pub(super) const JSON: &str = "application/vnd.github+json";

/// The field of a row that names the issues which the server could not give, each with the reason.
const MISSING_ISSUES_FIELD: &str = "issues_missing";

/// Issues that are asked for at once; each comes with its comments.
const ISSUES_MAX: usize = 10;

/// Times that one pull request, or one issue, may be too heavy; each second time less of it is asked for.
pub(super) const HEAVY_MAX: u32 = 8;

/// What a refusal counts among them: a server that will not do it now will hardly do it later.
pub(super) const REFUSED_WEIGHT: u32 = 2;

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
    /// The row of a pull request, or all of it but its diff, if the server cannot give that now. What the filter turns away
    /// before it looks at patches is read without its diff.
    pub(super) async fn row(
        &self,
        found: &Repository,
        pull: &Pull,
    ) -> Result<Result<Value, Box<Waiting>>, GithubError> {
        let repo = &found.name_with_owner;
        let linked = pull.closing_issues_references.iter().flat_map(|nodes| nodes.nodes.iter().flatten());
        let mut issues: Vec<Issue> = linked.cloned().collect();
        let mut missing = Vec::new();
        let links = links(repo, self.client.host(), pull, &issues);
        for chunk in links.chunks(ISSUES_MAX) {
            issues.extend(self.issues(chunk, &mut missing).await?);
        }
        distinct(&mut issues);
        let mut row = row(found, pull, &issues);
        if !missing.is_empty() {
            row[MISSING_ISSUES_FIELD] = missing.into();
        }
        let is_wanted = match self.filter.judge(row.clone()) {
            Judged::Accepted { .. } => true,
            Judged::Rejected { stage, .. } => stage >= Stage::Fix,
        };
        let waiting = Waiting {
            repo: repo.clone(),
            number: pull.number,
            base: pull.base_ref_oid.clone(),
            head: pull.head_ref_oid.clone(),
            runs: 0,
            row,
            is_counted: false,
        };
        if !is_wanted {
            let why = "it was collected without its diff, for an earlier stage turned it away then";
            return Ok(Ok(waiting.without(why.to_owned())));
        }
        let diff = diff(self.client, repo, &waiting.base, &waiting.head).await?;
        Ok(waiting.with(diff))
    }

    /// Of these issues those that there are and anybody may see, as many at once as the server bears; one that it cannot
    /// give is noted and left out.
    async fn issues(&self, links: &[IssueLink], missing: &mut Vec<Value>) -> Result<Vec<Issue>, GithubError> {
        let (mut left, mut issues) = (links, Vec::new());
        let (mut at_once, mut heavy, mut alone, mut outages) = (links.len(), 0, 0, 0);
        while !left.is_empty() {
            if heavy > 0 {
                self.client.recover(heavy).await;
            }
            let asked = &left[..at_once.min(left.len())];
            let (query, variables) = query::issues(asked, depth(alone));
            let (why, weight) = match self.client.query(&query, &variables).await? {
                Queried::Data((data, _)) => {
                    for (index, link) in asked.iter().enumerate() {
                        match issue(&data, index) {
                            Ok(found) => issues.extend(found),
                            Err(why) => missing.push(left_out(link, &why)),
                        }
                    }
                    left = &left[asked.len()..];
                    (heavy, alone, outages) = (0, 0, 0);
                    continue;
                }
                Queried::Refused(why) => (why, REFUSED_WEIGHT),
                Queried::TooHeavy(why) => (why, 1),
            };
            heavy += 1;
            if let [link] = asked {
                alone += weight;
                if alone >= HEAVY_MAX {
                    if self.client.answers(GRAPHQL).await? || outages >= OUTAGES_MAX {
                        missing.push(left_out(link, &why));
                        left = &left[1..];
                        outages = 0;
                    } else {
                        outages += 1;
                    }
                    (heavy, alone) = (0, 0);
                }
            }
            at_once = asked.len().div_ceil(2);
        }
        Ok(issues)
    }
}

/// The issue of this index in an answer; `None`: there is none, or nobody may see it.
fn issue(data: &Value, index: usize) -> Result<Option<Issue>, String> {
    let found = &data[format!("l{index}")]["issue"];
    // What is a pull request has none of the fields that were asked of issues.
    Option::deserialize(found).map_err(|error| format!("not what GitHub answers: {error}"))
}

/// A note of an issue that was left out.
fn left_out(link: &IssueLink, why: &str) -> Value {
    json!({ "repo": link.repo, "number": link.number, "why": why })
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
