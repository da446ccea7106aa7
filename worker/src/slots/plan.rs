use super::{Machine, Plan, SHM_SHARE, Share, Slot};
use crate::config::{ReservedCores, WorkerConfig};
use crate::engine::Limits;
use crate::topology::{Core, CoreKind, CpuSet, Topology};

const GIB: f64 = (1u64 << 30) as f64;
/// Open files of a container.
const NOFILE_MAX: u64 = 65_536;
/// Tasks at once on a machine too small for two slots of full size.
const SMALL_MACHINE_SLOTS: usize = 2;
/// /dev/shm takes no more than this, however much memory there is.
const SHM_BYTES_MAX: u64 = 1 << 30;
/// Where other workers have left less memory than this, no slots are made of it: tasks would fail for it.
const MEMORY_LEFT_MIN: f64 = GIB;
/// A writable layer is given so much even where there is less: nothing is claimed then anyway.
const DISK_BYTES_MIN: f64 = GIB;
/// Nodes with so many cores of ours leave one to the host, with so many two.
const CORES_TO_RESERVE_ONE: usize = 32;
const CORES_TO_RESERVE_TWO: usize = 64;

/// Cores of one kind in one NUMA node: slots are cut from them, and may be joined again.
struct Pool<'a> {
    cores: Vec<&'a Core>,
    /// Where its memory is, as an index.
    bank: usize,
    slots: usize,
}

/// The memory of one NUMA node, for the pools whose CPUs use it.
struct Bank {
    node: u32,
    usable: f64,
    slots: usize,
}

/// Divides a machine. Without `slots` in the configuration there are as many as cores, memory and disk allow; a
/// machine too small for two of full size gets two smaller ones. With it, memory and disk are divided among so many.
#[must_use]
pub fn plan(machine: &Machine, config: &WorkerConfig) -> Plan {
    let topology = &machine.topology;
    let mut notices = topology.notices.clone();
    let (reserved, ours) = topology.cores.split_at(reserved_cores(topology, config));
    let free: Vec<Core> =
        ours.iter().filter(|core| !core.siblings.touches(&machine.taken)).cloned().collect();
    // Where nothing is free, slots are made all the same: they come into service when the other worker ends.
    let rest = if free.is_empty() { ours } else { &free };
    if rest.len() < ours.len() {
        notices.push(format!(
            "another worker on this node has CPUs {}, or goes on there soon: slots are made of the rest until the next restart",
            machine.taken
        ));
    }
    // What others have is beside what goes with their CPUs: whoever was first may have taken more.
    let none = Share::default();
    let theirs = if free.is_empty() { &none } else { &machine.theirs };
    let mut banks = banks(topology, config);
    for bank in &mut banks {
        let left = bank.usable - theirs.memory_bytes.get(&bank.node).map_or(0.0, |bytes| *bytes as f64);
        bank.usable = (bank.usable * part(topology, bank.node, rest, ours)).min(left.max(0.0));
    }
    let is_used_up =
        |bank: &mut Bank| theirs.memory_bytes.contains_key(&bank.node) && bank.usable < MEMORY_LEFT_MIN;
    for Bank { node, usable, .. } in banks.extract_if(.., is_used_up) {
        notices.push(format!(
            "other workers on this node have left {:.1} GiB of memory of NUMA node {node}: no slots are made of it; lower \
             slot_memory_gib or slots in their files",
            usable / GIB,
        ));
    }
    let mut pools = pools(topology, rest, &banks);
    let disk = machine.free_disk_bytes.map(|free| {
        let part = rest.len() as f64 / ours.len().max(1) as f64;
        let usable = (free as f64 - config.reserved_disk_gib * GIB).max(0.0);
        (usable * part).min((usable - theirs.disk_bytes as f64).max(0.0))
    });

    let cores: usize = pools.iter().map(|pool| pool.cores.len()).sum();
    let least = if config.slots == 0 { SMALL_MACHINE_SLOTS.min(cores) } else { config.slots as usize };
    let fitting = |size: usize| pools.iter().map(|pool| cut(&pool.cores, size).len()).sum::<usize>();
    // Smaller slots rather than too few.
    let mut sizes = (1..=config.slot_cores.max(1) as usize).rev();
    let size = sizes.find(|size| fitting(*size) >= least.max(1)).unwrap_or(1);
    let fitting = fitting(size);
    notices.extend(choose(&mut pools, &mut banks, size, least, disk, config));
    let slots = make(machine, config, &pools, &banks, size, disk);

    let reserved: CpuSet = reserved.iter().flat_map(|core| core.cpus.iter()).collect();
    tell(&slots, topology, &reserved, config, fitting, &mut notices);
    let used: CpuSet = slots.iter().flat_map(|slot| slot.cpus.iter().copied()).collect();
    let unused = topology.usable().minus(&used).minus(&reserved);
    Plan { slots, reserved, unused, notices }
}

