use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::candidate::{links, row};
use super::client::{Answer, Client, Queried};
use super::query::{self, Issue, Pull, Repository};
use super::store::Store;
use super::{GithubError, IssueLink};
use crate::filter::{Filter, Judged, MISSING_FIELD, Stage};

/// Pull requests of a page to begin with, and the most that GitHub gives.
const PAGE_BEGIN: usize = 25;
const PAGE_MAX: usize = 100;

/// Times that a page of one pull request, or the issues of one, may be too heavy.
const HEAVY_MAX: u32 = 5;

/// What a server gets to recover from what was too heavy.
const HEAVY_PAUSE: Duration = Duration::from_millis(500);

/// Pages of a search; GitHub gives a thousand repositories at most.
const SEARCH_PAGES_MAX: usize = 10;

const JSON: &str = "application/vnd.github+json";
const DIFF: &str = "application/vnd.github.diff";

/// Which repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repositories {
    /// These: `owner/name` each.
    Named(Vec<String>),
    /// Those that a search finds, the ones with the most stars first.
    Search(String),
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The repository that it is at.
    pub repository: String,
    /// Repositories that are done.
    pub done: usize,
    /// All of them.
    pub all: usize,
    /// Pull requests that were collected, in earlier runs too.
    pub pulls: usize,
}

/// Collects merged pull requests into a directory.
pub struct Collector<'a> {
    client: Client,
    store: Store,
    filter: &'a Filter,
    page: usize,
}

