//! A directory for one attempt, in the node's ledger as long as it exists.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use queue_format::{Labels, Ledger, ObjectKind, PathError, SpoolError};
use systemd::state_file;
use uuid::Uuid;

/// Does what may wait for a disk or a mount for long, and leaves the runtime's threads to the other slots meanwhile: to
/// the timers of their deadlines above all. The runtime has several threads.
pub(crate) fn on_disk<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// Removed when it is dropped.
pub(crate) struct WorkDir<'a> {
    ledger: &'a Ledger,
    object: Uuid,
    pub(crate) path: PathBuf,
}

impl<'a> WorkDir<'a> {
    pub(crate) fn make(state_dir: &Path, ledger: &'a Ledger, labels: &Labels) -> Result<Self, SpoolError> {
        let labels = Labels { object: Uuid::now_v7(), ..labels.clone() };
        let object = labels.object;
        let path = state_dir.join("work").join(object.to_string());
        ledger.record(&labels.entry(ObjectKind::WorkDir { path: path.clone() }, Timestamp::now()))?;
        std::fs::create_dir_all(&path).map_err(|source| PathError {
            action: "make directory",
            path: path.clone(),
            source,
        })?;
        Ok(Self { ledger, object, path })
    }
}

impl Drop for WorkDir<'_> {
    fn drop(&mut self) {
        // What cannot be removed now stays in the ledger, and the janitor takes it later.
        if on_disk(|| state_file::remove_tree(&self.path)).is_ok() {
            let _ = self.ledger.forget(self.object);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_disk_that_hangs_holds_up_nobody_else() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (free, until_free) = channel();
        let hung =
            runtime.spawn(async move { on_disk(move || until_free.recv_timeout(Duration::from_secs(60))) });
        let other = runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            free.send(())
        });
        runtime.block_on(async { other.await.unwrap().unwrap() });
        runtime.block_on(hung).unwrap().unwrap();
    }
}
