use std::collections::BTreeMap;

use super::tree::Tree;
use super::{CoreKind, CpuSet};

/// Capacities that lie nearer to each other than this part are of one kind: cores of one design differ by as much in
/// the clock that the kernel thinks them capable of.
const SAME_KIND: f64 = 0.9;

/// Which kind each CPU is of; those that are not named are of the only kind.
///
/// Intel's hybrid processors have a device for each kind of core; elsewhere each CPU has a capacity, the fastest 1024
/// (Documentation/admin-guide/cputopology.rst and Documentation/scheduler/sched-capacity.rst of the kernel).
pub(super) fn kinds(tree: &Tree, cpus: &CpuSet) -> BTreeMap<u32, CoreKind> {
    let device = |name: &str| tree.set(&format!("/sys/devices/{name}/cpus"));
    if let (Some(_), Some(atoms)) = (device("cpu_core"), device("cpu_atom")) {
        return atoms.and(cpus).iter().map(|cpu| (cpu, CoreKind::Efficiency(1))).collect();
    }
    let capacity = |cpu: u32| tree.number::<u32>(&format!("/sys/devices/system/cpu/cpu{cpu}/cpu_capacity"));
    let mut by_capacity: Vec<(u32, u32)> =
        cpus.iter().filter_map(|cpu| Some((capacity(cpu)?, cpu))).collect();
    by_capacity.sort_unstable_by(|a, b| b.cmp(a));
    let mut kinds = BTreeMap::new();
    let mut rank = 0u8;
    let mut last = None;
    for (capacity, cpu) in by_capacity {
        if last.is_some_and(|last| f64::from(capacity) < f64::from(last) * SAME_KIND) {
            rank = rank.saturating_add(1);
        }
        last = Some(capacity);
        if rank > 0 {
            kinds.insert(cpu, CoreKind::Efficiency(rank));
        }
    }
    kinds
}
