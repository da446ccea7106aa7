//! A node with a real engine.

use std::time::Duration;

use queue_format::{Incarnation, Labels, Ledger, Owner, Token};
use uuid::Uuid;
use worker::engine::{Docker, DockerOptions, EngineError, Limits};

/// The image that the tests run in.
pub(crate) const BASE_IMAGE: &str = "openswe-python-3.11";

const LOOKS_MAX: u32 = 25;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) docker: Docker,
    pub(crate) ledger: Ledger,
    /// The engine without the code under test.
    pub(crate) raw: bollard::Docker,
    _state: tempfile::TempDir,
}

impl Node {
    /// The engine of this machine. Its absence is a failure, never a reason to skip.
    pub(crate) async fn connect() -> Self {
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let node = Self::connect_to(&host).await.unwrap_or_else(|error| {
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
        Ok(Self { docker, ledger, raw, _state: state })
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
