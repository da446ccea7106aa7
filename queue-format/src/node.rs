use serde::{Deserialize, Serialize};

/// What the kernel held a container to, and what it had to wait for: a slow run on a busy node tells itself from a slow
/// test. What the node does not show is missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeRecord {
    /// CPUs, as the kernel writes sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// NUMA nodes whose memory it could use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_max: Option<u64>,
    /// Time that runnable threads waited for one of its CPUs; where the kernel does not tell that of CPUs, what the first
    /// threads of its processes waited, as far as they lived at a look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_delay_seconds: Option<f64>,
    /// Time that a hypervisor took its CPUs away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steal_seconds: Option<f64>,
    /// Time in which some process waited for a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_pressure_seconds: Option<f64>,
    /// Time in which some process waited for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_pressure_seconds: Option<f64>,
    /// Time in which some process waited for a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_pressure_seconds: Option<f64>,
    /// Whose processes the last three are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure_of: Option<PressureOf>,
}

/// Whose processes waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PressureOf {
    /// The container's own.
    Container,
    /// Any of the node's.
    Node,
}
