//! The `[worker]` section of the configuration.

use std::time::Duration;

use queue_format::AcceptanceClass;
use serde::{Deserialize, Serialize};

use crate::agents::{AgentsConfig, BrainKind};
use crate::repository::GitTimeouts;

/// A week: a limit that is longer is a mistake.
const SECONDS_MAX: u64 = 7 * 24 * 3600;

/// The `[worker]` section of the configuration. Every limit of the worker has its name here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// Tasks at once; 0: as many as fit.
    pub slots: u32,
    /// CPUs of a slot, as `nproc` counts them; rounded up to whole physical cores, fewer where the machine has fewer.
    pub slot_cores: u32,
    /// Memory of a slot, in GiB; less where the machine has less.
    pub slot_memory_gib: f64,
    /// Growth of a container's writable layer, in GiB.
    pub slot_disk_gib: f64,
    /// CPUs left to the host, rounded up to whole physical cores: the first that this process may use. `auto`: one core
    /// of a node with 32 or more, two of one with 64 or more, none of a smaller one or of a part of a node.
    pub reserved_cores: ReservedCores,
    /// Memory left to the host, in GiB; taken from each NUMA node by its size.
    pub reserved_memory_gib: f64,
    /// How long idle slots of one NUMA node wait for each other where a task needs several; 0: they are joined only
    /// where they happen to be idle at once.
    pub join_wait_seconds: u64,
    /// Free disk below which nothing is claimed, in GiB.
    pub reserved_disk_gib: f64,
    /// Who makes environments.
    pub brain: BrainKind,
    /// Rounds of Dockerfile, script and evaluation; of rules and agents, so many each.
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
    /// Wall time of one git command that fetches over the network.
    pub fetch_timeout_seconds: u64,
    /// What is kept of one log, in bytes.
    pub log_bytes_max: usize,
    /// Processes and threads of a container.
    pub pids_max: u64,
    /// What is kept of a run's outputs, in bytes; they are held in memory until they are written.
    pub output_bytes_max: usize,
    /// Whether there is a container engine on this node; without one only commands without a container are run.
    pub containers: bool,
    /// How long a worker that is told to stop (SIGTERM) finishes what it has begun; what cannot end in time is handed
    /// back.
    pub drain_seconds: u64,
    /// Whether commands without a container are run, as this worker's user: only where everybody who may write to the
    /// spool is trusted with this node.
    pub native: bool,
    /// What agents may spend, and whom they ask.
    pub agents: AgentsConfig,
}

