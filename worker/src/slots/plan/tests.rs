use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::tests::machine;
use super::*;
use crate::config::Auto;
use crate::topology::NumaNode;

#[test]
fn fits_slots_to_the_machine() {
    let check = |(nodes, cores, threads): (u32, u32, u32),
                 memory_gib: u64,
                 free_disk_gib: u64,
                 config: WorkerConfig,
                 expected: (usize, usize, u64, u64, usize)| {
        let mut machine = machine(nodes, cores, threads, memory_gib << 30);
        machine.free_disk_bytes = Some(free_disk_gib << 30);
        let Plan { slots, notices, .. } = plan(&machine, &config);
        let Limits { memory_bytes, disk_bytes, .. } = slots[0].limits;
        let got = (slots.len(), slots[0].cpus.len(), memory_bytes >> 30, disk_bytes >> 30, notices.len());
        assert_eq!(got, expected, "{nodes} × {cores} × {threads}, {memory_gib} GiB: {notices:#?}");
    };
    let default = WorkerConfig::default;
    let none_reserved = || WorkerConfig { reserved_cores: ReservedCores::Cpus(0), ..default() };
    // One core of 32 is the host's.
    check((1, 32, 1), 256, 9999, default(), (7, 4, 24, 200, 0));
    check((1, 32, 1), 256, 9999, none_reserved(), (8, 4, 24, 200, 0));
    // Memory for five of 24 GiB, unless it is to be divided among eight.
    check((1, 32, 1), 128, 9999, none_reserved(), (5, 4, 24, 200, 1));
    check((1, 32, 1), 128, 9999, WorkerConfig { slots: 8, ..none_reserved() }, (8, 4, 15, 200, 1));
    // Disk for two of 200 GiB.
    check((1, 16, 1), 256, 505, default(), (2, 4, 24, 200, 1));
    check((1, 16, 1), 256, 31, default(), (2, 4, 24, 13, 2));
    check((1, 16, 1), 256, 0, WorkerConfig { slots: 4, ..default() }, (4, 4, 24, 1, 1));
    // Small machines.
    check((1, 2, 1), 24, 999, default(), (2, 1, 11, 200, 2));
    check((1, 1, 1), 2, 999, default(), (1, 1, 1, 200, 2));
    check((1, 6, 1), 64, 999, default(), (2, 3, 24, 200, 1));
    check((1, 2, 1), 24, 999, WorkerConfig { slots: 8, ..default() }, (2, 1, 11, 200, 3));
    check((1, 16, 1), 200, 999, WorkerConfig { slots: 2, ..default() }, (2, 4, 24, 200, 0));
    // Two threads a core: four CPUs are two cores, and so are three.
    check((2, 8, 2), 256, 9999, default(), (8, 4, 24, 200, 0));
    check((2, 8, 2), 256, 9999, WorkerConfig { slot_cores: 3, ..default() }, (8, 4, 24, 200, 0));
}

#[test]
fn few_slots_are_spread_over_the_memory() {
    let config = WorkerConfig { slots: 3, ..WorkerConfig::default() };
    let slots = plan(&machine(2, 8, 1, 64 << 30), &config).slots;
    let places: Vec<_> = slots.iter().map(|slot| (slot.group, slot.limits.cpuset_cpus.as_str())).collect();
    assert_eq!(places, [(0, "0-3"), (0, "4-7"), (1, "8-11")]);
    assert_eq!(slots[2].limits.cpuset_mems.as_deref(), Some("1"));
    assert!(slots[2].limits.memory_bytes > slots[0].limits.memory_bytes);
}

#[test]
fn another_workers_cores_are_left_to_it() {
    let config = WorkerConfig { reserved_cores: ReservedCores::Cpus(2), ..WorkerConfig::default() };
    let mut node = machine(1, 16, 2, 256 << 30);
    let first = plan(&node, &WorkerConfig { slots: 3, ..config.clone() });
    assert_eq!(first.slots[2].limits.cpuset_cpus, "10-13");
    node.taken = first.slots.iter().flat_map(|slot| slot.cpus.iter().copied()).collect();
    let second = plan(&node, &config);
    // The first core stays the host's; four of five slots, for the memory of 12 CPUs of 30 went with the others.
    assert_eq!((second.reserved.to_string(), second.slots.len()), ("0-1".to_owned(), 4));
    assert_eq!(second.slots[0].limits.cpuset_cpus, "14-17");
    assert_eq!(second.slots[3].limits.memory_bytes >> 30, 24);
    node.taken = (2..32).collect();
    assert_eq!(plan(&node, &config).slots[0].limits.cpuset_cpus, "2-5", "in service once they are free");
}