impl<'a> Collector<'a> {
    /// Of the API at a URL. What the filter turns away before it looks at patches is collected without its diff.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn new(
        dir: &Path,
        api: &str,
        tokens: Vec<String>,
        filter: &'a Filter,
        now: fn() -> Timestamp,
    ) -> Result<Self, GithubError> {
        let (store, client) = (Store::open(dir)?, Client::new(api, tokens, now)?);
        Ok(Self { client, store, filter, page: PAGE_BEGIN })
    }

    /// Collects what was made since a time, from where an earlier run with the same question ended. Gives how many pull
    /// requests there are.
    ///
    /// # Errors
    /// The server gives no answer, or the directory cannot be written.
    pub async fn run(
        &mut self,
        repositories: &Repositories,
        since: Timestamp,
        mut progress: impl FnMut(&Progress),
    ) -> Result<usize, GithubError> {
        let question = match repositories {
            Repositories::Named(named) => {
                format!("named {} {since}", blake3::hash(named.join("\n").as_bytes()))
            }
            Repositories::Search(query) => format!("search {query} {since}"),
        };
        if !self.store.resume(&question)? {
            let listed = match repositories {
                Repositories::Named(named) => named.clone(),
                Repositories::Search(query) => self.search(query).await?,
            };
            self.store.begin(&question, listed)?;
        }
        while let Some((repo, after)) = self.store.place() {
            let (repo, after) = (repo.to_owned(), after.map(str::to_owned));
            self.repository(&repo, after, since, &mut progress).await?;
        }
        Ok(self.store.pulls())
    }

    async fn search(&mut self, query: &str) -> Result<Vec<String>, GithubError> {
        let mut found = Vec::new();
        for page in 1..=SEARCH_PAGES_MAX {
            let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let path =
                format!("/search/repositories?q={query}&sort=stars&order=desc&per_page=100&page={page}");
            let answer = self.client.get(&path, JSON, None).await?;
            let body = parsed(&path, &answer)?;
            let names =
                body["items"].as_array().into_iter().flatten().filter_map(|item| item["full_name"].as_str());
            let before = found.len();
            found.extend(names.map(str::to_owned));
            if found.len() - before < PAGE_MAX {
                break;
            }
        }
        Ok(found)
    }

    async fn repository(
        &mut self,
        repo: &str,
        mut after: Option<String>,
        since: Timestamp,
        progress: &mut impl FnMut(&Progress),
    ) -> Result<(), GithubError> {
        // Begun earlier, it has changed since: the state to remember is that of its beginning, which nobody knows any more.
        let mut etag = None;
        if after.is_none() {
            let path = format!("/repos/{repo}/pulls?state=closed&sort=updated&direction=desc&per_page=1");
            let answer = self.client.get(&path, JSON, self.store.etag(repo)).await?;
            // Unchanged, or gone.
            if answer.status != StatusCode::OK {
                return self.store.next_repository(None);
            }
            etag = answer.etag;
        }
        loop {
            let Some(found) = self.page(repo, after.as_deref()).await? else { break };
            // Asked for by an old name, it answers by its new one.
            let name = &found.name_with_owner;
            let mut is_older = false;
            for pull in found.pull_requests.nodes.iter().flatten() {
                is_older = pull.created_at < since;
                if is_older {
                    break;
                }
                if !self.store.knows(name, pull.number) {
                    let row = self.candidate(&found, pull).await?;
                    self.store.add(name, pull.number, &row)?;
                }
                let (done, all) = self.store.repositories();
                progress(&Progress { repository: repo.to_owned(), done, all, pulls: self.store.pulls() });
            }
            let info = found.pull_requests.page_info;
            match info.end_cursor.filter(|_| info.has_next_page && !is_older) {
                Some(next) => {
                    self.store.next_page(next.clone())?;
                    after = Some(next);
                }
                None => break,
            }
        }
        self.store.next_repository(etag.map(|etag| (repo, etag)))
    }

    /// A page of pull requests, as many as the server bears; `None` where there is no such repository.
    async fn page(&mut self, repo: &str, after: Option<&str>) -> Result<Option<Repository>, GithubError> {
        let mut heavy = 0;
        loop {
            let (query, variables) = query::page(repo, self.page, after);
            match self.client.query(&query, &variables).await? {
                Queried::Data(mut data) => {
                    self.page = (self.page + self.page.div_ceil(4)).min(PAGE_MAX);
                    let found: Option<Repository> = serde_json::from_value(data["repository"].take())
                        .map_err(|error| failed(repo, format!("not what GitHub answers: {error}")))?;
                    return Ok(found);
                }
                Queried::TooHeavy(why) => {
                    heavy += u32::from(self.page == 1);
                    if heavy >= HEAVY_MAX {
                        return Err(failed(repo, format!("not even one pull request at once: {why}")));
                    }
                    self.page = (self.page / 2).max(1);
                    tokio::time::sleep(HEAVY_PAUSE).await;
                }
            }
        }
    }

    async fn candidate(&mut self, found: &Repository, pull: &Pull) -> Result<Value, GithubError> {
        let repo = &found.name_with_owner;
        let linked = pull.closing_issues_references.iter().flat_map(|nodes| nodes.nodes.iter().flatten());
        let mut issues: Vec<Issue> = linked.cloned().collect();
        let links = links(repo, pull, &issues);
        issues.extend(self.issues(&links).await?);
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

    async fn issues(&mut self, links: &[IssueLink]) -> Result<Vec<Issue>, GithubError> {
        if links.is_empty() {
            return Ok(Vec::new());
        }
        let (query, variables) = query::issues(links);
        let mut heavy = 0;
        loop {
            match self.client.query(&query, &variables).await? {
                Queried::Data(mut data) => {
                    let found = data.as_object_mut().into_iter().flat_map(|data| data.values_mut());
                    let found = found.filter_map(|found| serde_json::from_value(found["issue"].take()).ok());
                    return Ok(found.collect());
                }
                Queried::TooHeavy(why) => {
                    heavy += 1;
                    if heavy >= HEAVY_MAX {
                        return Err(failed(&links[0].repo, format!("issues cannot be read: {why}")));
                    }
                    tokio::time::sleep(HEAVY_PAUSE).await;
                }
            }
        }
    }

    /// The merge base and the diff from there, or why there is none.
    async fn diff(
        &mut self,
        repo: &str,
        pull: &Pull,
    ) -> Result<Result<(String, String), String>, GithubError> {
        let path = format!("/repos/{repo}/compare/{}...{}", pull.base_ref_oid, pull.head_ref_oid);
        let compared = self.client.get(&format!("{path}?per_page=1"), JSON, None).await?;
        if compared.status != StatusCode::OK {
            return Ok(Err(format!("its commits cannot be compared: the server says {}", compared.status)));
        }
        let base = parsed(&path, &compared)?["merge_base_commit"]["sha"].as_str().map(str::to_owned);
        let Some(base) = base else { return Ok(Err("it has no merge base".to_owned())) };
        let diff = self.client.get(&path, DIFF, None).await?;
        if diff.status != StatusCode::OK {
            return Ok(Err(format!("there is no diff of it: the server says {}", diff.status)));
        }
        Ok(match String::from_utf8(diff.body) {
            Ok(diff) => Ok((base, diff)),
            Err(_) => Err("its diff is no UTF-8".to_owned()),
        })
    }
}

fn parsed(url: &str, answer: &Answer) -> Result<Value, GithubError> {
    match (answer.status, serde_json::from_slice(&answer.body)) {
        (StatusCode::OK, Ok(value)) => Ok(value),
        (StatusCode::OK, Err(error)) => Err(failed(url, error.to_string())),
        (status, body) => {
            let said = body.unwrap_or_else(|_| json!({}));
            Err(failed(url, format!("{status}: {}", said["message"].as_str().unwrap_or("no reason given"))))
        }
    }
}

fn failed(url: &str, why: String) -> GithubError {
    GithubError::Failed { url: url.to_owned(), why }
}
