use serde_json::{Map, Number, Value};

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
        if let Some(number) = self.0.get(field).and_then(whole_number) {
            self.0.shift_remove(field);
            return Ok(number);
        }
        match self.loose_text(field)?.unwrap_or_default().trim() {
            "" => Ok(0),
            other => Err(Refusal::of(field, &format!("expected a whole number, found {other:?}"))),
        }
    }

    /// A time as text; datasets that went through columns hold seconds, or parts of them, since 1970.
    pub(super) fn time(&mut self, field: &'static str) -> Result<String, Refusal> {
        /// Seconds reach it in the year 5138, milliseconds did in 1973; so it goes on for the smaller parts.
        const SECONDS_MAX: u64 = 100_000_000_000;
        const MILLISECONDS_MAX: u64 = SECONDS_MAX * 1000;
        const MICROSECONDS_MAX: u64 = MILLISECONDS_MAX * 1000;
        let Some(Value::Number(number)) = self.0.get(field) else {
            return Ok(self.text(field)?.unwrap_or_default());
        };
        let no_time = || Refusal::of(field, &format!("{number} is no time"));
        let since = whole(number).ok_or_else(no_time)?;
        let size = since.unsigned_abs();
        let time = if size <= SECONDS_MAX {
            jiff::Timestamp::from_second(since)
        } else if size <= MILLISECONDS_MAX {
            jiff::Timestamp::from_millisecond(since)
        } else if size <= MICROSECONDS_MAX {
            jiff::Timestamp::from_microsecond(since)
        } else {
            jiff::Timestamp::from_nanosecond(since.into())
        };
        let time = time.map_err(|_| no_time())?;
        self.0.shift_remove(field);
        Ok(time.to_string())
    }
}

/// A whole number, also where a column with gaps made `3.0` of it, or a text that is one.
pub(crate) fn whole_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => whole(number).and_then(|whole| whole.try_into().ok()),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn whole(number: &Number) -> Option<i64> {
    /// Up to there a float has every whole number.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let float = || number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= EXACT_MAX);
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and small enough")]
    number.as_i64().or_else(|| float().map(|float| float as i64))
}

/// What a value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
