use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{ACCEPT, ETAG, HeaderMap, IF_NONE_MATCH};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use systemd::chain;

use super::GithubError;
use super::answer::{Answer, Data, Unread, data_of, is_limit, is_used_up, limits};
use super::tokens::{Choice, Tokens};

/// Failures of one request, by the network or the server, before it is given up.
const FAILURES_MAX: u32 = 6;

/// Failures by the server of a request that some data may be to blame for.
const DOUBTFUL_FAILURES_MAX: u32 = 4;

/// Times that one request waits for a limit before it is given up; an hour each at most.
const WAITS_MAX: u32 = 50;

/// The longest answer that is read: diffs that GitHub gives have three megabytes at most.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The longest that one request may take; GitHub itself gives up a query after ten seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

const GRAPHQL: &str = "graphql";

/// How a server is asked, whatever for: with the token that is idle and has the most left, as often as it allows.
pub(super) struct Client {
    http: reqwest::Client,
    api: String,
    tokens: Mutex<Tokens>,
    now: fn() -> Timestamp,
}

/// What a query gave.
pub(super) enum Queried {
    /// Its data.
    Data(Data),
    /// The server gave up on it: ask for less.
    TooHeavy(String),
}

/// A request that did not come to an answer.
pub(super) struct Failure {
    pub(super) why: String,
    pub(super) is_server: bool,
}

impl Client {
    /// Of the API at a URL, such as `https://api.github.com` or `https://forge.example/api/v3`.
    pub(super) fn new(api: &str, tokens: Vec<String>, now: fn() -> Timestamp) -> Result<Self, GithubError> {
        // Whoever was first has installed the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let agent = concat!("bottega/", env!("CARGO_PKG_VERSION"));
        let http = reqwest::Client::builder().user_agent(agent).timeout(REQUEST_TIMEOUT).build();
        let http = http.map_err(|error| GithubError::Client(chain(&error)))?;
        let tokens = Mutex::new(Tokens::new(tokens));
        Ok(Self { http, api: api.trim_end_matches('/').to_owned(), tokens, now })
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

    /// Asks for a path of the REST API; what was read before under this ETag is not sent again.
    pub(super) async fn get(
        &self,
        path: &str,
        accept: &str,
        etag: Option<&str>,
    ) -> Result<Answer, GithubError> {
        let answer = self.try_get(path, accept, etag, FAILURES_MAX).await?;
        answer.map_err(|failure| self.failed(path, failure.why))
    }

    /// The same for what the server may be unable to make, as a diff of everything: why not, if it answers otherwise.
    pub(super) async fn get_doubtful(
        &self,
        path: &str,
        accept: &str,
    ) -> Result<Result<Answer, String>, GithubError> {
        match self.try_get(path, accept, None, DOUBTFUL_FAILURES_MAX).await? {
            Ok(answer) => Ok(Ok(answer)),
            Err(failure) if failure.is_server => {
                // A server that answers nothing at all is no fault of what was asked for.
                self.get("/rate_limit", accept, None).await?;
                Ok(Err(failure.why))
            }
            Err(failure) => Err(self.failed(path, failure.why)),
        }
    }

    async fn try_get(
        &self,
        path: &str,
        accept: &str,
        etag: Option<&str>,
        failures_max: u32,
    ) -> Result<Result<Answer, Failure>, GithubError> {
        let url = format!("{}{path}", self.api);
        let resource = if path.starts_with("/search/") { "search" } else { "core" };
        let request = |http: &reqwest::Client| {
            let request = http.get(&url).header(ACCEPT, accept);
            etag.into_iter().fold(request, |request, etag| request.header(IF_NONE_MATCH, etag))
        };
        let mut failures = 0;
        loop {
            match self.send(resource, &url, request).await? {
                Ok(answer) => return Ok(Ok(answer)),
                Err(failure) => {
                    failures += 1;
                    if failures >= failures_max {
                        return Ok(Err(failure));
                    }
                    tokio::time::sleep(Duration::from_millis(500 << failures)).await;
                }
            }
        }
    }

    /// Asks the GraphQL API.
    pub(super) async fn query(&self, query: &str, variables: &Value) -> Result<Queried, GithubError> {
        let url = format!("{}/graphql", self.api.strip_suffix("/v3").unwrap_or(&self.api));
        let body = json!({ "query": query, "variables": variables });
        let mut failures = 0;
        loop {
            let why = match self.send(GRAPHQL, &url, |http| http.post(&url).json(&body)).await? {
                Err(failure) if failure.is_server => return Ok(Queried::TooHeavy(failure.why)),
                Err(failure) => failure.why,
                Ok(mut answer) => match data_of(&mut answer) {
                    Ok(data) => return Ok(Queried::Data(data)),
                    Err(Unread::TooHeavy(why)) => return Ok(Queried::TooHeavy(why)),
                    Err(Unread::Refused(why)) => return Err(GithubError::Failed { url, why }),
                },
            };
            failures += 1;
            if failures >= FAILURES_MAX {
                return Err(GithubError::Failed { url, why });
            }
            tokio::time::sleep(Duration::from_millis(500 << failures)).await;
        }
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
                    tokio::time::sleep(wait).await;
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
                if status.is_server_error() {
                    return Ok(Err(Failure { why: format!("the server says {status}"), is_server: true }));
                }
                return Ok(Ok(answer));
            }
        }
        Err(GithubError::Failed {
            url: url.to_owned(),
            why: "it is limited, however long one waits".to_owned(),
        })
    }

    fn failed(&self, path: &str, why: String) -> GithubError {
        GithubError::Failed { url: format!("{}{path}", self.api), why }
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

async fn received(request: RequestBuilder) -> Result<(StatusCode, HeaderMap, Vec<u8>), Failure> {
    let cannot = |error: reqwest::Error| Failure { is_server: error.is_timeout(), why: chain(&error) };
    let mut response = request.send().await.map_err(cannot)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(cannot)? {
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            let why = format!("the answer has more than {ANSWER_BYTES_MAX} bytes");
            return Err(Failure { why, is_server: false });
        }
        body.extend_from_slice(&part);
    }
    Ok((status, headers, body))
}
