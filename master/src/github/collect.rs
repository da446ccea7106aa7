use std::collections::BTreeMap;
use std::path::Path;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use reqwest::StatusCode;

use super::GithubError;
use super::client::{Client, Queried};
use super::query::{self, Pull, Repository};
use super::reader::{HEAVY_MAX, JSON, Reader, depth, failed, recover};
use super::search::search;
use super::store::Store;
use crate::filter::Filter;

/// Pull requests of a page to begin with, and the most that GitHub gives.
const PAGE_BEGIN: usize = 25;
const PAGE_MAX: usize = 100;

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
        let (store, client) = (Store::open(dir, api)?, Client::new(api, tokens, now)?);
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
                Repositories::Search(query) => search(&self.client, query).await?,
            };
            self.store.begin(&question, listed)?;
        }
        while let Some((repo, after)) = self.store.place() {
            let (repo, after) = (repo.to_owned(), after.map(str::to_owned));
            self.repository(&repo, after, since, &mut progress).await?;
        }
        Ok(self.store.pulls())
    }

    /// The repositories that could not be read, and why; of earlier runs that this one went on from, too.
    #[must_use]
    pub fn skipped(&self) -> &BTreeMap<String, String> {
        self.store.skipped()
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
            match answer.status {
                StatusCode::OK => etag = answer.etag,
                StatusCode::NOT_MODIFIED => return self.store.next_repository(None),
                status => return self.store.skip(repo, format!("the server says {status}")),
            }
        }
        loop {
            let found = match self.page(repo, after.as_deref()).await? {
                Ok(found) => found,
                Err(why) => return self.store.skip(repo, why),
            };
            let is_older = self.pulls(repo, &found, since, progress).await?;
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

    /// Adds the pull requests of a page that are not known; whether there are some that are too old, and so are the rest.
    async fn pulls(
        &mut self,
        repo: &str,
        found: &Repository,
        since: Timestamp,
        progress: &mut impl FnMut(&Progress),
    ) -> Result<bool, GithubError> {
        // Asked for by an old name, it answers by its new one.
        let name = &found.name_with_owner;
        let (done, all) = self.store.repositories();
        let mut tell = |pulls| progress(&Progress { repository: repo.to_owned(), done, all, pulls });
        tell(self.store.pulls());
        let listed: Vec<&Pull> = found.pull_requests.nodes.iter().flatten().collect();
        let young = listed.iter().take_while(|pull| pull.created_at >= since).count();
        let (client, store) = (&self.client, &mut self.store);
        let reader = Reader { client, filter: self.filter };
        let mut wanted: Vec<&Pull> = listed[..young].to_vec();
        wanted.retain(|pull| !store.knows(name, pull.number));
        let read = wanted.iter().map(|pull| reader.row(found, pull));
        // Several are read at once, and added in their order: a successor finds no gap that it does not see.
        let mut rows = stream::iter(read).buffered(client.requests_max()).zip(stream::iter(&wanted));
        while let Some((row, pull)) = rows.next().await {
            store.add(name, pull.number, &row?)?;
            tell(store.pulls());
        }
        Ok(young < listed.len())
    }

    /// A page of pull requests, as many as the server bears; or why the repository cannot be read.
    async fn page(
        &mut self,
        repo: &str,
        after: Option<&str>,
    ) -> Result<Result<Repository, String>, GithubError> {
        let (mut heavy, mut heavy_alone) = (0, 0);
        loop {
            let (query, variables) = query::page(repo, self.page, after, depth(heavy_alone));
            match self.client.query(&query, &variables).await? {
                Queried::Data((mut data, why)) => {
                    self.page = (self.page + self.page.div_ceil(4)).min(PAGE_MAX);
                    let found: Option<Repository> = serde_json::from_value(data["repository"].take())
                        .map_err(|error| failed(repo, format!("not what GitHub answers: {error}")))?;
                    let why = || why.unwrap_or_else(|| "the server knows no such repository".to_owned());
                    return Ok(found.ok_or_else(why));
                }
                Queried::TooHeavy(why) => {
                    heavy += 1;
                    heavy_alone += u32::from(self.page == 1);
                    if heavy_alone >= HEAVY_MAX {
                        return Err(failed(repo, format!("not even one pull request at once: {why}")));
                    }
                    self.page = (self.page / 2).max(1);
                    recover(heavy).await;
                }
            }
        }
    }
}
