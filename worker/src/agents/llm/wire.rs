//! The protocol's JSON, as we write and read it. What an endpoint adds is passed over.

use serde::Deserialize;
use serde_json::{Value, json};

use super::chat::tokens_guess;
use super::{ChatRequest, Failure, Key, Usage};
use crate::agents::{AnswerLimit, EndpointConfig};

/// More than any model reads or writes at once: what an endpoint says beyond that is an error, and must not use up a budget.
const TOKENS_MAX: u64 = 10_000_000;
/// The most calls that one answer may make.
const CALLS_MAX: usize = 32;

/// What came back, without what we know of it ourselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) reasoning: Option<String>,
    pub(super) finish: Option<String>,
    pub(super) usage: Option<Usage>,
    /// Tools that it calls, each with its arguments as they came.
    calls: Vec<(String, String)>,
    /// It was given some.
    may_call: bool,
    /// What must not be in anything that is told.
    key: Option<Key>,
    /// The longest text, and the longest thought; what is beyond is cut off.
    bytes_max: Option<usize>,
    is_cut: bool,
}

/// The body of a call.
pub(super) fn body(config: &EndpointConfig, request: &ChatRequest) -> Value {
    let messages: Vec<Value> = request
        .messages
        .iter()
        .map(|message| {
            let mut said = json!({ "role": message.role, "content": message.content });
            if let Some(reasoning) = message.reasoning.as_ref().filter(|_| config.echo_reasoning) {
                said["reasoning_content"] = reasoning.as_str().into();
            }
            said
        })
        .collect();
    let mut body = json!({
        "model": config.model,
        "messages": messages,
        "stream": config.stream,
    });
    let limit = match config.answer_limit {
        AnswerLimit::MaxTokens => "max_tokens",
        AnswerLimit::MaxCompletionTokens => "max_completion_tokens",
    };
    body[limit] = request.answer_tokens_max.into();
    if let Some(temperature) = config.temperature {
        body["temperature"] = temperature.into();
    }
    if config.tools && !request.tools.is_empty() {
        let functions = request.tools.iter().map(|tool| json!({ "type": "function", "function": tool }));
        body["tools"] = functions.collect();
    }
    if config.stream {
        body["stream_options"] = json!({ "include_usage": true });
    }
    body
}

#[derive(Deserialize)]
struct Whole {
    choices: Option<Vec<Choice>>,
    usage: Option<WireUsage>,
    error: Option<Value>,
}

/// Of a whole answer, or a piece of one.
#[derive(Deserialize)]
struct Choice {
    message: Option<Said>,
    delta: Option<Said>,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    content: Option<String>,
    /// Under two names; some endpoints say it under both.
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    /// In a stream, whose piece this is.
    index: Option<usize>,
    #[serde(default)]
    function: Function,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Function {
    name: Option<String>,
    /// Text that is JSON; an object with some endpoints.
    arguments: Option<Value>,
}

#[derive(Clone, Copy, Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    prompt_tokens_details: Option<Details>,
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Clone, Copy, Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

impl Reply {
    /// To be filled, with at most so many bytes of text.
    pub(super) fn within(bytes_max: usize, key: Option<Key>, may_call: bool) -> Self {
        Self { key, bytes_max: Some(bytes_max), may_call, ..Self::default() }
    }

    /// Takes in a whole answer, or a piece of a streamed one.
    pub(super) fn take(&mut self, json: &str) -> Result<(), Failure> {
        let piece: Whole = serde_json::from_str(json)
            .map_err(|error| Failure::Garbled(super::failure::said(&self.scrub(&error.to_string()))))?;
        if let Some(error) = piece.error.filter(|error| !error.is_null()) {
            let scrubbed = serde_json::from_str(&self.scrub(&error.to_string()));
            return Err(Failure::of_said(&scrubbed.unwrap_or_default()));
        }
        if let Some(choice) = piece.choices.and_then(|choices| choices.into_iter().next()) {
            let said = choice.message.or(choice.delta).unwrap_or_default();
            let most = self.bytes_max.unwrap_or(usize::MAX);
            self.is_cut |= push(&mut self.text, said.content.as_deref().unwrap_or_default(), most);
            if let Some(thought) = said.reasoning_content.or(said.reasoning) {
                self.is_cut |= push(self.reasoning.get_or_insert_default(), &thought, most);
            }
            for (nth, call) in said.tool_calls.into_iter().flatten().enumerate() {
                self.is_cut |= self.call(call.index.unwrap_or(nth), call.function, most);
            }
            self.finish = choice.finish_reason.or(self.finish.take());
            if self.is_cut {
                self.finish = Some("length".to_owned());
            }
        }
        if let Some(usage) = piece.usage {
            let details = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
            self.usage = Some(Usage {
                read: usage.prompt_tokens.min(TOKENS_MAX),
                cached: details
                    .or(usage.prompt_cache_hit_tokens)
                    .unwrap_or(0)
                    .min(usage.prompt_tokens.min(TOKENS_MAX)),
                written: usage.completion_tokens.min(TOKENS_MAX),
                is_guess: false,
            });
        }
        Ok(())
    }

