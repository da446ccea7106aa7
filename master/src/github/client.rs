use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::header::{ACCEPT, ETAG, HeaderMap, IF_NONE_MATCH};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use systemd::chain;
use tokio::sync::watch;

use super::GithubError;
use super::answer::{Answer, Data, Unread, data_of, is_limit, is_used_up, limits};
use super::patience::Patience;
use super::progress::{Progress, Waits};
use super::reader::JSON;
use super::tokens::{Choice, Tokens};

/// Failures of one request before it is asked whether the server answers anything.
const FAILURES_MAX: u32 = 4;

/// Times that the server answers nothing for a while before that is held against what was asked.
pub(super) const OUTAGES_MAX: u32 = 10;

/// Times that one request waits for a limit before it is given up; an hour each at most.
const WAITS_MAX: u32 = 50;

/// The longest answer that is read: diffs that GitHub gives have three megabytes at most.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The longest that one request may take; GitHub itself gives up a query after ten seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) const GRAPHQL: &str = "graphql";

/// How a server is asked, whatever for: with the token that is idle and has the most left, as often as it allows.
pub(super) struct Client {
    http: reqwest::Client,
    api: String,
    tokens: Mutex<Tokens>,
    now: fn() -> Timestamp,
    patience: Patience,
    /// Where it says that it waits.
    progress: watch::Sender<Progress>,
}

/// What a query gave.
pub(super) enum Queried {
    /// Its data.
    Data(Data),
    /// The server gave up on it: ask for less.
    TooHeavy(String),
    /// The server will not do it.
    Refused(String),
}

/// A request that did not come to an answer.
pub(super) struct Failure {
    pub(super) why: String,
    pub(super) cause: Cause,
}

/// What a failure is to be blamed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The network: there was no connection, or it broke off.
    Network,
    /// The server of this moment: a gateway, or a time-out.
    Moment,
    /// What was asked for: the server cannot make it, or nobody could hold it.
    Asked,
}

impl Client {
    /// Of the API at a URL, such as `https://api.github.com` or `https://forge.example/api/v3`.
    pub(super) fn new(
        api: &str,
        tokens: Vec<String>,
        patience: Patience,
        progress: watch::Sender<Progress>,
        now: fn() -> Timestamp,
    ) -> Result<Self, GithubError> {
        // Whoever was first has installed the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let agent = concat!("bottega/", env!("CARGO_PKG_VERSION"));
        let http = reqwest::Client::builder().user_agent(agent).timeout(REQUEST_TIMEOUT).build();
        let http = http.map_err(|error| GithubError::Client(chain(&error)))?;
        let tokens = Mutex::new(Tokens::new(tokens));
        Ok(Self { http, api: api.trim_end_matches('/').to_owned(), tokens, now, patience, progress })
    }

    /// The host whose pages people see.
    pub(super) fn host(&self) -> &str {
        let rest = self.api.split_once("://").map_or(self.api.as_str(), |(_, rest)| rest);
        let host = rest.split('/').next().unwrap_or_default();
        host.strip_prefix("api.").unwrap_or(host)
    }

    /// How many requests may be made at once: one with each token, as GitHub asks for.
    pub(super) fn requests_max(&self) -> usize {
        self.tokens().count().max(1)
    }

    /// Asks for a path of the REST API; what was read before under this ETag is not sent again. The inner error is one of
    /// this request alone: the server answers others.
    pub(super) async fn get(
        &self,
        path: &str,
        accept: &str,
        etag: Option<&str>,
    ) -> Result<Result<Answer, Failure>, GithubError> {
        let url = format!("{}{path}", self.api);
        let resource = if path.starts_with("/search/") { "search" } else { "core" };
        let request = |http: &reqwest::Client| {
            let request = http.get(&url).header(ACCEPT, accept);
            etag.into_iter().fold(request, |request, etag| request.header(IF_NONE_MATCH, etag))
        };
        self.patiently(resource, async || self.send(resource, &url, request).await, |_| false).await
    }

    fn graph_url(&self) -> String {
        format!("{}/graphql", self.api.strip_suffix("/v3").unwrap_or(&self.api))
    }

    /// Asks the GraphQL API.
    pub(super) async fn query(&self, query: &str, variables: &Value) -> Result<Queried, GithubError> {
        let url = self.graph_url();
        let body = json!({ "query": query, "variables": variables });
        let ask = async || self.send(GRAPHQL, &url, |http| http.post(&url).json(&body)).await;
        Ok(match self.patiently(GRAPHQL, ask, |failure| failure.cause != Cause::Network).await? {
            Err(failure) => Queried::TooHeavy(failure.why),
            Ok(mut answer) => match data_of(&mut answer) {
                Ok(data) => Queried::Data(data),
                Err(Unread::TooHeavy(why)) => Queried::TooHeavy(why),
                Err(Unread::Refused(why)) => Queried::Refused(why),
            },
        })
    }

    /// Asks again and again, until there is an answer, the failure is final, or others are answered and this is not.
    async fn patiently(
        &self,
        resource: &str,
        ask: impl AsyncFn() -> Result<Result<Answer, Failure>, GithubError>,
        is_final: impl Fn(&Failure) -> bool,
    ) -> Result<Result<Answer, Failure>, GithubError> {
        let (mut failures, mut outages) = (0, 0);
        loop {
            let failure = match ask().await? {
                Ok(answer) => return Ok(Ok(answer)),
                Err(failure) if is_final(&failure) => return Ok(Err(failure)),
                Err(failure) => failure,
            };
            failures += 1;
            if failures < FAILURES_MAX {
                tokio::time::sleep(self.patience.after(failures)).await;
                continue;
            }
            if self.answers(resource).await? || outages >= OUTAGES_MAX {
                return Ok(Err(failure));
            }
            // The outage is to blame.
            (failures, outages) = (0, outages + 1);
        }
    }

