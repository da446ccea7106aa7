use std::io;
use std::path::PathBuf;

use queue_format::{PathError, SpoolError};

use crate::export::ExportError;
use crate::filter::FilterError;
use crate::github::GithubError;
use crate::ingest::IngestError;
use crate::up::UpError;

/// Why a command could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It was not asked rightly.
    #[error("{0}")]
    Usage(String),
    /// There is no such thing in the spool.
    #[error("{0}")]
    Unknown(String),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A file of the spool.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Rows that cannot be read.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// Pull requests that cannot be filtered.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Pull requests that cannot be collected.
    #[error(transparent)]
    Github(#[from] GithubError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] systemd::ConfigError),
    /// A dataset that cannot be written.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The daemons.
    #[error(transparent)]
    Up(#[from] UpError),
    /// A file that was named cannot be opened.
    #[error("cannot open {}: {source}; check the path", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program that belongs to Bottega is not there, or does not start.
    #[error("{0}")]
    Program(String),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    pub(super) fn usage(why: impl Into<String>) -> Self {
        Self::Usage(why.into())
    }

    /// 2 where the command line is at fault, else 1.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        if matches!(self, Self::Usage(_)) { 2 } else { 1 }
    }

    /// True where whoever read the output has gone: that is nobody's fault.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        let source = match self {
            Self::Output(source) | Self::Up(UpError::Output(source)) => source,
            Self::Export(ExportError::Write { source, .. }) => source,
            _ => return false,
        };
        source.kind() == io::ErrorKind::BrokenPipe
    }
}
