//! A node with a real engine, and a look at it that does not go through the code under test.

use std::collections::HashMap;
use std::time::Duration;

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
};
use queue_format::{Incarnation, LABEL_OBJECT, Labels, Ledger, Owner, Token};
use uuid::Uuid;
use worker::engine::{Docker, DockerOptions, EngineError, Limits};

/// The image that the tests run in.
pub(crate) const BASE_IMAGE: &str = "openswe-python-3.11";

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) docker: Docker,
    pub(crate) ledger: Ledger,
    raw: bollard::Docker,
    _state: tempfile::TempDir,
}

impl Node {
    /// The engine of this machine. Its absence is a failure, never a reason to skip.
    pub(crate) async fn connect() -> Self {
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let node = Self::connect_to(&host).await.unwrap_or_else(|error| {
            panic!("{error}\nthese tests need a container engine and {BASE_IMAGE}: `make test` sets both up")
        });
        let image = node.raw.inspect_image(BASE_IMAGE).await;
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
        }
    }

    pub(crate) async fn has_containers(&self, object: Uuid) -> bool {
        self.containers(object, true).await > 0
    }

    /// Waits until a container of the object runs; bounded.
    pub(crate) async fn until_running(&self, object: Uuid) {
        for _ in 0..300 {
            if self.containers(object, false).await > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no container of {object} ran");
    }

    /// What the janitor would do with a failed build's layers.
    pub(crate) async fn remove_images(&self, object: Uuid) {
        let options = ListImagesOptionsBuilder::new().filters(&by_object(object)).build();
        for image in self.raw.list_images(Some(options)).await.unwrap() {
            let options = RemoveImageOptionsBuilder::new().build();
            self.raw.remove_image(&image.id, Some(options), None).await.unwrap();
        }
    }

    async fn containers(&self, object: Uuid, all: bool) -> usize {
        let options = ListContainersOptionsBuilder::new().all(all).filters(&by_object(object)).build();
        self.raw.list_containers(Some(options)).await.unwrap().len()
    }
}

fn by_object(object: Uuid) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{LABEL_OBJECT}={object}")])])
}
