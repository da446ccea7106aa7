use std::collections::BTreeMap;
use std::path::Path;

use super::cgroup::Bounds;
use super::kind::kinds;
use super::tree::Tree;
use super::{Core, CoreKind, CpuSet, NumaNode, Topology};

const CPU: &str = "/sys/devices/system/cpu";
const NODE: &str = "/sys/devices/system/node";
/// What the kernel says of a node to itself (ACPI's own scale); one that says nothing is farther than any.
const DISTANCE_UNKNOWN: u32 = u32::MAX;

impl Topology {
    /// Reads `/sys` and `/proc` under `root`: `/` for this machine. Whatever is missing there is made up as simply as
    /// possible, and said in a notice.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let tree = Tree::new(root);
        let mut notices = Vec::new();
        let allowed =
            |key: &str| tree.row("/proc/self/status", key).and_then(|row| row.parse::<CpuSet>().ok());
        let bounds = Bounds::read(&tree);
        let online = online(&tree, allowed("Cpus_allowed_list:").as_ref(), &mut notices);
        let offline = offline(&tree, &online);
        let usable = within(&online, &[allowed("Cpus_allowed_list:"), bounds.cpus]);
        let mems = [allowed("Mems_allowed_list:"), bounds.mems];
        let total = total_memory(&tree, bounds.memory_bytes, &mut notices);
        let mut nodes = nodes(&tree, &online, &mems, total, &mut notices);
        let memory_bytes = share(&mut nodes, total);
        tell_of_memory(&nodes, &usable, &mut notices);
        let cores = cores(&tree, &usable, &online, &nodes, &mut notices);
        Self { cores, nodes, online, offline, memory_bytes, notices }
    }
}

/// Which CPUs are online, read from `/sys` under `root` without all the rest; `None` where it does not tell.
#[must_use]
pub fn online_cpus(root: &Path) -> Option<CpuSet> {
    told_online(&Tree::new(root))
}

fn told_online(tree: &Tree) -> Option<CpuSet> {
    tree.set(&format!("{CPU}/online")).filter(|online| !online.is_empty())
}

fn within(set: &CpuSet, bounds: &[Option<CpuSet>]) -> CpuSet {
    bounds.iter().flatten().fold(set.clone(), |set, bound| set.and(bound))
}

fn online(tree: &Tree, allowed: Option<&CpuSet>, notices: &mut Vec<String>) -> CpuSet {
    if let Some(online) = told_online(tree) {
        return online;
    }
    notices.push(
        "/sys does not tell which CPUs are online: those that this process may use are taken for them"
            .to_owned(),
    );
    allowed.cloned().unwrap_or_else(|| CpuSet::from_iter([0]))
}

/// Present, or offline by name, and not online. `offline` alone may count CPUs that could only be plugged in.
fn offline(tree: &Tree, online: &CpuSet) -> CpuSet {
    let listed = tree.set(&format!("{CPU}/offline")).unwrap_or_default();
    let present = tree.set(&format!("{CPU}/present"));
    present.map_or(listed.clone(), |present| listed.and(&present)).minus(online)
}

fn total_memory(tree: &Tree, bound: Option<u64>, notices: &mut Vec<String>) -> u64 {
    let machine = tree.total_memory("/proc/meminfo");
    if machine.is_none() {
        notices.push("/proc/meminfo does not tell how much memory there is".to_owned());
    }
    machine.into_iter().chain(bound).min().unwrap_or(0)
}

fn nodes(
    tree: &Tree,
    online: &CpuSet,
    mems: &[Option<CpuSet>],
    total: u64,
    notices: &mut Vec<String>,
) -> Vec<NumaNode> {
    let listed: CpuSet = tree.numbered(NODE, "node").into_iter().collect();
    if listed.is_empty() {
        notices.push("/sys tells of no NUMA nodes: all CPUs and memory are taken for one".to_owned());
        return vec![NumaNode { number: 0, cpus: online.clone(), memory_bytes: total, home: 0 }];
    }
    let usable = within(&listed, mems);
    let memory = |number: u32| match usable.contains(number) {
        true => tree.total_memory(&format!("{NODE}/node{number}/meminfo")).unwrap_or(0),
        false => 0,
    };
    let mut nodes: Vec<NumaNode> = listed
        .iter()
        .map(|number| NumaNode {
            number,
            cpus: tree.set(&format!("{NODE}/node{number}/cpulist")).unwrap_or_default().and(online),
            memory_bytes: memory(number),
            home: number,
        })
        .collect();
    if nodes.iter().all(|node| node.memory_bytes == 0) {
        notices
            .push("/sys does not tell the memory of the NUMA nodes: it is taken as spread evenly".to_owned());
        let with_memory = usable.len().max(1) as u64;
        for node in nodes.iter_mut().filter(|node| usable.contains(node.number)) {
            node.memory_bytes = total / with_memory;
        }
    }
    let homes: Vec<u32> = nodes.iter().map(|node| home(tree, node, &listed, &nodes)).collect();
    for (node, home) in nodes.iter_mut().zip(homes) {
        node.home = home;
    }
    nodes
}

