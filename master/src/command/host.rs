use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use queue_format::{Incarnation, Owner};
use systemd::Environment;
use uuid::Uuid;

use super::CommandError;
use crate::up::TerminalSize;

/// What `main` read from the process's surroundings: nothing else here looks at them.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its variables.
    pub variables: BTreeMap<String, String>,
    /// The same, as daemons read them.
    pub environment: Environment,
    /// The host's name.
    pub hostname: String,
    /// Whether it runs as root.
    pub is_root: bool,
    /// Its own executable.
    pub executable: PathBuf,
    /// Its working directory.
    pub working_dir: PathBuf,
    /// How large the terminal is that its output goes to; people change that. `None` where it is none.
    pub terminal: fn() -> Option<TerminalSize>,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// Gives a fresh UUID.
    pub unique: fn() -> Uuid,
}

impl Host {
    /// An incarnation of this node's, for a command that writes.
    pub(super) fn owner(&self) -> Owner {
        Owner::new(&self.hostname, Incarnation::new((self.unique)()))
    }

    /// Columns of the terminal now.
    pub(super) fn columns(&self) -> Option<usize> {
        (self.terminal)().map(|size| size.columns)
    }

    /// Where this node's state lies: what was asked for, or the default.
    pub(super) fn state_dir(&self, asked: Option<&PathBuf>) -> Result<PathBuf, CommandError> {
        let dir = match asked {
            Some(dir) => Some(self.working_dir.join(dir)),
            None => systemd::state_dir(self.is_root, &self.environment),
        };
        dir.ok_or_else(|| {
            CommandError::usage("there is no home directory: say where state lies, with --state DIR")
        })
    }
}
