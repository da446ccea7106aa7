use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::OnPath;
use crate::files::Files;
use crate::{Owner, PathError};

/// Looks at a lock that somebody else may only be looking at too, and the pause between them.
const LOOKS_MAX: u32 = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(20);

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
    /// Its process is gone and left attempts behind that its successor on this node goes on with: the incarnation lives
    /// as long as its heartbeat is not taken away.
    Left,
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
    /// The state directory cannot be read: that proves nobody dead.
    pub fn look(state_dir: &Path, owner: &Owner) -> Result<Life, PathError> {
        let path = state_dir.join("alive").join(owner.to_string());
        let file = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Life::Unknown),
            opened => opened.on_path("open", &path)?,
        };
        match fs2::FileExt::try_lock_shared(&file) {
            Ok(()) => {
                let attempts = Self::attempts_dir(state_dir, owner);
                let is_left = match std::fs::read_dir(&attempts) {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
                    left => left.on_path("list", &attempts)?.next().is_some(),
                };
                Ok(if is_left { Life::Left } else { Life::Dead })
            }
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

    /// Goes on as an incarnation whose process is gone. `None` where it lives, or was never on this node.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn take_over(state_dir: &Path, owner: &Owner) -> Result<Option<Self>, PathError> {
        let path = state_dir.join("alive").join(owner.to_string());
        let file = match File::options().read(true).write(true).open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.on_path("open", &path)?,
        };
        for _ in 0..LOOKS_MAX {
            match fs2::FileExt::try_lock_exclusive(&file) {
                Ok(()) => return Ok(Some(Self { path, file })),
                Err(e) if e.kind() == fs2::lock_contended_error().kind() => std::thread::sleep(LOOK_PAUSE),
                Err(e) => return Err(e).on_path("lock", &path),
            }
        }
        Ok(None)
    }

    /// Where an incarnation keeps what its successor on this node needs to go on with its attempts.
    #[must_use]
    pub fn attempts_dir(state_dir: &Path, owner: &Owner) -> PathBuf {
        state_dir.join("attempts").join(owner.to_string())
    }

    /// Forgets what an incarnation left for a successor: nobody goes on with it.
    ///
    /// # Errors
    /// The directory cannot be removed.
    pub fn forget_attempts(state_dir: &Path, owner: &Owner) -> Result<(), PathError> {
        let dir = Self::attempts_dir(state_dir, owner);
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.on_path("remove directory", &dir),
        }
    }

    /// Forgets an incarnation whose every trace is gone.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget(state_dir: &Path, owner: &Owner) -> Result<(), PathError> {
        Self::forget_attempts(state_dir, owner)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;

    #[test]
    fn only_what_is_proven_dead_is_dead() {
        let dir = tempfile::tempdir().expect("dir");
        let owner = Owner::new("here", Incarnation::new(uuid::Uuid::now_v7()));
        let look = || LifeLock::look(dir.path(), &owner);
        assert_eq!(look().expect("a look"), Life::Unknown);
        let lock = LifeLock::hold(dir.path(), &owner).expect("a lock");
        assert_eq!(look().expect("a look"), Life::Alive);
        drop(lock);
        assert_eq!(look().expect("a look"), Life::Dead);
        let attempts = LifeLock::attempts_dir(dir.path(), &owner);
        std::fs::create_dir_all(&attempts).expect("made");
        assert_eq!(look().expect("a look"), Life::Dead);
        std::fs::write(attempts.join("one"), "").expect("written");
        assert_eq!(look().expect("a look"), Life::Left);
        std::fs::remove_dir_all(&attempts).expect("removed");
        std::fs::write(&attempts, "").expect("written");
        look().expect_err("what cannot be listed may be full");
    }
}