/// Chooses how many slots each pool gets: one after the other, from the pool whose memory is divided among fewest, until
/// cores, memory or disk are used up, but `least` of them. Gives what they did not suffice for.
fn choose(
    pools: &mut [Pool<'_>],
    banks: &mut [Bank],
    size: usize,
    least: usize,
    disk: Option<f64>,
    config: &WorkerConfig,
) -> Option<String> {
    let fitting: Vec<usize> = pools.iter().map(|pool| cut(&pool.cores, size).len()).collect();
    let most: usize = fitting.iter().sum();
    let most = if config.slots == 0 { most } else { most.min(config.slots as usize) };
    for count in 0..most {
        let share = |pool: &Pool<'_>| banks[pool.bank].usable / (banks[pool.bank].slots + 1) as f64;
        let able = pools.iter_mut().zip(&fitting).filter(|(pool, fitting)| pool.slots < **fitting);
        // The first of several: of equals, the last is taken.
        let (pool, _) = able.rev().max_by(|(a, _), (b, _)| share(a).total_cmp(&share(b)))?;
        let has_memory = share(pool) >= config.slot_memory_gib * GIB;
        let has_disk = disk.is_none_or(|disk| (count + 1) as f64 * config.slot_disk_gib * GIB <= disk);
        if count >= least && !(has_memory && has_disk) {
            let (what, key, wanted) = match has_memory {
                false => ("memory", "slot_memory_gib", config.slot_memory_gib),
                true => ("free disk", "slot_disk_gib", config.slot_disk_gib),
            };
            return Some(format!(
                "slots: {count} instead of {most}: there is {what} for so many of {wanted} GiB each; lower {key} for more"
            ));
        }
        banks[pool.bank].slots += 1;
        pool.slots += 1;
    }
    None
}

fn make(
    machine: &Machine,
    config: &WorkerConfig,
    pools: &[Pool<'_>],
    banks: &[Bank],
    size: usize,
    disk: Option<f64>,
) -> Vec<Slot> {
    let count: usize = pools.iter().map(|pool| pool.slots).sum();
    let (wanted_memory, wanted_disk) = (config.slot_memory_gib * GIB, config.slot_disk_gib * GIB);
    let disk = disk.map_or(wanted_disk, |disk| (disk / count.max(1) as f64).max(DISK_BYTES_MIN));
    let mut slots = Vec::new();
    for (group, pool) in (0..).zip(pools) {
        let bank = &banks[pool.bank];
        let memory = wanted_memory.min(bank.usable / bank.slots.max(1) as f64);
        for cores in cut(&pool.cores, size).into_iter().take(pool.slots) {
            let cpus: Vec<u32> = cores.iter().flat_map(|core| core.cpus.iter()).collect();
            let limits = Limits {
                cpuset_cpus: cpus.iter().copied().collect::<CpuSet>().to_string(),
                // Where there is but one node there is nothing to choose.
                cpuset_mems: (machine.topology.nodes.len() > 1).then(|| bank.node.to_string()),
                memory_bytes: memory as u64,
                pids_max: config.pids_max,
                nofile_max: machine.nofile_max.min(NOFILE_MAX),
                shm_bytes: (memory as u64 / SHM_SHARE).min(SHM_BYTES_MAX),
                disk_bytes: wanted_disk.min(disk) as u64,
                cgroup_parent: None,
            };
            let siblings = cores.iter().flat_map(|core| core.siblings.iter()).collect();
            let number = u32::try_from(slots.len()).unwrap_or(u32::MAX);
            slots.push(Slot { number, group, cpus, siblings, limits });
        }
    }
    slots
}

/// How many cores the host keeps; at least one is left for a slot.
fn reserved_cores(topology: &Topology, config: &WorkerConfig) -> usize {
    let cores = &topology.cores;
    let count = match config.reserved_cores {
        ReservedCores::Cpus(cpus) => {
            let mut left = cpus as usize;
            let whole = cores.iter().take_while(|core| {
                let is_kept = left > 0;
                left = left.saturating_sub(core.cpus.len());
                is_kept
            });
            whole.count()
        }
        // Whoever has a part of the node has left the rest to the host, or the host has kept it.
        ReservedCores::ByNode(_) if topology.usable() != topology.online => 0,
        ReservedCores::ByNode(_) => {
            usize::from(cores.len() >= CORES_TO_RESERVE_ONE)
                + usize::from(cores.len() >= CORES_TO_RESERVE_TWO)
        }
    };
    count.min(cores.len().saturating_sub(1))
}

fn banks(topology: &Topology, config: &WorkerConfig) -> Vec<Bank> {
    let all: u64 = topology.nodes.iter().map(|node| node.memory_bytes).sum();
    let kept = config.reserved_memory_gib * GIB / (all.max(1) as f64);
    let banks = topology.nodes.iter().filter(|node| node.memory_bytes > 0).map(|node| {
        let memory = node.memory_bytes as f64;
        Bank { node: node.number, usable: (memory * (1.0 - kept)).max(memory / 2.0), slots: 0 }
    });
    banks.collect()
}

/// How much of a node's memory comes with some of our cores: as much as of the CPUs that use it. The rest goes with those
/// that another worker has.
fn part(topology: &Topology, node: u32, some: &[Core], ours: &[Core]) -> f64 {
    let uses =
        |core: &&Core| topology.nodes.iter().any(|known| known.number == core.node && known.home == node);
    let cpus = |cores: &[Core]| cores.iter().filter(uses).map(|core| core.cpus.len()).sum::<usize>();
    cpus(some) as f64 / cpus(ours).max(1) as f64
}

/// The fastest kind first, then by NUMA node; cores without memory are in none.
fn pools<'a>(topology: &Topology, cores: &'a [Core], banks: &[Bank]) -> Vec<Pool<'a>> {
    let mut keys: Vec<(CoreKind, u32)> = cores.iter().map(|core| (core.kind, core.node)).collect();
    keys.sort_unstable();
    keys.dedup();
    let pool = |(kind, node): (CoreKind, u32)| {
        let home = topology.nodes.iter().find(|found| found.number == node)?.home;
        let bank = banks.iter().position(|bank| bank.node == home)?;
        let cores = cores.iter().filter(|core| (core.kind, core.node) == (kind, node)).collect();
        Some(Pool { cores, bank, slots: 0 })
    };
    keys.into_iter().filter_map(pool).collect()
}

