use serde_json::{Map, Value};

use super::Refusal;

/// A row from which known fields are taken one by one; what is left is carried through.
#[derive(Debug)]
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Fields {
    /// A text that must be there.
    pub(super) fn required(&mut self, field: &'static str) -> Result<String, Refusal> {
        self.text(field)?.ok_or_else(|| Refusal::of(field, "it is missing"))
    }

    /// A text; `None` where it is missing or null.
    pub(super) fn text(&mut self, field: &'static str) -> Result<Option<String>, Refusal> {
        match self.0.shift_remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Refusal::of(field, &format!("expected a string, found {}", kind(&other)))),
        }
    }

    /// A text, or a number written as one.
    pub(super) fn loose_text(&mut self, field: &'static str) -> Result<Option<String>, Refusal> {
        match self.0.get(field) {
            Some(Value::Number(number)) => {
                let text = number.to_string();
                self.0.shift_remove(field);
                Ok(Some(text))
            }
            _ => self.text(field),
        }
    }

    /// A whole number, or a text that is one; 0 where it is missing.
    pub(super) fn number(&mut self, field: &'static str) -> Result<u64, Refusal> {
        let found = self.loose_text(field)?.unwrap_or_default();
        let digits = found.trim();
        if digits.is_empty() {
            return Ok(0);
        }
        digits.parse().map_err(|_| Refusal::of(field, &format!("expected a whole number, found {digits:?}")))
    }

    /// A time as text; datasets that went through columns hold seconds or milliseconds since 1970.
    pub(super) fn time(&mut self, field: &'static str) -> Result<String, Refusal> {
        /// Seconds reach it in the year 5138, milliseconds did in 1973.
        const SECONDS_MAX: i64 = 100_000_000_000;
        let Some(Value::Number(number)) = self.0.get(field) else {
            return Ok(self.text(field)?.unwrap_or_default());
        };
        let since = number.as_i64().unwrap_or(i64::MAX);
        let time = match since {
            ..=SECONDS_MAX => jiff::Timestamp::from_second(since),
            _ => jiff::Timestamp::from_millisecond(since),
        };
        let time = time.map_err(|_| Refusal::of(field, &format!("{number} is no time")))?;
        self.0.shift_remove(field);
        Ok(time.to_string())
    }
}

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
