use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::GithubError;
use super::client::{Client, GRAPHQL, OUTAGES_MAX, Queried};
use super::query::{self, Page, PageInfo, Places, Repository};
use super::reader::{HEAVY_MAX, REFUSED_WEIGHT, depth};

/// Pull requests of a page to begin with, and the most that GitHub gives.
const BEGIN: usize = 25;
const MAX: usize = 100;

/// Times that the place of a pull request is asked for of which nothing else can be read.
const PLACE_TRIES_MAX: u32 = 3;

/// Reads pages of pull requests, as large as the server bears.
pub(super) struct Pages {
    size: usize,
}

/// What stands at a place.
pub(super) enum Paged {
    /// Pull requests, one or more.
    Found(Repository),
    /// One that cannot be read, though others can.
    Passed {
        /// Its number and the time when it was made, where it is not even hidden.
        pull: Option<(u64, Timestamp)>,
        why: String,
        info: PageInfo,
    },
    /// Nothing that can be read.
    Unreadable(String),
}

impl Pages {
    pub(super) fn new() -> Self {
        Self { size: BEGIN }
    }

    /// The page after a place.
    pub(super) async fn next(
        &mut self,
        client: &Client,
        repo: &str,
        after: Option<&str>,
    ) -> Result<Paged, GithubError> {
        let mut last = String::new();
        for _ in 0..=OUTAGES_MAX {
            match self.tried(client, repo, after).await? {
                Ok(paged) => return Ok(paged),
                Err(why) => last = why,
            }
            if client.answers(GRAPHQL).await? {
                break;
            }
        }
        passed(client, repo, after, last).await
    }

    /// The page after a place, or why not even one pull request can be read of it.
    async fn tried(
        &mut self,
        client: &Client,
        repo: &str,
        after: Option<&str>,
    ) -> Result<Result<Paged, String>, GithubError> {
        let (mut heavy, mut alone) = (0, 0);
        loop {
            if heavy > 0 {
                client.recover(heavy).await;
            }
            let (query, variables) = query::page(repo, self.size, after, depth(alone));
            let (why, weight) = match client.query(&query, &variables).await? {
                Queried::Data((data, why)) => match repository(data) {
                    Ok(Some(found)) => {
                        self.size = (self.size + self.size.div_ceil(4)).min(MAX);
                        return Ok(Ok(Paged::Found(found)));
                    }
                    Ok(None) => return Ok(Ok(unknown(why))),
                    Err(why) => (why, REFUSED_WEIGHT),
                },
                Queried::Refused(why) => (why, REFUSED_WEIGHT),
                Queried::TooHeavy(why) => (why, 1),
            };
            heavy += 1;
            if self.size == 1 {
                alone += weight;
            }
            if alone >= HEAVY_MAX {
                return Ok(Err(why));
            }
            self.size = (self.size / 2).max(1);
        }
    }
}

/// Passes over a pull request that cannot be read: where the next one begins can be asked without it.
async fn passed(client: &Client, repo: &str, after: Option<&str>, why: String) -> Result<Paged, GithubError> {
    let (query, variables) = query::place(repo, after);
    for tried in 1..=PLACE_TRIES_MAX {
        match client.query(&query, &variables).await? {
            Queried::Data((data, unseen)) => {
                return Ok(match repository::<Places>(data) {
                    Ok(Some(found)) => {
                        let Page { page_info: info, nodes } = found.pull_requests;
                        let pull = nodes.into_iter().flatten().next();
                        Paged::Passed { pull: pull.map(|pull| (pull.number, pull.created_at)), why, info }
                    }
                    Ok(None) => unknown(unseen),
                    Err(_) => Paged::Unreadable(why),
                });
            }
            Queried::Refused(_) => break,
            Queried::TooHeavy(_) => client.recover(tried).await,
        }
    }
    Ok(Paged::Unreadable(why))
}

/// The repository of an answer; `None`: nobody may see it, or there is none.
fn repository<T: DeserializeOwned>(mut data: Value) -> Result<Option<T>, String> {
    serde_json::from_value(data["repository"].take())
        .map_err(|error| format!("not what GitHub answers: {error}"))
}

fn unknown(why: Option<String>) -> Paged {
    Paged::Unreadable(why.unwrap_or_else(|| "the server knows no such repository".to_owned()))
}
