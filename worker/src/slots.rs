//! Slots: disjoint sets of cores with their share of memory. One task runs in one slot.

use crate::config::WorkerConfig;
use crate::engine::Limits;

const GIB: f64 = (1u64 << 30) as f64;

/// Open files of a container.
const NOFILE_MAX: u64 = 65_536;

/// Tasks at once on a machine too small for two slots of full size.
const SMALL_MACHINE_SLOTS: usize = 2;

/// What the machine has for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The cores that this process may use, ascending.
    pub cores: Vec<u32>,
    /// Its memory.
    pub memory_bytes: u64,
    /// Open files that a process of it may be given; an engine in a cage cannot raise it.
    pub nofile_max: u64,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// 0, 1, 2 …
    pub number: u32,
    /// Its cores.
    pub cores: Vec<u32>,
    /// What its containers may use together.
    pub limits: Limits,
}

/// The slots of a machine, and what is smaller than the configuration asks, in sentences.
#[must_use]
pub fn slots(machine: &Machine, config: &WorkerConfig) -> (Vec<Slot>, Vec<String>) {
    let cores = machine.cores.len().max(1);
    let wanted_cores = (config.slot_cores.max(1) as usize).min(cores);
    let fitting = (cores / wanted_cores).max(SMALL_MACHINE_SLOTS.min(cores));
    let count = if config.slots == 0 { fitting } else { (config.slots as usize).min(cores) };
    let slot_cores = wanted_cores.min(cores / count).max(1);
    let usable = (machine.memory_bytes as f64 - config.reserved_memory_gib * GIB).max(GIB / 2.0);
    let wanted_memory = config.slot_memory_gib * GIB;
    let memory = wanted_memory.min(usable / count as f64);
    let mut notices = Vec::new();
    if slot_cores < config.slot_cores as usize {
        notices.push(format!(
            "a slot has {slot_cores} of the {} cores it should have: this process may use {cores}",
            config.slot_cores
        ));
    }
    if memory < wanted_memory {
        let (has, wants) = (memory / GIB, config.slot_memory_gib);
        notices.push(format!(
            "a slot has {has:.1} of the {wants:.1} GiB it should have: {count} slots share {:.1} GiB",
            usable / GIB
        ));
    }
    if config.slots as usize > count {
        notices.push(format!("{count} slots instead of {}: no two share a core", config.slots));
    }
    let slot = |number: usize| {
        let own: Vec<u32> =
            machine.cores.iter().copied().skip(number * slot_cores).take(slot_cores).collect();
        let limits = Limits {
            cpuset_cpus: cpuset(&own),
            cpuset_mems: None,
            memory_bytes: memory as u64,
            pids_max: config.pids_max,
            nofile_max: machine.nofile_max.min(NOFILE_MAX),
            shm_bytes: ((memory / 4.0) as u64).min(1 << 30),
            disk_bytes: (config.slot_disk_gib * GIB) as u64,
        };
        Slot { number: u32::try_from(number).unwrap_or(u32::MAX), cores: own, limits }
    };
    ((0..count).map(slot).collect(), notices)
}

/// A set of cores as the kernel writes it: `0-3,8`.
#[must_use]
pub fn cpuset(cores: &[u32]) -> String {
    let runs = cores.chunk_by(|a, b| *b == a + 1).map(|run| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    runs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writes_sets_as_the_kernel_does() {
        let check = |cores: &[u32], expected: &str| assert_eq!(cpuset(cores), expected);
        check(&[0], "0");
        check(&[0, 1, 2, 3], "0-3");
        check(&[0, 2, 3, 8], "0,2-3,8");
        check(&[], "");
    }

    #[test]
    fn fits_slots_to_the_machine() {
        let check = |cores: u32,
                     memory_gib: u64,
                     config: WorkerConfig,
                     expected: (usize, usize, u64, usize)| {
            let machine =
                Machine { cores: (0..cores).collect(), memory_bytes: memory_gib << 30, nofile_max: 1 << 20 };
            let (slots, notices) = slots(&machine, &config);
            let got = (slots.len(), slots[0].cores.len(), slots[0].limits.memory_bytes >> 30, notices.len());
            assert_eq!(got, expected, "{cores} cores, {memory_gib} GiB");
        };
        let default = WorkerConfig::default;
        check(32, 256, default(), (8, 4, 24, 0));
        check(32, 128, default(), (8, 4, 15, 1));
        check(2, 24, default(), (2, 1, 11, 2));
        check(1, 2, default(), (1, 1, 1, 2));
        check(6, 64, default(), (2, 3, 24, 1));
        check(2, 24, WorkerConfig { slots: 8, ..default() }, (2, 1, 11, 3));
        check(16, 200, WorkerConfig { slots: 2, ..default() }, (2, 4, 24, 0));
    }

    proptest! {
        #[test]
        fn no_two_slots_share_a_core_or_more_memory_than_there_is(
            cores in proptest::collection::btree_set(0u32..256, 1..64), memory in (1u64 << 30)..(1 << 40),
            slot_count in 0u32..80, slot_cores in 0u32..70,
        ) {
            let machine = Machine { cores: cores.iter().copied().collect(), memory_bytes: memory, nofile_max: 1024 };
            let config = WorkerConfig { slots: slot_count, slot_cores, ..WorkerConfig::default() };
            let (slots, _) = slots(&machine, &config);
            let mut used = std::collections::BTreeSet::new();
            for slot in &slots {
                prop_assert!(!slot.cores.is_empty());
                for core in &slot.cores {
                    prop_assert!(cores.contains(core) && used.insert(*core), "core {} twice", core);
                }
            }
            let together: u64 = slots.iter().map(|slot| slot.limits.memory_bytes).sum();
            prop_assert!(together <= memory);
        }
    }
}
