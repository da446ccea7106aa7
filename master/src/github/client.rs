use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{ACCEPT, ETAG, HeaderMap, IF_NONE_MATCH, RETRY_AFTER};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use systemd::chain;

use super::GithubError;
use super::tokens::{Choice, Limits, Tokens};

/// Failures of one request, by the network or the server, before it is given up.
const FAILURES_MAX: u32 = 6;

/// Times that one request waits for a limit before it is given up; an hour each at most.
const WAITS_MAX: u32 = 50;

/// The longest answer that is read: diffs that GitHub gives have three megabytes at most.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The longest that one request may take; GitHub itself gives up a query after ten seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How a server is asked, whatever for: with the token that has the most left, as often as it allows.
pub(super) struct Client {
    http: reqwest::Client,
    api: String,
    tokens: Tokens,
    now: fn() -> Timestamp,
}

/// What a server said.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) etag: Option<String>,
    pub(super) body: Vec<u8>,
}

/// What a query gave.
pub(super) enum Queried {
    /// Its data.
    Data(Value),
    /// The server gave up on it: ask for less.
    TooHeavy(String),
}

/// A request that did not come to an answer.
struct Failure {
    why: String,
    is_server: bool,
}

impl Client {
    /// Of the API at a URL, such as `https://api.github.com` or `https://forge.example/api/v3`.
    pub(super) fn new(api: &str, tokens: Vec<String>, now: fn() -> Timestamp) -> Result<Self, GithubError> {
        // Whoever was first has installed the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let agent = concat!("bottega/", env!("CARGO_PKG_VERSION"));
        let http = reqwest::Client::builder().user_agent(agent).timeout(REQUEST_TIMEOUT).build();
        let http = http.map_err(|error| GithubError::Client(chain(&error)))?;
        Ok(Self { http, api: api.trim_end_matches('/').to_owned(), tokens: Tokens::new(tokens), now })
    }

    /// Asks for a path of the REST API; what was read before under this ETag is not sent again.
    pub(super) async fn get(
        &mut self,
        path: &str,
        accept: &str,
        etag: Option<&str>,
    ) -> Result<Answer, GithubError> {
        let url = format!("{}{path}", self.api);
        let resource = if path.starts_with("/search/") { "search" } else { "core" };
        let request = |http: &reqwest::Client| {
            let request = http.get(&url).header(ACCEPT, accept);
            etag.into_iter().fold(request, |request, etag| request.header(IF_NONE_MATCH, etag))
        };
        let mut failures = 0;
        loop {
            match self.send(resource, &url, request).await? {
                Ok(answer) => return Ok(answer),
                Err(failure) => {
                    failures += 1;
                    if failures >= FAILURES_MAX {
                        return Err(GithubError::Failed { url, why: failure.why });
                    }
                    tokio::time::sleep(Duration::from_millis(500 << failures)).await;
                }
            }
        }
    }

