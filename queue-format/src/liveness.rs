use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::OnPath;
use crate::files::Files;
use crate::{Owner, PathError};

/// Proof, for everybody on this node, that an incarnation lives: a lock that the kernel drops with its process.
///
/// The file lies in the node's state directory, never on NFS.
#[derive(Debug)]
pub struct LifeLock {
    path: PathBuf,
    file: File,
}

/// What a node knows of one of its incarnations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Its process holds the lock.
    Alive,
    /// Its process is gone.
    Dead,
    /// This state directory has never heard of it: not to be judged here.
    Unknown,
}

impl LifeLock {
    /// Takes the lock of a new incarnation.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn hold(state_dir: &Path, owner: &Owner) -> Result<Self, PathError> {
        let dir = state_dir.join("alive");
        Files::of_this_machine().make_dirs(&dir)?;
        let path = dir.join(owner.to_string());
        // Locked before it has its name: who looks at the name never sees a living incarnation unlocked.
        let staged = tempfile::Builder::new().prefix(".new-").tempfile_in(&dir).on_path("create in", &dir)?;
        fs2::FileExt::try_lock_exclusive(staged.as_file()).on_path("lock", staged.path())?;
        let file = staged.persist_noclobber(&path).map_err(|e| e.error).on_path("create", &path)?;
        Ok(Self { path, file })
    }

    /// Whether an incarnation lives.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn look(state_dir: &Path, owner: &Owner) -> Result<Life, PathError> {
        let path = state_dir.join("alive").join(owner.to_string());
        let file = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Life::Unknown),
            opened => opened.on_path("open", &path)?,
        };
        match fs2::FileExt::try_lock_shared(&file) {
            Ok(()) => Ok(Life::Dead),
            Err(e) if e.kind() == fs2::lock_contended_error().kind() => Ok(Life::Alive),
            Err(e) => Err(e).on_path("look at the lock", &path),
        }
    }

    /// Every incarnation that this state directory has heard of.
    ///
    /// # Errors
    /// The state directory cannot be listed.
    pub fn known(state_dir: &Path) -> Result<Vec<Owner>, PathError> {
        let names = Files::of_this_machine().list(&state_dir.join("alive"))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Forgets an incarnation whose every trace is gone.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget(state_dir: &Path, owner: &Owner) -> Result<(), PathError> {
        Files::of_this_machine().remove_file(&state_dir.join("alive").join(owner.to_string()))
    }

    /// The lock's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LifeLock {
    fn drop(&mut self) {
        // Closing the file drops the lock too; the file stays, so that others can tell dead from unknown.
        let _ = fs2::FileExt::unlock(&self.file);
    }
}
