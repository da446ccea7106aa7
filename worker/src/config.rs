//! The `[worker]` section of the configuration.

use queue_format::AcceptanceClass;
use serde::{Deserialize, Serialize};

/// The `[worker]` section of the configuration. Every limit of the worker has its name here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// Tasks at once; 0: as many as fit.
    pub slots: u32,
    /// Cores of a slot; fewer where the machine has fewer.
    pub slot_cores: u32,
    /// Memory of a slot, in GiB; less where the machine has less.
    pub slot_memory_gib: f64,
    /// Growth of a container's writable layer, in GiB.
    pub slot_disk_gib: f64,
    /// Memory left to the host, in GiB.
    pub reserved_memory_gib: f64,
    /// Free disk below which nothing is claimed, in GiB.
    pub reserved_disk_gib: f64,
    /// Rounds of Dockerfile, script and evaluation.
    pub iterations_max: u32,
    /// Runs of each condition.
    pub repeats: u32,
    /// Classes that count as accepted; others fail with the reason `policy`.
    pub accept: Vec<AcceptanceClass>,
    /// What a build can reach.
    pub build_network: BuildNetwork,
    /// Wall time of one build.
    pub build_timeout_seconds: u64,
    /// Wall time of one run of the tests.
    pub run_timeout_seconds: u64,
    /// Wall time of one git command.
    pub git_timeout_seconds: u64,
    /// What is kept of one log, in bytes.
    pub log_bytes_max: usize,
    /// Processes and threads of a container.
    pub pids_max: u64,
}

/// What a build can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuildNetwork {
    /// The bridge if the package index is reachable from it, else the host's network.
    Auto,
    /// The engine's bridge.
    Bridge,
    /// The host's network.
    Host,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            slots: 0,
            slot_cores: 4,
            slot_memory_gib: 24.0,
            slot_disk_gib: 200.0,
            reserved_memory_gib: 1.0,
            reserved_disk_gib: 5.0,
            iterations_max: 6,
            repeats: 3,
            accept: AcceptanceClass::ALL.to_vec(),
            build_network: BuildNetwork::Auto,
            build_timeout_seconds: 1800,
            run_timeout_seconds: 1800,
            git_timeout_seconds: 600,
            log_bytes_max: 4 << 20,
            pids_max: 4096,
        }
    }
}
