//! The node's disk, looked at before each claim: a task that cannot finish must not be begun.

use std::path::PathBuf;

/// Which directory is too full, and what to do, in words that stay the same while it is; `None` where all have
/// room, or are elsewhere.
#[must_use]
pub fn shortage(dirs: &[PathBuf], reserved_gib: f64) -> Option<String> {
    let reserved_bytes = (reserved_gib * f64::from(1 << 30)) as u64;
    let is_short = |dir: &&PathBuf| fs2::available_space(dir).is_ok_and(|free| free < reserved_bytes);
    let dir = dirs.iter().find(is_short)?;
    Some(format!(
        "{} has less than {reserved_gib} GiB free; free space there, or lower reserved_disk_gib",
        dir.display()
    ))
}
