//! A directory for one attempt, in the node's ledger as long as it exists.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use queue_format::{Labels, Ledger, LedgerEntry, ObjectKind, PathError, SpoolError};
use uuid::Uuid;

/// Removed when it is dropped.
pub(crate) struct WorkDir<'a> {
    ledger: &'a Ledger,
    object: Uuid,
    pub(crate) path: PathBuf,
}

impl<'a> WorkDir<'a> {
    pub(crate) fn make(state_dir: &Path, ledger: &'a Ledger, labels: &Labels) -> Result<Self, SpoolError> {
        let object = Uuid::now_v7();
        let path = state_dir.join("work").join(object.to_string());
        ledger.record(&LedgerEntry {
            object,
            kind: ObjectKind::WorkDir { path: path.clone() },
            spool: labels.spool,
            owner: labels.owner.clone(),
            task: labels.task.clone(),
            token: labels.token,
            created_at: Timestamp::now(),
        })?;
        std::fs::create_dir_all(&path).map_err(|source| PathError {
            action: "make directory",
            path: path.clone(),
            source,
        })?;
        Ok(Self { ledger, object, path })
    }
}

impl Drop for WorkDir<'_> {
    fn drop(&mut self) {
        // What cannot be removed now stays in the ledger, and the janitor takes it later.
        if std::fs::remove_dir_all(&self.path).is_ok() {
            let _ = self.ledger.forget(self.object);
        }
    }
}
