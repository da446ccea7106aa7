use std::fs;
use std::path::{Path, PathBuf};

/// Requests that this machine has sent for the NFS mount that a directory lies on, by `/proc/self/mountstats`; 0 where it
/// lies on no such mount.
pub(crate) fn requests(dir: &Path) -> u64 {
    let text = fs::read_to_string("/proc/self/mountstats").unwrap_or_default();
    let mut best: (usize, u64) = (0, 0);
    for mount in text.split("device ").skip(1) {
        let point = mount.split(" mounted on ").nth(1).and_then(|rest| rest.split(" with fstype nfs").next());
        let Some(point) = point.map(PathBuf::from).filter(|point| dir.starts_with(point)) else { continue };
        let Some((_, operations)) = mount.split_once("per-op statistics") else { continue };
        // The first number of each line: how often it was asked for.
        let asked = operations
            .lines()
            .filter_map(|line| line.split_once(": ")?.1.split(' ').next()?.parse::<u64>().ok());
        best = best.max((point.components().count(), asked.sum()));
    }
    best.1
}
