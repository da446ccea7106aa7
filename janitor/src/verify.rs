//! The last look: between a listing and a removal the world went on.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use queue_format::{Life, LifeLock, Owner};

use crate::error::{EngineError, JanitorError};
use crate::inventory::{Inventory, WorkDirState};
use crate::observe::{Engine, Files, look_at_work_dir, open_spool};
use crate::policy::{Candidate, Target, reason};
use crate::protect::{container_entry, image_entry, is_accepted, is_base};

/// Entries of a directory that are counted to tell its size.
const MEASURED_ENTRIES_MAX: usize = 200_000;

/// Where a pass acts.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) files: Arc<Files>,
    pub(crate) engine: Option<Engine>,
}

/// What the last look gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is still a leftover; so many bytes are freed, where that is known.
    Remove(Option<u64>),
    /// It is not, or no longer.
    Keep(&'static str),
}

/// Why it could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Files(#[from] JanitorError),
}

impl World {
    /// Whether a candidate may go, by its claim, its worker and itself as they are now.
    pub(crate) async fn look(&self, candidate: &Candidate) -> Result<Look, LookError> {
        match (&candidate.target, &candidate.entry) {
            (Target::Lease(owner), _) => Ok(self.on_files(owner, look_at_lease).await?),
            (Target::Lock(owner), _) => Ok(self.on_files(owner, look_at_lock).await?),
            (_, None) => Ok(Look::Keep("the ledger does not know it")),
            (target, Some(entry)) => {
                let Some(now) = self.on_files(entry, Files::observe_one).await? else {
                    return Ok(Look::Keep("its ledger entry changed"));
                };
                if reason(&now, entry).is_none() {
                    return Ok(Look::Keep("its claim stands again"));
                }
                match target {
                    Target::Container(id) => self.look_at_container(&now, id).await,
                    Target::Image(id) => self.look_at_image(&now, id, candidate.bytes).await,
                    Target::WorkDir(path) => Ok(self.on_files(path, look_at_dir).await?),
                    Target::Entry(_) | Target::Lease(_) | Target::Lock(_) => Ok(Look::Remove(None)),
                }
            }
        }
    }

    async fn look_at_container(&self, now: &Inventory, id: &str) -> Result<Look, LookError> {
        let Some(engine) = &self.engine else { return Ok(Look::Keep("the engine does not answer")) };
        match engine.container(id).await? {
            None => Ok(Look::Keep("it is gone")),
            Some(container) if container_entry(now, &container).is_none() => Ok(Look::Keep("it is not ours")),
            Some(_) => Ok(Look::Remove(engine.container_bytes(id).await)),
        }
    }

    async fn look_at_image(&self, now: &Inventory, id: &str, bytes: Option<u64>) -> Result<Look, LookError> {
        let Some(engine) = &self.engine else { return Ok(Look::Keep("the engine does not answer")) };
        let Some(image) = engine.image(id).await? else { return Ok(Look::Keep("it is gone")) };
        Ok(match image_entry(now, &image) {
            None => Look::Keep("it is not ours"),
            Some(_) if is_base(&image) => Look::Keep("it is a base image"),
            Some(entry) if is_accepted(now, &image, entry) => Look::Keep("its task is accepted"),
            Some(_) => Look::Remove(bytes),
        })
    }

    /// Runs something that blocks on the spool or the node's disk.
    pub(crate) async fn on_files<A, T>(
        &self,
        about: &A,
        ask: fn(&Files, &A) -> Result<T, JanitorError>,
    ) -> Result<T, JanitorError>
    where
        A: Clone + Send + 'static,
        T: Send + 'static,
    {
        let (files, about) = (Arc::clone(&self.files), about.clone());
        tokio::task::spawn_blocking(move || ask(&files, &about)).await?
    }
}

fn look_at_lease(files: &Files, owner: &Owner) -> Result<Look, JanitorError> {
    Ok(match LifeLock::look(&files.state_dir, owner)? {
        Life::Dead => Look::Remove(None),
        Life::Left => Look::Keep("its worker left its attempts to a successor"),
        Life::Alive | Life::Unknown => Look::Keep("its worker is not proven dead"),
    })
}

fn look_at_lock(files: &Files, owner: &Owner) -> Result<Look, JanitorError> {
    if open_spool(files)?.layout().lease(owner).symlink_metadata().is_ok() {
        return Ok(Look::Keep("its lease is there again"));
    }
    Ok(match LifeLock::look(&files.state_dir, owner)? {
        // Without a lease nobody goes on with what it left.
        Life::Dead | Life::Left => Look::Remove(None),
        Life::Alive | Life::Unknown => Look::Keep("its worker is not proven dead"),
    })
}

fn look_at_dir(files: &Files, path: &PathBuf) -> Result<Look, JanitorError> {
    Ok(match look_at_work_dir(&files.state_dir.join("work"), path) {
        WorkDirState::Inside(found) if found == *path => Look::Remove(allocated_bytes(path)),
        WorkDirState::Missing => Look::Keep("it is gone"),
        WorkDirState::Inside(_) | WorkDirState::Outside => {
            Look::Keep("it does not lie where work directories do")
        }
    })
}

/// What a tree takes on disk; `None` where it is too large to count.
fn allocated_bytes(root: &Path) -> Option<u64> {
    let (mut bytes, mut entries, mut waiting) = (0, 0, vec![root.to_owned()]);
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).ok()? {
            let entry = entry.ok()?;
            let found = entry.metadata().ok()?;
            // stat counts in units of 512 bytes, whatever the file system's blocks are.
            bytes += found.blocks() * 512;
            entries += 1;
            if entries > MEASURED_ENTRIES_MAX {
                return None;
            }
            if found.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
