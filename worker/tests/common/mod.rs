//! A node with a real engine.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use queue_format::{Incarnation, Labels, Ledger, Owner, Token};
use uuid::Uuid;
use worker::engine::{Docker, DockerOptions, Engine, EngineError, Limits};
use worker::prepare::{self, prepare};
use worker::slots::Slot;

/// The image that the tests run in.
pub(crate) const BASE_IMAGE: &str = "openswe-python-3.11";

const LOOKS_MAX: u32 = 25;

/// How many times slower than others this machine is: an emulated one (tests/full-node.sh).
const SLOWNESS: &str = "BOTTEGA_TEST_SLOWNESS";

/// A bound of what must come to its end, on this machine. Not for what must be cut off.
pub(crate) fn patient(bound: Duration) -> Duration {
    let slowness = std::env::var(SLOWNESS).map(|text| text.parse().expect(SLOWNESS));
    bound * slowness.unwrap_or(1)
}

/// Where the engine of this machine listens.
pub(crate) fn host() -> String {
    std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned())
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) docker: Docker,
    pub(crate) ledger: Ledger,
    /// The engine without the code under test.
    pub(crate) raw: bollard::Docker,
    /// What systemd was asked for.
    slices: Mutex<BTreeSet<String>>,
    _state: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        let slices = self.slices.lock().unwrap();
        if !slices.is_empty() {
            for verb in ["revert", "stop"] {
                let _ = self.systemctl().arg(verb).args(slices.iter()).output();
            }
        }
    }
}

impl Node {
    /// What a worker tells of limits that do not hold. Podman without root takes no notice of one before 5.5.
    pub(crate) fn unheld(&self, mut warnings: Vec<String>) -> Vec<String> {
        let ignores = self.docker.facts().is_podman && self.docker.facts().rootless_uid.is_some();
        warnings.retain(|said| !ignores || !said.contains("limit of open files does not hold"));
        warnings
    }

    /// The engine of this machine. Its absence is a failure, never a reason to skip.
    pub(crate) async fn connect() -> Self {
        let node = Self::connect_to(&host()).await.unwrap_or_else(|error| {
            panic!("{error}\nthese tests need a container engine and {BASE_IMAGE}: `make test` sets both up")
        });
        let mut image = node.raw.inspect_image(BASE_IMAGE).await;
        // Podman finds nothing while it removes another.
        for _ in 0..LOOKS_MAX {
            if image.is_ok() || !node.docker.facts().is_podman {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            image = node.raw.inspect_image(BASE_IMAGE).await;
        }
        assert!(image.is_ok(), "{BASE_IMAGE} is not there: `make test` makes it ({image:?})");
        node
    }

    pub(crate) async fn connect_to(host: &str) -> Result<Self, EngineError> {
        let state = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(state.path()).unwrap();
        let options = DockerOptions::new(Some(host.to_owned()), ledger.clone(), jiff::Timestamp::now);
        let docker = Docker::connect(options).await?;
        let raw = bollard::Docker::connect_with_host(host).unwrap().negotiate_version().await.unwrap();
        Ok(Self { docker, ledger, raw, slices: Mutex::default(), _state: state })
    }

    /// Gives limits the group of a slot as a node has it: of the worker's making, or of systemd's where it must be.
    pub(crate) fn confine(&self, first_cpu: u32, limits: &mut Limits) -> Result<(), String> {
        let facts = self.docker.facts();
        if facts.cgroup_driver == "systemd" {
            let (cpus, siblings) = (vec![first_cpu], [first_cpu].into_iter().collect());
            let slot = Slot { number: 0, group: 0, cpus, siblings, limits: limits.clone() };
            self.slices.lock().unwrap().insert(format!("bottega-slot{first_cpu}.slice"));
            let left_out = prepare(facts, &[slot], prepare::Owner::of(Path::new("/proc/self")).unwrap());
            if !left_out.is_empty() {
                return Err(left_out.join("; "));
            }
        }
        self.docker.confine(first_cpu, limits)?.map_or(Ok(()), Err)
    }

    fn systemctl(&self) -> Command {
        let mut command = Command::new("systemctl");
        command.args(prepare::systemd_of(self.docker.facts().rootless_uid));
        command
    }

    /// Labels of a new object.
    pub(crate) fn labels(&self) -> Labels {
        Labels {
            spool: serde_json::from_str("\"018f0000-0000-7000-8000-000000000000\"").unwrap(),
            owner: Owner::new("test", Incarnation::new(Uuid::now_v7())),
            task: "test__task-1".parse().unwrap(),
            token: Token(1),
            object: Uuid::now_v7(),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            cpuset_cpus: "0-1".to_owned(),
            cpuset_mems: None,
            memory_bytes: 512 << 20,
            pids_max: 200,
            nofile_max: 1024,
            shm_bytes: 64 << 20,
            disk_bytes: 1 << 30,
            cgroup_parent: None,
        }
    }
}
