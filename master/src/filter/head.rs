use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

/// What the stages before the patches ask for, and what names a row.
const FIELDS: [&str; 13] = [
    "stars",
    "stargazers_count",
    "repo_stars",
    "language",
    "lang",
    "repo_language",
    "resolved_issues",
    "issues",
    "problem_statement",
    "instance_id",
    "org",
    "repo",
    "number",
];

/// The field of an event that holds all the rest of it.
const PAYLOAD: &str = "payload";

/// These fields of a row, which are a small part of it: most rows are turned away for what they say. `None` for what is no
/// such row, or needs to be read whole.
pub(super) fn head(line: &[u8]) -> Option<Map<String, Value>> {
    let text = std::str::from_utf8(line).ok()?;
    let mut json = serde_json::Deserializer::from_str(text);
    let head = json.deserialize_map(Head).ok()?;
    json.end().ok()?;
    Some(head)
}

struct Head;

impl<'de> Visitor<'de> for Head {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut row: A) -> Result<Self::Value, A::Error> {
        let mut head = Map::new();
        while let Some(name) = row.next_key_seed(Name)? {
            match name {
                Some(PAYLOAD) => return Err(A::Error::custom("an event")),
                Some(name) => {
                    head.insert(name.to_owned(), row.next_value()?);
                }
                None => {
                    row.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(head)
    }
}

/// The name of a field, if it is one of those.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(FIELDS.into_iter().chain([PAYLOAD]).find(|field| *field == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_tells_most_rows_apart_and_leaves_the_rest() {
        let check = |line: &str, expected: Option<&str>| {
            let got = head(line.as_bytes()).map(|head| Value::Object(head).to_string());
            assert_eq!(got.as_deref(), expected, "{line}");
        };
        check("{}", Some("{}"));
        check(
            r#"{"patch":"x\n","stars":7,"extra":[{"stars":1}],"issues":[{"body":"b"}],"\u006cang":null}"#,
            Some(r#"{"stars":7,"issues":[{"body":"b"}],"lang":null}"#),
        );
        check(r#"{"stars":1,"stars":2}"#, Some(r#"{"stars":2}"#));
        check(r#"{"type":"PushEvent","payload":{}}"#, None);
        check("[1]", None);
        check(r#"{"stars":7"#, None);
        check(r#"{"stars":7} 8"#, None);
        assert_eq!(head(b"{\"patch\":\"\xff\"}"), None);
    }
}
