use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::CpuSet;

/// The longest file of /sys or /proc that is read: mount tables of nodes with many containers are the longest.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// `/sys` and `/proc` under a root.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// A file's text without white space around it; `None` where it is not there, or cannot be read, which is the
    /// same to who asks.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        let mut text = String::new();
        let file = File::open(self.path(path)).ok()?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned())
    }

    pub(super) fn number<T: std::str::FromStr>(&self, path: &str) -> Option<T> {
        self.read(path)?.parse().ok()
    }

    /// `None` where there is no such file, or it holds no set.
    pub(super) fn set(&self, path: &str) -> Option<CpuSet> {
        self.read(path)?.parse().ok()
    }

    /// The numbers behind `prefix` of the names in a directory, ascending.
    pub(super) fn numbered(&self, dir: &str, prefix: &str) -> Vec<u32> {
        let names = fs::read_dir(self.path(dir)).into_iter().flatten().flatten();
        let mut numbers: Vec<u32> = names
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// A row `KEY: value` of a file.
    pub(super) fn row(&self, path: &str, key: &str) -> Option<String> {
        let text = self.read(path)?;
        text.lines().find_map(|line| Some(line.split_once(key)?.1.trim().to_owned()))
    }

    /// `MemTotal:  1234 kB`, in bytes.
    pub(super) fn total_memory(&self, path: &str) -> Option<u64> {
        let row = self.row(path, "MemTotal:")?;
        row.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}
