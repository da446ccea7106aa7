use std::io;
use std::path::PathBuf;

use queue_format::{PathError, SpoolError};

/// What ends a pass. What only keeps one object from being removed is not among these.
#[derive(Debug, thiserror::Error)]
pub enum JanitorError {
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(String),
    /// The spool cannot be read or written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The node's state directory cannot be used.
    #[error("cannot {action} {}: {source}; name another with --state", path.display())]
    State {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A stage died.
    #[error("a stage of the pass ended early: {0}")]
    Stage(#[from] tokio::task::JoinError),
}

impl From<PathError> for JanitorError {
    fn from(error: PathError) -> Self {
        Self::Spool(error.into())
    }
}

/// What the engine did not do.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// None answers.
    #[error(transparent)]
    Unreachable(#[from] base_images::Unreachable),
    /// It takes too long.
    #[error(
        "the container engine did not {action} within {seconds} s; look at its log (journalctl -u docker)"
    )]
    TimedOut {
        /// What it was asked, as a verb.
        action: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// It told something else, or nothing.
    #[error("the container engine does not answer as one does: {0}")]
    Lookup(#[from] base_images::LookupError),
    /// It refused.
    #[error("the container engine could not {action}: {source}")]
    Failed {
        /// What it was asked, as a verb.
        action: &'static str,
        /// What was said.
        source: bollard::errors::Error,
    },
}
