//! What agents may answer, and how it is read out of what a model says.

use std::ops::ControlFlow;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::tools::{Look, Search};

/// Of the explorer.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Explored {
    /// It wants to see more.
    Look(Vec<Look>),
    /// The same, as calls of tools.
    Calls(Vec<Called>),
    /// It is done.
    Findings(Found),
}

/// A look as a call.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "name", content = "arguments", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Called {
    Browse { path: String },
    Search(Search),
    Digest { path: String },
}

impl Explored {
    /// Findings, or what it wants to see first.
    pub(super) fn step(self) -> ControlFlow<Found, Vec<Look>> {
        let look = |call| match call {
            Called::Browse { path } => Look::Browse(path),
            Called::Search(search) => Look::Search(search),
            Called::Digest { path } => Look::Digest(path),
        };
        match self {
            Self::Findings(found) => ControlFlow::Break(found),
            Self::Look(looks) => ControlFlow::Continue(looks),
            Self::Calls(calls) => ControlFlow::Continue(calls.into_iter().map(look).collect()),
        }
    }
}

/// What exploration found.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Found {
    pub(super) python: String,
    #[serde(default)]
    pub(super) why: String,
    #[serde(default)]
    pub(super) facts: Vec<String>,
    #[serde(default)]
    pub(super) targets: Vec<String>,
}

/// Of the Dockerfile agent.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    pub(super) dockerfile: String,
    #[serde(default, rename = "why")]
    _why: String,
}

/// Of the script agent.
#[derive(Clone, Debug, PartialEq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Choice {
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) targets: Vec<String>,
    #[serde(default)]
    pub(super) setup: Vec<Vec<String>>,
    #[serde(default)]
    pub(super) directory: String,
    #[serde(default)]
    pub(super) report: Report,
}

/// How a command tells of each test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Report {
    /// pytest's report.
    #[default]
    Junit,
    /// Not at all.
    ExitStatus,
}

/// Of the analyst.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Judged {
    /// What was accepted deserves it.
    Genuine {
        #[serde(default, rename = "feedback")]
        _feedback: String,
    },
    /// It does not.
    NotGenuine { to: Addressee, feedback: String },
    /// Somebody is to try again.
    Retry { to: Addressee, feedback: String },
    /// Nobody can.
    Unsolvable { feedback: String },
}

/// Who is to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Addressee {
    Explore,
    Dockerfile,
    Script,
}

/// Reads the answer out of what was said: the last block of JSON that is one, or else the first object.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut why = None;
    for block in blocks(text).into_iter().rev() {
        match serde_json::from_str(block) {
            Ok(answer) => return Ok(answer),
            Err(error) => why = why.or_else(|| Some(error.to_string())),
        }
    }
    if let Some(why) = why {
        return Err(format!("the JSON is not what was asked for: {why}"));
    }
    let Some(begin) = text.find('{') else { return Err("there is no JSON object in it".to_owned()) };
    let mut objects = serde_json::Deserializer::from_str(&text[begin..]).into_iter::<T>();
    match objects.next() {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(error)) => Err(format!("the JSON is not what was asked for: {error}")),
        None => Err("there is no JSON object in it".to_owned()),
    }
}

/// What stands in fences. A fence within a string of the JSON has no line of its own.
fn blocks(text: &str) -> Vec<&str> {
    let (mut found, mut begin, mut at) = (Vec::new(), None, 0);
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with("```") {
            match begin.take() {
                Some(from) => found.push(text[from..at].trim()),
                None => begin = Some(at + line.len()),
            }
        }
        at += line.len();
    }
    found.retain(|block| block.starts_with('{'));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_in_what_is_said() {
        let check = |text: &str, expected: Result<&str, &str>| match (read::<Written>(text), expected) {
            (Ok(written), Ok(expected)) => assert_eq!(written.dockerfile, expected, "{text}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
            (got, _) => panic!("{text}: {got:?}"),
        };
        check("{\"dockerfile\":\"a\"}", Ok("a"));
        check("Sure:\n```json\n{\"dockerfile\":\"a\"}\n```\nDone.", Ok("a"));
        check(
            "```\n{\"dockerfile\":\"a\"}\n```\nor\n```json\n{\"dockerfile\":\"b\\n```\\n\"}\n```",
            Ok("b\n```\n"),
        );
        check("<think>{x}</think>\n```json\n{\"dockerfile\":\"a\"}\n```", Ok("a"));
        check("I think {\"dockerfile\":\"a\"} is it", Ok("a"));
        check("```json\n{\"dockerfile\":\"a\",\"image\":\"x\"}\n```", Err("unknown field `image`"));
        check("```json\n{\"dockerfile\":", Err("not what was asked for"));
        check("I cannot help with that.", Err("no JSON"));
        check("", Err("no JSON"));
    }

    #[test]
    fn every_agent_has_its_form() {
        assert!(
            matches!(read(r#"{"look":[{"browse":"a"},{"digest":"b"}]}"#), Ok(Explored::Look(looks)) if looks.len() == 2)
        );
        assert!(read::<Explored>(r#"{"look":[{"run":"ls"}]}"#).is_err());
        let called = r#"{"calls":[{"name":"browse","arguments":{"path":"a"}},{"name":"search","arguments":{"pattern":"x","in":"b"}}]}"#;
        let looked = r#"{"look":[{"browse":"a"},{"search":{"pattern":"x","in":"b"}}]}"#;
        assert_eq!(
            read::<Explored>(called).map(Explored::step),
            read::<Explored>(looked).map(Explored::step)
        );
        assert!(read::<Explored>(r#"{"calls":[{"name":"run","arguments":{"path":"a"}}]}"#).is_err());
        assert!(
            matches!(read(r#"{"findings":{"python":"3.9"}}"#), Ok(Explored::Findings(found)) if found.python == "3.9")
        );
        assert!(matches!(read(r#"{"verdict":"genuine"}"#), Ok(Judged::Genuine { .. })));
        let retry = r#"{"verdict":"retry","to":"script","feedback":"x"}"#;
        assert!(matches!(read(retry), Ok(Judged::Retry { to: Addressee::Script, .. })));
        assert!(read::<Judged>(r#"{"verdict":"retry","to":"engine","feedback":"x"}"#).is_err());
        assert!(read::<Judged>(r#"{"verdict":"accepted"}"#).is_err());
    }
}
