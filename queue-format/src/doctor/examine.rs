use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::journeys::{devices, journeys};
use super::mount::Mount;
use super::timing::{Clocks, Measured, measure};
use crate::error::OnPath;
use crate::{Owner, PathError, Severity, Spool};

/// Less free than this is worth a warning.
const FREE_SHARE_MIN: f64 = 0.05;

/// A clock that is off by this is not kept by anybody.
const CLOCK_SECONDS_MAX: f64 = 2.0;

/// A server that is quicker than this over a network has not been to its disk.
const SYNC_SECONDS_MIN: f64 = 0.000_1;

/// What was found out about a spool's file system.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnosis {
    /// Where it lies.
    pub mount: Option<Mount>,
    /// How quick it is; `None` where nothing could be written.
    pub measured: Option<Measured>,
    /// How full it is.
    pub space: Space,
    /// What is wrong, worst first.
    pub symptoms: Vec<Symptom>,
    /// What cannot be seen from here, and how to look.
    pub unseen: Vec<String>,
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Space {
    /// Free for an ordinary user.
    pub free_bytes: u64,
    /// In all.
    pub total_bytes: u64,
    /// Files that can still be made.
    pub free_files: u64,
    /// Files in all; 0 where they are not limited.
    pub total_files: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Symptom {
    /// How bad it is.
    pub severity: Severity,
    /// What, in words.
    pub what: String,
    /// What a person can do.
    pub remedy: String,
}

impl Symptom {
    pub(super) fn new(severity: Severity, what: impl Into<String>, remedy: &str) -> Self {
        Self { severity, what: what.into(), remedy: remedy.to_owned() }
    }
}

impl Spool {
    /// Measures what one node can measure, in a directory of `me` that is removed in the end. `mountinfo` is the text
    /// of `/proc/self/mountinfo`; `elapsed` and `now` are the clocks.
    ///
    /// # Errors
    /// The file system does not tell its size. Everything else that fails is a symptom.
    pub fn examine(
        &self,
        me: &Owner,
        mountinfo: &str,
        renames: u32,
        elapsed: &dyn Fn() -> Duration,
        now: &dyn Fn() -> SystemTime,
    ) -> Result<Diagnosis, PathError> {
        let mount = Mount::find(mountinfo, self.layout().root());
        let mut symptoms = mount.as_ref().map(Mount::symptoms).unwrap_or_default();
        let space = self.space()?;
        symptoms.extend(space.symptoms());
        symptoms.extend(devices(self));
        let bench = Bench { spool: self, dir: self.layout().staging(me) };
        let measured = match measure(self, &bench.dir, renames, &Clocks { elapsed, now }) {
            Ok(measured) => Some(measured),
            Err(error) => {
                let remedy = "mend that first: no daemon can work so";
                symptoms.push(Symptom::new(Severity::Error, error.to_string(), remedy));
                None
            }
        };
        if let Some(measured) = &measured {
            match journeys(self, &bench.dir) {
                Ok(found) => symptoms.extend(found),
                Err(error) => {
                    let remedy = "mend that first: no daemon can work so";
                    symptoms.push(Symptom::new(Severity::Error, error.to_string(), remedy));
                }
            }
            symptoms.extend(clock_symptom(measured));
            symptoms.extend(bench.squashed());
        }
        let is_nfs = mount.as_ref().is_some_and(Mount::is_nfs);
        if let Some(measured) = measured.as_ref().filter(|_| is_nfs)
            && measured.create_and_sync.median_seconds < SYNC_SECONDS_MIN
        {
            let what =
                "the server says that a file is on disk sooner than a disk can: the export may be async";
            symptoms.push(Symptom::new(Severity::Warning, what, "on the server: exportfs -v must say sync"));
        }
        symptoms.sort_by_key(|symptom| std::cmp::Reverse(symptom.severity));
        Ok(Diagnosis { mount, measured, space, symptoms, unseen: unseen(is_nfs) })
    }

    /// What is free on the spool's file system, for an ordinary user.
    ///
    /// # Errors
    /// The file system does not answer.
    pub fn space(&self) -> Result<Space, PathError> {
        let root = self.layout().root();
        let stat = nix::sys::statvfs::statvfs(root).on_path("ask the free space of", root)?;
        Ok(Space {
            free_bytes: stat.blocks_available() * stat.fragment_size(),
            total_bytes: stat.blocks() * stat.fragment_size(),
            free_files: stat.files_available(),
            total_files: stat.files(),
        })
    }
}

impl Space {
    fn symptoms(&self) -> Vec<Symptom> {
        #[expect(clippy::cast_precision_loss, reason = "a share, for people")]
        let is_short = |free: u64, total: u64| total > 0 && (free as f64) < FREE_SHARE_MIN * total as f64;
        let mut found = Vec::new();
        if is_short(self.free_bytes, self.total_bytes) {
            let what = "less than 5 % of its bytes are free";
            found.push(Symptom::new(
                Severity::Warning,
                what,
                "free space: results of tasks that are exported, logs",
            ));
        }
        if is_short(self.free_files, self.total_files) {
            let what = "less than 5 % of its files (inodes) are free, however many bytes are";
            found.push(Symptom::new(
                Severity::Warning,
                what,
                "remove small files, or make it anew with more inodes",
            ));
        }
        found
    }
}

fn clock_symptom(measured: &Measured) -> Option<Symptom> {
    let ahead = measured.clock_ahead_seconds;
    (ahead.abs() > CLOCK_SECONDS_MAX + measured.clock_uncertainty_seconds).then(|| {
        let way = if ahead > 0.0 { "ahead of" } else { "behind" };
        let what = format!("the server's clock is {:.1} s {way} ours: times in reports mislead", ahead.abs());
        Symptom::new(
            Severity::Warning,
            what,
            "run chrony or systemd-timesyncd on both; no promise rests on it",
        )
    })
}

fn unseen(is_nfs: bool) -> Vec<String> {
    if !is_nfs {
        return Vec::new();
    }
    [
        "whether the export is sync: on the server, exportfs -v must say sync, not async",
        "how old another node's listings are: touch SPOOL/tmp/x here, and there: until ls SPOOL/tmp/x; do sleep 1; done",
        "whether the server survives a loss of power: ask who runs it (battery-backed or no write cache)",
    ]
    .map(str::to_owned)
    .into()
}

/// Where everything is measured; gone in the end, whatever happened.
struct Bench<'a> {
    spool: &'a Spool,
    dir: std::path::PathBuf,
}

impl Bench<'_> {
    /// Over NFS, root is usually made somebody who may do nothing.
    fn squashed(&self) -> Option<Symptom> {
        let uid = fs::metadata(&self.dir).ok()?.uid();
        let (me, root) = (nix::unistd::geteuid(), Path::new(self.spool.layout().root()));
        if uid == me.as_raw() {
            return None;
        }
        let owner = fs::metadata(root).map(|found| found.uid()).unwrap_or_default();
        let what =
            format!("what uid {me} makes here belongs to uid {uid} (root_squash, all_squash or an id map)");
        let remedy =
            format!("run the daemons as the spool's user (uid {owner}), or in its group with mode 2770");
        Some(Symptom::new(Severity::Warning, what, &remedy))
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        self.spool.files().discard_dir(&self.dir);
    }
}
