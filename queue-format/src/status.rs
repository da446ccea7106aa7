use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files::Files;
use crate::{Counts, CpuSet, Owner, Shape, Spool, SpoolError, TaskId};

/// The largest status file that is read.
pub(crate) const STATUS_BYTES_MAX: u64 = 4 << 20;

/// What one worker last said of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Who.
    pub owner: Owner,
    /// When it said so.
    pub at: jiff::Timestamp,
    /// What is not as the configuration asks, each in one sentence.
    pub notices: Vec<String>,
    /// Why it claims nothing, while that is so, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// The kinds of work that it does; none where it is of a version that did not say.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// Its slots.
    pub slots: Vec<SlotStatus>,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// 0, 1, 2 …
    pub slot: u32,
    /// The cores, as the kernel writes sets: `0-3`.
    pub cpuset: String,
    /// Memory for containers.
    pub memory_bytes: u64,
    /// Slots of one group can be joined for a task that needs several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// Why it is given nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_service: Option<String>,
    /// What it works on.
    pub activity: Option<SlotActivity>,
}

impl SlotStatus {
    /// Whether a task that asks for so much can be worked on here.
    #[must_use]
    pub fn fits(&self, shape: &Shape) -> bool {
        shape.fits(cores_of(&self.cpuset), self.memory_bytes)
    }

    /// Whether it could be given something, and has nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.activity.is_none() && self.out_of_service.is_none()
    }
}

impl WorkerStatus {
    /// Whether it does work of a kind.
    #[must_use]
    pub fn does(&self, work: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == work)
    }

    /// Whether a task that asks for so much can be worked on here: in one slot, or in all of a group.
    #[must_use]
    pub fn fits(&self, shape: &Shape) -> bool {
        let mut groups: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
        for slot in &self.slots {
            let (cpus, memory_bytes) = groups.entry(slot.group.unwrap_or(u32::MAX)).or_default();
            if slot.group.is_some() {
                *cpus += cores_of(&slot.cpuset);
                *memory_bytes = memory_bytes.saturating_add(slot.memory_bytes);
            }
        }
        self.slots.iter().any(|slot| slot.fits(shape))
            || groups.values().any(|(cpus, memory_bytes)| shape.fits(*cpus, *memory_bytes))
    }
}

/// How many cores a set has; none where it is no set.
fn cores_of(cpuset: &str) -> usize {
    cpuset.parse::<CpuSet>().map_or(0, |set| set.len())
}

/// What a slot works on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotActivity {
    /// The task.
    pub task: TaskId,
    /// The stage, and what it does in a word or two: `build (2nd)`.
    pub stage: String,
    /// Since when it is at this stage.
    pub since: jiff::Timestamp,
}

/// What the master last counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// When.
    pub at: jiff::Timestamp,
    /// By state.
    pub counts: Counts,
    /// How fast tasks are settled; `None` where none was within the last hour.
    #[serde(default)]
    pub pace: Option<Pace>,
    /// How often it counts.
    #[serde(default = "usual_period")]
    pub every_seconds: f64,
}

/// What masters of the first version, which did not say it, counted by.
fn usual_period() -> f64 {
    10.0
}

/// A worker that has said nothing for so long is not counted on: it says something every minute at least.
const SILENT_SECONDS: f64 = 180.0;

impl WorkerStatus {
    /// Whether it is long since the worker has said something.
    #[must_use]
    pub fn is_silent(&self, now: jiff::Timestamp) -> bool {
        now.duration_since(self.at).as_secs_f64() > SILENT_SECONDS
    }
}

impl Summary {
    /// Whether it can be taken for what is there now: no living master lets its count become older.
    #[must_use]
    pub fn is_fresh(&self, now: jiff::Timestamp) -> bool {
        let age = self.age_seconds(now);
        age >= 0.0 && age <= (1.5 * self.every_seconds).max(15.0)
    }

    /// Whether the master that counted seems to live.
    #[must_use]
    pub fn is_heard(&self, now: jiff::Timestamp) -> bool {
        self.age_seconds(now) <= (3.0 * self.every_seconds).max(60.0)
    }

    /// How long it is since it was counted, by the clocks of two nodes.
    #[must_use]
    pub fn age_seconds(&self, now: jiff::Timestamp) -> f64 {
        now.duration_since(self.at).as_secs_f64()
    }
}

/// How fast tasks are settled, and when the open ones will be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// Tasks settled within the window.
    pub settled: usize,
    /// The window: the last hour, or as far as whoever counted goes back.
    pub window_seconds: f64,
    /// Tasks an hour.
    pub settled_per_hour: f64,
    /// Until all open tasks are settled at this pace; `None` where none is open.
    pub eta_seconds: Option<f64>,
}

