use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use reqwest::StatusCode;
use tokio::sync::watch;

use super::GithubError;
use super::answer::Answer;
use super::client::Client;
use super::compare::diff;
use super::pages::{Paged, Pages};
use super::patience::Patience;
use super::progress::Progress;
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

/// How often progress is told while nothing changes.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Which repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repositories {
    /// These: `owner/name` each.
    Named(Vec<String>),
    /// Those that a search finds, the ones with the most stars first.
    Search(String),
}

/// Collects merged pull requests into a directory.
pub struct Collector<'a> {
    client: Client,
    store: Store,
    filter: &'a Filter,
    pages: Pages,
    progress: watch::Sender<Progress>,
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
        let progress = watch::Sender::new(Progress::default());
        let client = Client::new(api, tokens, patience, progress.clone(), now)?;
        Ok(Self { client, store: Store::open(dir, api)?, filter, pages: Pages::new(), progress })
    }

    /// Collects what was made since a time, from where an earlier run with the same question ended. Gives how many pull
    /// requests there are. `progress` is called when something changed, and every second.
    ///
    /// # Errors
    /// The server gives no answer, or the directory cannot be written.
    pub async fn run(
        &mut self,
        repositories: &Repositories,
        since: Timestamp,
        mut progress: impl FnMut(&Progress),
    ) -> Result<usize, GithubError> {
        let (mut heard, mut tick) = (self.progress.subscribe(), tokio::time::interval(TOLD_EVERY));
        let collected = self.collect(repositories, since);
        tokio::pin!(collected);
        loop {
            tokio::select! {
                biased;
                collected = &mut collected => return collected,
                _ = heard.changed() => {}
                _ = tick.tick() => {}
            }
            progress(&heard.borrow_and_update());
        }
    }

    async fn collect(&mut self, repositories: &Repositories, since: Timestamp) -> Result<usize, GithubError> {
        tell(&self.progress, &self.store, "");
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
            self.repository(&repo, after, since).await?;
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
        let mut waiting: Vec<Waiting> = self.store.waiting().values().cloned().collect();
        // Where some are hopeless, others have their turn in the next run.
        waiting.sort_by_key(|waiting| waiting.runs);
        let (client, store) = (&self.client, &mut self.store);
        let asked = waiting.iter().map(|waiting| diff(client, &waiting.repo, &waiting.base, &waiting.head));
        let mut read = stream::iter(asked).buffered(client.requests_max()).zip(stream::iter(&waiting));
        let mut in_vain = 0;
        while let Some((diff, waiting)) = read.next().await {
            match waiting.clone().with(diff?) {
                Ok(row) => {
                    store.add(&waiting.repo, waiting.number, &row)?;
                    tell(&self.progress, store, &waiting.repo);
                    in_vain = 0;
                }
                Err(still) => {
                    if *still != *waiting {
                        store.wait_for(*still)?;
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
    ) -> Result<(), GithubError> {
        tell(&self.progress, &self.store, repo);
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
                    let is_older = self.pulls(repo, &found, since).await?;
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
    async fn pulls(&mut self, repo: &str, found: &Repository, since: Timestamp) -> Result<bool, GithubError> {
        // Asked for by an old name, it answers by its new one.
        let name = &found.name_with_owner;
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
                Err(waiting) => store.wait_for(*waiting)?,
            }
            tell(&self.progress, store, repo);
        }
        Ok(young < listed.len())
    }
}

/// Says where it is, and how much there is by now.
fn tell(progress: &watch::Sender<Progress>, store: &Store, repo: &str) {
    let (done, all) = store.repositories();
    progress.send_modify(|progress| {
        repo.clone_into(&mut progress.repository);
        (progress.done, progress.all, progress.pulls) = (done, all, store.pulls());
    });
}
