//! How full the node's disks are, in bytes and in inodes.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use crate::show;

/// What is left of one disk, as `df` counts it: what root alone may use is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskUse {
    /// A directory on it.
    pub path: PathBuf,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes in use or free.
    pub total_bytes: u64,
    /// Inodes in use; 0 where the file system has no such limit.
    pub used_inodes: u64,
    /// Inodes in use or free.
    pub total_inodes: u64,
}

/// At which use of a disk something is done, in percent of its bytes and of its inodes, and in bytes that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// From here on, what is only kept for later use goes.
    pub high_percent: u8,
    /// Until so much is in use.
    pub low_percent: u8,
    /// From here on workers are asked to claim nothing, and what was used just now goes too.
    pub emergency_percent: u8,
    /// Where less is free, the high mark is reached, whatever the percents say; the low one where half as much again is free.
    pub free_bytes_min: u64,
}

/// How urgent room is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// There is room.
    #[default]
    Calm,
    /// The high watermark was reached, and the low one not yet again.
    High,
    /// Work is about to fail.
    Emergency,
}

/// What a disk demands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// How urgent it is.
    pub level: Level,
    /// Bytes from here to the low watermark.
    pub bytes_to_free: u64,
    /// Inodes from here to the low watermark.
    pub inodes_to_free: u64,
    /// Which disk is how full, for people.
    pub told: String,
}

impl DiskUse {
    /// Of the disk that a directory lies on; `None` where it cannot be looked at: it is elsewhere.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let found = statvfs(path).ok()?;
        let unit = found.fragment_size();
        let used_blocks = found.blocks().saturating_sub(found.blocks_free());
        let used_inodes = found.files().saturating_sub(found.files_free());
        Some(Self {
            path: path.to_owned(),
            used_bytes: used_blocks * unit,
            total_bytes: (used_blocks + found.blocks_available()) * unit,
            used_inodes,
            total_inodes: used_inodes + found.files_available(),
        })
    }

    fn percent(&self) -> u64 {
        let of = |used: u64, total: u64| (u128::from(used) * 100).div_ceil(u128::from(total.max(1))) as u64;
        of(self.used_bytes, self.total_bytes).max(of(self.used_inodes, self.total_inodes))
    }

    /// One that tells of no blocks has no end.
    fn free_bytes(&self) -> u64 {
        if self.total_bytes == 0 { u64::MAX } else { self.total_bytes.saturating_sub(self.used_bytes) }
    }

    fn beyond(used: u64, total: u64, percent: u8) -> u64 {
        let limit = (u128::from(total) * u128::from(percent) / 100) as u64;
        used.saturating_sub(limit)
    }
}

/// Whether two directories lie on one disk, as far as they can be looked at.
pub(crate) fn are_one_disk(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
    device(one).is_some_and(|device_of_one| device(other) == Some(device_of_one))
}

/// What a disk demands, after `before`: between the watermarks it goes on with what it had begun. A disk that cannot be
/// looked at demands nothing.
#[must_use]
pub fn pressure(disk: Option<&DiskUse>, marks: &Watermarks, before: Level) -> Pressure {
    let Some(disk) = disk else { return Pressure::default() };
    let percent = disk.percent();
    let free_bytes_low = marks.free_bytes_min.saturating_add(marks.free_bytes_min / 2);
    let is_low = percent <= u64::from(marks.low_percent) && disk.free_bytes() >= free_bytes_low;
    let is_high = percent >= u64::from(marks.high_percent) || disk.free_bytes() < marks.free_bytes_min;
    let level = if percent >= u64::from(marks.emergency_percent) {
        Level::Emergency
    } else if is_high || (before > Level::Calm && !is_low) {
        Level::High
    } else {
        return Pressure::default();
    };
    let low = marks.low_percent;
    let beyond = DiskUse::beyond(disk.used_bytes, disk.total_bytes, low);
    let bytes_to_free = beyond.max(free_bytes_low.saturating_sub(disk.free_bytes()));
    let inodes_to_free = DiskUse::beyond(disk.used_inodes, disk.total_inodes, low);
    let mut told = format!(
        "the disk of {} is {percent} % full, with {} free; {} and {inodes_to_free} inodes are to be freed",
        disk.path.display(),
        show::size(disk.free_bytes()),
        show::size(bytes_to_free)
    );
    if free_bytes_low > disk.total_bytes {
        told.push_str("; it is too small for that ever to be free: lower janitor.disk_free_gib");
    }
    Pressure { level, bytes_to_free, inodes_to_free, told }
}

/// How urgent room was on each disk when it was last looked at, by a directory on it: between the watermarks a disk goes on
/// with what it had begun itself, and with nothing that another one had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Levels(BTreeMap<PathBuf, Level>);

impl Levels {
    /// What the fullest of the disks demands that some directories lie on. One that cannot be looked at demands nothing,
    /// and is told.
    pub(crate) fn worst_pressure(
        &mut self,
        dirs: &[PathBuf],
        marks: &Watermarks,
        unseen: &mut Vec<String>,
    ) -> Pressure {
        let found = dirs.iter().filter_map(|dir| {
            let disk = DiskUse::of(dir);
            if disk.is_none() {
                unseen.push(format!(
                    "how full the disk of {0} is cannot be told, and no room is made on it; mount it, or let the janitor's \
                     user look there (namei -l {0})",
                    dir.display()
                ));
            }
            disk
        });
        self.worst(found, marks)
    }

