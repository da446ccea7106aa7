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
    /// When the first of them becomes pending, in seconds since 1970.
    pub next_due_seconds: Option<u64>,
    /// All that a person parked.
    pub hold: usize,
    /// By worker incarnation.
    pub claimed: BTreeMap<String, usize>,
    /// All accepted, by class.
    pub done: BTreeMap<String, usize>,
    /// By reason.
    pub failed: BTreeMap<String, usize>,
}

impl Counts {
    /// Counts what [`Spool::all`](crate::Spool::all) found.
    #[must_use]
    pub fn of(tasks: &[Located]) -> Self {
        let mut counts = Self::default();
        for task in tasks {
            counts.add(&task.state, 1);
        }
        counts
    }

    pub(crate) fn add(&mut self, state: &State, tasks: usize) {
        let (map, key) = match state {
            State::Delayed { due_seconds, .. } => {
                self.delayed += tasks;
                self.next_due_seconds =
                    Some(self.next_due_seconds.map_or(*due_seconds, |due| due.min(*due_seconds)));
                return;
            }
            State::Hold => {
                self.hold += tasks;
                return;
            }
            State::Pending(class) => (&mut self.pending, class.to_string()),
            State::Claimed(owner) => (&mut self.claimed, owner.to_string()),
            State::Done(class) => (&mut self.done, class.to_string()),
            State::Failed(reason) => (&mut self.failed, reason.to_string()),
        };
        *map.entry(key).or_default() += tasks;
    }

    /// Tasks that will still change their state without a person: pending, delayed and claimed.
    #[must_use]
    pub fn open(&self) -> usize {
        self.pending.values().sum::<usize>() + self.delayed + self.claimed.values().sum::<usize>()
    }

    /// Tasks with a verdict.
    #[must_use]
    pub fn settled(&self) -> usize {
        self.done.values().chain(self.failed.values()).sum()
    }
}
