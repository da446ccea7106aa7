use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Located, State};

/// How many tasks are in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// By class.
    pub pending: BTreeMap<String, usize>,
    /// All that wait for a time.
    pub delayed: usize,
    /// All that a person parked.
    pub hold: usize,
    /// By worker incarnation.
    pub claimed: BTreeMap<String, usize>,
    /// All accepted.
    pub done: usize,
    /// By reason.
    pub failed: BTreeMap<String, usize>,
}

impl Counts {
    /// Counts what [`Spool::all`](crate::Spool::all) found.
    #[must_use]
    pub fn of(tasks: &[Located]) -> Self {
        let mut counts = Self::default();
        for task in tasks {
            match &task.state {
                State::Pending(class) => *counts.pending.entry(class.to_string()).or_default() += 1,
                State::Delayed { .. } => counts.delayed += 1,
                State::Hold => counts.hold += 1,
                State::Claimed(owner) => *counts.claimed.entry(owner.to_string()).or_default() += 1,
                State::Done => counts.done += 1,
                State::Failed(reason) => *counts.failed.entry(reason.to_string()).or_default() += 1,
            }
        }
        counts
    }

    /// Tasks that will still change their state without a person: pending, delayed and claimed.
    #[must_use]
    pub fn open(&self) -> usize {
        self.pending.values().sum::<usize>() + self.delayed + self.claimed.values().sum::<usize>()
    }

    /// Tasks with a verdict.
    #[must_use]
    pub fn settled(&self) -> usize {
        self.done + self.failed.values().sum::<usize>()
    }
}
