use jiff::Timestamp;

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The repository that it is at; empty before the first.
    pub repository: String,
    /// Repositories that are done.
    pub done: usize,
    /// All of them.
    pub all: usize,
    /// Pull requests that were collected, in earlier runs too.
    pub pulls: usize,
    /// What it waits for; `None`: it is at work.
    pub waits: Option<Waits>,
}

/// A wait that may be long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// When it tries again.
    pub until: Timestamp,
    /// For what.
    pub what: String,
}
