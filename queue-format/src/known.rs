use std::collections::{BTreeSet, HashSet};

use uuid::Uuid;

use crate::{PathError, Spool, TaskId};

/// The ids that a spool has, in whatever state: 16 bytes each, so that a million fit a small daemon.
///
/// Ids appear through the ledger only (or a person's hand): while its sources are those that were seen, nothing is
/// listed again.
#[derive(Debug, Default)]
pub struct Known {
    ids: HashSet<u128>,
    sources: BTreeSet<Uuid>,
    is_complete: bool,
}

impl Known {
    /// Adds an id; false where the spool had it.
    pub(crate) fn insert(&mut self, id: &TaskId) -> bool {
        self.ids.insert(digest(id))
    }

    pub(crate) fn has(&self, id: &TaskId) -> bool {
        self.ids.contains(&digest(id))
    }

    /// Whatever this source brings, we insert.
    pub(crate) fn note(&mut self, source: Uuid) {
        self.sources.insert(source);
    }

    /// Lists the whole spool the next time.
    pub(crate) fn forget(&mut self) {
        self.is_complete = false;
    }

    pub(crate) fn refresh(&mut self, spool: &Spool) -> Result<(), PathError> {
        let ledger = spool.layout().ledger();
        // What this node remembers of it may lack what another has just published.
        spool.files().refresh(&ledger)?;
        let names = spool.files().list(&ledger)?;
        let sources: BTreeSet<Uuid> = names.iter().filter_map(|name| name.parse().ok()).collect();
        if self.is_complete && sources.is_subset(&self.sources) {
            return Ok(());
        }
        self.ids.clear();
        spool.visit_surely(|located| self.ids.insert(digest(&located.name.id)))?;
        self.sources = sources;
        self.is_complete = true;
        Ok(())
    }
}

fn digest(id: &TaskId) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&blake3::hash(id.as_str().as_bytes()).as_bytes()[..16]);
    u128::from_le_bytes(bytes)
}