    /// Asks the GraphQL API.
    pub(super) async fn query(&mut self, query: &str, variables: &Value) -> Result<Queried, GithubError> {
        let url = format!("{}/graphql", self.api.strip_suffix("/v3").unwrap_or(&self.api));
        let body = json!({ "query": query, "variables": variables });
        let mut failures = 0;
        loop {
            let why = match self.send("graphql", &url, |http| http.post(&url).json(&body)).await? {
                Err(failure) if failure.is_server => return Ok(Queried::TooHeavy(failure.why)),
                Err(failure) => failure.why,
                Ok(answer) => match read(&answer) {
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
        &mut self,
        resource: &str,
        url: &str,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Result<Answer, Failure>, GithubError> {
        for _ in 0..WAITS_MAX {
            let now = (self.now)();
            let index = match self.tokens.choose(resource, now) {
                Choice::Use(index) => index,
                Choice::None => return Err(GithubError::NoToken),
                Choice::Wait(until) => {
                    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                    tokio::time::sleep(wait).await;
                    continue;
                }
            };
            let mut request = request(&self.http);
            if let Some(secret) = self.tokens.secret(index) {
                request = request.bearer_auth(secret);
            }
            let (status, headers, body) = match received(request).await {
                Ok(answer) => answer,
                Err(failure) => return Ok(Err(failure)),
            };
            let mut limits = limits(&headers, (self.now)());
            // GraphQL tells of its limit in an answer that is otherwise fine.
            let is_used_up = resource == "graphql" && says(&body, "\"RATE_LIMITED\"");
            if is_used_up {
                limits.remaining = Some(0);
            }
            let is_limit = match status {
                StatusCode::TOO_MANY_REQUESTS => true,
                StatusCode::FORBIDDEN => {
                    limits.retry_after.is_some() || limits.remaining == Some(0) || says(&body, "rate limit")
                }
                _ => is_used_up,
            };
            if is_limit {
                self.tokens.refuse(index, &limits, (self.now)());
            } else if status == StatusCode::UNAUTHORIZED {
                self.tokens.remove(index);
            } else {
                self.tokens.note(index, &limits);
                if status.is_server_error() {
                    return Ok(Err(Failure { why: format!("the server says {status}"), is_server: true }));
                }
                let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
                return Ok(Ok(Answer { status, etag, body }));
            }
        }
        Err(GithubError::Failed {
            url: url.to_owned(),
            why: "it is limited, however long one waits".to_owned(),
        })
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

enum Unread {
    TooHeavy(String),
    Refused(String),
}

/// The data of an answer; where parts of it are missing, they are null there.
fn read(answer: &Answer) -> Result<Value, Unread> {
    let refused = |why: &str| Unread::Refused(format!("{}: {why}", answer.status));
    let mut body: Value =
        serde_json::from_slice(&answer.body).map_err(|error| refused(&error.to_string()))?;
    // An error with a type is about what is not there or nobody may see, and null in the data; others cut it off.
    let is_cut =
        body["errors"].as_array().into_iter().flatten().any(|error| error["type"].as_str().is_none());
    if body["data"].is_object() && !is_cut {
        return Ok(body["data"].take());
    }
    let first = &body["errors"][0];
    let why = first["message"].as_str().or(body["message"].as_str()).unwrap_or("an answer without data");
    let kind = first["type"].as_str().unwrap_or_default();
    // What takes too long has no type, and a message for people.
    let is_heavy = kind == "MAX_NODE_LIMIT_EXCEEDED" || kind.is_empty() && answer.status == StatusCode::OK;
    Err(if is_heavy { Unread::TooHeavy(why.to_owned()) } else { refused(why) })
}

fn limits(headers: &HeaderMap, now: Timestamp) -> Limits {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let number = |name: &str| text(name).and_then(|text| text.trim().parse::<i64>().ok());
    let retry_after = text(RETRY_AFTER.as_str()).and_then(|text| retry_after(text, now));
    Limits {
        resource: text("x-ratelimit-resource").map(str::to_owned),
        remaining: number("x-ratelimit-remaining").and_then(|left| u64::try_from(left).ok()),
        resets_at: number("x-ratelimit-reset").and_then(|at| Timestamp::from_second(at).ok()),
        retry_after,
    }
}

/// Seconds, or a date as HTTP writes it.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

fn says(body: &[u8], text: &str) -> bool {
    memchr::memmem::find(body, text.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_headers_say() {
        let now = Timestamp::from_second(784_111_777).expect("a time");
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text}");
        };
        check("30", Some(30));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("soon", None);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-ratelimit-resource", "core"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "784111800"),
        ] {
            headers.insert(name, value.parse().expect("a header"));
        }
        let limits = limits(&headers, now);
        assert_eq!((limits.resource.as_deref(), limits.remaining), (Some("core"), Some(0)));
        assert_eq!(limits.resets_at, Timestamp::from_second(784_111_800).ok());
    }
}