    /// Waits until the API of a resource answers anything; true if it did at once, so that what failed failed by itself. One of
    /// the two may be down alone.
    pub(super) async fn answers(&self, resource: &str) -> Result<bool, GithubError> {
        let is_graph = resource == GRAPHQL;
        let url = if is_graph { self.graph_url() } else { format!("{}/rate_limit", self.api) };
        let probe = json!({ "query": "query { __typename }" });
        let request = |http: &reqwest::Client| match is_graph {
            true => http.post(&url).json(&probe),
            false => http.get(&url).header(ACCEPT, JSON),
        };
        let (began, mut failures) = (Instant::now(), 0);
        loop {
            match self.send(resource, &url, request).await? {
                Ok(_) => return Ok(failures == 0),
                Err(Failure { why, .. }) if began.elapsed() >= self.patience.outage_max => {
                    return Err(GithubError::Failed { url, why });
                }
                Err(Failure { why, .. }) => {
                    failures += 1;
                    self.wait(self.patience.after(failures), format!("the server: {why}")).await;
                }
            }
        }
    }

    /// Waits, and says so.
    async fn wait(&self, pause: Duration, what: String) {
        let until = (self.now)().checked_add(pause).unwrap_or(Timestamp::MAX);
        let waits = Some(Waits { until, what });
        self.progress.send_modify(|progress| progress.waits.clone_from(&waits));
        tokio::time::sleep(pause).await;
        // Another request may wait for something else by now.
        self.progress.send_if_modified(|progress| {
            let is_over = progress.waits == waits;
            if is_over {
                progress.waits = None;
            }
            is_over
        });
    }

    /// Lets the server recover after so many queries in a row that were too heavy.
    pub(super) async fn recover(&self, heavy: u32) {
        tokio::time::sleep(self.patience.after_heavy(heavy)).await;
    }

    /// One request, as soon as a token may be used; the inner error is worth another try.
    async fn send(
        &self,
        resource: &str,
        url: &str,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Result<Answer, Failure>, GithubError> {
        for _ in 0..WAITS_MAX {
            let now = (self.now)();
            let choice = self.tokens().choose(resource, now);
            let lent = match choice {
                Choice::Use(index) => self.lend(index),
                Choice::None => return Err(GithubError::NoToken),
                Choice::Wait(until) => {
                    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                    self.wait(wait, "a limit".to_owned()).await;
                    continue;
                }
            };
            let request = request(&self.http).bearer_auth(&lent.secret);
            let (status, headers, body) = match received(request).await {
                Ok(answer) => answer,
                Err(failure) => return Ok(Err(failure)),
            };
            let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
            let graph =
                (resource == GRAPHQL).then(|| serde_json::from_slice(&body).unwrap_or_else(|_| json!({})));
            let answer = Answer { status, etag, body, graph: graph.unwrap_or_default() };
            let mut limits = limits(&headers, resource, (self.now)());
            if is_used_up(&answer) {
                limits.remaining = Some(0);
            }
            if is_limit(&answer, &limits) {
                self.tokens().refuse(lent.index, &limits, (self.now)());
            } else if status == StatusCode::UNAUTHORIZED {
                self.tokens().remove(lent.index);
            } else {
                self.tokens().note(lent.index, &limits);
                return Ok(match failure_of(&answer) {
                    Some(cause) => Err(Failure { why: format!("the server says {status}"), cause }),
                    None => Ok(answer),
                });
            }
        }
        Err(GithubError::Failed {
            url: url.to_owned(),
            why: "it is limited, however long one waits".to_owned(),
        })
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        // Nothing that holds it can break off half-way.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lend(&self, index: usize) -> Lent<'_> {
        let secret = self.tokens().lend(index);
        Lent { client: self, index, secret }
    }
}

/// A token while a request is made with it.
struct Lent<'a> {
    client: &'a Client,
    index: usize,
    secret: String,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.client.tokens().take_back(self.index);
    }
}

/// What a status of the server's own is to be blamed on. One that speaks of the diff, and is no gateway's, says that of what
/// was asked.
fn failure_of(answer: &Answer) -> Option<Cause> {
    let status = answer.status;
    let is_gateway = matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    );
    let is_of_diff = String::from_utf8_lossy(&answer.body).to_ascii_lowercase().contains("diff");
    let cause = if is_gateway || !is_of_diff { Cause::Moment } else { Cause::Asked };
    status.is_server_error().then_some(cause)
}

async fn received(request: RequestBuilder) -> Result<(StatusCode, HeaderMap, Vec<u8>), Failure> {
    let cannot = |error: reqwest::Error| Failure {
        cause: if error.is_timeout() { Cause::Moment } else { Cause::Network },
        why: chain(&error),
    };
    let mut response = request.send().await.map_err(cannot)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(cannot)? {
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            let why = format!("the answer has more than {ANSWER_BYTES_MAX} bytes");
            return Err(Failure { why, cause: Cause::Asked });
        }
        body.extend_from_slice(&part);
    }
    Ok((status, headers, body))
}
