//! Slots: disjoint sets of whole physical cores inside one NUMA node, each with a share of memory and disk. One task
//! runs in one slot, or in several of one group.

mod locks;
mod plan;
mod planned;

use crate::engine::Limits;
use crate::topology::{CpuSet, Topology};

pub use locks::{CpuLocks, HeldCpus};
pub use plan::plan;
pub use planned::{Plans, Share};

/// /dev/shm takes at most this part of the memory.
pub(crate) const SHM_SHARE: u64 = 4;

/// What the machine has for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its CPUs, cores, NUMA nodes and memory.
    pub topology: Topology,
    /// Open files that a process of it may be given; an engine in a cage cannot raise it.
    pub nofile_max: u64,
    /// Free disk where containers write, before anything is reserved; `None` where that is not known.
    pub free_disk_bytes: Option<u64>,
    /// CPUs that other workers of this node have, or will have again.
    pub taken: CpuSet,
    /// What these have beside them.
    pub theirs: Share,
}

/// How a machine is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The slots, numbered from 0.
    pub slots: Vec<Slot>,
    /// What the host keeps.
    pub reserved: CpuSet,
    /// What is in no slot, for there are too few of a kind in one place, or no memory or disk for one more.
    pub unused: CpuSet,
    /// What is smaller than the configuration asks, and what limited it, in sentences.
    pub notices: Vec<String>,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// 0, 1, 2 …
    pub number: u32,
    /// Slots of one group have their cores in one NUMA node, and of one kind: they can be joined.
    pub group: u32,
    /// Its CPUs, core after core: those of one core stand together.
    pub cpus: Vec<u32>,
    /// All online CPUs of its cores, ours or not: what its locks are on.
    pub siblings: CpuSet,
    /// What its containers may use together.
    pub limits: Limits,
}

impl Slot {
    /// Its CPUs as a set.
    #[must_use]
    pub fn cpu_set(&self) -> CpuSet {
        self.cpus.iter().copied().collect()
    }
}

/// The numbers of the slots that a container with these CPUs takes up: more than one where tasks had joined slots, or
/// where slots were made otherwise when it was started.
#[must_use]
pub fn slots_of(slots: &[Slot], cpuset: &CpuSet) -> Vec<u32> {
    slots.iter().filter(|slot| slot.cpu_set().touches(cpuset)).map(|slot| slot.number).collect()
}

/// As [`slots_of`], of slots that together are these CPUs; `None` where slots are made otherwise now.
#[must_use]
pub fn slots_made_of(slots: &[Slot], cpuset: &CpuSet) -> Option<Vec<u32>> {
    let numbers = slots_of(slots, cpuset);
    let parts = slots.iter().filter(|slot| numbers.contains(&slot.number));
    let together: CpuSet = parts.flat_map(|slot| slot.cpus.iter().copied()).collect();
    (together == *cpuset).then_some(numbers)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::WorkerConfig;
    use crate::topology::{Core, CoreKind, NumaNode};

    /// Machines in tests: NUMA nodes with so many cores of so many CPUs each, numbered core after core.
    pub(crate) fn machine(nodes: u32, cores: u32, threads: u32, memory_bytes: u64) -> Machine {
        let cpu = |node, core, thread| (node * cores + core) * threads + thread;
        let mut topology = Topology {
            cores: Vec::new(),
            nodes: Vec::new(),
            online: (0..nodes * cores * threads).collect(),
            offline: CpuSet::default(),
            memory_bytes,
            notices: Vec::new(),
        };
        for node in 0..nodes {
            let memory_bytes = memory_bytes / u64::from(nodes);
            let cpus = (cpu(node, 0, 0)..cpu(node + 1, 0, 0)).collect();
            topology.nodes.push(NumaNode { number: node, cpus, memory_bytes, home: node });
            for core in 0..cores {
                let cpus: CpuSet = (0..threads).map(|thread| cpu(node, core, thread)).collect();
                let (package, kind) = (node, CoreKind::Performance);
                topology.cores.push(Core { siblings: cpus.clone(), cpus, package, node, kind });
            }
        }
        let (taken, theirs) = Default::default();
        Machine { topology, nofile_max: 1 << 20, free_disk_bytes: None, taken, theirs }
    }

    #[test]
    fn finds_the_slots_of_a_container() {
        let slots = plan(&machine(2, 4, 2, 256 << 30), &WorkerConfig::default()).slots;
        let check = |cpus: &str, expected: &[u32]| {
            assert_eq!(slots_of(&slots, &cpus.parse().unwrap()), expected, "{cpus}");
        };
        check("0-3", &[0]);
        check("1", &[0]);
        check("3-4", &[0, 1]);
        check("8-15", &[2, 3]);
        check("16", &[]);
        check("", &[]);
    }
}
