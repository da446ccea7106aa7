use std::time::Duration;

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
    /// Whether the same call may well succeed later, or elsewhere.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLong(_))
    }

    /// Whether it speaks against the endpoint itself.
    #[must_use]
    pub fn is_strike(&self) -> bool {
        !matches!(self, Self::Busy { .. } | Self::TooLong(_))
    }

    /// Whether asking the same again there is of no use before a person has done something.
    #[must_use]
    pub fn needs_a_person(&self) -> bool {
        matches!(self, Self::Forbidden { .. } | Self::Refused { .. })
    }

    /// What an HTTP status other than 200 means. `body` holds no key any more.
    pub(super) fn of_status(status: u16, retry_after: Option<&str>, body: &str) -> Self {
        let said = said(body);
        let lower = body.to_ascii_lowercase();
        let has = |marks: &[&str]| marks.iter().any(|mark| lower.contains(mark));
        let too_long = [
            "context_length",
            "context length",
            "maximum context",
            "context window",
            "prompt is too long",
            "input is too long",
            "too many tokens",
        ];
        match status {
            413 => Self::TooLong(said),
            400 | 422 if has(&too_long) => Self::TooLong(said),
            // Spent for good: no waiting mends that.
            429 if has(&["insufficient_quota", "billing"]) => Self::Forbidden { status, said },
            429 => Self::Busy { retry_after: retry_after.and_then(wait_of), said },
            503 | 529 if retry_after.and_then(wait_of).is_some() => {
                Self::Busy { retry_after: retry_after.and_then(wait_of), said }
            }
            401..=403 => Self::Forbidden { status, said },
            408 | 409 | 425 | 500.. => Self::Server { status, said },
            _ => Self::Refused { status, said },
        }
    }

    /// What an error inside of an answer with status 200 means.
    pub(super) fn of_said(error: &serde_json::Value) -> Self {
        let code = error["code"].as_u64().or_else(|| error["code"].as_str()?.parse().ok());
        let status = code.and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
        Self::of_status(status.unwrap_or(500), None, &error.to_string())
    }
}

/// `Retry-After` in seconds; the form with a date is taken for none.
fn wait_of(header: &str) -> Option<Duration> {
    let seconds: f64 = header.trim().parse().ok()?;
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(RETRY_AFTER_MAX.as_secs_f64())))
}

/// The beginning of what an endpoint said, fit to be shown in one line.
pub(super) fn said(body: &str) -> String {
    let plain: String = body.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    words.join(" ").chars().take(SAID_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_mean_what_they_mean() {
        let check = |status: u16, after: Option<&str>, body: &str, expected: &str| {
            let failure = Failure::of_status(status, after, body);
            let kind = format!("{failure:?}");
            assert!(kind.starts_with(expected), "{status} {body}: {kind}");
        };
        check(429, Some("2"), "slow", "Busy { retry_after: Some(2s)");
        check(429, Some("0.5"), "slow", "Busy { retry_after: Some(500ms)");
        check(429, Some("99999999"), "slow", "Busy { retry_after: Some(600s)");
        check(429, Some("Wed, 21 Oct 2026 07:28:00 GMT"), "slow", "Busy { retry_after: None");
        check(429, Some("-1"), "slow", "Busy { retry_after: None");
        check(429, None, "{\"error\":{\"code\":\"insufficient_quota\"}}", "Forbidden");
        check(500, None, "oops", "Server { status: 500");
        check(529, None, "overloaded_error", "Server { status: 529");
        check(503, Some("3"), "overloaded", "Busy { retry_after: Some(3s)");
        check(401, None, "who are you", "Forbidden");
        check(404, None, "no such model", "Refused");
        check(400, None, "This model's maximum context length is 8192 tokens", "TooLong");
        check(400, None, "temperature must be 1", "Refused");
        check(413, None, "", "TooLong");
    }

    #[test]
    fn words_of_an_endpoint_are_one_short_line() {
        assert_eq!(said("a\n\u{1b}[31m  b"), "a [31m b");
        assert_eq!(said(&"x".repeat(9000)).len(), SAID_CHARS_MAX);
    }
}
