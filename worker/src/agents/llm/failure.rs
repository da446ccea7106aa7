use std::time::Duration;

use jiff::fmt::rfc2822;

/// The longest that an endpoint is waited for because it asks for it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// The most of an endpoint's own words that are shown.
const SAID_CHARS_MAX: usize = 300;

/// Why one try gave no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// It asks us to slow down.
    #[error("the endpoint asks to wait: {said}")]
    Busy {
        /// For how long, where it says so.
        retry_after: Option<Duration>,
        /// Its own words.
        said: String,
    },
    /// It failed by itself, is overloaded, or a gateway before it is.
    #[error("the endpoint failed ({status}): {said}")]
    Server {
        /// The HTTP status.
        status: u16,
        /// Its own words.
        said: String,
    },
    /// It cannot be reached, or the connection broke.
    #[error("no connection: {0}")]
    Connection(String),
    /// Nothing came in time.
    #[error("no answer in time: {0}")]
    TimedOut(&'static str),
    /// What came is no answer.
    #[error("the answer cannot be read: {0}")]
    Garbled(String),
    /// The conversation is longer than the model can read.
    #[error("the conversation is too long: {0}")]
    TooLong(String),
    /// It gives no answer to this conversation that can be used, and may well to another.
    #[error("the endpoint has no answer to this conversation: {0}")]
    Unusable(String),
    /// It does not know our key, or does not let us.
    #[error("the endpoint does not let us in ({status}); mend the credential of its key: {said}")]
    Forbidden {
        /// The HTTP status.
        status: u16,
        /// Its own words.
        said: String,
    },
    /// It does not understand what we ask.
    #[error("the endpoint refuses the call ({status}): {said}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its own words.
        said: String,
    },
}

impl Failure {
    /// Whether it is about this conversation, which that endpoint need not be asked about again.
    #[must_use]
    pub fn is_of_conversation(&self) -> bool {
        matches!(self, Self::TooLong(_) | Self::Unusable(_))
    }

    /// Whether it speaks against the endpoint itself.
    #[must_use]
    pub fn is_strike(&self) -> bool {
        !matches!(self, Self::Busy { .. }) && !self.is_of_conversation()
    }

    /// Whether asking the same again there is of no use before a person has done something.
    #[must_use]
    pub fn needs_a_person(&self) -> bool {
        matches!(self, Self::Forbidden { .. } | Self::Refused { .. })
    }

    /// What an HTTP status other than 200 means. `body` holds no key any more; `retry_after` and `date` are headers.
    pub(super) fn of_status(status: u16, retry_after: Option<&str>, date: Option<&str>, body: &str) -> Self {
        let said = said(body);
        let lower = body.to_ascii_lowercase();
        let has = |marks: &[&str]| marks.iter().any(|mark| lower.contains(mark));
        let is_too_long = has(&[
            "context_length",
            "context length",
            "context size",
            "context_size",
            "maximum context",
            "context window",
            "prompt is too long",
            "input is too long",
            "too many tokens",
            "maximum number of tokens",
        ]);
        let is_filtered = has(&[
            "content_filter",
            "content filter",
            "content management policy",
            "content policy",
            "content_policy",
            "responsibleai",
            "invalid_prompt",
            "inappropriate content",
            "flagged",
            "moderation",
        ]);
        // What a person has to mend is named: the model, a parameter, the form of the call.
        let is_of_call = has(&[
            "model",
            "parameter",
            "temperature",
            "max_tokens",
            "stream",
            "unsupported",
            "not supported",
            "unrecognized",
            "unknown",
            "extra inputs",
            "json",
            "api key",
            "api_key",
        ]);
        let retry_after = retry_after.and_then(|header| wait_of(header, date)).or_else(|| delay_in(&lower));
        match status {
            413 => Self::TooLong(said),
            // Spent for good: no waiting mends that.
            429 if retry_after.is_none() && has(&["insufficient_quota"]) => Self::Forbidden { status, said },
            429 => Self::Busy { retry_after, said },
            // Of what was said; what is said of an account is for a person.
            403 if is_filtered && !is_of_account(body) => Self::Unusable(said),
            401..=403 => Self::Forbidden { status, said },
            _ if is_too_long => Self::TooLong(said),
            400 | 422 if is_filtered || !is_of_call => Self::Unusable(said),
            503 | 529 if retry_after.is_some() => Self::Busy { retry_after, said },
            408 | 409 | 425 | 500.. => Self::Server { status, said },
            _ => Self::Refused { status, said },
        }
    }

    /// What an error inside of an answer with status 200 means.
    pub(super) fn of_said(error: &serde_json::Value) -> Self {
        let code = error["code"].as_u64().or_else(|| error["code"].as_str()?.parse().ok());
        let status = code.and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
        Self::of_status(status.unwrap_or(500), None, None, &error.to_string())
    }
}

/// What Google's endpoints say in the body in place of a header: `"retryDelay": "17s"`.
fn delay_in(lower: &str) -> Option<Duration> {
    let (_, rest) = lower.split_once("\"retrydelay\"")?;
    let value = rest.trim_start_matches([' ', ':', '"']);
    wait_of(value.split(['s', '"']).next()?, None)
}

/// `Retry-After`, in seconds or as a date. That is read by the endpoint's own clock, its `Date`: ours may be another. Where
/// there is none it is taken for nothing said.
fn wait_of(header: &str, date: Option<&str>) -> Option<Duration> {
    let timestamp = |text: &str| rfc2822::parse(text.trim()).ok().map(|zoned| zoned.timestamp());
    let seconds = match (header.trim().parse::<f64>(), date) {
        (Ok(seconds), _) => seconds,
        // What is over need not be waited for.
        (Err(_), Some(date)) => timestamp(header)?.duration_since(timestamp(date)?).as_secs_f64().max(0.0),
        (Err(_), None) => return None,
    };
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(RETRY_AFTER_MAX.as_secs_f64())))
}

