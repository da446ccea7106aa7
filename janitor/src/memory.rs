//! What one process of the janitor leaves to the next: since when it waits for what takes long, what resists, how full the
//! disks were, and since when the door to builds is open.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use systemd::state_file;

use crate::disk::Levels;
use crate::door::DoorTimes;
use crate::policy::Target;
use crate::uses::Moment;

/// The file in the state directory.
const MEMORY_FILE: &str = "janitor-memory.json";
/// What was seen longer ago says nothing of what went on since.
const KEPT_MAX: Duration = Duration::from_secs(3600);
/// The largest such file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Never needed to continue: without it everything is seen for the first time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Memory {
    pub(crate) marks: Vec<Marked>,
    pub(crate) resisting: Vec<Resisted>,
    pub(crate) levels: Levels,
    pub(crate) door: DoorTimes,
}

/// A leftover that is waited for with much patience.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marked {
    pub(crate) target: Target,
    /// For how long it has been one.
    pub(crate) waited: Duration,
}

/// What could not be removed. The next process tries it at once: somebody may have started it for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resisted {
    pub(crate) target: Target,
    pub(crate) failures: u32,
    pub(crate) why: String,
}

/// As it is written: how long ago that was, only the clock tells that nobody sets.
#[derive(Serialize, Deserialize)]
struct Noted {
    at: Moment,
    #[serde(flatten)]
    memory: Memory,
}

impl Memory {
    /// What the last process knew, as it is `now`; nothing where that was before the machine's start, or long ago.
    pub(crate) fn read(state_dir: &Path, now: &Moment) -> Self {
        let path = file(state_dir);
        let is_small = path.metadata().is_ok_and(|found| found.len() <= FILE_BYTES_MAX);
        let text = if is_small { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
        let Ok(Noted { at, mut memory }) = serde_json::from_slice(&text) else { return Self::default() };
        let Some(since) = now.since(&at).filter(|since| *since <= KEPT_MAX) else { return Self::default() };
        let marked = memory.marks.iter_mut().map(|mark| &mut mark.waited);
        for time in marked.chain(&mut memory.door.waited).chain(&mut memory.door.open) {
            *time = time.saturating_add(since);
        }
        memory
    }

    pub(crate) fn write(self, state_dir: &Path, now: Moment) -> std::io::Result<()> {
        let noted = Noted { at: now, memory: self };
        state_file::replace(&file(state_dir), &serde_json::to_vec(&noted)?, 0o640)
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(MEMORY_FILE)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::marks::Marks;
    use crate::policy::{Candidate, Patience, Reason};
    use crate::resistance::Resistance;

    fn moment(boot_id: &str, since_boot: u64) -> Moment {
        let wall = jiff::Timestamp::UNIX_EPOCH;
        Moment { wall, boot_id: boot_id.to_owned(), since_boot: Duration::from_secs(since_boot) }
    }

    fn candidate(name: &str, patience: Patience) -> Candidate {
        Candidate {
            target: Target::WorkDir(name.into()),
            reason: Reason::ClaimGone,
            patience,
            name: String::new(),
            entry: None,
            created_at: None,
            bytes: None,
        }
    }

    /// Runs of five minutes' distance, each of which looks twice.
    #[test]
    fn what_takes_long_is_waited_for_over_many_runs() {
        let dir = tempfile::tempdir().expect("dir");
        let (start, grace) = (Instant::now(), Duration::from_secs(30));
        let mut went = Vec::new();
        let mut told = Vec::new();
        for run in 0..6 {
            let second = 1000 + run * 300;
            let memory = Memory::read(dir.path(), &moment("boot", second));
            let mut now = start + Duration::from_secs(second);
            let mut marks = Marks::recall(memory.marks, now);
            let mut resistance = Resistance::recall(memory.resisting, now);
            for _ in 0..2 {
                let found = vec![candidate("entry", Patience::Long), candidate("stuck", Patience::Grace)];
                resistance.forget_others(&found, true);
                let mut ripe = marks.ripe(found, now, grace);
                resistance.leave_alone(&mut ripe, now);
                let is_there =
                    |name: &str| ripe.iter().any(|found| found.target == Target::WorkDir(name.into()));
                went.extend(is_there("entry").then_some(run));
                if is_there("stuck") {
                    resistance.note(vec![(Target::WorkDir("stuck".into()), "it hangs".to_owned())], now);
                }
                told.push(resistance.stuck().len());
                now += grace;
            }
            let memory = Memory {
                marks: marks.remembered(now),
                resisting: resistance.remembered(),
                ..Memory::default()
            };
            memory.write(dir.path(), moment("boot", second + 60)).expect("written");
        }
        assert_eq!(went, [2, 2, 3, 3, 4, 4, 5, 5], "six hundred seconds after it was seen first");
        assert_eq!(told.iter().position(|told| *told == 1), Some(5), "three times in a row: {told:?}");
    }

    #[test]
    fn what_was_noted_before_a_start_or_long_ago_is_forgotten() {
        let dir = tempfile::tempdir().expect("dir");
        let check = |boot: &str, second: u64, expected: bool| {
            let marks = vec![Marked { target: Target::WorkDir("x".into()), waited: Duration::ZERO }];
            let levels: Levels = serde_json::from_str(r#"{"/": "high"}"#).expect("levels");
            let door = DoorTimes { waited: None, open: Some(Duration::from_secs(7)) };
            let memory = Memory { marks, levels: levels.clone(), door, ..Memory::default() };
            memory.write(dir.path(), moment("one", 100)).expect("written");
            let found = Memory::read(dir.path(), &moment(boot, second));
            assert_eq!((found.levels == levels, found.marks.len()), (expected, usize::from(expected)));
            let open = expected.then(|| Duration::from_secs(7 + second - 100));
            assert_eq!((found.door.open, found.door.waited), (open, None));
        };
        check("one", 100, true);
        check("one", 3700, true);
        check("one", 3701, false);
        check("one", 99, false);
        check("two", 200, false);
        std::fs::write(file(dir.path()), "{\"at\"").expect("written");
        assert_eq!(Memory::read(dir.path(), &moment("one", 100)), Memory::default());
    }
}
