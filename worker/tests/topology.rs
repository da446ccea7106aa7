//! Recorded and documented machines: what is seen of each, and the slots that are made of it.
//!
//! A file of `topologies/` says in its first lines what the machine is and where the figures are from. What is expected
//! here was reasoned from these lines, not taken from a run.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use worker::config::WorkerConfig;
use worker::slots::{Machine, Plan, plan};
use worker::topology::{CoreKind, Topology, online_cpus, record, unpack};

const KIB: u64 = 1 << 10;
/// Said where a slot has fewer CPUs than it should.
const SMALLER: &str = "a slot has ";

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/topologies")
}

fn names() -> BTreeSet<String> {
    let files = std::fs::read_dir(dir()).unwrap();
    files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The files of a recording, under a root of their own.
fn unpacked(name: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(dir().join(name).with_extension("txt")).unwrap();
    unpack(&text, root.path()).unwrap();
    root
}

fn read(name: &str) -> Topology {
    let root = unpacked(name);
    let topology = Topology::read(root.path());
    // Asked alone, it is the same.
    let is_told = root.path().join("sys/devices/system/cpu/online").exists();
    assert_eq!(online_cpus(root.path()), is_told.then(|| topology.online.clone()), "{name}");
    topology
}

/// Slots of four CPUs and little memory: what limits them is cores alone.
fn divided(topology: Topology, change: impl Fn(&mut WorkerConfig)) -> Plan {
    let mut config = WorkerConfig {
        slot_memory_gib: 0.03,
        reserved_memory_gib: 0.0,
        slot_disk_gib: 1.0,
        ..WorkerConfig::default()
    };
    change(&mut config);
    let (taken, theirs) = Default::default();
    plan(&Machine { topology, nofile_max: 1024, free_disk_bytes: None, taken, theirs }, &config)
}

/// `0-3@1`: CPUs 0 to 3 with the memory of node 1.
fn shown(plan: &Plan) -> String {
    let slot = |limits: &worker::engine::Limits| match &limits.cpuset_mems {
        Some(mems) => format!("{}@{mems}", limits.cpuset_cpus),
        None => limits.cpuset_cpus.clone(),
    };
    plan.slots.iter().map(|slot_| slot(&slot_.limits)).collect::<Vec<_>>().join(" ")
}

/// What is seen of a machine, and the slots made of it.
struct Seen {
    /// Physical cores that are ours, fast and slow.
    cores: (usize, usize),
    /// `NODE:CPUS`, with `>HOME` where it has no memory for us.
    nodes: &'static str,
    memory_kib: u64,
    slots: String,
    /// How each notice begins, in any order.
    notices: &'static [&'static str],
}

