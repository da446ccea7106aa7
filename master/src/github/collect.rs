use std::collections::BTreeMap;
use std::path::Path;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use reqwest::StatusCode;

use super::GithubError;
use super::answer::Answer;
use super::client::Client;
use super::compare::diff;
use super::pages::{Paged, Pages};
use super::patience::Patience;
use super::query::{Pull, Repository};
use super::reader::{JSON, Reader};
use super::search::search;
use super::store::Store;
use super::waiting::Waiting;
use crate::filter::Filter;

/// Pull requests of a repository in a row that cannot be read before the rest of it is left alone.
const PASSED_MAX: u32 = 20;

/// Diffs that are asked for again in a row, and not given, before the rest is left to the next run.
const IN_VAIN_MAX: u32 = 20;

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
    pages: Pages,
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
        patience: Patience,
        now: fn() -> Timestamp,
    ) -> Result<Self, GithubError> {
        let (store, client) = (Store::open(dir, api)?, Client::new(api, tokens, patience, now)?);
        Ok(Self { client, store, filter, pages: Pages::new() })
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
        self.again().await?;
        Ok(self.store.pulls())
    }

    /// The repositories that could not be read, and why; of earlier runs that this one went on from, too.
    #[must_use]
    pub fn skipped(&self) -> &BTreeMap<String, String> {
        self.store.skipped()
    }

    /// The pull requests that could not be read, and why, by repository and number.
    #[must_use]
    pub fn passed_over(&self) -> &BTreeMap<(String, u64), String> {
        self.store.passed_over()
    }

    /// How many pull requests wait for their diffs, which the next run asks for again.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.store.waiting().len()
    }

    /// Asks again for the diffs that the server could not give when they were asked for.
    async fn again(&mut self) -> Result<(), GithubError> {
        let waiting: Vec<Waiting> = self.store.waiting().values().cloned().collect();
        let (client, store) = (&self.client, &mut self.store);
        let asked = waiting.iter().map(|waiting| diff(client, &waiting.repo, &waiting.base, &waiting.head));
        let mut read = stream::iter(asked).buffered(client.requests_max()).zip(stream::iter(&waiting));
        let mut in_vain = 0;
        while let Some((diff, waiting)) = read.next().await {
            match waiting.clone().with(diff?) {
                Ok(row) => {
                    store.add(&waiting.repo, waiting.number, &row)?;
                    in_vain = 0;
                }
                Err(still) => {
                    if still != *waiting {
                        store.wait_for(still)?;
                    }
                    in_vain += 1;
                }
            }
            // It makes none today.
            if in_vain >= IN_VAIN_MAX {
                break;
            }
        }
        Ok(())
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
            match self.client.get(&path, JSON, self.store.etag(repo)).await? {
                Ok(Answer { status: StatusCode::OK, etag: found, .. }) => etag = found,
                Ok(Answer { status: StatusCode::NOT_MODIFIED, .. }) => {
                    return self.store.next_repository(None);
                }
                Ok(Answer { status, .. }) => {
                    return self.store.skip(repo, format!("the server says {status}"));
                }
                Err(failure) => return self.store.skip(repo, failure.why),
            }
        }
        let (mut passed, mut is_waiting) = (0, false);
        loop {
            let (info, is_older) = match self.pages.next(&self.client, repo, after.as_deref()).await? {
                Paged::Found(found) => {
                    passed = 0;
                    let is_older = self.pulls(repo, &found, since, progress).await?;
                    is_waiting = self.store.has_waiting(&found.name_with_owner);
                    (found.pull_requests.page_info, is_older)
                }
                Paged::Passed { pull, why, info } => {
                    passed += 1;
                    let young = pull.filter(|(_, created_at)| *created_at >= since);
                    match young {
                        Some(_) if passed >= PASSED_MAX => {
                            let why = format!("none of {passed} pull requests in a row can be read: {why}");
                            return self.store.skip(repo, why);
                        }
                        Some((number, _)) if !self.store.knows(repo, number) => {
                            self.store.pass_over(repo, number, why)?;
                        }
                        _ => {}
                    }
                    (info, pull.is_some() && young.is_none())
                }
                Paged::Unreadable(why) => return self.store.skip(repo, why),
            };
            match info.end_cursor.filter(|_| info.has_next_page && !is_older) {
                Some(next) => {
                    self.store.next_page(next.clone())?;
                    after = Some(next);
                }
                None => break,
            }
        }
        // What was passed over is asked for again the next time; so is what waits, if nobody knows of it any more.
        let etag = etag.filter(|_| !is_waiting && !self.store.has_passed_over(repo));
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
            match row? {
                Ok(row) => store.add(name, pull.number, &row)?,
                Err(waiting) => store.wait_for(waiting)?,
            }
            tell(store.pulls());
        }
        Ok(young < listed.len())
    }
}
