//! The node's disk, looked at before each claim: a task that cannot finish must not be begun.

use std::path::Path;

/// The directories that are too full, as a notice; `None` where all have room.
#[must_use]
pub fn shortage(dirs: &[&Path], reserved_bytes: u64) -> Option<String> {
    let full = dirs.iter().filter_map(|dir| {
        let free = fs2::available_space(dir).ok()?;
        (free < reserved_bytes).then_some((dir, free))
    });
    let (dir, free) = full.min_by_key(|(_, free)| *free)?;
    let (free, reserved) = (free >> 20, reserved_bytes >> 20);
    Some(format!(
        "nothing is claimed: {} has {free} MiB free, {reserved} are kept back; free space, or lower reserved_disk_gib",
        dir.display()
    ))
}