    fn worst(&mut self, disks: impl Iterator<Item = DiskUse>, marks: &Watermarks) -> Pressure {
        let found = disks.map(|disk| {
            let level = self.0.entry(disk.path.clone()).or_default();
            let found = pressure(Some(&disk), marks, *level);
            *level = found.level;
            found
        });
        found.max_by_key(|found| (found.level, found.bytes_to_free)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_are_of_bytes_and_of_inodes() {
        let marks =
            Watermarks { high_percent: 80, low_percent: 60, emergency_percent: 95, free_bytes_min: 0 };
        let check = |bytes: u64, inodes: u64, before: Level, expected: (Level, u64, u64)| {
            let disk = DiskUse {
                path: "/".into(),
                used_bytes: bytes,
                total_bytes: 1000,
                used_inodes: inodes,
                total_inodes: 100,
            };
            let found = pressure(Some(&disk), &marks, before);
            let found = (found.level, found.bytes_to_free, found.inodes_to_free);
            assert_eq!(found, expected, "{bytes} {inodes} {before:?}");
        };
        use Level::{Calm, Emergency, High};
        check(790, 10, Calm, (Calm, 0, 0));
        check(791, 10, Calm, (High, 191, 0));
        check(800, 10, Calm, (High, 200, 0));
        check(700, 10, High, (High, 100, 0));
        check(700, 10, Calm, (Calm, 0, 0));
        check(600, 10, High, (Calm, 0, 0));
        check(100, 80, Calm, (High, 0, 20));
        check(100, 95, Calm, (Emergency, 0, 35));
        check(950, 10, Calm, (Emergency, 350, 0));
        check(900, 10, Emergency, (High, 300, 0));
        check(0, 0, Calm, (Calm, 0, 0));
        let here = DiskUse::of(Path::new("/")).expect("a disk");
        assert!(here.used_bytes > 0 && here.used_bytes < here.total_bytes);
        assert_eq!(DiskUse::of(Path::new("/nonexistent")), None);
        assert_eq!(pressure(None, &marks, Emergency), Pressure::default());
    }

    #[test]
    fn too_little_is_free_however_large_the_disk_is() {
        let marks =
            Watermarks { high_percent: 80, low_percent: 60, emergency_percent: 95, free_bytes_min: 400 };
        let check = |used_bytes: u64, before: Level, expected: (Level, u64)| {
            let (path, total_bytes) = (PathBuf::from("/"), 1000);
            let disk = DiskUse { path, used_bytes, total_bytes, used_inodes: 0, total_inodes: 0 };
            let found = pressure(Some(&disk), &marks, before);
            assert_eq!((found.level, found.bytes_to_free), expected, "{used_bytes} {before:?}");
        };
        use Level::{Calm, Emergency, High};
        check(600, Calm, (Calm, 0));
        check(601, Calm, (High, 201));
        check(450, High, (High, 50));
        check(450, Calm, (Calm, 0));
        check(400, High, (Calm, 0));
        check(950, High, (Emergency, 550));
    }

    #[test]
    fn the_fullest_disk_counts_and_one_that_cannot_be_seen_is_told() {
        let full = Watermarks { high_percent: 1, low_percent: 1, emergency_percent: 101, free_bytes_min: 1 };
        let check = |dirs: &[&str], expected: Level, told: usize| {
            let dirs: Vec<PathBuf> = dirs.iter().map(PathBuf::from).collect();
            let mut unseen = Vec::new();
            let found = Levels::default().worst_pressure(&dirs, &full, &mut unseen);
            assert_eq!((found.level, unseen.len()), (expected, told), "{dirs:?} {unseen:?}");
        };
        check(&[], Level::Calm, 0);
        check(&["/"], Level::High, 0);
        // The kernel's own file system has no blocks.
        check(&["/proc"], Level::Calm, 0);
        check(&["/proc", "/"], Level::High, 0);
        check(&["/nonexistent"], Level::Calm, 1);
        check(&["/nonexistent", "/"], Level::High, 1);
    }

    #[test]
    fn a_disk_that_was_full_says_nothing_of_another() {
        let marks =
            Watermarks { high_percent: 85, low_percent: 75, emergency_percent: 98, free_bytes_min: 0 };
        let mut levels = Levels::default();
        let mut check = |one: u64, other: u64, expected: (Level, u64)| {
            let disk = |path: &str, used_bytes| DiskUse {
                path: path.into(),
                used_bytes,
                total_bytes: 100,
                used_inodes: 0,
                total_inodes: 0,
            };
            let found = levels.worst([disk("/one", one), disk("/other", other)].into_iter(), &marks);
            assert_eq!((found.level, found.bytes_to_free), expected, "{one} {other}");
            // As the next process reads it.
            let text = serde_json::to_string(&levels).expect("JSON");
            levels = serde_json::from_str(&text).expect("the same");
        };
        use Level::{Calm, High};
        check(80, 80, (Calm, 0));
        check(86, 80, (High, 11));
        check(76, 84, (High, 1));
        check(75, 84, (Calm, 0));
        check(80, 84, (Calm, 0));
        check(60, 85, (High, 10));
        check(80, 80, (High, 5));
    }
}