/// The beginning of what an endpoint said, fit to be shown in one line.
pub(super) fn said(body: &str) -> String {
    let plain: String = body.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    words.join(" ").chars().take(SAID_CHARS_MAX).collect()
}

/// Whether the endpoint speaks of who asks, in its own words: it may quote what it was asked.
fn is_of_account(body: &str) -> bool {
    let own = serde_json::from_str::<serde_json::Value>(body).ok().and_then(|read| {
        let message = read.pointer("/error/message").or_else(|| read.get("message"))?;
        message.as_str().map(str::to_ascii_lowercase)
    });
    let own = own.unwrap_or_else(|| body.to_ascii_lowercase());
    ["account", "organization", "project", "suspended", "api key", "api_key"]
        .iter()
        .any(|mark| own.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_mean_what_they_mean() {
        let check = |status: u16, after: Option<&str>, body: &str, expected: &str| {
            let failure = Failure::of_status(status, after, None, body);
            let kind = format!("{failure:?}");
            assert!(kind.starts_with(expected), "{status} {body}: {kind}");
        };
        check(429, Some("2"), "slow", "Busy { retry_after: Some(2s)");
        check(429, Some("0.5"), "slow", "Busy { retry_after: Some(500ms)");
        check(429, Some("99999999"), "slow", "Busy { retry_after: Some(600s)");
        check(429, Some("Wed, 21 Oct 2026 07:28:00 GMT"), "slow", "Busy { retry_after: None");
        check(429, Some("NaN"), "slow", "Busy { retry_after: None");
        check(429, Some("-1"), "slow", "Busy { retry_after: None");
        check(429, None, "{\"error\":{\"code\":\"insufficient_quota\"}}", "Forbidden");
        check(500, None, "oops", "Server { status: 500");
        check(
            429,
            Some("9"),
            "{\"error\":{\"code\":\"insufficient_quota\"}}",
            "Busy { retry_after: Some(9s)",
        );
        check(429, None, "rate limit; see https://x.example/account/billing", "Busy { retry_after: None");
        let gemini =
            "{\"message\":\"check your plan and billing details\",\"details\":[{\"retryDelay\": \"17s\"}]}";
        check(429, None, gemini, "Busy { retry_after: Some(17s)");
        check(429, None, "too many tokens per minute", "Busy");
        check(529, None, "overloaded_error", "Server { status: 529");
        check(503, Some("3"), "overloaded", "Busy { retry_after: Some(3s)");
        check(401, None, "who are you", "Forbidden");
        check(404, None, "no such model", "Refused");
        check(400, None, "This model's maximum context length is 8192 tokens", "TooLong");
        check(400, None, "temperature must be 1", "Refused");
        check(
            400,
            None,
            "{\"code\":\"unsupported_parameter\",\"message\":\"use max_completion_tokens\"}",
            "Refused",
        );
        check(
            400,
            None,
            "exceed_context_size_error: the request exceeds the available context size",
            "TooLong",
        );
        check(500, None, "{\"code\":\"context_length_exceeded\"}", "TooLong");
        check(400, None, "the input token count exceeds the maximum number of tokens allowed", "TooLong");
        check(
            400,
            None,
            "{\"code\":\"content_filter\",\"message\":\"filtered by the model's policy\"}",
            "Unusable",
        );
        check(400, None, "{\"code\":\"invalid_prompt\"}", "Unusable");
        let moderated = "{\"code\":403,\"message\":\"requires moderation; your input was flagged\"}";
        check(403, None, moderated, "Unusable");
        let quoting = "{\"error\":{\"message\":\"your input was flagged\",\"metadata\":{\"flagged_input\":\"my account\"}}}";
        check(403, None, quoting, "Unusable");
        check(403, None, "your account was flagged", "Forbidden");
        check(403, None, "{\"error\":{\"message\":\"your organization was flagged\"}}", "Forbidden");
        check(403, None, "no access to this model", "Forbidden");
        check(401, None, moderated, "Forbidden");
        check(422, None, "no", "Unusable");
        check(413, None, "", "TooLong");
    }

    #[test]
    fn a_date_to_wait_for_is_read_by_the_endpoints_clock() {
        let check = |header: &str, date: Option<&str>, expected: Option<u64>| {
            assert_eq!(wait_of(header, date), expected.map(Duration::from_secs), "{header} {date:?}");
        };
        let now = Some("Wed, 21 Oct 2026 07:28:00 GMT");
        check("Wed, 21 Oct 2026 07:28:30 GMT", now, Some(30));
        check("Wed, 21 Oct 2026 07:27:30 GMT", now, Some(0));
        check("Wed, 21 Oct 2026 09:28:00 GMT", now, Some(600));
        check("Wed, 21 Oct 2026 07:28:30 GMT", None, None);
        check("Wed, 21 Oct 2026 07:28:30 GMT", Some("today"), None);
        check("soon", now, None);
        check("7", now, Some(7));
    }

    #[test]
    fn words_of_an_endpoint_are_one_short_line() {
        assert_eq!(said("a\n\u{1b}[31m  b"), "a [31m b");
        assert_eq!(said(&"x".repeat(9000)).len(), SAID_CHARS_MAX);
    }
}