impl Spool {
    /// Publishes what a worker says of itself.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn write_worker_status(&self, status: &WorkerStatus) -> Result<(), SpoolError> {
        self.files()
            .replace_json(&self.layout().worker_status().join(format!("{}.json", status.owner)), status)
    }

    /// Removes a worker's status, when it ends.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn remove_worker_status(&self, owner: &Owner) -> Result<(), SpoolError> {
        Ok(self.files().remove_file(&self.layout().worker_status().join(format!("{owner}.json")))?)
    }

    /// What every worker last said that is not known to be gone; a torn or foreign file is passed over.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn worker_statuses(&self) -> Result<Vec<WorkerStatus>, SpoolError> {
        let dir = self.layout().worker_status();
        let mut names = self.files().list(&dir)?;
        names.sort();
        let present = if names.is_empty() { BTreeMap::new() } else { self.incarnations()? };
        let said = names.iter().filter_map(|name| read::<WorkerStatus>(self.files(), &dir.join(name)));
        Ok(said.filter(|status| present.contains_key(&status.owner)).collect())
    }

    /// Removes the statuses of workers that have neither heartbeat nor lease: a write that came late, or a crash in
    /// between, left them.
    ///
    /// # Errors
    /// A directory cannot be listed, or a file not be removed.
    pub fn forget_worker_statuses(&self) -> Result<(), SpoolError> {
        let dir = self.layout().worker_status();
        let names = self.files().list(&dir)?;
        // Whoever begins is present before it says anything.
        let present = if names.is_empty() { BTreeMap::new() } else { self.incarnations()? };
        for name in names {
            let owner = owner_of(&name);
            if owner.is_some_and(|owner| !present.contains_key(&owner)) {
                self.files().remove_file(&dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Publishes the master's count, for programs and (`text`) for people.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn write_summary(&self, summary: &Summary, text: &str) -> Result<(), SpoolError> {
        self.files().replace_json(&self.layout().status().join("summary.json"), summary)?;
        Ok(self.files().replace(&self.layout().status().join("summary.txt"), text.as_bytes())?)
    }

    /// The master's last count.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        read(self.files(), &self.layout().status().join("summary.json"))
    }
}

/// Whose status a file in `status/workers/` is.
pub(crate) fn owner_of(name: &str) -> Option<Owner> {
    name.strip_suffix(".json")?.parse().ok()
}

fn read<T: DeserializeOwned>(files: &Files, path: &Path) -> Option<T> {
    serde_json::from_slice(&files.read_regular(path, STATUS_BYTES_MAX).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_as_old_as_its_master_lets_it_become() {
        let check = |every_seconds: f64, age: i64, is_fresh: bool, is_heard: bool| {
            let at = jiff::Timestamp::UNIX_EPOCH;
            let summary = Summary { at, counts: Counts::default(), pace: None, every_seconds };
            let now = at + jiff::SignedDuration::from_secs(age);
            assert_eq!((summary.is_fresh(now), summary.is_heard(now)), (is_fresh, is_heard), "{age}");
        };
        check(10.0, 15, true, true);
        check(10.0, 16, false, true);
        check(10.0, 61, false, false);
        check(10.0, -1, false, true);
        check(3600.0, 5400, true, true);
        check(3600.0, 10_801, false, false);
    }

    #[test]
    fn a_task_fits_a_slot_or_a_group() {
        let slot = |cpuset: &str, group| SlotStatus {
            slot: 0,
            cpuset: cpuset.to_owned(),
            memory_bytes: 1 << 30,
            group,
            out_of_service: None,
            activity: None,
        };
        let owner = "node~018f0000-0000-7000-8000-000000000000".parse().expect("an owner");
        let slots = vec![slot("0-3", Some(0)), slot("4-7", Some(0)), slot("8-15", None), slot("16-23", None)];
        let (at, notices) = (jiff::Timestamp::UNIX_EPOCH, Vec::new());
        let worker = WorkerStatus { owner, at, notices, obstacle: None, kinds: Vec::new(), slots };
        let check = |cores, gib: u64, expected| {
            let shape = Shape { cores: Some(cores), memory_bytes: Some(gib << 30) };
            assert_eq!(worker.fits(&shape), expected, "{shape:?}");
        };
        check(8, 1, true);
        check(8, 2, true);
        check(9, 1, false);
        check(1, 3, false);
    }

    #[test]
    fn counts_the_cores_of_a_set() {
        for (cpuset, expected) in [("0", 1), ("0-3", 4), ("0-1,4,6-7", 5), ("", 0), ("x-1", 0), ("3-1", 0)] {
            assert_eq!(cores_of(cpuset), expected, "{cpuset}");
        }
    }
}
