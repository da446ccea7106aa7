//! The `[worker.agents]` section of the configuration.

use serde::{Deserialize, Serialize};

/// The `[worker.agents]` section: what agents may spend, and the endpoints they ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentsConfig {
    /// Answers that one attempt may ask for.
    pub task_answers_max: u32,
    /// Tokens that one attempt may use, read and written together.
    pub task_tokens_max: u64,
    /// What one attempt may cost.
    pub task_dollars_max: f64,
    /// Wall time that one attempt may wait for answers, in all.
    pub task_seconds_max: u64,
    /// Whether agents begin with what the rules found and wrote.
    pub head_start: bool,
    /// Turns of one exploration.
    pub explore_turns_max: u32,
    /// How often one agent is asked to mend an answer that cannot be used.
    pub repairs_max: u32,
    /// The longest answer, in tokens.
    pub answer_tokens_max: u32,
    /// What is shown of one log or file, in bytes.
    pub shown_bytes_max: usize,
    /// Tries of one call, whichever endpoints they are made at; waiting for an endpoint that asks to wait is none.
    pub tries_max: u32,
    /// Wall time of one call with all its tries.
    pub call_seconds_max: u64,
    /// How long an attempt waits where no call is answered, before its task is handed back.
    pub away_seconds_max: u64,
    /// Where to ask.
    pub endpoints: Vec<EndpointConfig>,
}

/// What an endpoint calls the longest answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerLimit {
    /// Nearly all.
    #[default]
    MaxTokens,
    /// OpenAI's own, for models that think.
    MaxCompletionTokens,
}

/// One `[[worker.agents.endpoints]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointConfig {
    /// What it is called in logs and results.
    pub name: String,
    /// The API's root, as `https://api.example/v1`; `/chat/completions` is added.
    pub url: String,
    /// The model that is asked for.
    pub model: String,
    /// The credential that holds the key: a file of this name in `$CREDENTIALS_DIRECTORY`; empty: no key is sent.
    pub key: String,
    /// An HTTP proxy on the way; empty: none, whatever the environment says.
    pub proxy: String,
    /// How often it is chosen, next to the others; 0: never.
    pub weight: u32,
    /// Calls at once.
    pub concurrency_max: u32,
    /// Calls a minute; 0: no limit.
    pub requests_per_minute: u32,
    /// Tokens a minute; 0: no limit.
    pub tokens_per_minute: u64,
    /// Wall time of one try.
    pub timeout_seconds: u64,
    /// How long nothing may come while an answer is streamed.
    pub silence_seconds: u64,
    /// Whether answers are streamed.
    pub stream: bool,
    /// Whether the explorer's looks are offered to it as tools of the protocol, too.
    pub tools: bool,
    /// What it calls the longest answer.
    pub answer_limit: AnswerLimit,
    /// Whether `reasoning_content` of earlier answers is sent back.
    pub echo_reasoning: bool,
    /// The temperature; not set: the endpoint's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The price of a million tokens read, read from the endpoint's cache, and written.
    pub dollars_per_million_read: f64,
    /// Those that its cache had; not set: as others that are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dollars_per_million_cached: Option<f64>,
    /// Those that it wrote.
    pub dollars_per_million_written: f64,
}

impl AgentsConfig {
    /// Checks what a type cannot express.
    ///
    /// # Errors
    /// The key that is wrong, and what is expected.
    pub fn check(&self) -> Result<(), String> {
        let least = |key: &str, value: u64, from: u64| match value >= from {
            true => Ok(()),
            false => Err(format!("worker.agents.{key} is {value}, expected {from} or more")),
        };
        least("task_answers_max", self.task_answers_max.into(), 1)?;
        least("task_tokens_max", self.task_tokens_max, 1)?;
        least("task_seconds_max", self.task_seconds_max, 1)?;
        least("explore_turns_max", self.explore_turns_max.into(), 1)?;
        least("answer_tokens_max", self.answer_tokens_max.into(), 16)?;
        least("shown_bytes_max", self.shown_bytes_max as u64, 256)?;
        least("tries_max", self.tries_max.into(), 1)?;
        least("call_seconds_max", self.call_seconds_max, 1)?;
        if !(self.task_dollars_max >= 0.0 && self.task_dollars_max.is_finite()) {
            return Err("worker.agents.task_dollars_max is no amount of money".to_owned());
        }
        if !self.endpoints.is_empty() && self.endpoints.iter().all(|endpoint| endpoint.weight == 0) {
            return Err("worker.agents.endpoints have the weight 0 all: none would ever be asked".to_owned());
        }
        for (nth, endpoint) in self.endpoints.iter().enumerate() {
            endpoint.check().map_err(|why| format!("worker.agents.endpoints (number {}): {why}", nth + 1))?;
            if self.endpoints[..nth].iter().any(|other| other.name == endpoint.name) {
                return Err(format!("worker.agents.endpoints has two that are called {:?}", endpoint.name));
            }
        }
        Ok(())
    }
}

/// The longest name of a credential; keys of models are longer.
const CREDENTIAL_CHARS_MAX: usize = 40;