#[test]
fn what_cannot_be_left_to_the_host_is_said() {
    let check = |config: WorkerConfig, expected: &str| {
        let notices = plan(&machine(1, 8, 1, 64 << 30), &config).notices.join("\n");
        assert!(notices.contains(expected), "{notices}");
    };
    let default = WorkerConfig::default;
    let memory = || WorkerConfig { reserved_memory_gib: 1000.0, ..default() };
    check(memory(), "of the 1000.0 GiB of memory that are to be left to the host, 32.0 are");
    check(memory(), ": 32.0 GiB are not reserved, for ");
    let cores = WorkerConfig { reserved_cores: ReservedCores::Cpus(99), ..default() };
    check(cores, "of the 99 CPUs that are to be left to the host, 7 are");
}

#[test]
fn the_host_keeps_the_first_cores() {
    let check = |cores, threads, reserved: ReservedCores, expected: &str| {
        let config = WorkerConfig { reserved_cores: reserved, ..WorkerConfig::default() };
        let plan = plan(&machine(1, cores, threads, 512 << 30), &config);
        assert_eq!(plan.reserved.to_string(), expected);
    };
    let auto = ReservedCores::ByNode(Auto::Auto);
    check(31, 2, auto, "");
    check(32, 2, auto, "0-1");
    check(64, 1, auto, "0-1");
    check(8, 2, ReservedCores::Cpus(3), "0-3");
    check(8, 1, ReservedCores::Cpus(99), "0-6");
    let mut part = machine(1, 64, 1, 512 << 30);
    part.topology.cores.remove(63);
    assert!(plan(&part, &WorkerConfig::default()).reserved.is_empty(), "a part of a node");
}

/// Any machine: what a node has, and what of it is ours.
fn topologies() -> impl Strategy<Value = Topology> {
    let core = (1usize..5, any::<[bool; 4]>());
    let node = (vec(core, 0..9), 0u64..4, any::<bool>());
    (vec(node, 1..5), any::<bool>()).prop_map(|(nodes, threads_last)| {
        let mut topology = machine(1, 0, 1, 0).topology;
        topology.nodes.clear();
        let count: u32 = nodes.iter().map(|(cores, ..)| cores.len() as u32).sum();
        let mut number = 0;
        for (node, (cores, memory_gib, is_hybrid)) in (0u32..).zip(nodes) {
            let mut all = CpuSet::default();
            for (n, (threads, ours)) in cores.iter().enumerate() {
                let cpu = |thread: u32| {
                    if threads_last { thread * count + number } else { number * 4 + thread }
                };
                let siblings: CpuSet = (0..*threads as u32).map(cpu).collect();
                let cpus: CpuSet =
                    siblings.iter().zip(ours).filter_map(|(cpu, is_ours)| is_ours.then_some(cpu)).collect();
                all = all.iter().chain(siblings.iter()).collect();
                number += 1;
                let kind =
                    if is_hybrid && n % 2 == 1 { CoreKind::Efficiency(1) } else { CoreKind::Performance };
                if !cpus.is_empty() {
                    topology.cores.push(Core { cpus, siblings, package: node, node, kind });
                }
            }
            let memory_bytes = memory_gib << 30;
            topology.memory_bytes += memory_bytes;
            topology.online = topology.online.iter().chain(all.iter()).collect();
            topology.nodes.push(NumaNode { number: node, cpus: all, memory_bytes, home: node });
        }
        let first = topology.nodes.iter().find(|node| node.memory_bytes > 0).map(|node| node.number);
        for node in topology.nodes.iter_mut().filter(|node| node.memory_bytes == 0) {
            node.home = first.unwrap_or(node.number);
        }
        topology.cores.sort_by_key(|core| core.cpus.first());
        topology
    })
}