    /// Whether more of it would not be taken.
    pub(super) fn is_full(&self) -> bool {
        self.is_cut
    }

    /// Whether an endpoint may want to be paid for it.
    pub(super) fn is_begun(&self) -> bool {
        self.usage.is_some() || !self.text.is_empty() || self.reasoning.is_some()
    }

    /// Whether it came to its end, as far as what was said goes.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Checks that it is one, to its end.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let Some(finish) = &self.finish else {
            return Err(Failure::Garbled("it was cut off: it has no finish_reason".to_owned()));
        };
        match finish.as_str() {
            "content_filter" => Err(Failure::Unusable("its filter took it away".to_owned())),
            // All of it may have gone into thinking: then asking for less is for whoever asked.
            "length" => Ok(()),
            _ if !self.text.trim().is_empty() => Ok(()),
            _ if self.may_call && !self.calls.is_empty() => Ok(()),
            _ if !self.calls.is_empty() => {
                Err(Failure::Unusable("it calls tools that it was not given".to_owned()))
            }
            _ => Err(Failure::Unusable("it says nothing".to_owned())),
        }
    }

    /// Adds to a call; whether something was left out.
    fn call(&mut self, at: usize, function: Function, most: usize) -> bool {
        if at >= CALLS_MAX {
            return true;
        }
        if self.calls.len() <= at {
            self.calls.resize_with(at + 1, Default::default);
        }
        let (name, arguments) = &mut self.calls[at];
        let more = match function.arguments {
            Some(Value::String(text)) => text,
            Some(Value::Null) | None => String::new(),
            Some(object) => object.to_string(),
        };
        push(name, function.name.as_deref().unwrap_or_default(), most) | push(arguments, &more, most)
    }

    /// What was said, calls as JSON after it. Arguments that are none are told as they came, for whoever complains.
    pub(super) fn into_text(self) -> String {
        if self.calls.is_empty() || !self.may_call {
            return self.text;
        }
        let call = |(name, arguments): &(String, String)| {
            let read = serde_json::from_str(if arguments.is_empty() { "{}" } else { arguments });
            let arguments: Value = read.unwrap_or_else(|_| arguments.as_str().into());
            json!({ "name": name, "arguments": arguments })
        };
        let calls: Vec<Value> = self.calls.iter().map(call).collect();
        format!("{}\n```json\n{}\n```", self.text, json!({ "calls": calls })).trim_start().to_owned()
    }

    fn scrub(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.to_owned(), |key| key.scrub(text))
    }

    /// What it took: as the endpoint says, else about.
    pub(super) fn usage(&self, request: &ChatRequest) -> Usage {
        self.usage.unwrap_or_else(|| Usage {
            read: request.tokens_guess(),
            cached: 0,
            written: tokens_guess(&self.text) + self.reasoning.as_deref().map_or(0, tokens_guess),
            is_guess: true,
        })
    }
}

/// Adds what there is room for; whether something was left out.
fn push(text: &mut String, more: &str, most: usize) -> bool {
    let room = most.saturating_sub(text.len());
    let end = (0..=room.min(more.len())).rev().find(|end| more.is_char_boundary(*end)).unwrap_or_default();
    text.push_str(&more[..end]);
    end < more.len()
}

#[cfg(test)]
mod tests {
    use super::super::Message;
    use super::*;

    fn request() -> ChatRequest {
        let thought = Message { reasoning: Some("hm".to_owned()), ..Message::user("b".to_owned()) };
        ChatRequest {
            agent: "explore".to_owned(),
            messages: vec![Message::system("a".to_owned()), thought],
            answer_tokens_max: 7,
            tools: Vec::new(),
        }
    }

    #[test]
    fn reasoning_goes_back_only_where_it_is_wanted() {
        let mut config = EndpointConfig { model: "m".to_owned(), ..EndpointConfig::default() };
        let plain = body(&config, &request());
        assert_eq!(plain["messages"][1], json!({ "role": "user", "content": "b" }));
        assert_eq!((&plain["max_tokens"], plain.get("temperature")), (&json!(7), None));
        config.echo_reasoning = true;
        config.temperature = Some(0.5);
        let echoed = body(&config, &request());
        assert_eq!(echoed["messages"][1]["reasoning_content"], "hm");
        assert_eq!(echoed["temperature"], 0.5);
    }

