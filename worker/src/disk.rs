//! The node's disks, looked at before claims: a task that cannot finish must not be begun.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a look that found room is good for: on NFS it is a call to the server.
const LOOK_PERIOD: Duration = Duration::from_secs(30);

/// What must stay free where work needs room.
#[derive(Debug)]
pub struct DiskReserve {
    dirs: Vec<PathBuf>,
    reserved_gib: f64,
    found_at: Mutex<Option<Instant>>,
}

impl DiskReserve {
    /// Keeps `reserved_gib` free in each of `dirs`.
    #[must_use]
    pub fn new(dirs: Vec<PathBuf>, reserved_gib: f64) -> Self {
        Self { dirs, reserved_gib, found_at: Mutex::default() }
    }

    /// Which directory is too full, and what to do, in words that stay the same while it is; `None` where all have
    /// room, or are elsewhere.
    pub fn shortage(&self) -> Option<String> {
        let mut found_at = self.found_at.lock().unwrap_or_else(PoisonError::into_inner);
        if found_at.is_some_and(|at| at.elapsed() < LOOK_PERIOD) {
            return None;
        }
        let reserved_gib = self.reserved_gib;
        let reserved_bytes = (reserved_gib * f64::from(1 << 30)) as u64;
        let is_short = |dir: &&PathBuf| fs2::available_space(dir).is_ok_and(|free| free < reserved_bytes);
        let short = self.dirs.iter().find(is_short);
        *found_at = short.is_none().then(Instant::now);
        let dir = short?.display();
        Some(format!(
            "{dir} has less than {reserved_gib} GiB free; free space there, or lower reserved_disk_gib"
        ))
    }
}
