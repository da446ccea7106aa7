use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a task: `[a-z0-9][a-z0-9._-]{0,127}`, safe as a file name, an image tag and a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(String);

/// Why a string is not a task id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is not a task id: {why}; use [a-z0-9][a-z0-9._-]{{0,127}}, for example owner__name-123")]
pub struct InvalidId {
    /// The beginning of the string, control characters escaped.
    pub shown: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl TaskId {
    /// The longest id, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Two hex digits that spread ids evenly over 256 directories.
    #[must_use]
    pub fn bucket(&self) -> String {
        blake3::hash(self.0.as_bytes()).to_hex()[..2].to_owned()
    }
}

impl FromStr for TaskId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let refuse = |why| Err(InvalidId { shown: text.chars().take(60).collect(), why });
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        match text.as_bytes() {
            [] => refuse("it is empty"),
            bytes if bytes.len() > Self::BYTES_MAX => refuse("it is longer than 128 bytes"),
            [first, ..] if !legal(*first) => refuse("it begins with something else than a-z or 0-9"),
            bytes if !bytes.iter().all(|&b| legal(b) || matches!(b, b'.' | b'_' | b'-')) => {
                refuse("it has a character other than a-z, 0-9, '.', '_' and '-'")
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for TaskId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> String {
        id.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_what_is_safe_as_a_file_name() {
        for good in ["a", "0", "pallets__flask-4045", "x.y_z-1", &"a".repeat(128)] {
            assert_eq!(good.parse::<TaskId>().map(String::from).as_deref(), Ok(good));
        }
        for bad in ["", "../x", ".hidden", "-x", "A", "a/b", "a b", "a\n", "é", "a\0", &"a".repeat(129)] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad:?}");
        }
    }
}
