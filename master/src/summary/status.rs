use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use queue_format::{Control, Counts, Spool, SpoolError, SpoolId, State, WorkerStatus};
use serde_json::{Value, json};

use super::{Manifests, Pace};

/// One look at a spool.
#[derive(Clone, Debug)]
pub struct Status {
    /// When.
    pub at: Timestamp,
    /// Its directory.
    pub path: PathBuf,
    /// Its identity.
    pub id: SpoolId,
    /// Tasks by state.
    pub counts: Counts,
    /// Tasks in `done/` by acceptance class, runs as `completed`; `unknown` where the manifest is missing.
    pub accepted: BTreeMap<String, usize>,
    /// When the first delayed task becomes pending, in seconds since 1970.
    pub next_due_seconds: Option<u64>,
    /// Files of rows in `incoming/` that are not read yet.
    pub unread: usize,
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

impl Status {
    /// Looks at every name of the spool, and at the manifests that `manifests` has not seen.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub fn take(spool: &Spool, manifests: &mut Manifests, now: Timestamp) -> Result<Self, SpoolError> {
        // Rows go from incoming/ to pending/: looked at in this order, none is missed between the two.
        let unread = spool.unread()?;
        let tasks = spool.all()?;
        let counts = Counts::of(&tasks);
        let settled = manifests.outcomes(spool, &tasks);
        let mut accepted = BTreeMap::new();
        for (_, outcome) in settled.iter().filter(|(task, _)| task.state == State::Done) {
            let class = outcome.and_then(|o| o.class).unwrap_or("unknown");
            *accepted.entry(class.to_owned()).or_default() += 1;
        }
        let outcomes: Vec<_> = settled.iter().filter_map(|(_, outcome)| *outcome).collect();
        let due = tasks.iter().filter_map(|task| match task.state {
            State::Delayed { due_seconds, .. } => Some(due_seconds),
            _ => None,
        });
        Ok(Self {
            at: now,
            path: spool.layout().root().to_owned(),
            id: spool.id(),
            pace: Pace::of(&outcomes, counts.open(), now),
            next_due_seconds: due.min(),
            counts,
            accepted,
            unread,
            workers: spool.worker_statuses()?,
            control: spool.control()?,
            free_bytes: spool.free_bytes()?,
        })
    }

    /// True when nothing will change its state any more without a person.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.counts.open() == 0 && self.unread == 0
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
            "spool": { "path": self.path, "uuid": self.id.to_string(), "free_bytes": self.free_bytes },
            "counts": {
                "pending": sum(&self.counts.pending),
                "delayed": self.counts.delayed,
                "hold": self.counts.hold,
                "claimed": sum(&self.counts.claimed),
                "done": self.counts.done,
                "failed": sum(&self.counts.failed),
            },
            "open": self.counts.open(),
            "settled": self.counts.settled(),
            "unread_files": self.unread,
            "pending_by_class": self.counts.pending,
            "claimed_by_worker": self.counts.claimed,
            "accepted_by_class": self.accepted,
            "failed_by_reason": self.counts.failed,
            "next_due_seconds": self.next_due_seconds,
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