#[test]
fn every_recorded_machine_is_seen_as_it_is() {
    let mut checked = BTreeSet::new();
    let mut check = |name: &str, expected: Seen| {
        let topology = read(name);
        let slow = topology.cores.iter().filter(|core| core.kind != CoreKind::Performance).count();
        assert_eq!((topology.cores.len() - slow, slow), expected.cores, "{name}: cores");
        let nodes = topology.nodes.iter().map(|node| match node.home == node.number {
            true => format!("{}:{}", node.number, node.cpus),
            false => format!("{}:{}>{}", node.number, node.cpus, node.home),
        });
        assert_eq!(nodes.collect::<Vec<_>>().join(" "), expected.nodes, "{name}: nodes");
        assert_eq!(topology.memory_bytes / KIB, expected.memory_kib, "{name}: memory");
        let plan = divided(topology, |_| ());
        assert_eq!(shown(&plan), expected.slots, "{name}: slots");
        let is_known = |notice: &String| expected.notices.iter().any(|known| notice.starts_with(known));
        assert!(plan.notices.iter().all(is_known), "{name}: {:#?}", plan.notices);
        assert_eq!(plan.notices.len(), expected.notices.len(), "{name}: {:#?}", plan.notices);
        checked.insert(name.to_owned());
    };
    let runs = |from: u32, count: u32, node: u32| {
        let slots = (0..count).map(|n| format!("{}-{}@{node}", from + 4 * n, from + 4 * n + 3));
        slots.collect::<Vec<_>>().join(" ")
    };
    check(
        "one-node-smt-off",
        Seen {
            cores: (4, 0),
            nodes: "0:0-3",
            memory_kib: 995888,
            slots: "0-1 2-3".to_owned(),
            notices: &[SMALLER],
        },
    );
    check(
        "one-node-smt-on",
        Seen { cores: (4, 0), nodes: "0:0-7", memory_kib: 994912, slots: "0-3 4-7".to_owned(), notices: &[] },
    );
    check(
        "two-nodes-smt",
        Seen {
            cores: (8, 0),
            nodes: "0:0-7 1:8-15",
            memory_kib: 2026508,
            slots: "0-3@0 4-7@0 8-11@1 12-15@1".to_owned(),
            notices: &[],
        },
    );
    check(
        "four-nodes",
        Seen {
            cores: (8, 0),
            nodes: "0:0-1 1:2-3 2:4-5 3:6-7",
            memory_kib: 2028112,
            slots: "0-1@0 2-3@1 4-5@2 6-7@3".to_owned(),
            notices: &[SMALLER],
        },
    );
    check(
        "eight-nodes-of-two",
        Seen {
            cores: (16, 0),
            nodes: "0:0-1 1:2-3 2:4-5 3:6-7 4:8-9 5:10-11 6:12-13 7:14-15",
            memory_kib: 2025452,
            slots: "0-1@0 2-3@1 4-5@2 6-7@3 8-9@4 10-11@5 12-13@6 14-15@7".to_owned(),
            notices: &[SMALLER],
        },
    );
    check(
        "node-without-memory",
        Seen {
            cores: (8, 0),
            nodes: "0:0-3 1:4-7>0",
            memory_kib: 994740,
            slots: "0-3@0 4-7@0".to_owned(),
            notices: &["NUMA node 1 has no memory"],
        },
    );
    check(
        "three-nodes-one-without-memory",
        Seen {
            cores: (6, 0),
            nodes: "0:0-1 1:2-3>2 2:4-5",
            memory_kib: 2028780,
            slots: "0-1@0 2-3@2 4-5@2".to_owned(),
            notices: &["NUMA node 1 has no memory", SMALLER],
        },
    );
    check(
        "node-without-cpus",
        Seen {
            cores: (4, 0),
            nodes: "0:0-3 1:",
            memory_kib: 2029440,
            slots: "0-1@0 2-3@0".to_owned(),
            notices: &["NUMA node 1 has memory and no CPUs", SMALLER],
        },
    );
    check(
        "cpus-offline",
        Seen {
            cores: (3, 0),
            nodes: "0:0-2,6-7",
            memory_kib: 994912,
            slots: "0-1 2,6-7".to_owned(),
            notices: &[SMALLER],
        },
    );
    check(
        "smt-switched-off",
        Seen {
            cores: (4, 0),
            nodes: "0:0,2,4,6",
            memory_kib: 994912,
            slots: "0,2 4,6".to_owned(),
            notices: &[SMALLER],
        },
    );
    check(
        "hotplug-room",
        Seen {
            cores: (4, 0),
            nodes: "0:0-3",
            memory_kib: 994912,
            slots: "0-1 2-3".to_owned(),
            notices: &[SMALLER],
        },
    );
    check(
        "maxcpus-at-boot",
        Seen {
            cores: (6, 0),
            nodes: "0:0-5",
            memory_kib: 994912,
            slots: "0-2 3-5".to_owned(),
            notices: &[SMALLER],
        },
    );
    check(
        "cpuset-v1",
        Seen {
            cores: (3, 0),
            nodes: "0:0-7 1:8-15",
            memory_kib: 768 << 10,
            slots: "6-7@0 8-9@1 10-11@1".to_owned(),
            notices: &[SMALLER],
        },
    );
    check(
        "cpuset-v2",
        Seen {
            cores: (4, 0),
            nodes: "0:0-7>1 1:8-15",
            memory_kib: 512 << 10,
            slots: "8-11@1 12-15@1".to_owned(),
            notices: &[],
        },
    );
    check(
        "half-cores-v2",
        Seen {
            cores: (4, 0),
            nodes: "0:0-7",
            memory_kib: 994912,
            slots: "0,2 4,6-7".to_owned(),
            notices: &["whoever has CPUs 1 ", "whoever has CPUs 3 ", "whoever has CPUs 5 ", SMALLER],
        },
    );
    check(
        "hybrid-hierarchy",
        Seen {
            cores: (3, 0),
            nodes: "0:0-3",
            memory_kib: 384 << 10,
            slots: "1 2 3".to_owned(),
            notices: &[SMALLER],
        },
    );
    check(
        "slurm-v1",
        Seen {
            cores: (8, 0),
            nodes: "0:0-7 1:8-15",
            memory_kib: 1 << 20,
            slots: "4-7@0 12-15@1".to_owned(),
            notices: &[],
        },
    );
    check(
        "slurm-v2",
        Seen {
            cores: (8, 0),
            nodes: "0:0-7 1:8-15",
            memory_kib: 1 << 20,
            slots: "4-7@0 8-11@1".to_owned(),
            notices: &[],
        },
    );
    check(
        "no-sysfs",
        Seen {
            cores: (4, 0),
            nodes: "0:0-3",
            memory_kib: 995888,
            slots: "0-1 2-3".to_owned(),
            notices: &[
                "/sys does not tell which CPUs are online",
                "/sys tells of no NUMA nodes",
                "/sys does not tell which CPUs share a core",
                SMALLER,
            ],
        },
    );
    check(
        "no-cgroups",
        Seen {
            cores: (2, 0),
            nodes: "0:0-1",
            memory_kib: 481048,
            slots: "0 1".to_owned(),
            notices: &[SMALLER],
        },
    );
    check(
        "smt-four-sockets",
        Seen {
            cores: (16, 0),
            nodes: "0:0-7 1:8-15 2:16-23 3:24-31",
            memory_kib: 2021092,
            slots: "0-3@0 4-7@0 8-11@1 12-15@1 16-19@2 20-23@2 24-27@3 28-31@3".to_owned(),
            notices: &[],
        },
    );
    // 32 cores and more: the host keeps the first.
    check(
        "sixty-four",
        Seen {
            cores: (32, 0),
            nodes: "0:0-31 1:32-63",
            memory_kib: 2012468,
            slots: [runs(2, 7, 0), runs(32, 8, 1)].join(" "),
            notices: &[],
        },
    );
    check(
        "alder-lake",
        Seen {
            cores: (8, 8),
            nodes: "0:0-23",
            memory_kib: 64 << 20,
            slots: "0-3 4-7 8-11 12-15 16-19 20-23".to_owned(),
            notices: &[],
        },
    );
    check(
        "big-little",
        Seen {
            cores: (2, 4),
            nodes: "0:0-5",
            memory_kib: 4074304,
            slots: "4-5 0-1 2-3".to_owned(),
            notices: &["/sys tells of no NUMA nodes", SMALLER],
        },
    );
    check(
        "power8-smt-off",
        Seen {
            cores: (20, 0),
            nodes: "0:0,8,16,24,32 1:40,48,56,64,72>0 2:80,88,96,104,112 3:120,128,136,144,152>2",
            memory_kib: (30_359 + 30_425) << 10,
            slots: "0,8,16,24@0 40,48,56,64@0 80,88,96,104@2 120,128,136,144@2".to_owned(),
            notices: &["NUMA node 1 has no memory", "NUMA node 3 has no memory"],
        },
    );
    check(
        "power9-smt4",
        Seen {
            cores: (32, 0),
            nodes: "0:0-63 8:64-127",
            memory_kib: 32 << 20,
            slots: [runs(4, 15, 0), runs(64, 16, 8)].join(" "),
            notices: &[],
        },
    );
    check(
        "xeon-threads-last",
        Seen {
            cores: (20, 0),
            nodes: "0:0-9,20-29 1:10-19,30-39",
            memory_kib: 128 << 20,
            slots: "0-1,20-21@0 2-3,22-23@0 4-5,24-25@0 6-7,26-27@0 8-9,28-29@0 10-11,30-31@1 12-13,32-33@1 14-15,34-35@1 16-17,36-37@1 18-19,38-39@1".to_owned(),
            notices: &[],
        },
    );
    check(
        "two-cpus-v1",
        Seen {
            cores: (2, 0),
            nodes: "0:0-1",
            memory_kib: 24_684_096,
            slots: "0 1".to_owned(),
            notices: &[SMALLER],
        },
    );
    check(
        "docker-container-v1",
        Seen {
            cores: (1, 0),
            nodes: "0:0-1",
            memory_kib: 512 << 10,
            slots: "1".to_owned(),
            notices: &[SMALLER],
        },
    );
    assert_eq!(checked, names(), "every recording has its row");
}

#[test]
fn a_recording_of_a_recording_is_the_same() {
    for name in names() {
        let root = unpacked(&name);
        let again = tempfile::tempdir().unwrap();
        unpack(&record(root.path()), again.path()).unwrap();
        assert_eq!(Topology::read(again.path()), Topology::read(root.path()), "{name}");
    }
    for damaged in ["/sys/x", "/etc/passwd\tx", "/sys/../etc/x\ty", "x\ty"] {
        let root = tempfile::tempdir().unwrap();
        assert!(unpack(damaged, root.path()).is_err(), "{damaged}");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
