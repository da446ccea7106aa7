use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

use super::tokens::Limits;

/// What a server said.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) etag: Option<String>,
    pub(super) body: Vec<u8>,
    /// The body of an answer of GraphQL; else null.
    pub(super) graph: Value,
}

/// Why an answer of GraphQL holds no data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The server gave up on it.
    TooHeavy(String),
    /// It will not do it.
    Refused(String),
}

/// What the data of an answer is, and why parts of it are null, if some are.
pub(super) type Data = (Value, Option<String>);

/// Types of errors that tell of a limit on requests; the first is in GitHub's documents, the second in its answers.
const LIMITS: [&str; 2] = ["RATE_LIMITED", "RATE_LIMIT"];

/// Types of errors about one query that asks for too much. Data may be there, with holes that nothing else tells of.
const HEAVY: [&str; 2] = ["MAX_NODE_LIMIT_EXCEEDED", "RESOURCE_LIMITS_EXCEEDED"];

/// Types of errors about what is not there, or nobody may see: it is null in the data.
const HARMLESS: [&str; 2] = ["NOT_FOUND", "FORBIDDEN"];

/// Whether an answer says that there were too many requests, of either kind of limit.
pub(super) fn is_limit(answer: &Answer, limits: &Limits) -> bool {
    let tells = |text: &str| text.to_ascii_lowercase().contains("rate limit");
    let is_said = if answer.graph.is_null() {
        answer.status == StatusCode::FORBIDDEN && tells(&String::from_utf8_lossy(&answer.body))
    } else {
        // A secondary limit comes with status 200, too, and tells of itself in words for people only.
        errors(&answer.graph)
            .any(|(kind, why)| LIMITS.contains(&kind) || !HARMLESS.contains(&kind) && tells(why))
            || answer.graph["message"].as_str().is_some_and(tells)
    };
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN => is_said || limits.retry_after.is_some() || limits.remaining == Some(0),
        _ => is_said,
    }
}

/// Whether an answer of GraphQL says that the budget is used up, whatever its headers say.
pub(super) fn is_used_up(answer: &Answer) -> bool {
    errors(&answer.graph).any(|(kind, _)| LIMITS.contains(&kind))
}

/// The data of an answer of GraphQL.
pub(super) fn data_of(answer: &mut Answer) -> Result<Data, Unread> {
    let status = answer.status;
    let refused = |why: &str| Unread::Refused(format!("{status}: {why}"));
    let found = |kinds: &dyn Fn(&str) -> bool| {
        errors(&answer.graph).find(|(kind, _)| kinds(kind)).map(|(_, why)| why.to_owned())
    };
    // What takes too long has no type, and a message for people.
    let is_heavy = |kind: &str| HEAVY.contains(&kind) || kind.is_empty() && status == StatusCode::OK;
    if let Some(why) = found(&is_heavy) {
        return Err(Unread::TooHeavy(why));
    }
    if let Some(why) = found(&|kind| !HARMLESS.contains(&kind)) {
        return Err(refused(&why));
    }
    let why = found(&|_| true);
    match answer.graph["data"].take() {
        data @ Value::Object(_) => Ok((data, why)),
        _ if status == StatusCode::OK => Err(Unread::TooHeavy("an answer without data".to_owned())),
        _ => Err(refused(answer.graph["message"].as_str().unwrap_or("an answer without data"))),
    }
}

/// Type and message of each error.
fn errors(graph: &Value) -> impl Iterator<Item = (&str, &str)> {
    graph["errors"].as_array().into_iter().flatten().map(|error| {
        (error["type"].as_str().unwrap_or_default(), error["message"].as_str().unwrap_or("no reason given"))
    })
}

/// What the headers of an answer say of limits; on a resource that they do not name, on this one.
pub(super) fn limits(headers: &HeaderMap, resource: &str, now: Timestamp) -> Limits {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let number = |name: &str| text(name).and_then(|text| text.trim().parse::<i64>().ok());
    let retry_after = text(RETRY_AFTER.as_str()).and_then(|text| retry_after(text, now));
    Limits {
        resource: Some(text("x-ratelimit-resource").unwrap_or(resource).to_owned()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn graph(status: u16, graph: Value) -> Answer {
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { status, etag: None, body: Vec::new(), graph }
    }

    #[test]
    fn knows_a_limit_by_what_the_server_says_not_by_what_people_wrote() {
        let check = |status, body: Value, expected: bool| {
            let answer = graph(status, body);
            assert_eq!(is_limit(&answer, &Limits::default()), expected, "{status} {}", answer.graph);
        };
        let error = |kind: &str, message: &str| json!({ "errors": [{ "type": kind, "message": message }] });
        check(200, error("RATE_LIMITED", "API rate limit exceeded"), true);
        check(200, error("RATE_LIMIT", "too many"), true);
        check(200, json!({ "errors": [{ "message": "You have exceeded a secondary rate limit." }] }), true);
        check(403, json!({ "message": "You have exceeded a secondary rate limit." }), true);
        check(200, json!({ "data": { "body": "\"RATE_LIMITED\"", "title": "RATE_LIMITED" } }), false);
        check(200, error("NOT_FOUND", "no repository rate limit/x"), false);
        check(403, error("FORBIDDEN", "SAML"), false);
        check(429, json!({}), true);
        let rest = |status, body: &[u8]| Answer { body: body.to_vec(), ..graph(status, Value::Null) };
        assert!(is_limit(&rest(403, b"{\"message\": \"API rate limit exceeded\"}"), &Limits::default()));
        assert!(!is_limit(&rest(200, b"rate limit"), &Limits::default()));
    }

    #[test]
    fn data_with_holes_of_unknown_origin_is_no_data() {
        let check = |body: Value, expected: Result<Option<&str>, &str>| {
            let got = data_of(&mut graph(200, body.clone())).map(|(_, why)| why);
            let got = got.map_err(|unread| match unread {
                Unread::TooHeavy(_) => "heavy",
                Unread::Refused(_) => "refused",
            });
            assert_eq!(got, expected.map(|why| why.map(str::to_owned)), "{body}");
        };
        let with = |kind: &str| json!({ "data": { "repository": null }, "errors": [{ "type": kind, "message": "m" }] });
        check(json!({ "data": {} }), Ok(None));
        check(with("NOT_FOUND"), Ok(Some("m")));
        check(with("FORBIDDEN"), Ok(Some("m")));
        check(with("RESOURCE_LIMITS_EXCEEDED"), Err("heavy"));
        check(with("MAX_NODE_LIMIT_EXCEEDED"), Err("heavy"));
        check(with("INSUFFICIENT_SCOPES"), Err("refused"));
        check(json!({ "data": {}, "errors": [{ "message": "Something went wrong" }] }), Err("heavy"));
        check(json!({}), Err("heavy"));
    }

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
        for (name, value) in [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "784111800")] {
            headers.insert(name, value.parse().expect("a header"));
        }
        assert_eq!(limits(&headers, "graphql", now).resource.as_deref(), Some("graphql"));
        headers.insert("x-ratelimit-resource", "core".parse().expect("a header"));
        let limits = limits(&headers, "graphql", now);
        assert_eq!((limits.resource.as_deref(), limits.remaining), (Some("core"), Some(0)));
        assert_eq!(limits.resets_at, Timestamp::from_second(784_111_800).ok());
    }
}