    #[test]
    fn answers_are_read_and_what_is_none_is_told() {
        let check = |json: &str, expected: Result<(&str, Option<Usage>), &str>| {
            let mut reply = Reply::default();
            let got = reply.take(json).and_then(|()| reply.check());
            match (got, expected) {
                (Ok(()), Ok(expected)) => {
                    assert_eq!((reply.text.as_str(), reply.usage), expected, "{json}");
                }
                (Err(failure), Err(kind)) => assert!(format!("{failure:?}").starts_with(kind), "{failure:?}"),
                (got, expected) => panic!("{json}: {got:?} instead of {expected:?}"),
            }
        };
        let usage = |read, cached, written| Some(Usage { read, cached, written, is_guess: false });
        let said = |more: &str| {
            format!(r#"{{"choices":[{{"message":{{"content":"hi"}},"finish_reason":"stop"}}]{more}}}"#)
        };
        check(&said(""), Ok(("hi", None)));
        check(&said(r#","usage":{"prompt_tokens":5,"completion_tokens":2}"#), Ok(("hi", usage(5, 0, 2))));
        let cached = r#","usage":{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":9}}"#;
        check(&said(cached), Ok(("hi", usage(5, 5, 2))));
        let hits =
            r#","usage":{"prompt_tokens":5,"completion_tokens":2,"prompt_cache_hit_tokens":3},"error":null"#;
        check(&said(hits), Ok(("hi", usage(5, 3, 2))));
        check("<html>", Err("Garbled"));
        check("{}", Err("Garbled"));
        check(r#"{"error":{"message":"overloaded","code":529}}"#, Err("Server { status: 529"));
        check(r#"{"error":{"message":"slow down","code":"429"}}"#, Err("Busy"));
        check(r#"{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}"#, Err("Unusable"));
        check(
            r#"{"choices":[{"message":{"content":"x"},"finish_reason":"content_filter"}]}"#,
            Err("Unusable"),
        );
        let calls = r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"x"}]},"finish_reason":"tool_calls"}]}"#;
        check(calls, Err("Unusable"));
        check(r#"{"choices":null}"#, Err("Garbled"));
        check(r#"{"choices":null,"usage":{"prompt_tokens":5}}"#, Err("Garbled"));
        let twice = r#"{"choices":[{"message":{"content":"hi","reasoning":"hm","reasoning_content":"hm"},"finish_reason":"stop"}]}"#;
        check(twice, Ok(("hi", None)));
        check(r#"{"choices":[{"message":{"content":"x"},"finish_reason":null}]}"#, Err("Garbled"));
        check(r#"{"choices":[{"message":{"content":null},"finish_reason":"length"}]}"#, Ok(("", None)));
    }

    #[test]
    fn calls_come_in_pieces_and_are_told_as_json() {
        let mut reply = Reply::within(1000, None, true);
        let call = |index: usize, name: &str, arguments: &str| {
            let call = json!({ "index": index, "function": { "name": name, "arguments": arguments } });
            json!({ "choices": [{ "delta": { "tool_calls": [call] } }] }).to_string()
        };
        for (index, name, arguments) in
            [(0, "browse", "{\"pa"), (1, "digest", ""), (0, "", "th\":\"docs\"}"), (1, "", "{\"path\":")]
        {
            reply.take(&call(index, name, arguments)).unwrap();
        }
        reply.take(r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#).unwrap();
        assert_eq!(reply.check(), Ok(()));
        let said = "```json\n{\"calls\":[{\"name\":\"browse\",\"arguments\":{\"path\":\"docs\"}},\
                    {\"name\":\"digest\",\"arguments\":\"{\\\"path\\\":\"}]}\n```";
        assert_eq!(reply.into_text(), said);
    }

    #[test]
    fn no_answer_is_longer_than_its_bound() {
        let said = |text: &str, finish: &str| {
            let message = json!({ "content": text, "reasoning": text });
            json!({ "choices": [{ "delta": message, "finish_reason": finish }] }).to_string()
        };
        let mut reply = Reply::within(10, None, false);
        reply.take(&said("grüße", "stop")).unwrap();
        assert_eq!(
            (reply.text.as_str(), reply.is_full(), reply.finish.as_deref()),
            ("grüße", false, Some("stop"))
        );
        reply.take(&said("üü", "stop")).unwrap();
        assert_eq!((reply.text.as_str(), reply.finish.as_deref()), ("grüßeü", Some("length")));
        assert_eq!(reply.reasoning.as_deref().map(str::len), Some(9));
    }

    #[test]
    fn usage_that_is_not_told_is_guessed() {
        let reply = Reply { text: "x".repeat(40), ..Reply::default() };
        assert_eq!(reply.usage(&request()), Usage { read: 2, cached: 0, written: 10, is_guess: true });
    }
}
