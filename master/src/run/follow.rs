use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use queue_format::{PathError, Spool, State, TaskId};

use super::plan::number_of;

/// The shortest pause between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// A pause is so many times as long as the look before it, however long that took: many may wait for runs in one large
/// spool at once.
const PAUSE_SHARE: u32 = 5;
/// Looks in a row at which tasks were nowhere, before they are taken to be gone.
const ABSENT_LOOKS_MAX: u32 = 5;

/// Where the tasks of a run are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Ended well.
    pub done: usize,
    /// Dead letters, by reason.
    pub failed: BTreeMap<String, usize>,
    /// One of them.
    pub one_failed: Option<TaskId>,
    /// At work.
    pub claimed: usize,
    /// Waiting for a worker, or for a time.
    pub waiting: usize,
    /// Parked by a person.
    pub hold: usize,
}

impl Followed {
    /// Dead letters of whatever reason.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    fn open(&self) -> usize {
        self.claimed + self.waiting + self.hold
    }

    fn look(spool: &Spool, name: &TaskId, count: usize, is_array: bool) -> Result<Self, PathError> {
        let mut seen = Self::default();
        let is_ours = |id: &TaskId| match is_array {
            true => number_of(name, id).is_some_and(|number| number <= count as u64),
            false => id == name,
        };
        spool.visit(|task| {
            if !is_ours(&task.name.id) {
                return;
            }
            match task.state {
                State::Done(_) => seen.done += 1,
                State::Failed(reason) => {
                    *seen.failed.entry(reason.to_string()).or_default() += 1;
                    seen.one_failed.get_or_insert(task.name.id);
                }
                State::Claimed(_) => seen.claimed += 1,
                State::Pending(_) | State::Delayed { .. } => seen.waiting += 1,
                State::Hold => seen.hold += 1,
            }
        })?;
        Ok(seen)
    }
}

/// Waits until `count` tasks of a run are settled, or gone; `progress` is shown each look. Memory does not grow with
/// their number.
///
/// # Errors
/// The spool cannot be listed.
pub fn follow(
    spool: &Spool,
    name: &TaskId,
    count: usize,
    is_array: bool,
    mut progress: impl FnMut(&Followed),
) -> Result<Followed, PathError> {
    let mut absent = 0;
    loop {
        let started = Instant::now();
        let seen = Followed::look(spool, name, count, is_array)?;
        progress(&seen);
        if seen.open() == 0 {
            // A task on its way from one directory to the next may be seen nowhere.
            absent += 1;
            if seen.done + seen.failures() >= count || absent >= ABSENT_LOOKS_MAX {
                return Ok(seen);
            }
        } else {
            absent = 0;
        }
        std::thread::sleep(pause_after(started.elapsed()));
    }
}

fn pause_after(look: Duration) -> Duration {
    (look * PAUSE_SHARE).max(PAUSE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_takes_a_small_part_of_the_time_however_large_the_spool() {
        let check = |look, pause| {
            assert_eq!(pause_after(Duration::from_millis(look)), Duration::from_millis(pause));
        };
        check(1, 500);
        check(1_000, 5_000);
        check(60_000, 300_000);
    }
}
