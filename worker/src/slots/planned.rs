//! What the workers of a node have planned their slots with: each leaves the others what is theirs, and a successor goes on
//! with the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use queue_format::{Life, LifeLock, PathError};
use serde::{Deserialize, Serialize};
use systemd::state_file;

use super::{Machine, Slot};
use crate::topology::CpuSet;

/// The plans of this start of the machine, a file for each instance, in the node's state directory.
#[derive(Clone, Debug)]
pub struct Plans {
    state_dir: PathBuf,
    boot: String,
}

/// Memory of NUMA nodes, and disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// By the number of the NUMA node.
    pub memory_bytes: BTreeMap<u32, u64>,
    /// What containers may write.
    pub disk_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Planned {
    boot: String,
    /// What was free then.
    free_disk_bytes: Option<u64>,
    cpus: String,
    memory_bytes: BTreeMap<u32, u64>,
    disk_bytes: u64,
}

impl Plans {
    /// Of a node, since it was started.
    #[must_use]
    pub fn of(state_dir: &Path, boot: &str) -> Self {
        Self { state_dir: state_dir.to_owned(), boot: boot.to_owned() }
    }

    /// What other instances have planned with, as far as their CPUs are `taken` now.
    #[must_use]
    pub fn of_others(&self, instance: &str, taken: &CpuSet) -> Share {
        let mut share = Share::default();
        for entry in fs::read_dir(self.dir()).into_iter().flatten().flatten() {
            if entry.path() == self.path(instance) {
                continue;
            }
            let Some(planned) = self.read(&entry.path()) else { continue };
            if planned.cpus.parse::<CpuSet>().is_ok_and(|cpus| cpus.touches(taken)) {
                for (node, bytes) in planned.memory_bytes {
                    *share.memory_bytes.entry(node).or_default() += bytes;
                }
                share.disk_bytes += planned.disk_bytes;
            }
        }
        share
    }

    /// The free disk that slots are planned with. What runs on has filled some of it: while there is such, as much as when
    /// the process before this one planned, or its slots would not be there any more.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn free_disk(&self, instance: &str, now_bytes: Option<u64>) -> Result<Option<u64>, PathError> {
        for owner in LifeLock::known(&self.state_dir)? {
            if LifeLock::look(&self.state_dir, &owner)? == Life::Left {
                let before = self.read(&self.path(instance)).and_then(|before| before.free_disk_bytes);
                return Ok(before.max(now_bytes));
            }
        }
        Ok(now_bytes)
    }

    /// Notes what this instance has planned with.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn keep(&self, instance: &str, machine: &Machine, slots: &[Slot]) -> Result<(), PathError> {
        let only = machine.topology.nodes.first().map_or(0, |node| node.number);
        let mut memory_bytes = BTreeMap::new();
        for slot in slots {
            let node = slot.limits.cpuset_mems.as_ref().and_then(|mems| mems.parse().ok()).unwrap_or(only);
            *memory_bytes.entry(node).or_default() += slot.limits.memory_bytes;
        }
        let cpus: CpuSet = slots.iter().flat_map(|slot| slot.cpus.iter().copied()).collect();
        let planned = Planned {
            boot: self.boot.clone(),
            free_disk_bytes: machine.free_disk_bytes,
            cpus: cpus.to_string(),
            memory_bytes,
            disk_bytes: slots.iter().map(|slot| slot.limits.disk_bytes).sum(),
        };
        let path = self.path(instance);
        let write = || {
            fs::create_dir_all(self.dir())?;
            state_file::replace(&path, &serde_json::to_vec(&planned)?, 0o600)
        };
        write().map_err(|source| PathError { action: "write", path: path.clone(), source })
    }

    fn read(&self, path: &Path) -> Option<Planned> {
        let planned: Planned = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (planned.boot == self.boot).then_some(planned)
    }

    fn dir(&self) -> PathBuf {
        self.state_dir.join("planned")
    }

    fn path(&self, instance: &str) -> PathBuf {
        self.dir().join(format!("{instance}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WorkerConfig;
    use crate::slots::plan;
    use crate::slots::tests::machine;

    const GIB: u64 = 1 << 30;

    /// Each plans beside those before it, whose CPUs it finds taken.
    fn planned(dir: &Path, instances: &[(&str, u32)], boot: &str) -> Vec<Vec<Slot>> {
        let plans = Plans::of(dir, boot);
        let mut taken: Vec<u32> = Vec::new();
        let mut found = Vec::new();
        for (instance, slots) in instances {
            let mut machine = machine(2, 16, 1, 128 * GIB);
            machine.free_disk_bytes = Some(600 * GIB);
            machine.taken = taken.iter().copied().collect();
            machine.theirs = plans.of_others(instance, &machine.taken);
            let slots = plan(&machine, &WorkerConfig { slots: *slots, ..WorkerConfig::default() }).slots;
            plans.keep(instance, &machine, &slots).unwrap();
            taken.extend(slots.iter().flat_map(|slot| slot.cpus.iter().copied()));
            found.push(slots);
        }
        found
    }

    #[test]
    fn workers_of_a_node_have_no_more_together_than_there_is() {
        let dir = tempfile::tempdir().unwrap();
        for instances in
            [[("a", 4), ("b", 0), ("c", 0)], [("a", 2), ("b", 3), ("c", 1)], [("a", 1), ("b", 1), ("c", 1)]]
        {
            let found: Vec<Slot> = planned(dir.path(), &instances, "boot").into_iter().flatten().collect();
            assert!(found.len() > 2, "{instances:?}");
            for node in ["0", "1"] {
                let of_node = found.iter().filter(|slot| slot.limits.cpuset_mems.as_deref() == Some(node));
                let memory: u64 = of_node.map(|slot| slot.limits.memory_bytes).sum();
                assert!(memory <= 64 * GIB, "{instances:?}: {} GiB of node {node}", memory / GIB);
            }
            let disk: u64 = found.iter().map(|slot| slot.limits.disk_bytes).sum();
            assert!(disk <= 600 * GIB, "{instances:?}: {} GiB of disk", disk / GIB);
        }
    }

    #[test]
    fn of_memory_that_others_have_no_slots_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let mut machine = machine(1, 8, 1, 16 * GIB);
        let config = WorkerConfig { slots: 1, ..WorkerConfig::default() };
        let plans = Plans::of(dir.path(), "boot");
        let first = plan(&machine, &config).slots;
        assert_eq!(first[0].limits.memory_bytes, 15 * GIB);
        plans.keep("a", &machine, &first).unwrap();
        machine.taken = first[0].cpu_set();
        machine.theirs = plans.of_others("b", &machine.taken);
        let second = plan(&machine, &config);
        assert_eq!(second.slots, []);
        assert!(
            second.notices.iter().any(|said| said.contains("lower slot_memory_gib")),
            "{:?}",
            second.notices
        );
    }

    #[test]
    fn what_counts_is_of_others_of_this_start_that_have_their_cpus() {
        let dir = tempfile::tempdir().unwrap();
        planned(dir.path(), &[("a", 2)], "boot");
        let check = |instance: &str, taken: &str, boot: &str, expected: bool| {
            let share = Plans::of(dir.path(), boot).of_others(instance, &taken.parse().unwrap());
            assert_eq!(share != Share::default(), expected, "{instance} {taken} {boot}");
        };
        check("b", "0-3", "boot", true);
        check("b", "30", "boot", false);
        check("b", "", "boot", false);
        check("a", "0-3", "boot", false);
        check("b", "0-3", "another", false);
    }
}