/// Leaves each node its part of what there is for us: what the nodes tell counts memory that a control group keeps from
/// this process. Gives what they have together.
fn share(nodes: &mut [NumaNode], total: u64) -> u64 {
    let all: u64 = nodes.iter().map(|node| node.memory_bytes).sum();
    if all > total {
        for node in nodes {
            let share = u128::from(node.memory_bytes) * u128::from(total) / u128::from(all);
            node.memory_bytes = u64::try_from(share).unwrap_or(u64::MAX);
        }
    }
    all.min(total)
}

/// The nearest node with memory.
fn home(tree: &Tree, node: &NumaNode, listed: &CpuSet, nodes: &[NumaNode]) -> u32 {
    if node.memory_bytes > 0 {
        return node.number;
    }
    let text = tree.read(&format!("{NODE}/node{}/distance", node.number)).unwrap_or_default();
    // One distance for each node, in the order of their numbers.
    let distances: BTreeMap<u32, u32> =
        listed.iter().zip(text.split_whitespace().filter_map(|part| part.parse().ok())).collect();
    let distance = |other: &&NumaNode| distances.get(&other.number).copied().unwrap_or(DISTANCE_UNKNOWN);
    // Nearest first; of those equally near, one with CPUs: memory alone may be slow, or a card's.
    let nearest = nodes
        .iter()
        .filter(|other| other.memory_bytes > 0)
        .min_by_key(|other| (distance(other), other.cpus.is_empty(), other.number));
    nearest.map_or(node.number, |nearest| nearest.number)
}

fn tell_of_memory(nodes: &[NumaNode], usable: &CpuSet, notices: &mut Vec<String>) {
    for node in nodes {
        let NumaNode { number, home, .. } = node;
        let is_used = nodes.iter().any(|other| other.home == *number && other.cpus.touches(usable));
        if home != number && node.cpus.touches(usable) {
            notices
                .push(format!("NUMA node {number} has no memory for us: its CPUs use that of node {home}"));
        } else if node.cpus.is_empty() && node.memory_bytes > 0 && !is_used {
            notices
                .push(format!("NUMA node {number} has memory and no CPUs: its memory is left to the host"));
        }
    }
}

fn cores(
    tree: &Tree,
    usable: &CpuSet,
    online: &CpuSet,
    nodes: &[NumaNode],
    notices: &mut Vec<String>,
) -> Vec<Core> {
    let kinds = kinds(tree, usable);
    let mut cores: BTreeMap<u32, Core> = BTreeMap::new();
    let mut untold = Vec::new();
    let mut nowhere = Vec::new();
    for cpu in usable.iter() {
        let topology = format!("{CPU}/cpu{cpu}/topology");
        // The older name and the newer; both list online CPUs only.
        let siblings = tree
            .set(&format!("{topology}/core_cpus_list"))
            .or_else(|| tree.set(&format!("{topology}/thread_siblings_list")))
            .map(|siblings| siblings.and(online))
            .filter(|siblings| siblings.contains(cpu));
        if siblings.is_none() {
            untold.push(cpu);
        }
        let siblings = siblings.unwrap_or_else(|| CpuSet::from_iter([cpu]));
        let node = nodes.iter().find(|node| node.cpus.contains(cpu));
        if node.is_none() {
            nowhere.push(cpu);
        }
        let core = Core {
            cpus: siblings.and(usable),
            package: tree.number(&format!("{topology}/physical_package_id")).unwrap_or(0),
            node: node.or(nodes.first()).map_or(0, |node| node.number),
            kind: kinds.get(&cpu).copied().unwrap_or(CoreKind::Performance),
            siblings,
        };
        cores.entry(core.siblings.first().unwrap_or(cpu)).or_insert(core);
    }
    let list = |cpus: Vec<u32>| cpus.into_iter().collect::<CpuSet>();
    if !untold.is_empty() {
        let cpus = list(untold);
        notices.push(format!(
            "/sys does not tell which CPUs share a core with {cpus}: each is taken for a core"
        ));
    }
    if !nowhere.is_empty() {
        let (cpus, node) = (list(nowhere), nodes.first().map_or(0, |node| node.number));
        notices.push(format!("/sys does not tell the NUMA node of CPUs {cpus}: node {node} is taken for it"));
    }
    let mut cores: Vec<Core> = cores.into_values().collect();
    cores.sort_by_key(|core| core.cpus.first());
    for core in cores.iter().filter(|core| core.cpus != core.siblings) {
        let others = core.siblings.minus(&core.cpus);
        notices
            .push(format!("whoever has CPUs {others} shares a core with CPUs {}, which are ours", core.cpus));
    }
    cores
}
