use std::path::Path;

use super::{Topology, record};
use crate::slots::Plan;

impl Topology {
    /// The machine, the slots made of it, and why they are so: for people.
    #[must_use]
    pub fn tell(&self, plan: &Plan) -> String {
        let mut lines = vec![self.summary(), String::new()];
        for slot in &plan.slots {
            let limits = &slot.limits;
            let mems = limits.cpuset_mems.as_ref().map(|mems| format!(" of node {mems}")).unwrap_or_default();
            let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
            lines.push(format!(
                "slot {}: CPUs {}, {:.1} GiB{mems}, {:.1} GiB of disk; joined with others of group {}",
                slot.number,
                limits.cpuset_cpus,
                gib(limits.memory_bytes),
                gib(limits.disk_bytes),
                slot.group,
            ));
        }
        for (what, cpus) in [("left to the host", &plan.reserved), ("in no slot", &plan.unused)] {
            if !cpus.is_empty() {
                lines.push(format!("{what}: CPUs {cpus}"));
            }
        }
        lines.extend(plan.notices.iter().map(|notice| format!("note: {notice}")));
        lines.join("\n") + "\n"
    }
}

/// A recording of this machine with its first line, as the tests of this crate have them. Look through it before it is
/// sent: it names this process's control groups.
#[must_use]
pub fn recording_of_this_machine() -> String {
    let kernel = sysinfo::System::kernel_version().unwrap_or_else(|_| "unknown".to_owned());
    let system = sysinfo::System::long_os_version().unwrap_or_else(|_| "unknown".to_owned());
    let arch = sysinfo::System::cpu_arch();
    format!("# Recorded on {arch}, Linux {kernel}, {system}.\n{}", record(Path::new("/")))
}
