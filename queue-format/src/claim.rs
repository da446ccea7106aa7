use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::files::Moved;
use crate::lease::Held;
use crate::{
    Class, DoneClass, FailureReason, MANIFEST_FILE, Manifest, Owner, PathError, Spool, SpoolError, TaskName,
    TaskSpec, Verdict,
};

/// How often a task may be lost with its worker, or fail through the node's fault, before it is set aside.
pub const RETRIES_MAX: u32 = 5;

/// A task that is ours until its file is moved: by one of the methods here, or by somebody else.
#[derive(Debug)]
pub struct Claim {
    spool: Spool,
    owner: Owner,
    name: TaskName,
    class: Class,
    path: PathBuf,
    spec: TaskSpec,
    held: Held,
}

/// Why a claim could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The claim is no longer ours: this call moved nothing.
    #[error("the claim on {0} is gone: somebody moved or removed its file; the attempt is void")]
    Lost(TaskName),
    /// The spool cannot be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl From<PathError> for ClaimError {
    fn from(error: PathError) -> Self {
        Self::Spool(error.into())
    }
}

impl Claim {
    pub(crate) fn new(
        spool: &Spool,
        owner: &Owner,
        name: TaskName,
        class: Class,
        path: PathBuf,
        spec: TaskSpec,
        held: &Held,
    ) -> Self {
        held.add(&path);
        Self { spool: spool.clone(), owner: owner.clone(), name, class, path, spec, held: held.clone() }
    }

    /// What is to be done.
    #[must_use]
    pub fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    /// The class that it was claimed from.
    #[must_use]
    pub fn class(&self) -> &Class {
        &self.class
    }

    /// The claim's name; its token fences everything that is done under it.
    #[must_use]
    pub fn name(&self) -> &TaskName {
        &self.name
    }

    /// False once [`Lease::look_after`](crate::Lease::look_after) has seen that somebody removed or moved the
    /// file, or once the lease is revoked: then the attempt is void. Asks no file system.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.is_there(&self.path)
    }

    /// Publishes an attempt: its files, then its manifest, then the one rename that makes it count.
    /// Gives the directory of the results.
    ///
    /// # Errors
    /// [`ClaimError::Lost`] where the claim is gone; otherwise the spool cannot be written, and the claim is
    /// still ours.
    pub fn conclude(
        &self,
        manifest: &Manifest,
        attempt: &[(String, Vec<u8>)],
    ) -> Result<PathBuf, ClaimError> {
        let files = self.spool.files();
        let dir = self.spool.layout().attempt(&self.name.id, self.name.token);
        if !self.is_held() {
            // Gone since somebody moved it, or since our own last try was done although it failed.
            for target in self.targets(&manifest.verdict) {
                if files.is_left(&target)? {
                    return Ok(dir);
                }
            }
            return Err(ClaimError::Lost(self.name.clone()));
        }
        files.make_dirs(&dir)?;
        let mut digests = BTreeMap::new();
        for (name, bytes) in attempt {
            files.replace(&dir.join(name), bytes)?;
            digests.insert(name.clone(), blake3::hash(bytes).to_hex().to_string());
        }
        let manifest = Manifest { files: digests, ..manifest.clone() };
        files.replace_json(&dir.join(MANIFEST_FILE), &manifest)?;
        files.sync_dir(&dir)?;
        let target = match &manifest.verdict {
            Verdict::Accepted { class } => self.done(DoneClass::Accepted(*class)),
            Verdict::Completed => self.done(DoneClass::Completed),
            Verdict::Failed { reason, .. } => self.spool.dead_letter(*reason, &self.name)?,
        };
        self.move_to(&target)?;
        Ok(dir)
    }

    /// Where a verdict may have brought the task file.
    fn targets(&self, verdict: &Verdict) -> Vec<PathBuf> {
        match verdict {
            Verdict::Accepted { class } => vec![self.done(DoneClass::Accepted(*class))],
            Verdict::Completed => vec![self.done(DoneClass::Completed)],
            Verdict::Failed { reason, .. } => self.spool.dead_letters(*reason, &self.name),
        }
    }

    fn done(&self, class: DoneClass) -> PathBuf {
        let name = self.name.done_by(&self.owner).to_string();
        self.spool.layout().done_bucket(class, &self.name.id).join(name)
    }

    /// Hands the task back as it was: the worker stops, nothing is wrong with the task.
    ///
    /// # Errors
    /// As for [`Claim::conclude`].
    pub fn release(&self) -> Result<(), ClaimError> {
        self.move_to(&self.spool.layout().pending_class(&self.class).join(self.name.to_string()))
    }

    /// Hands the task back into the class of its content, with the priority that it was claimed with: for a worker that
    /// claimed it from a class which promised less, where a person had put it.
    ///
    /// # Errors
    /// As for [`Claim::conclude`].
    pub fn hand_over(&self) -> Result<(), ClaimError> {
        let class = Class { priority: self.class.priority, ..self.spec.class() };
        self.move_to(&self.spool.layout().pending_class(&class).join(self.name.to_string()))
    }

    /// Hands the task back through the node's fault, to be tried again not before `due_seconds` (since 1970);
    /// `why` is left with the attempt. After too many such retries it is left claimed and `false` is given: then
    /// [`Claim::conclude`] it as poison.
    ///
    /// # Errors
    /// As for [`Claim::conclude`].
    pub fn delay(&self, due_seconds: u64, why: &str) -> Result<bool, ClaimError> {
        if self.name.retries >= RETRIES_MAX {
            return Ok(false);
        }
        self.spool.leave_error(&self.name, why)?;
        let bucket = self.spool.layout().delayed().join(due_seconds.to_string()).join(self.class.to_string());
        self.move_to(&bucket.join(self.name.retried().to_string()))?;
        Ok(true)
    }

    /// Sets the task aside, as a person asked for in `control/cancel/`, and removes that wish.
    ///
    /// # Errors
    /// As for [`Claim::conclude`].
    pub fn cancel(&self) -> Result<(), ClaimError> {
        if !self.is_held() {
            return Err(ClaimError::Lost(self.name.clone()));
        }
        self.spool.leave_error(&self.name, "a person cancelled the task while it was worked on")?;
        self.move_to(&self.spool.dead_letter(FailureReason::Cancelled, &self.name)?)?;
        // It is done; a wish that stays is removed by a master.
        let _ = self.spool.uncancel(&self.name.id);
        Ok(())
    }

    fn move_to(&self, target: &Path) -> Result<(), ClaimError> {
        if self.held.is_revoked() {
            return Err(ClaimError::Lost(self.name.clone()));
        }
        match self.spool.files().bring(&self.path, target)? {
            Moved::Yes => {
                self.held.settle(&self.path);
                Ok(())
            }
            Moved::Gone => Err(ClaimError::Lost(self.name.clone())),
        }
    }
}

impl Drop for Claim {
    /// A task that is still in the lease directory is a stray now, and handed back in time.
    fn drop(&mut self) {
        self.held.give_up(&self.path);
    }
}
