use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;
use queue_format::{
    Ledger, LedgerEntry, LifeLock, LitterAges, ObjectKind, Owner, Spool, SpoolId, TaskId, Token,
    WaitingImages,
};

use systemd::Notifier;

use crate::error::JanitorError;
use crate::inventory::{ClaimKey, Inventory, Objects, WorkDirState};
use crate::named::NamedImages;

/// Waiting tasks that are asked which image they are to run in.
const WAITING_READ_MAX: usize = 5000;

/// Where the files of a node lie.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) spool_root: PathBuf,
    pub(crate) spool_id: SpoolId,
    pub(crate) state_dir: PathBuf,
    pub(crate) node: String,
    pub(crate) notifier: Notifier,
    pub(crate) ages: LitterAges,
    pub(crate) clock: fn() -> Timestamp,
    pub(crate) waiting: Arc<Mutex<WaitingImages>>,
}

impl Files {
    /// What ledger, locks and spool say of everything. Blocks.
    pub(crate) fn observe(&self, objects: Option<Objects>) -> Result<Inventory, JanitorError> {
        let (entries, damaged) = Ledger::open(&self.state_dir)?.entries_and_damaged()?;
        let spool = open_spool(self)?;
        let leases = spool.owners_on(&self.node)?.into_iter().collect();
        // A dead master's lock is the proof by which another adopts what it had taken from incoming/.
        let intakes = spool.intakes_on(&self.node)?;
        let mut known = LifeLock::known(&self.state_dir)?;
        known.retain(|owner| !intakes.contains(owner));
        let named_images = images_of_claims(&spool, &leases)?;
        Ok(Inventory { named_images, damaged, ..self.look(&spool, objects, entries, leases, &known)? })
    }

    /// What they say now of one object; `None`: the ledger no longer has it as it was. Blocks.
    pub(crate) fn observe_one(&self, entry: &LedgerEntry) -> Result<Option<Inventory>, JanitorError> {
        let found = Ledger::open(&self.state_dir)?.get(entry.object).filter(|found| found == entry);
        let Some(found) = found else { return Ok(None) };
        let leases = BTreeSet::from([entry.owner.clone()]);
        self.look(&open_spool(self)?, None, vec![found], leases, &[]).map(Some)
    }

    /// What the ledger says, and nothing else. Blocks.
    pub(crate) fn ledger_alone(&self) -> Result<Inventory, JanitorError> {
        let entries = Ledger::open(&self.state_dir)?.entries()?;
        let ledger = entries.into_iter().map(|entry| (entry.object, entry)).collect();
        Ok(Inventory { ledger, now: (self.clock)(), ..Inventory::of_nothing(self.spool_id, &self.node) })
    }

    /// The images that claimed tasks of this node are to run in, as they are now. Blocks.
    pub(crate) fn named_images(&self) -> Result<NamedImages, JanitorError> {
        let spool = open_spool(self)?;
        let images = images_of_claims(&spool, &spool.owners_on(&self.node)?.into_iter().collect())?;
        // Of an unmounted spool all lists are empty.
        spool.is_still_there()?;
        Ok(images)
    }

    /// The images that tasks are to run in which wait, and whether these were all. Blocks.
    pub(crate) fn waiting_images(&self) -> Result<(NamedImages, bool), JanitorError> {
        let spool = open_spool(self)?;
        let mut last = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (images, are_all) = spool.images_of_waiting(WAITING_READ_MAX, &mut last)?;
        spool.is_still_there()?;
        Ok((images.into_iter().collect(), are_all))
    }

    /// The server's clock, by which the ages of its files count; this node's where it does not tell.
    pub(crate) fn spool_time(&self, spool: &Spool) -> SystemTime {
        spool.server_time().unwrap_or_else(|_| (self.clock)().into())
    }

    fn look(
        &self,
        spool: &Spool,
        objects: Option<Objects>,
        entries: Vec<LedgerEntry>,
        leases: BTreeSet<Owner>,
        known: &[Owner],
    ) -> Result<Inventory, JanitorError> {
        let work = self.state_dir.join("work");
        let work_dirs = entries.iter().filter_map(|entry| match &entry.kind {
            ObjectKind::WorkDir { path } => Some((entry.object, look_at_work_dir(&work, path))),
            ObjectKind::Container { .. } | ObjectKind::Build { .. } => None,
        });
        let work_dirs = work_dirs.collect();
        let claims = claims(spool, &leases)?;
        let accepted = accepted(spool, &entries, &claims)?;
        // An unmounted spool looks like one where nothing is claimed: that it was there to the end is asked last.
        spool.is_still_there()?;
        let owners: BTreeSet<&Owner> =
            entries.iter().map(|entry| &entry.owner).chain(&leases).chain(known).collect();
        let mut lives = BTreeMap::new();
        for owner in owners.into_iter().filter(|owner| owner.node() == self.node) {
            lives.insert(owner.clone(), LifeLock::look(&self.state_dir, owner)?);
        }
        let ledger = entries.into_iter().map(|entry| (entry.object, entry)).collect();
        let (spool, node) = (self.spool_id, self.node.clone());
        let now = (self.clock)();
        Ok(Inventory {
            objects,
            ledger,
            work_dirs,
            claims,
            accepted,
            leases,
            lives,
            now,
            ..Inventory::of_nothing(spool, &node)
        })
    }
}

