//! The working directory: a lock, and one scratch directory a build.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::build::progress::Progress;
use crate::error::BuildError;

const LOCK_POLL: Duration = Duration::from_millis(500);

/// Another build may make a root and several images first.
const LOCK_LIMIT: Duration = Duration::from_secs(3600);

const LOCK_NAME: &str = "base-images.lock";

const SCRATCH_PREFIX: &str = "base-image-";

/// A working directory that this build alone uses.
pub(super) struct WorkDirectory {
    path: PathBuf,
    _lock: File,
}

impl WorkDirectory {
    /// Waits for other builds in the same directory, then removes what interrupted ones left there.
    pub(super) async fn lock(
        path: &Path,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Self, BuildError> {
        std::fs::create_dir_all(path).map_err(BuildError::io(path))?;
        let lock_path = path.join(LOCK_NAME);
        let lock = File::create(&lock_path).map_err(BuildError::io(&lock_path))?;
        let attempts = LOCK_LIMIT.as_millis() / LOCK_POLL.as_millis();
        for attempt in 0..attempts {
            match lock.try_lock() {
                Ok(()) => {
                    remove_stale_beneath(path);
                    return Ok(Self { path: path.to_path_buf(), _lock: lock });
                }
                Err(TryLockError::WouldBlock) if attempt == 0 => progress(Progress::Waiting),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(BuildError::Io { path: lock_path, source }),
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
        Err(BuildError::Busy { path: lock_path, waited_seconds: LOCK_LIMIT.as_secs() })
    }

    /// A new directory. apt's own user must be able to enter it.
    pub(super) fn scratch(&self) -> Result<Scratch, BuildError> {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = tempfile::Builder::new()
            .prefix(SCRATCH_PREFIX)
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir_in(&self.path);
        scratch.map(|scratch| Scratch { path: scratch.keep() }).map_err(BuildError::io(&self.path))
    }
}

/// A directory that is removed when dropped, unless something is mounted in it.
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove_unless_mounted(&self.path);
    }
}

/// Removes what interrupted builds left there, unless one goes on.
pub(super) fn remove_stale(path: &Path) {
    if let Ok(lock) = File::open(path.join(LOCK_NAME))
        && lock.try_lock().is_ok()
    {
        remove_stale_beneath(path);
    }
}

fn remove_stale_beneath(path: &Path) {
    let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(SCRATCH_PREFIX)) {
        remove_unless_mounted(&entry.path());
    }
}

/// A root in which the host's /dev/shm or /sys is still mounted must not be emptied: that would empty the host's.
fn remove_unless_mounted(path: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if !mounts.contains(&*path.to_string_lossy()) {
        // What still writes there keeps it from going; the next build removes the rest.
        let _ = std::fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn removes_what_an_interrupted_build_left() {
        let directory = tempfile::tempdir().unwrap();
        let stale = directory.path().join("base-image-abc/deep");
        let other = directory.path().join("other");
        std::fs::create_dir_all(&stale).unwrap();
        std::fs::create_dir_all(&other).unwrap();
        let work = WorkDirectory::lock(directory.path(), &mut |_| {}).await.unwrap();
        assert!(!stale.exists() && other.exists());
        let scratch = work.scratch().unwrap().path().to_path_buf();
        assert!(!scratch.exists());
    }

    #[tokio::test]
    async fn lets_one_build_in_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = WorkDirectory::lock(directory.path(), &mut |_| {}).await.unwrap();
        let (mut first, mut news) = (Some(first), Vec::new());
        let mut release = |progress| {
            news.push(progress);
            first.take();
        };
        WorkDirectory::lock(directory.path(), &mut release).await.unwrap();
        assert_eq!(news, [Progress::Waiting]);
    }
}
