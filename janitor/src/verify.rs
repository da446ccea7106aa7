//! The last look: between a listing and a removal the world went on.

use std::path::PathBuf;
use std::sync::Arc;

use queue_format::{LedgerEntry, Life, LifeLock, Owner};

use crate::error::{EngineError, JanitorError};
use crate::inventory::{Container, Image, Inventory, WorkDirState};
use crate::observe::{Engine, Files, allocated_bytes, look_at_work_dir, open_spool};
use crate::policy::{Candidate, Reason, Target, reason};
use crate::protect::{container_entry, image_entry, is_accepted, is_base};

/// Where a pass acts.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) files: Arc<Files>,
    pub(crate) engine: Option<Engine>,
}

/// What the last look gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
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

/// Whether a claim stands that did not when the listing was made. `now` knows the entry alone, as it is now.
#[must_use]
pub fn judge_claim(now: &Inventory, entry: &LedgerEntry) -> Option<Look> {
    reason(now, entry).is_none().then_some(Look::Keep("its claim stands again"))
}

/// What becomes of a container that was found as it is now, if it was found at all.
#[must_use]
pub fn judge_container(now: &Inventory, found: Option<&Container>) -> Look {
    match found {
        None => Look::Keep("it is gone"),
        Some(container) if container_entry(now, container).is_none() => Look::Keep("it is not ours"),
        Some(_) => Look::Remove(None),
    }
}

/// What becomes of an image that was found as it is now, if it was found at all.
#[must_use]
pub fn judge_image(now: &Inventory, found: Option<&Image>, candidate: &Candidate) -> Look {
    let Some(image) = found else { return Look::Keep("it is gone") };
    let is_spent = matches!(candidate.reason, Reason::Unused | Reason::DiskFull);
    match image_entry(now, image) {
        None => Look::Keep("it is not ours"),
        Some(_) if is_base(image) => Look::Keep("it is a base image"),
        Some(_) if now.is_named(image) => Look::Keep("a claimed task is to run in it"),
        Some(entry) if is_accepted(now, image, entry) && !is_spent => Look::Keep("its task is accepted"),
        Some(_) => Look::Remove(candidate.bytes),
    }
}

impl World {
    /// Whether a candidate may go, by its claim, its worker and itself as they are now.
    pub(crate) async fn look(&self, candidate: &Candidate) -> Result<Look, LookError> {
        match (&candidate.target, &candidate.entry) {
            (Target::Lease(owner), _) => Ok(self.on_files(owner, look_at_lease).await?),
            (Target::Lock(owner), _) => Ok(self.on_files(owner, look_at_lock).await?),
            (Target::Litter(path, _), _) => Ok(match path.symlink_metadata() {
                // What it is, the spool looks at again when it removes it.
                Ok(_) => Look::Remove(candidate.bytes),
                Err(_) => Look::Keep("it is gone"),
            }),
            (Target::Mirror(path), _) => Ok(match self.files.mirror_rests(path) {
                true => Look::Remove(candidate.bytes),
                false => Look::Keep("somebody uses it"),
            }),
            (_, None) => Ok(Look::Keep("the ledger does not know it")),
            (target, Some(entry)) => {
                let Some(now) = self.on_files(entry, Files::observe_one).await? else {
                    return Ok(Look::Keep("its ledger entry changed"));
                };
                if let Some(keep) = judge_claim(&now, entry) {
                    return Ok(keep);
                }
                match target {
                    Target::Container(id) => self.look_at_container(&now, id).await,
                    Target::Image(id) => self.look_at_image(now, id, candidate).await,
                    Target::WorkDir(path) => Ok(self.on_files(path, look_at_dir).await?),
                    _ => Ok(Look::Remove(None)),
                }
            }
        }
    }

    async fn look_at_container(&self, now: &Inventory, id: &str) -> Result<Look, LookError> {
        let Some(engine) = &self.engine else { return Ok(Look::Keep("the engine does not answer")) };
        match judge_container(now, engine.container(id).await?.as_ref()) {
            Look::Remove(_) => Ok(Look::Remove(engine.container_bytes(id).await)),
            keep => Ok(keep),
        }
    }

    async fn look_at_image(
        &self,
        mut now: Inventory,
        id: &str,
        candidate: &Candidate,
    ) -> Result<Look, LookError> {
        let Some(engine) = &self.engine else { return Ok(Look::Keep("the engine does not answer")) };
        let found = engine.image(id).await?;
        // A layer has no name: it is of use to builds alone.
        if found.as_ref().is_some_and(|image| !image.tags.is_empty()) {
            now.named_images = self.on_files(&(), |files, ()| files.named_images()).await?;
        }
        Ok(judge_image(&now, found.as_ref(), candidate))
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

#[cfg(test)]
mod tests;