proptest! {
    #[test]
    fn no_two_slots_share_a_core_or_more_memory_than_there_is(
        topology in topologies(), slots in 0u32..40, slot_cores in 0u32..20, reserved in 0u32..9, disk in any::<Option<u32>>(),
        taken in proptest::collection::btree_set(0u32..40, 0..6),
        theirs in proptest::collection::btree_map(0u32..4, 0u64..80, 0..3), their_disk in 0u64..5,
    ) {
        let config = WorkerConfig {
            slots, slot_cores, slot_memory_gib: 0.5, slot_disk_gib: 1.0,
            reserved_cores: ReservedCores::Cpus(reserved), ..WorkerConfig::default()
        };
        let taken: CpuSet = taken.into_iter().collect();
        let free_disk_bytes = disk.map(|kib| u64::from(kib) << 10);
        let theirs = Share {
            memory_bytes: theirs.into_iter().map(|(node, gib)| (node, gib << 30)).collect(),
            disk_bytes: their_disk << 30,
        };
        let machine = Machine {
            topology: topology.clone(), nofile_max: 1024, free_disk_bytes, taken: taken.clone(), theirs: theirs.clone(),
        };
        let plan = plan(&machine, &config);
        let mut used = BTreeSet::new();
        let mut memory: BTreeMap<String, u64> = BTreeMap::new();
        let mut groups: BTreeMap<u32, (u32, CoreKind)> = BTreeMap::new();
        for slot in &plan.slots {
            prop_assert!(!slot.cpus.is_empty() && slot.limits.memory_bytes > 0);
            prop_assert_eq!(slot.limits.cpuset_cpus.clone(), slot.cpu_set().to_string());
            for cpu in &slot.cpus {
                prop_assert!(used.insert(*cpu), "CPU {} twice", cpu);
            }
            let cores: Vec<_> = topology.cores.iter().filter(|core| core.cpus.touches(&slot.cpu_set())).collect();
            prop_assert!(cores.iter().all(|core| core.cpus.is_within(&slot.cpu_set())), "half a core");
            prop_assert_eq!(cores.iter().map(|core| core.cpus.len()).sum::<usize>(), slot.cpus.len());
            for core in cores {
                prop_assert_eq!(*groups.entry(slot.group).or_insert((core.node, core.kind)), (core.node, core.kind));
            }
            let (node, _) = groups[&slot.group];
            let home = topology.nodes[node as usize].home;
            prop_assert_eq!(slot.limits.cpuset_mems.clone(), (topology.nodes.len() > 1).then(|| home.to_string()));
            *memory.entry(home.to_string()).or_default() += slot.limits.memory_bytes;
        }
        // Where others have every core, slots are made for the time after them.
        let is_beside_others = topology.cores.iter()
            .any(|core| !core.cpus.touches(&plan.reserved) && !core.siblings.touches(&taken));
        let left = |all: u64, theirs: u64| if is_beside_others { all.saturating_sub(theirs) } else { all };
        for (home, used) in memory {
            let node = topology.nodes.iter().find(|node| node.number.to_string() == home).unwrap();
            let theirs = theirs.memory_bytes.get(&node.number).copied().unwrap_or_default();
            prop_assert!(used <= left(node.memory_bytes, theirs), "{} of node {}", used, home);
        }
        let disk: u64 = plan.slots.iter().map(|slot| slot.limits.disk_bytes).sum();
        // Slots that a person counted get the least of all that they can work with, however little there is.
        let least = plan.slots.len() as u64 * DISK_BYTES_MIN as u64;
        let is_held = free_disk_bytes.is_none_or(|free| disk <= left(free, theirs.disk_bytes).max(least));
        prop_assert!(is_held, "{} of the disk", disk);
        let used: CpuSet = used.into_iter().collect();
        let ours: CpuSet = topology.cores.iter().filter(|core| !core.siblings.touches(&taken))
            .flat_map(|core| core.cpus.iter()).collect();
        prop_assert!(!used.touches(&taken) || ours.is_within(&plan.reserved), "another worker's");
        prop_assert!(!used.touches(&plan.reserved) && !used.touches(&plan.unused));
        prop_assert_eq!(used.len() + plan.reserved.len() + plan.unused.len(), topology.usable().len());
        let is_possible = !topology.cores.is_empty() && topology.memory_bytes > 0;
        prop_assert!(is_possible || plan.slots.is_empty());
        let is_used_up = plan.notices.iter().any(|said| said.contains("other workers on this node have left"));
        prop_assert!(!is_possible || is_used_up || !plan.slots.is_empty());
        prop_assert!(slots == 0 || plan.slots.len() <= slots as usize);
        prop_assert!(!plan.slots.is_empty() || !plan.notices.is_empty());
    }
}
