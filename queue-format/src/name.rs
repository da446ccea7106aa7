use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Owner, TaskId};

/// The fencing token: how often a task has been claimed. Written `a003`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(pub u32);

/// A task's file name: `<id>.a<NNN>[@<owner>].r<N>.json`.
///
/// A name without those parts (`<id>.json`, as a person may drop it) means `a000` and `r0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskName {
    /// Which task.
    pub id: TaskId,
    /// Claims so far.
    pub token: Token,
    /// Whose result counts; only in `done/`.
    pub owner: Option<Owner>,
    /// Automatic retries used.
    pub retries: u32,
}

/// Why a file name is not a task's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a task file's name: expected <id>.a<NNN>[@<owner>].r<N>.json or <id>.json")]
pub struct InvalidName(pub String);

impl TaskName {
    /// The name of a task that nobody has claimed yet.
    #[must_use]
    pub fn fresh(id: TaskId) -> Self {
        Self { id, token: Token(0), owner: None, retries: 0 }
    }

    /// The name after one more claim.
    #[must_use]
    pub fn claimed(&self) -> Self {
        Self { token: Token(self.token.0.saturating_add(1)), owner: None, ..self.clone() }
    }

    /// The name in `done/`.
    #[must_use]
    pub fn done_by(&self, owner: &Owner) -> Self {
        Self { owner: Some(owner.clone()), ..self.clone() }
    }

    /// The name after one more automatic retry.
    #[must_use]
    pub fn retried(&self) -> Self {
        Self { owner: None, retries: self.retries.saturating_add(1), ..self.clone() }
    }

    /// The name with a fresh budget of automatic retries, as in `failed/`.
    #[must_use]
    pub fn settled(&self) -> Self {
        Self { owner: None, retries: 0, ..self.clone() }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a{:03}", self.0)
    }
}

impl FromStr for Token {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        number(text, 'a').map(Token).ok_or_else(|| InvalidName(text.to_owned()))
    }
}

impl TryFrom<String> for Token {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> String {
        token.to_string()
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.token)?;
        if let Some(owner) = &self.owner {
            write!(f, "@{owner}")?;
        }
        write!(f, ".r{}.json", self.retries)
    }
}

impl FromStr for TaskName {
    type Err = InvalidName;

    /// Parses from the right, so that an id may itself contain dots.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let refuse = || InvalidName(text.chars().take(200).collect());
        let stem = text.strip_suffix(".json").ok_or_else(refuse)?;
        match full(stem) {
            Some(name) => Ok(name),
            None => stem.parse().map(Self::fresh).map_err(|_| refuse()),
        }
    }
}

fn full(stem: &str) -> Option<TaskName> {
    let (rest, retries) = stem.rsplit_once('.')?;
    let retries = number(retries, 'r')?;
    let (rest, owner) = match rest.rsplit_once('@') {
        Some((rest, owner)) => (rest, Some(owner.parse().ok()?)),
        None => (rest, None),
    };
    let (id, token) = rest.rsplit_once('.')?;
    Some(TaskName { id: id.parse().ok()?, token: Token(number(token, 'a')?), owner, retries })
}

fn number(text: &str, letter: char) -> Option<u32> {
    let digits = text.strip_prefix(letter)?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_and_daemons_write() {
        let check = |text: &str, id: &str, token: u32, retries: u32| {
            let name: TaskName = text.parse().expect(text);
            assert_eq!((name.id.as_str(), name.token.0, name.retries), (id, token, retries), "{text}");
        };
        check("x.json", "x", 0, 0);
        check("x.a003.r1.json", "x", 3, 1);
        check("v1.2.a1000.r0.json", "v1.2", 1000, 0);
        check("a.b-c.json", "a.b-c", 0, 0);
        for bad in
            ["x", "x.JSON", ".json", "../x.json", "x.a1@.r0.json", "X.a001.r0.json", "x.a001.r0.json.tmp"]
        {
            assert!(bad.parse::<TaskName>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives_its_own_text(
            id in "[a-z0-9][a-z0-9._-]{0,127}", token in 0u32.., retries in 0u32.., owned in any::<bool>(),
        ) {
            let id: TaskId = id.parse().expect("generated to be legal");
            let owner = owned.then(|| Owner::new("node07.cluster", Incarnation::new(uuid::Uuid::nil())));
            let name = TaskName { id, token: Token(token), owner, retries };
            let text = name.to_string();
            prop_assert!(text.len() <= 255);
            prop_assert_eq!(text.parse::<TaskName>(), Ok(name));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,300}") {
            let _ = text.parse::<TaskName>();
        }
    }
}