impl EndpointConfig {
    fn check(&self) -> Result<(), String> {
        let is_name = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        if !is_name(&self.name) {
            return Err("name is to be of letters, digits, and - _ . after the first".to_owned());
        }
        let is_key = self.key.starts_with("sk-") || self.key.len() > CREDENTIAL_CHARS_MAX;
        if !self.key.is_empty() && (!is_name(&self.key) || is_key) {
            return Err("key is the name of a credential, never the key itself".to_owned());
        }
        if self.model.is_empty() {
            return Err("model is missing".to_owned());
        }
        let url = plain("url", &self.url)?;
        if !self.proxy.is_empty() {
            plain("proxy", &self.proxy)?;
        }
        let is_local = url.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
        if url.scheme() == "http" && !self.key.is_empty() && !(is_local && self.proxy.is_empty()) {
            return Err("a key would go over the network as it is: write https://".to_owned());
        }
        if self.concurrency_max == 0 || self.timeout_seconds == 0 || self.silence_seconds == 0 {
            return Err("concurrency_max, timeout_seconds and silence_seconds are to be 1 or more".to_owned());
        }
        if self.temperature.is_some_and(|temperature| !(0.0..=100.0).contains(&temperature)) {
            return Err("temperature is to be 0 or more; endpoints take some 2 at most".to_owned());
        }
        let prices = [
            self.dollars_per_million_read,
            self.dollars_per_million_cached.unwrap_or(0.0),
            self.dollars_per_million_written,
        ];
        match prices.iter().all(|price| (0.0..1e6).contains(price)) {
            true => Ok(()),
            false => Err("a price is to be 0 or more".to_owned()),
        }
    }
}

/// A URL in which nothing is hidden: it is shown in logs.
fn plain(key: &str, text: &str) -> Result<reqwest::Url, String> {
    let url = reqwest::Url::parse(text).map_err(|error| format!("{key}: {error}"))?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    match matches!(url.scheme(), "http" | "https") && is_plain {
        true => Ok(url),
        false => Err(format!("{key} is to be http:// or https://, without user, password and query")),
    }
}

impl Default for AgentsConfig {
    fn default() -> Self {
        Self {
            task_answers_max: 60,
            task_tokens_max: 1_000_000,
            task_dollars_max: 20.0,
            task_seconds_max: 7200,
            head_start: true,
            explore_turns_max: 8,
            repairs_max: 3,
            answer_tokens_max: 8192,
            shown_bytes_max: 12_000,
            tries_max: 12,
            call_seconds_max: 1800,
            away_seconds_max: 21_600,
            endpoints: Vec::new(),
        }
    }
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            model: String::new(),
            key: String::new(),
            proxy: String::new(),
            weight: 1,
            concurrency_max: 16,
            requests_per_minute: 0,
            tokens_per_minute: 0,
            timeout_seconds: 600,
            silence_seconds: 120,
            stream: true,
            tools: false,
            answer_limit: AnswerLimit::default(),
            echo_reasoning: false,
            temperature: None,
            dollars_per_million_read: 0.0,
            dollars_per_million_cached: None,
            dollars_per_million_written: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_wrong_with_an_endpoint() {
        let check = |change: fn(&mut EndpointConfig), expected: &str| {
            let mut endpoint = EndpointConfig {
                name: "a".to_owned(),
                url: "https://api.example/v1".to_owned(),
                model: "m".to_owned(),
                key: "model.key".to_owned(),
                ..EndpointConfig::default()
            };
            change(&mut endpoint);
            let why = endpoint.check().err().unwrap_or_default();
            assert!(why.contains(expected) && why.is_empty() == expected.is_empty(), "{why}");
        };
        check(|_| (), "");
        check(|e| e.url = "http://127.0.0.1:8000/v1".to_owned(), "");
        check(|e| e.url = "http://models.example/v1".to_owned(), "as it is");
        let proxied = |e: &mut EndpointConfig| e.proxy = "http://proxy.example:3128".to_owned();
        check(proxied, "");
        check(
            |e| (e.url, e.proxy) = ("http://localhost/v1".to_owned(), "http://proxy.example:3128".to_owned()),
            "as it is",
        );
        check(|e| e.proxy = "http://me:pass@proxy.example:3128".to_owned(), "proxy is to be");
        check(|e| e.proxy = "proxy.example".to_owned(), "proxy");
        check(|e| e.url = "https://me:pass@api.example/v1".to_owned(), "without user");
        check(|e| e.url = "https://api.example/v1?key=x".to_owned(), "query");
        check(|e| e.url = "api.example".to_owned(), "url");
        check(|e| e.key = "../model.key".to_owned(), "never the key itself");
        check(|e| e.key = "sk-ant-x".to_owned(), "never the key itself");
        check(|e| e.key = "0123456789abcdef".repeat(3), "never the key itself");
        check(|e| e.temperature = Some(f64::NAN), "temperature");
        check(|e| e.name = String::new(), "name");
        check(|e| e.model = String::new(), "model");
        check(|e| e.concurrency_max = 0, "concurrency_max");
        check(|e| e.dollars_per_million_read = -1.0, "price");
    }

    #[test]
    fn two_of_one_name_are_refused() {
        let endpoint = EndpointConfig {
            name: "a".to_owned(),
            url: "https://api.example/v1".to_owned(),
            model: "m".to_owned(),
            ..EndpointConfig::default()
        };
        let config = AgentsConfig { endpoints: vec![endpoint.clone(), endpoint], ..AgentsConfig::default() };
        assert!(config.check().is_err_and(|why| why.contains("has two that are called")));
    }
}
