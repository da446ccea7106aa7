use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use jiff::Timestamp;
use queue_format::{Control, Counts, Pace, Spool, SpoolError, SpoolId, Summary, Unread, WorkerStatus};
use serde_json::{Value, json};

use super::Watch;

/// One look at a spool.
#[derive(Clone, Debug)]
pub struct Status {
    /// When.
    pub at: Timestamp,
    /// When the tasks were counted: at that moment, or by a master shortly before.
    pub counted_at: Timestamp,
    /// Its directory.
    pub path: PathBuf,
    /// Its identity.
    pub id: SpoolId,
    /// Tasks by state.
    pub counts: Counts,
    /// What lies in `incoming/` and is not read.
    pub unread: Unread,
    /// What each worker last said.
    pub workers: Vec<WorkerStatus>,
    /// How fast tasks are settled.
    pub pace: Option<Pace>,
    /// What people asked of all daemons.
    pub control: Control,
    /// Bytes free on the spool's file system.
    pub free_bytes: u64,
}

/// The version of the JSON that `status --json` prints. 1: first.
const FORMAT: u32 = 1;

/// So many tasks cannot be counted in a moment.
const LARGE: usize = 50_000;

impl Status {
    /// Counts, and looks at what the daemons say.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub fn take(spool: &Spool, watch: &mut Watch, now: Timestamp) -> Result<Self, SpoolError> {
        // Rows go from incoming/ to pending/: looked at in this order, none is missed between the two.
        let unread = spool.unread()?;
        let (counts, pace) = watch.look(spool, Instant::now())?;
        Self::of(spool, Summary { at: now, counts, pace, every_seconds: 0.0 }, unread, now)
    }

    /// As [`Status::take`], but a spool that is too large to be counted in a moment is not counted again where a
    /// master did so just before.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub fn ask(spool: &Spool, watch: &mut Watch, now: Timestamp) -> Result<Self, SpoolError> {
        match spool.summary().filter(|summary| summary.is_fresh(now)) {
            Some(summary) if summary.counts.open() + summary.counts.settled() >= LARGE => {
                let unread = spool.unread()?;
                Self::of(spool, summary, unread, now)
            }
            summary => {
                let status = Self::take(spool, watch, now)?;
                Ok(Self { pace: status.pace.or(summary.and_then(|summary| summary.pace)), ..status })
            }
        }
    }

    fn of(spool: &Spool, summary: Summary, unread: Unread, now: Timestamp) -> Result<Self, SpoolError> {
        Ok(Self {
            at: now,
            counted_at: summary.at,
            path: spool.layout().root().to_owned(),
            id: spool.id(),
            counts: summary.counts,
            pace: summary.pace,
            unread,
            workers: spool.worker_statuses()?,
            control: spool.control()?,
            free_bytes: spool.space()?.free_bytes,
        })
    }

    /// True when nothing will change its state any more without a person.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.counts.open() == 0 && self.unread.files == 0
    }

    /// All tasks of the spool, but those that a person parked.
    #[must_use]
    pub fn total(&self) -> usize {
        self.counts.open() + self.counts.settled()
    }

    /// For programs; docs/status.md describes it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let sum = |counts: &BTreeMap<String, usize>| counts.values().sum::<usize>();
        json!({
            "format": FORMAT,
            "at": self.at,
            "counted_at": self.counted_at,
            "spool": { "path": self.path, "uuid": self.id.to_string(), "free_bytes": self.free_bytes },
            "counts": {
                "pending": sum(&self.counts.pending),
                "delayed": self.counts.delayed,
                "hold": self.counts.hold,
                "claimed": sum(&self.counts.claimed),
                "done": sum(&self.counts.done),
                "failed": sum(&self.counts.failed),
            },
            "open": self.counts.open(),
            "settled": self.counts.settled(),
            "unread_files": self.unread.files,
            "ignored_files": self.unread.ignored,
            "pending_by_class": self.counts.pending,
            "claimed_by_worker": self.counts.claimed,
            "accepted_by_class": self.counts.done,
            "failed_by_reason": self.counts.failed,
            "next_due_seconds": self.counts.next_due_seconds,
            "workers": self.workers,
            "control": {
                "paused": self.control.paused(),
                "drained": self.control.drained(),
                "to_cancel": self.control.cancelled(),
                "notices": self.control.notices(),
            },
            "pace": self.pace,
        })
    }
}
