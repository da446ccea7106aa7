use std::io;
use std::path::{Path, PathBuf};

use crate::{InvalidId, InvalidOwner, Owner, SpoolId};

/// An operation on a path that failed; no bare [`io::Error`] leaves this crate.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}{}", path.display(), remedy(action, source))]
pub struct PathError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// What can go wrong with a spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A file operation failed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// There is no spool here.
    #[error("{} is not a spool (it has no spool.toml); mount it, or make one with: bottega init --spool {}", .0.display(), .0.display())]
    NotASpool(PathBuf),
    /// It is not for this user to look at.
    #[error(
        "{} is not for this user to look at; ask as the daemons' user: runuser -u bottega -- …, for root may be nobody on NFS",
        .0.display()
    )]
    Denied(PathBuf),
    /// spool.toml cannot be read.
    #[error("{}: {why}; mend it: uuid and format are as bottega init wrote them, and only [timing] is a person's", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The spool was made by a newer Bottega.
    #[error("{} has format {found}, this program writes {supported}; upgrade it before it touches the spool", path.display())]
    NewerFormat {
        /// The spool.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// Another spool lies where ours was.
    #[error("{} is spool {found} now, it was {expected}; mount the right one, or restart the daemon", path.display())]
    OtherSpool {
        /// Where.
        path: PathBuf,
        /// Which it was.
        expected: SpoolId,
        /// Which it is.
        found: SpoolId,
    },
    /// Somebody took this incarnation for dead, and it must not go on under its name.
    #[error(
        "the lease of {0} was closed: its heartbeat stood still for too long, or somebody removed it; it must end, and come back as a new incarnation"
    )]
    LeaseClosed(Owner),
    /// A directory's name is not an owner.
    #[error(transparent)]
    Owner(#[from] InvalidOwner),
    /// Not a task id.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// A file's content is not what belongs there.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A value does not fit JSON.
    #[error("cannot write {} as JSON: {source}", path.display())]
    Json {
        /// The file that was to be written.
        path: PathBuf,
        /// What serde said.
        source: serde_json::Error,
    },
}

/// Lets a loop go on after an error, and gives the first at its end: one file that cannot be moved keeps no other.
#[derive(Debug, Default)]
pub(crate) struct FirstError(Option<SpoolError>);

impl FirstError {
    /// What was got; an error is kept.
    pub(crate) fn keep<T, E: Into<SpoolError>>(&mut self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(got) => return Some(got),
            Err(error) => self.0.get_or_insert_with(|| error.into()),
        };
        None
    }

    /// The value, if there was no error.
    pub(crate) fn or<T>(self, value: T) -> Result<T, SpoolError> {
        self.0.map_or(Ok(value), Err)
    }
}

/// Names the path in the error of an operation on it.
pub(crate) trait OnPath<T> {
    fn on_path(self, action: &'static str, path: &Path) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> OnPath<T> for Result<T, E> {
    fn on_path(self, action: &'static str, path: &Path) -> Result<T, PathError> {
        self.map_err(|e| PathError { action, path: path.to_owned(), source: e.into() })
    }
}

fn remedy(action: &str, source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound if action == "make directory" => {
            " (nothing can be made there; choose another place)"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (free space there and try again, as daemons do by themselves; nothing was lost)"
        }
        io::ErrorKind::PermissionDenied => " (whoever runs this must own it or be in its group)",
        io::ErrorKind::ReadOnlyFilesystem => " (remount it read-write)",
        io::ErrorKind::StaleNetworkFileHandle => " (the server swapped the file; look again)",
        _ => "",
    }
}
