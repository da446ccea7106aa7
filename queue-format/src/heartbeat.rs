use std::collections::{BTreeMap, BTreeSet};

use crate::files::Moved;
use crate::{Owner, PathError, Spool, SpoolError};

/// The heartbeat of one incarnation: a file in `nodes/` whose *name* counts, `<owner>.<counter>`.
///
/// A name cannot be half-written and no clock is compared: whoever sees the same name for long enough by its own
/// clock takes the incarnation for dead, and says so by moving the file away. The next beat then fails.
#[derive(Debug)]
pub struct Heartbeat {
    spool: Spool,
    owner: Owner,
    counter: u64,
}

impl Heartbeat {
    /// The first beat of a new incarnation.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn begin(spool: &Spool, owner: Owner) -> Result<Self, PathError> {
        let this = Self { spool: spool.clone(), owner, counter: 0 };
        spool.files().write_new(&this.path(), b"")?;
        Ok(this)
    }

    /// Goes on with the heartbeat of an incarnation whose process is gone; `None` where somebody has taken it away. The
    /// caller knows that the process is gone: [`LifeLock::take_over`](crate::LifeLock::take_over).
    ///
    /// # Errors
    /// The heartbeats cannot be listed.
    pub fn resume(spool: &Spool, owner: Owner) -> Result<Option<Self>, PathError> {
        let last = spool.incarnations()?.remove(&owner).flatten();
        Ok(last.map(|counter| Self { spool: spool.clone(), owner, counter }))
    }

    /// One more beat.
    ///
    /// # Errors
    /// [`SpoolError::LeaseClosed`] where somebody has taken us for dead: everything that runs for this incarnation
    /// must end. Any other error: no beat was made, as far as is known.
    pub fn beat(&mut self) -> Result<(), SpoolError> {
        let from = self.path();
        self.counter += 1;
        let error = match self.spool.files().rename(&from, &self.path()) {
            Ok(Moved::Yes) => return Ok(()),
            Ok(Moved::Gone) => self.spool.nothing_left_of(&self.owner),
            Err(error) => error.into(),
        };
        self.counter -= 1;
        Err(error)
    }

    /// Ends the incarnation, when all that it held is settled.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn end(self) -> Result<(), PathError> {
        self.spool.files().remove_file(&self.path())
    }

    fn path(&self) -> std::path::PathBuf {
        self.spool.layout().nodes().join(format!("{}.{}", self.owner, self.counter))
    }
}

impl Spool {
    /// Every incarnation that left a trace, with its last beat if it has a heartbeat.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn incarnations(&self) -> Result<BTreeMap<Owner, Option<u64>>, PathError> {
        let mut found: BTreeMap<Owner, Option<u64>> = BTreeMap::new();
        for dir in [self.layout().claimed(), self.layout().tmp()] {
            let owners = self.files().list(&dir)?;
            found.extend(owners.iter().filter_map(|name| Some((name.parse().ok()?, None))));
        }
        for name in self.files().list(&self.layout().nodes())? {
            if let Some((owner, counter)) = parse(&name) {
                let last = found.entry(owner).or_default();
                *last = (*last).max(Some(counter));
            }
        }
        Ok(found)
    }

    /// The incarnations that have a heartbeat, be it old or new.
    pub(crate) fn heartbeats(&self) -> Result<BTreeSet<Owner>, PathError> {
        let names = self.files().list(&self.layout().nodes())?;
        Ok(names.iter().filter_map(|name| Some(parse(name)?.0)).collect())
    }

    /// Moves the heartbeat of an incarnation away. Gives whether it is gone: false where it beats on.
    pub(crate) fn stop_heartbeat(&self, owner: &Owner) -> Result<bool, PathError> {
        let nodes = self.layout().nodes();
        for name in self.files().list(&nodes)? {
            if parse(&name).is_some_and(|(beating, _)| beating == *owner)
                && self.files().rename(&nodes.join(&name), &self.layout().nodes_gone().join(&name))?
                    == Moved::Gone
            {
                let beating = self.incarnations()?.get(owner).copied().flatten();
                return Ok(beating.is_none());
            }
        }
        Ok(true)
    }
}

/// Whose heartbeat a file in `nodes/` is, and its counter.
pub(crate) fn parse(name: &str) -> Option<(Owner, u64)> {
    let (owner, counter) = name.rsplit_once('.')?;
    Some((owner.parse().ok()?, counter.parse().ok()?))
}
