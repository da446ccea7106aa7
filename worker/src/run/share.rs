use queue_format::{Class, Resources};

use crate::config::WorkerConfig;
use crate::slots::{SHM_SHARE, Slot};
use crate::topology::CpuSet;

/// The kinds of work that this worker does.
pub fn kinds(config: &WorkerConfig) -> impl Iterator<Item = &'static str> {
    let kinds = [("build", config.containers), ("run", config.containers), ("native", config.native)];
    kinds.into_iter().filter_map(|(kind, is_done)| is_done.then_some(kind))
}

/// Whether tasks of a class are such that this worker does them, in a slot that has room.
#[must_use]
pub fn knows(class: &Class, config: &WorkerConfig) -> bool {
    kinds(config).any(|kind| kind == class.work())
}

/// Whether tasks of a class can be worked on here.
#[must_use]
pub fn takes(class: &Class, slot: &Slot, config: &WorkerConfig) -> bool {
    knows(class, config) && class.shape().fits(slot.cpus.len(), slot.limits.memory_bytes)
}

/// The part of a slot that a task asks for: its first CPUs, those of one core before those of the next, and as much
/// memory.
pub(crate) fn share(slot: &Slot, resources: &Resources) -> Slot {
    let mut share = slot.clone();
    share.cpus.truncate(resources.cores.unwrap_or(u32::MAX).max(1) as usize);
    let limits = &mut share.limits;
    limits.cpuset_cpus = share.cpus.iter().copied().collect::<CpuSet>().to_string();
    limits.memory_bytes = resources.memory_bytes.unwrap_or(u64::MAX).min(limits.memory_bytes);
    limits.shm_bytes = limits.shm_bytes.min(limits.memory_bytes / SHM_SHARE);
    share
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::plan;
    use crate::slots::tests::machine;

    fn slot() -> Slot {
        plan(&machine(1, 8, 1, 64 << 30), &WorkerConfig::default()).slots.remove(1)
    }

    #[test]
    fn claims_what_fits_and_what_it_knows() {
        let check = |class: &str, native: bool, expected: bool| {
            let config = WorkerConfig { native, ..WorkerConfig::default() };
            assert_eq!(takes(&class.parse().expect("a class"), &slot(), &config), expected, "{class}");
        };
        check("5-build", false, true);
        check("0-run", false, true);
        check("5-run-4c-24576m", false, true);
        check("5-run-5c", false, false);
        check("5-run-24577m", false, false);
        check("5-native-1c", false, false);
        check("5-native-1c", true, true);
        check("5-native-5c", true, false);
        check("5-rollout", true, false);
        let none = WorkerConfig { containers: false, native: true, ..WorkerConfig::default() };
        assert!(!takes(&"5-build".parse().expect("a class"), &slot(), &none));
        assert!(takes(&"5-native-1c".parse().expect("a class"), &slot(), &none));
    }

    #[test]
    fn a_share_has_whole_cores_first() {
        let mut slot = plan(&machine(1, 4, 2, 64 << 30), &WorkerConfig::default()).slots.remove(0);
        // As Linux numbers them on most servers: all first threads, then all second ones.
        slot.cpus = vec![0, 4, 1, 5];
        let resources = Resources { cores: Some(2), ..Resources::default() };
        assert_eq!(share(&slot, &resources).limits.cpuset_cpus, "0,4");
    }

    #[test]
    fn a_share_is_the_first_cores_of_a_slot() {
        let check = |cores, memory_bytes, expected: (&str, u64, u64)| {
            let resources = Resources { cores, memory_bytes, timeout_seconds: None };
            let limits = share(&slot(), &resources).limits;
            assert_eq!((limits.cpuset_cpus.as_str(), limits.memory_bytes, limits.shm_bytes), expected);
        };
        check(None, None, ("4-7", 24 << 30, 1 << 30));
        check(Some(2), Some(1 << 30), ("4-5", 1 << 30, 256 << 20));
        check(Some(99), Some(99 << 30), ("4-7", 24 << 30, 1 << 30));
    }
}
