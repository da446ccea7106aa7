use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::fcntl::{AT_FDCWD, renameat};
use queue_format::Litter;
use uuid::Uuid;

use super::host::{Files, open_spool};
use crate::error::JanitorError;
use crate::inventory::Mirror;
use crate::policy::{Target, mirror_rests};

/// Entries of a directory that are counted to tell its size.
const MEASURED_ENTRIES_MAX: usize = 200_000;

/// What a copy of a repository is called while it is being removed.
const REMOVED_PREFIX: &str = ".gone-";

/// What is looked at now and then only.
#[derive(Clone, Debug, Default)]
pub(crate) struct House {
    pub(crate) litter: Vec<Litter>,
    pub(crate) mirrors: Vec<Mirror>,
}

impl House {
    /// Leaves out what a pass has settled, until the house is looked at again: what is gone takes no place of what is not.
    pub(crate) fn leave_out(&mut self, settled: &[Target]) {
        let is_settled = |found: &PathBuf| {
            settled.iter().any(
                |target| matches!(target, Target::Litter(path, _) | Target::Mirror(path) if path == found),
            )
        };
        self.litter.retain(|litter| !is_settled(&litter.path));
        self.mirrors.retain(|mirror| !is_settled(&mirror.path));
    }
}

impl Files {
    /// Leftovers of the spool, of one bucket of its results. Blocks.
    pub(crate) fn litter(&self, bucket: u8) -> Result<Vec<Litter>, JanitorError> {
        let spool = open_spool(self)?;
        let now = self.spool_time(&spool);
        let litter = spool.litter(&self.node, bucket, &self.ages, now)?;
        self.notifier.watchdog();
        Ok(litter)
    }

    /// Copies of repositories, which lie on this node. Blocks.
    pub(crate) fn mirrors(&self) -> Vec<Mirror> {
        let dir = self.state_dir.join("repositories");
        let mut mirrors = Vec::new();
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_copy = is_removed(&path) || path.extension().is_some_and(|end| end == "git");
            let is_mirror = is_copy && entry.file_type().is_ok_and(|kind| kind.is_dir());
            if let Some(used_at) = mirror_used_at(&path).filter(|_| is_mirror) {
                let bytes = allocated_bytes(&path);
                mirrors.push(Mirror { path, bytes, used_at });
                self.notifier.watchdog();
            }
        }
        mirrors
    }

    /// Removes a copy of a repository that still rests; false where somebody uses it. Blocks.
    pub(crate) fn remove_mirror(&self, path: &Path) -> Result<bool, JanitorError> {
        if is_removed(path) {
            return crate::here::remove_dir(path).map(|()| true);
        }
        let failed = |source| JanitorError::State { action: "remove", path: path.to_owned(), source };
        // Who is about to use it has the one lock, who reads it the other.
        let (is_lock_new, rested) = (!lock_of(path).exists(), self.mirror_rests(path));
        let lock = File::options().create(true).append(true).open(lock_of(path)).map_err(failed)?;
        let readers = File::open(path).map_err(failed)?;
        // A lock that was just made tells nothing of when the copy was asked for.
        let rests = || if is_lock_new { rested } else { self.mirror_rests(path) };
        if lock.try_lock().is_err() || readers.try_lock().is_err() || !rests() {
            return Ok(false);
        }
        // What is half removed must not look like a repository, whoever is killed meanwhile.
        let removed = path.with_file_name(format!("{REMOVED_PREFIX}{}", Uuid::now_v7().simple()));
        // In the state directory, where no other node renames anything.
        renameat(AT_FDCWD, path, AT_FDCWD, &removed).map_err(|error| failed(error.into()))?;
        crate::here::remove_dir(&removed)?;
        Ok(true)
    }

    /// Whether somebody fetches or reads it just now.
    pub(crate) fn mirror_is_held(&self, path: &Path) -> bool {
        let is_locked = |path: PathBuf| {
            File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
        };
        !is_removed(path) && (is_locked(lock_of(path)) || is_locked(path.to_owned()))
    }

    /// Whether nobody has asked for it for a while.
    pub(crate) fn mirror_rests(&self, path: &Path) -> bool {
        is_removed(path) || mirror_used_at(path).is_some_and(|used_at| mirror_rests(used_at, (self.clock)()))
    }
}

/// Whether it was a copy of a repository, whose removal was cut short.
pub(crate) fn is_removed(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(REMOVED_PREFIX))
}

/// Workers make its lock anew whenever they ask for it.
fn mirror_used_at(path: &Path) -> Option<Timestamp> {
    let found = lock_of(path).metadata().or_else(|_| path.metadata()).ok()?;
    Timestamp::try_from(found.modified().ok()?).ok()
}

fn lock_of(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// What a tree takes on disk, as far as it is counted: what vanishes meanwhile takes nothing.
pub(crate) fn allocated_bytes(root: &Path) -> u64 {
    allocated(root, MEASURED_ENTRIES_MAX)
}

fn allocated(root: &Path, entries_max: usize) -> u64 {
    let (mut bytes, mut entries, mut waiting) = (0, 0, vec![root.to_owned()]);
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            // stat counts in units of 512 bytes, whatever the file system's blocks are.
            bytes += found.blocks() * 512;
            entries += 1;
            if entries >= entries_max {
                return bytes;
            }
            if found.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_to_count_takes_what_was_counted() {
        let dir = tempfile::tempdir().expect("dir");
        for nth in 0..10 {
            fs::write(dir.path().join(nth.to_string()), [1; 5000]).expect("written");
        }
        let (some, all) = (allocated(dir.path(), 4), allocated(dir.path(), 100));
        assert!((4 * 5000..all).contains(&some), "{some} of {all}");
        assert_eq!(allocated(&dir.path().join("gone"), 4), 0);
    }
}
