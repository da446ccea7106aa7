use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::files::Files;
use crate::{Owner, PathError, SpoolError, SpoolId, TaskId, Token};

/// The largest ledger entry that is read.
const ENTRY_BYTES_MAX: u64 = 1 << 16;

/// A node's own record of every engine object and work directory that its workers made, one small file each.
///
/// It lies on the node's disk, not in the spool: the engine's objects do too. An entry is written **before** its
/// object is made and removed after the object is gone, so that whatever is missing from it is not ours.
#[derive(Clone, Debug)]
pub struct Ledger {
    dir: PathBuf,
    files: Files,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Its UUID: the value of its `bottega.object` label.
    pub object: Uuid,
    /// What it is.
    pub kind: ObjectKind,
    /// The spool it was made for.
    pub spool: SpoolId,
    /// Who made it.
    pub owner: Owner,
    /// For which task.
    pub task: TaskId,
    /// For which claim.
    pub token: Token,
    /// When.
    pub created_at: jiff::Timestamp,
    /// When it was made to its end, by the engine's clock: what carries a build's labels and is younger, somebody else has
    /// built on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<jiff::Timestamp>,
}

/// What kind of object an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ObjectKind {
    /// A container that runs tests.
    Container {
        /// Its name.
        name: String,
    },
    /// An image build and all that it leaves: intermediate containers and images carry the UUID as label.
    Build {
        /// The tag the image gets.
        image: String,
    },
    /// A directory on the node.
    WorkDir {
        /// Where.
        path: PathBuf,
    },
}

impl ObjectKind {
    /// Whether a container that carries the object's labels is one of its own, by its names, without a slash, and whether
    /// it has the shape of a worker's build step. Labels alone tell nothing: whatever a person starts from an image of ours
    /// inherits them.
    pub fn has_container<'a>(&self, mut names: impl Iterator<Item = &'a str>, is_build_step: bool) -> bool {
        match self {
            Self::Container { name } => names.any(|found| found == name),
            Self::Build { .. } => is_build_step,
            Self::WorkDir { .. } => false,
        }
    }
}

impl Ledger {
    /// The ledger in a node's state directory; made if it is not there.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, PathError> {
        let dir = state_dir.join("ledger");
        let files = Files::of_this_machine();
        files.make_dirs(&dir)?;
        Ok(Self { dir, files })
    }

    /// Records an object that is about to be made.
    ///
    /// # Errors
    /// The entry cannot be written; then the object must not be made.
    pub fn record(&self, entry: &LedgerEntry) -> Result<(), SpoolError> {
        let path = self.path(entry.object);
        self.files.replace_json(&path, entry)
    }

    /// Notes when an object was made to its end; nothing, where somebody has set the clock back since it was begun.
    ///
    /// # Errors
    /// The entry cannot be written.
    pub fn end(&self, object: Uuid, at: jiff::Timestamp) -> Result<(), SpoolError> {
        match self.get(object) {
            Some(entry) if entry.created_at <= at => {
                self.record(&LedgerEntry { ended_at: Some(at), ..entry })
            }
            _ => Ok(()),
        }
    }

    /// The entry of an object, if it is ours.
    #[must_use]
    pub fn get(&self, object: Uuid) -> Option<LedgerEntry> {
        serde_json::from_slice(&self.files.read_regular(&self.path(object), ENTRY_BYTES_MAX).ok()?).ok()
    }

    /// All entries; a damaged one is passed over and stays.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn entries(&self) -> Result<Vec<LedgerEntry>, PathError> {
        Ok(self.entries_and_damaged()?.0)
    }

    /// All entries, and the files of those that are damaged.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn entries_and_damaged(&self) -> Result<(Vec<LedgerEntry>, Vec<PathBuf>), PathError> {
        let (mut entries, mut damaged) = (Vec::new(), Vec::new());
        for name in self.files.list(&self.dir)? {
            let Some(object) = name.strip_suffix(".json").and_then(|object| object.parse().ok()) else {
                continue;
            };
            match self.get(object) {
                Some(entry) => entries.push(entry),
                // Not forgotten since it was listed.
                None if self.files.is_there(&self.path(object)) => damaged.push(self.path(object)),
                None => {}
            }
        }
        Ok((entries, damaged))
    }

    /// Forgets an object that is gone.
    ///
    /// # Errors
    /// The entry cannot be removed.
    pub fn forget(&self, object: Uuid) -> Result<(), PathError> {
        self.files.remove_file(&self.path(object))
    }

    pub(crate) fn state_dir(&self) -> &Path {
        // The ledger is a directory of it.
        self.dir.parent().unwrap_or(&self.dir)
    }

    fn path(&self, object: Uuid) -> PathBuf {
        self.dir.join(format!("{object}.json"))
    }
}