/// The spool, if it is still ours.
pub(crate) fn open_spool(files: &Files) -> Result<Spool, JanitorError> {
    let spool = Spool::open(&files.spool_root)?;
    spool.expect_id(files.spool_id)?;
    Ok(spool)
}

fn claims(spool: &Spool, owners: &BTreeSet<Owner>) -> Result<BTreeSet<ClaimKey>, JanitorError> {
    let mut claims = BTreeSet::new();
    for owner in owners {
        let names = spool.claims_of(owner)?.into_iter();
        claims.extend(names.map(|name| ClaimKey { owner: owner.clone(), task: name.id, token: name.token }));
    }
    Ok(claims)
}

fn images_of_claims(spool: &Spool, owners: &BTreeSet<Owner>) -> Result<NamedImages, JanitorError> {
    let mut images = NamedImages::default();
    for owner in owners {
        images.extend(spool.images_of_claims(owner)?);
    }
    Ok(images)
}

/// What `done/` says of the tasks whose images the ledger has. Costs a listing of each class for each bucket that they fall into.
fn accepted(
    spool: &Spool,
    entries: &[LedgerEntry],
    claims: &BTreeSet<ClaimKey>,
) -> Result<BTreeSet<(TaskId, Token)>, JanitorError> {
    let built = entries.iter().filter(|entry| matches!(entry.kind, ObjectKind::Build { .. }));
    let ended = built.filter(|entry| !claims.contains(&ClaimKey::of(entry)));
    let tasks: BTreeSet<&TaskId> = ended.map(|entry| &entry.task).collect();
    let by_bucket: BTreeMap<String, &TaskId> = tasks.iter().map(|task| (task.bucket(), *task)).collect();
    let mut accepted = BTreeSet::new();
    for task in by_bucket.into_values() {
        let near = spool.accepted_near(task)?.into_iter().filter(|name| tasks.contains(&name.id));
        accepted.extend(near.map(|name| (name.id, name.token)));
    }
    Ok(accepted)
}

/// Where a directory of the ledger truly lies: below `work` by its parents' canonical path, itself no symbolic link.
pub(crate) fn look_at_work_dir(work: &Path, path: &Path) -> WorkDirState {
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => WorkDirState::Missing,
        Ok(found) if found.is_dir() => {
            true_path(work, path).map_or(WorkDirState::Outside, WorkDirState::Inside)
        }
        _ => WorkDirState::Outside,
    }
}

fn true_path(work: &Path, path: &Path) -> Option<PathBuf> {
    let (work, parent) = (work.canonicalize().ok()?, path.parent()?.canonicalize().ok()?);
    // `file_name` is None for `..`; a trailing `.` is not part of it.
    let name = path.file_name()?;
    parent.starts_with(&work).then(|| parent.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_true_directories_below_work_are_inside() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().canonicalize().expect("path");
        let work = root.join("work");
        fs::create_dir_all(work.join("a/deep")).expect("dirs");
        fs::create_dir_all(root.join("elsewhere/x")).expect("dirs");
        fs::write(work.join("file"), "").expect("file");
        symlink(root.join("elsewhere"), work.join("link")).expect("link");
        symlink(&work, root.join("alias")).expect("link");
        let check = |path: &str, expected: WorkDirState| {
            assert_eq!(look_at_work_dir(&work, &root.join(path)), expected, "{path}");
        };
        check("work/a", WorkDirState::Inside(work.join("a")));
        check("work/a/deep", WorkDirState::Inside(work.join("a/deep")));
        check("alias/a", WorkDirState::Inside(work.join("a")));
        check("work/gone", WorkDirState::Missing);
        check("work", WorkDirState::Outside);
        check("work/a/..", WorkDirState::Outside);
        check("work/../elsewhere", WorkDirState::Outside);
        check("work/link", WorkDirState::Outside);
        check("work/link/x", WorkDirState::Outside);
        check("work/file", WorkDirState::Outside);
        check("elsewhere/x", WorkDirState::Outside);
        check("/", WorkDirState::Outside);
    }
}