/// Cuts cores, in their order, into pieces of at least `size` CPUs.
fn cut<'a>(cores: &[&'a Core], size: usize) -> Vec<Vec<&'a Core>> {
    let mut pieces = Vec::new();
    let mut piece: Vec<&Core> = Vec::new();
    for core in cores {
        piece.push(core);
        if piece.iter().map(|core| core.cpus.len()).sum::<usize>() >= size {
            pieces.push(std::mem::take(&mut piece));
        }
    }
    pieces
}

fn tell(
    slots: &[Slot],
    topology: &Topology,
    reserved: &CpuSet,
    config: &WorkerConfig,
    fitting: usize,
    notices: &mut Vec<String>,
) {
    let usable = topology.usable();
    let Some(smallest) = slots.iter().map(|slot| slot.cpus.len()).min() else {
        notices.push(format!(
            "there are no slots: of CPUs {usable}, none can use memory that this process may use"
        ));
        return;
    };
    if smallest < config.slot_cores as usize {
        notices.push(format!(
            "a slot has {smallest} of the {} CPUs it should have: this process may use {}, in {} NUMA {}",
            config.slot_cores,
            usable.len(),
            topology.nodes.iter().filter(|node| node.cpus.touches(&usable)).count().max(1),
            if topology.nodes.len() > 1 { "nodes" } else { "node" },
        ));
    }
    let least = |bytes: fn(&Slot) -> u64| slots.iter().map(bytes).min().unwrap_or(0) as f64 / GIB;
    let memory = least(|slot| slot.limits.memory_bytes);
    // Memory is given in whole bytes.
    if memory + 1.0 / GIB < config.slot_memory_gib {
        notices.push(format!(
            "a slot has {memory:.1} of the {:.1} GiB it should have: {:.1} GiB are not reserved, for {} in all",
            config.slot_memory_gib,
            slots.iter().map(|slot| slot.limits.memory_bytes).sum::<u64>() as f64 / GIB,
            slots.len(),
        ));
    }
    if let ReservedCores::Cpus(wanted) = config.reserved_cores
        && (reserved.len() as u64) < u64::from(wanted)
    {
        notices.push(format!(
            "of the {wanted} CPUs that are to be left to the host, {} are: a slot needs one core",
            reserved.len(),
        ));
    }
    let half = topology.memory_bytes as f64 / GIB / 2.0;
    if config.reserved_memory_gib > half {
        notices.push(format!(
            "of the {:.1} GiB of memory that are to be left to the host, {half:.1} are: half of what there is",
            config.reserved_memory_gib,
        ));
    }
    let disk = least(|slot| slot.limits.disk_bytes);
    if disk + 1.0 / GIB < config.slot_disk_gib {
        notices.push(format!(
            "a container may write {disk:.1} of {:.1} GiB: what is free on disk, and not reserved, is for {} in all",
            config.slot_disk_gib,
            slots.len(),
        ));
    }
    if config.slots as usize > fitting {
        notices.push(format!("slots: {fitting} instead of {}: no two share a core", config.slots));
    }
}

#[cfg(test)]
mod tests;
