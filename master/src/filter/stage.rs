use serde::Serialize;

/// What a row must pass, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It is a JSON object.
    Row,
    /// Its repository has enough stars.
    Stars,
    /// Its repository is mostly in one of the languages.
    Language,
    /// It has a linked issue that says something.
    Issue,
    /// It changes something else than tests.
    Fix,
    /// It changes tests.
    Tests,
    /// Every field is as a task needs it, and its patches are diffs that can be applied.
    Fields,
    /// It is in none of the evaluation sets.
    Evaluation,
    /// Its licence is allowed.
    Licence,
    /// It is not too large.
    Size,
    /// Its quality scores are within the limits that were asked for.
    Quality,
    /// It did not come before.
    Duplicate,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 12] = [
        Self::Row,
        Self::Stars,
        Self::Language,
        Self::Issue,
        Self::Fix,
        Self::Tests,
        Self::Fields,
        Self::Evaluation,
        Self::Licence,
        Self::Size,
        Self::Quality,
        Self::Duplicate,
    ];

    /// What it asks, in a few words.
    #[must_use]
    pub fn asks(self) -> &'static str {
        match self {
            Self::Row => "readable",
            Self::Stars => "enough stars",
            Self::Language => "language",
            Self::Issue => "issue with a description",
            Self::Fix => "changes outside tests",
            Self::Tests => "changes tests",
            Self::Fields => "fields and patches valid",
            Self::Evaluation => "in no evaluation set",
            Self::Licence => "licence allowed",
            Self::Size => "not too large",
            Self::Quality => "quality scores",
            Self::Duplicate => "not seen before",
        }
    }
}