/// What the host keeps for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of CPUs, or \"auto\"")]
pub enum ReservedCores {
    /// So many CPUs.
    Cpus(u32),
    /// By the size of the node.
    ByNode(Auto),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auto {
    /// It.
    Auto,
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

impl WorkerConfig {
    /// How long a drain takes at most.
    #[must_use]
    pub fn drain_max(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// How long git may take.
    #[must_use]
    pub fn git_timeouts(&self) -> GitTimeouts {
        GitTimeouts {
            command: Duration::from_secs(self.git_timeout_seconds),
            fetch: Duration::from_secs(self.fetch_timeout_seconds),
        }
    }

    /// As it was read again by a worker that has started with `started_with`: what shapes the slots and the node stays as
    /// it is until the next start. Gives the keys that wait for that too.
    #[must_use]
    pub fn reloaded(mut self, started_with: &Self) -> (Self, Vec<&'static str>) {
        let mut waiting = Vec::new();
        macro_rules! stays {
            ($($key:ident),+) => {$(
                if self.$key != started_with.$key {
                    waiting.push(stringify!($key));
                    self.$key = started_with.$key.clone();
                }
            )+};
        }
        stays!(slots, slot_cores, slot_memory_gib, slot_disk_gib, join_wait_seconds, pids_max);
        stays!(reserved_cores, reserved_memory_gib, reserved_disk_gib);
        stays!(git_timeout_seconds, fetch_timeout_seconds, build_network, containers);
        (self, waiting)
    }

    /// Checks what a type cannot express.
    ///
    /// # Errors
    /// The key that is wrong, and what is expected.
    pub fn check(&self) -> Result<(), String> {
        let mut wrong = Vec::new();
        let mut within = |key: &str, value: f64, from: f64, to: f64| {
            if !(value >= from && value <= to) {
                wrong.push(format!("worker.{key} is {value}, expected {from} to {to}"));
            }
        };
        within("slot_memory_gib", self.slot_memory_gib, 0.25, 1e6);
        within("slot_disk_gib", self.slot_disk_gib, 0.25, 1e6);
        within("reserved_memory_gib", self.reserved_memory_gib, 0.0, 1e6);
        within("reserved_disk_gib", self.reserved_disk_gib, 0.0, 1e6);
        #[expect(clippy::cast_precision_loss, reason = "the limits are far below where that begins")]
        let mut whole =
            |key: &str, value: u64, from: u64, to: u64| within(key, value as f64, from as f64, to as f64);
        whole("slots", self.slots.into(), 0, 4096);
        whole("slot_cores", self.slot_cores.into(), 1, 4096);
        if let ReservedCores::Cpus(cpus) = self.reserved_cores {
            whole("reserved_cores", cpus.into(), 0, 4096);
        }
        whole("join_wait_seconds", self.join_wait_seconds, 0, SECONDS_MAX);
        whole("iterations_max", self.iterations_max.into(), 1, 100);
        whole("repeats", self.repeats.into(), 1, 100);
        whole("build_timeout_seconds", self.build_timeout_seconds, 1, SECONDS_MAX);
        whole("run_timeout_seconds", self.run_timeout_seconds, 1, SECONDS_MAX);
        whole("git_timeout_seconds", self.git_timeout_seconds, 1, SECONDS_MAX);
        whole("fetch_timeout_seconds", self.fetch_timeout_seconds, 1, SECONDS_MAX);
        whole("log_bytes_max", self.log_bytes_max as u64, 1 << 10, 1 << 30);
        whole("output_bytes_max", self.output_bytes_max as u64, 1 << 10, 1 << 30);
        whole("drain_seconds", self.drain_seconds, 0, SECONDS_MAX);
        whole("pids_max", self.pids_max, 16, 1 << 22);
        if !self.containers && !self.native {
            wrong.push(
                "worker.containers and worker.native are both false: there is nothing that this worker could do"
                    .to_owned(),
            );
        }
        wrong.extend(self.agents.check().err());
        if self.brain != BrainKind::Rules && self.agents.endpoints.is_empty() {
            wrong.push("worker.brain wants a model, and there are no [[worker.agents.endpoints]]".to_owned());
        }
        if self.accept.is_empty() {
            wrong.push(
                "worker.accept is empty, expected at least one class: nothing would be accepted".to_owned(),
            );
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            slots: 0,
            slot_cores: 4,
            slot_memory_gib: 24.0,
            slot_disk_gib: 200.0,
            reserved_cores: ReservedCores::ByNode(Auto::Auto),
            reserved_memory_gib: 1.0,
            join_wait_seconds: 900,
            reserved_disk_gib: 5.0,
            brain: BrainKind::Rules,
            iterations_max: 6,
            repeats: 3,
            accept: AcceptanceClass::ALL.to_vec(),
            build_network: BuildNetwork::Auto,
            build_timeout_seconds: 1800,
            run_timeout_seconds: 1800,
            git_timeout_seconds: 600,
            fetch_timeout_seconds: 6 * 3600,
            log_bytes_max: 4 << 20,
            pids_max: 4096,
            output_bytes_max: 64 << 20,
            containers: true,
            drain_seconds: 600,
            native: false,
            agents: AgentsConfig::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_key_that_is_wrong() {
        let check = |change: fn(&mut WorkerConfig), expected: &str| {
            let mut config = WorkerConfig::default();
            change(&mut config);
            let why = config.check().err().unwrap_or_default();
            assert!(why.starts_with(expected) && why.is_empty() == expected.is_empty(), "{why}");
        };
        check(|_| (), "");
        check(|c| c.repeats = 0, "worker.repeats is 0, expected 1 to 100");
        check(|c| c.iterations_max = 0, "worker.iterations_max");
        check(|c| c.slot_cores = 0, "worker.slot_cores");
        check(|c| c.reserved_cores = ReservedCores::Cpus(5000), "worker.reserved_cores is 5000");
        check(|c| c.join_wait_seconds = u64::MAX, "worker.join_wait_seconds");
        check(|c| c.slot_memory_gib = f64::NAN, "worker.slot_memory_gib is NaN");
        check(|c| c.slot_memory_gib = -1.0, "worker.slot_memory_gib is -1");
        check(|c| c.reserved_memory_gib = 1e9, "worker.reserved_memory_gib");
        check(|c| c.run_timeout_seconds = 0, "worker.run_timeout_seconds");
        check(|c| c.log_bytes_max = 0, "worker.log_bytes_max");
        check(|c| c.output_bytes_max = usize::MAX, "worker.output_bytes_max");
        check(|c| c.pids_max = 0, "worker.pids_max");
        check(|c| c.accept.clear(), "worker.accept is empty");
        check(|c| c.brain = BrainKind::Auto, "worker.brain wants a model");
        check(|c| c.agents.tries_max = 0, "worker.agents.tries_max is 0, expected 1 or more");
    }

    #[test]
    fn a_key_holds_at_once_or_is_said_to_wait() {
        let live = [
            "iterations_max",
            "repeats",
            "accept",
            "build_timeout_seconds",
            "run_timeout_seconds",
            "log_bytes_max",
            "output_bytes_max",
            "drain_seconds",
            "native",
            "brain",
            "agents",
        ];
        let started = WorkerConfig::default();
        let keys = serde_json::to_value(&started).expect("JSON");
        for key in keys.as_object().expect("a table").keys() {
            let mut changed = keys.clone();
            changed[key] = match &keys[key] {
                serde_json::Value::Bool(value) => (!value).into(),
                serde_json::Value::Number(_) => 77.into(),
                serde_json::Value::Array(_) => serde_json::json!(["strict"]),
                _ if key == "build_network" => "host".into(),
                _ if key == "brain" => "auto".into(),
                serde_json::Value::Object(_) => serde_json::json!({ "tries_max": 3 }),
                _ => 3.into(),
            };
            let changed: WorkerConfig = serde_json::from_value(changed).expect(key);
            let (holds, waiting) = changed.clone().reloaded(&started);
            match live.contains(&key.as_str()) {
                true => assert_eq!((holds, waiting), (changed, Vec::new()), "{key}"),
                false => assert_eq!((holds, waiting), (started.clone(), vec![key.as_str()]), "{key}"),
            }
        }
    }
}
