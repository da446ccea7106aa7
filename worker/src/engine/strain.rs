use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use queue_format::NodeRecord;

use super::cgroup::{Cgroup, Effective};
use crate::topology::CpuSet;

/// The kernel tells of CPU time in hundredths of a second, whatever its own clock (`USER_HZ`, proc_stat(5)).
const TICKS_A_SECOND: f64 = 100.0;
const NANOSECONDS: f64 = 1e9;
const MICROSECONDS: f64 = 1e6;
/// Processes of a container that are asked at one look, where the kernel does not tell of whole CPUs.
const PROCESSES_MAX: usize = 256;

/// What a container had to wait for, from its start to the last look.
pub(super) struct Strain {
    group: Cgroup,
    cpus: CpuSet,
    held: Effective,
    first: Counters,
    last: Counters,
    /// Nanoseconds that processes have waited for a CPU, by process.
    delays: BTreeMap<i32, u64>,
}

/// What only ever grows.
#[derive(Clone, Debug, Default)]
struct Counters {
    steal_seconds: Option<f64>,
    run_delay_seconds: Option<f64>,
    /// Of cpu, memory and io.
    pressure_seconds: [Option<f64>; 3],
}

impl Strain {
    pub(super) fn begin(group: &Cgroup, held: Effective) -> Self {
        let cpus = held.cpuset_cpus.as_deref().and_then(|cpus| cpus.parse().ok()).unwrap_or_default();
        let first = Counters::read(group, &cpus);
        Self { group: group.clone(), cpus, held, last: first.clone(), first, delays: BTreeMap::new() }
    }

    pub(super) fn look(&mut self) {
        self.last = Counters::read(&self.group, &self.cpus);
        if self.last.run_delay_seconds.is_none() {
            for process in self.group.processes().into_iter().take(PROCESSES_MAX) {
                let text = fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap_or_default();
                let delay = text.split_whitespace().nth(1).and_then(|field| field.parse().ok());
                self.delays.extend(delay.map(|delay: u64| (process, delay)));
            }
        }
    }

    pub(super) fn record(&self) -> NodeRecord {
        let grown = |first: Option<f64>, last: Option<f64>| Some(milliseconds((last? - first?).max(0.0)));
        let of_processes = milliseconds(self.delays.values().sum::<u64>() as f64 / NANOSECONDS);
        let of_cpus = grown(self.first.run_delay_seconds, self.last.run_delay_seconds);
        let pressure = |n: usize| grown(self.first.pressure_seconds[n], self.last.pressure_seconds[n]);
        let held = &self.held;
        NodeRecord {
            cpuset_cpus: held.cpuset_cpus.clone(),
            cpuset_mems: held.cpuset_mems.clone(),
            memory_bytes: held.memory_bytes,
            pids_max: held.pids_max,
            run_delay_seconds: of_cpus.or_else(|| (!self.delays.is_empty()).then_some(of_processes)),
            steal_seconds: grown(self.first.steal_seconds, self.last.steal_seconds),
            cpu_pressure_seconds: pressure(0),
            memory_pressure_seconds: pressure(1),
            io_pressure_seconds: pressure(2),
            pressure_of: (0..3).any(|n| pressure(n).is_some()).then(|| self.group.pressure("cpu").1),
        }
    }
}

impl Counters {
    fn read(group: &Cgroup, cpus: &CpuSet) -> Self {
        let read = |path: &Path| fs::read_to_string(path).ok();
        let pressure = |resource| pressure_seconds(&read(&group.pressure(resource).0)?);
        Self {
            steal_seconds: read("/proc/stat".as_ref()).and_then(|text| steal_seconds(&text, cpus)),
            run_delay_seconds: read("/proc/schedstat".as_ref())
                .and_then(|text| run_delay_seconds(&text, cpus)),
            pressure_seconds: ["cpu", "memory", "io"].map(pressure),
        }
    }
}

/// Seconds, to the millisecond: none of these is known better.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

/// The field `n` of the rows `cpuN` of a file, added over some CPUs; `None` where there is no such row.
fn field_of_cpus(text: &str, cpus: &CpuSet, n: usize) -> Option<f64> {
    let rows = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let cpu = fields.next()?.strip_prefix("cpu")?.parse().ok()?;
        cpus.contains(cpu).then(|| fields.nth(n)?.parse::<f64>().ok())?
    });
    rows.fold(None, |sum, field| Some(sum.unwrap_or(0.0) + field))
}

/// The eighth field of `cpuN` in /proc/stat: time that the hypervisor gave to others (proc_stat(5)).
fn steal_seconds(text: &str, cpus: &CpuSet) -> Option<f64> {
    Some(field_of_cpus(text, cpus, 7)? / TICKS_A_SECOND)
}

/// The eighth field of `cpuN` in /proc/schedstat: time that runnable threads waited for this CPU
/// (Documentation/scheduler/sched-stats.rst).
fn run_delay_seconds(text: &str, cpus: &CpuSet) -> Option<f64> {
    Some(field_of_cpus(text, cpus, 7)? / NANOSECONDS)
}

/// Time in which some process waited (Documentation/accounting/psi.rst).
fn pressure_seconds(text: &str) -> Option<f64> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    Some(some.split("total=").nth(1)?.trim().parse::<f64>().ok()? / MICROSECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_counts() {
        let cpus = CpuSet::from_iter([1, 2]);
        let stat = "cpu  9 9 9 9 9 9 9 900 9 9\ncpu0 1 1 1 1 1 1 1 500 0 0\ncpu1 1 2 3 4 5 6 7 150 0 0\ncpu2 0 0 0 0 0 0 0 50 0 0\nintr 1\n";
        assert_eq!(steal_seconds(stat, &cpus), Some(2.0));
        let schedstat = "version 15\ntimestamp 1\ncpu1 0 0 1 2 3 4 5 1500000000 7\ndomain0 3 1 2\ncpu12 0 0 0 0 0 0 0 9 9\n";
        assert_eq!(run_delay_seconds(schedstat, &cpus), Some(1.5));
        assert_eq!(run_delay_seconds("version 15\n", &cpus), None);
        let pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(pressure_seconds(pressure), Some(2.5));
        assert_eq!(pressure_seconds(""), None);
    }
}
