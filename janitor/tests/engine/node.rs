//! A node of its own for each test: spool, state, a name that no other test has, and the objects it made.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use base_images::list_images;
use bollard::Docker;
use bollard::models::{
    BuildInfo, ContainerCreateBody, HostConfig, HostConfigLogConfig, ImageSummary, ResourcesUlimits,
};
use bollard::query_parameters::{
    BuildImageOptions, CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use futures_util::StreamExt;
use janitor::{Janitor, Place};

use crate::common::config;
use queue_format::{
    AcceptanceClass, DoneClass, Incarnation, Labels, Ledger, LifeLock, ObjectKind, Owner, Spool, TaskId,
    Token, image_name,
};
use tempfile::TempDir;
use uuid::Uuid;

/// For the binary: this machine's disks may be as full as they like.
const NEVER_FULL: &str =
    "disk_low_percent = 99\ndisk_high_percent = 100\ndisk_emergency_percent = 101\ndisk_free_gib = 0.0\n";

/// A label of the tests' own.
const UNIQUE: &str = "janitor-test";

/// A node. What it made is removed when it is dropped, by id.
pub(crate) struct Node {
    pub(crate) docker: Docker,
    pub(crate) spool: Spool,
    pub(crate) hostname: String,
    /// As in `DOCKER_HOST`, where it is not the usual one.
    engine: Option<String>,
    dir: TempDir,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    containers: Vec<String>,
    /// In the order of their making: children last.
    images: Vec<String>,
}

/// A container's shape where it differs from a worker's.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shape<'a> {
    pub(crate) name: Option<&'a str>,
    /// Of a build's step, a person's.
    pub(crate) no_logs: bool,
    /// With the limits of a worker's.
    pub(crate) limits: bool,
    /// Runs `/pause` of its image until it is killed.
    pub(crate) runs: bool,
}

impl Node {
    pub(crate) async fn new() -> Self {
        let docker = Docker::connect_with_defaults().expect("these tests need a container engine");
        Self::on(docker, None).await
    }

    /// On an engine of the test's own.
    pub(crate) async fn at(address: &str) -> Self {
        let docker =
            Docker::connect_with_unix(address, 120, bollard::API_DEFAULT_VERSION).expect("an engine");
        Self::on(docker, Some(address.to_owned())).await
    }

    async fn on(docker: Docker, engine: Option<String>) -> Self {
        let docker =
            docker.negotiate_version().await.expect("these tests need a container engine that answers");
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::init(&dir.path().join("spool"), Uuid::now_v7()).expect("a spool");
        let hostname = format!("n{}", &Uuid::now_v7().simple().to_string()[16..]);
        Self { docker, spool, hostname, engine, dir, made: Mutex::default() }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::open(&self.state()).expect("a ledger")
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner::new(&self.hostname, Incarnation::new(Uuid::now_v7()))
    }

    /// An owner whose process lives as long as the lock is held.
    pub(crate) fn living_owner(&self) -> (Owner, LifeLock) {
        let owner = self.owner();
        let lock = LifeLock::hold(&self.state(), &owner).expect("a lock");
        (owner, lock)
    }

    /// An owner whose process is gone.
    pub(crate) fn dead_owner(&self) -> Owner {
        self.living_owner().0
    }

    /// Puts a task's file into an owner's lease directory, as a claim does.
    pub(crate) fn claim(&self, owner: &Owner, task: &str, token: u32) -> PathBuf {
        self.put(&self.spool.layout().lease(owner).join("5-build"), &format!("{task}.a{token:03}.r0.json"))
    }

    /// Puts a task's file into done/.
    pub(crate) fn accept(&self, owner: &Owner, task: &str, token: u32) -> PathBuf {
        let dir = self.spool.layout().done_bucket(DoneClass::Accepted(AcceptanceClass::Strict), &id(task));
        self.put(&dir, &format!("{task}.a{token:03}@{owner}.r0.json"))
    }

    fn put(&self, dir: &PathBuf, name: &str) -> PathBuf {
        fs::create_dir_all(dir).expect("a directory");
        fs::write(dir.join(name), "{}").expect("a file");
        dir.join(name)
    }

    pub(crate) fn labels(&self, owner: &Owner, task: &str, token: u32) -> Labels {
        let (spool, object) = (self.spool.id(), Uuid::now_v7());
        Labels { spool, owner: owner.clone(), task: id(task), token: Token(token), object }
    }

    pub(crate) fn record(&self, labels: &Labels, kind: ObjectKind) {
        let entry = labels.entry(kind, jiff::Timestamp::now());
        self.ledger().record(&entry).expect("recorded");
    }

    /// A work directory as a worker makes it, with something in it.
    pub(crate) fn work_dir(&self, labels: &Labels) -> PathBuf {
        let path = self.state().join("work").join(labels.object.to_string());
        self.record(labels, ObjectKind::WorkDir { path: path.clone() });
        fs::create_dir_all(path.join("tree/deep")).expect("directories");
        fs::write(path.join("tree/deep/file"), [7; 10_000]).expect("a file");
        path
    }

    /// A worker's container: recorded, then made. Gives its id.
    pub(crate) async fn container(&self, image: &str, labels: &Labels) -> String {
        self.record(labels, ObjectKind::Container { name: container_name(labels) });
        self.raw_container(image, labels.to_map(), Shape::default()).await
    }

    /// Any container, not started if it is not to run.
    pub(crate) async fn raw_container(
        &self,
        image: &str,
        labels: HashMap<String, String>,
        shape: Shape<'_>,
    ) -> String {
        let log = HostConfigLogConfig { typ: Some("none".to_owned()), config: None };
        let fsize =
            ResourcesUlimits { name: Some("fsize".to_owned()), soft: Some(1 << 30), hard: Some(1 << 30) };
        let host_config = HostConfig {
            log_config: shape.no_logs.then_some(log),
            cpuset_cpus: shape.limits.then(|| "0".to_owned()),
            memory: shape.limits.then_some(64 << 20),
            ulimits: shape.limits.then(|| vec![fsize]),
            ..HostConfig::default()
        };
        let name = shape.name.map_or_else(|| name_of(&labels), ToOwned::to_owned);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(match shape.runs {
                true => vec!["/pause".to_owned()],
                false => ["sh", "-c", "trap '' TERM; sleep 600"].map(ToOwned::to_owned).to_vec(),
            }),
            labels: Some(labels),
            host_config: Some(host_config),
            ..ContainerCreateBody::default()
        };
        let made = self.docker.create_container(Some(options), body).await.expect("a container");
        if shape.runs {
            self.docker.start_container(&made.id, None).await.expect("started");
        }
        self.made.lock().expect("unpoisoned").containers.push(made.id.clone());
        made.id
    }

    /// A worker's build: recorded, then made, with its labels after FROM. Gives the ids, the first step's first.
    pub(crate) async fn build(&self, labels: &Labels) -> Vec<String> {
        self.record(labels, ObjectKind::Build { image: image_name(&labels.task) });
        let built = self.raw_build("scratch", &labels.to_map(), &image_name(&labels.task)).await;
        self.ledger().end(labels.object, jiff::Timestamp::now()).expect("noted");
        built
    }

    /// Any build: its labels, then two more layers.
    pub(crate) async fn raw_build(
        &self,
        from: &str,
        labels: &HashMap<String, String>,
        tag: &str,
    ) -> Vec<String> {
        let files: [(&str, &[u8]); 2] = [("one", b"1"), ("two", b"2")];
        // The look into the cache fails a build if any image of the engine is removed meanwhile (seen, 20.10).
        self.try_build(from, labels, tag, &files, true).await.expect("built")
    }

    /// The same with files of the caller's, a layer each; the first line of what went wrong.
    pub(crate) async fn try_build(
        &self,
        from: &str,
        labels: &HashMap<String, String>,
        tag: &str,
        files: &[(&str, &[u8])],
        nocache: bool,
    ) -> Result<Vec<String>, String> {
        // One instruction for all labels, as the worker writes it: a step between two would have only some of them.
        // One of them differs every time, so that no layer is another build's.
        let unique = Uuid::now_v7().to_string();
        let pairs = labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .chain([(UNIQUE, unique.as_str())])
            .map(|(key, value)| format!(" {key}=\"{value}\""))
            .collect::<String>();
        let copies: String = files.iter().map(|(name, _)| format!("COPY {name} /{name}\n")).collect();
        let dockerfile = format!("FROM {from}\nLABEL{pairs}\n{copies}");
        let mut all = vec![("Dockerfile", dockerfile.as_bytes())];
        all.extend(files);
        let options = BuildImageOptions {
            t: Some(tag.to_owned()),
            dockerfile: "Dockerfile".to_owned(),
            rm: true,
            nocache,
            ..BuildImageOptions::default()
        };
        let context = bollard::body_full(archive(&all).into());
        let mut output = self.docker.build_image(options, None, Some(context));
        let mut ids = Vec::new();
        while let Some(line) = output.next().await {
            let line: BuildInfo = line.map_err(|error| error.to_string())?;
            if let Some(error) = line.error_detail {
                return Err(error.message.unwrap_or_default());
            }
            let text = line.stream.unwrap_or_default();
            let step = text.trim().strip_prefix("---> ").filter(|id| id.len() == 12);
            ids.extend(step.map(ToOwned::to_owned));
        }
        let mut full = Vec::new();
        for id in ids {
            let found = self.docker.inspect_image(&id).await.map_err(|error| error.to_string())?;
            full.push(found.id.expect("its id"));
        }
        // The first id is the image that was built on.
        if from != "scratch" {
            full.remove(0);
        }
        self.made.lock().expect("unpoisoned").images.extend(full.clone());
        Ok(full)
    }

    pub(crate) async fn tag(&self, image: &str, repository: &str, version: &str) {
        let options = TagImageOptionsBuilder::new().repo(repository).tag(version).build();
        self.docker.tag_image(image, Some(options)).await.expect("tagged");
    }

    /// Which of the containers and images that were made here are left.
    pub(crate) async fn left(&self) -> BTreeSet<String> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let containers = self.docker.list_containers(Some(options)).await.expect("containers");
        let options = ListImagesOptionsBuilder::new().all(true).build();
        let images = list_images(&self.docker, options).await.expect("images");
        let all: BTreeSet<String> =
            containers.into_iter().filter_map(|c| c.id).chain(images.into_iter().map(|i| i.id)).collect();
        let made = self.made.lock().expect("unpoisoned");
        made.containers.iter().chain(&made.images).filter(|id| all.contains(*id)).cloned().collect()
    }

    /// Which of the containers that were made here are left, as an engine with states of its own lists them.
    pub(crate) async fn left_of_containers(&self) -> BTreeSet<String> {
        let made = self.made.lock().expect("unpoisoned").containers.clone();
        let mut left = BTreeSet::new();
        for id in made {
            let gone = matches!(
                self.docker.inspect_container(&id, None).await,
                Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. })
            );
            if !gone {
                left.insert(id);
            }
        }
        left
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            spool: self.spool.layout().root().to_owned(),
            state: self.state(),
            hostname: self.hostname.clone(),
            engine: self.engine.clone().or_else(|| std::env::var("DOCKER_HOST").ok()),
        }
    }

    pub(crate) fn janitor(&self) -> Janitor {
        self.janitor_at(self.place())
    }

    pub(crate) fn janitor_at(&self, place: Place) -> Janitor {
        Janitor::open(place, config(), jiff::Timestamp::now, systemd::Notifier::default()).expect("a janitor")
    }

    /// The real binary; its node is this host, so owners must be made for that name.
    pub(crate) fn command(&self, what: &str, config: &str) -> Command {
        let file = self.dir.path().join("bottega.toml");
        fs::write(&file, format!("[janitor]\n{NEVER_FULL}{config}")).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_bottega-janitor"));
        command.arg(what).arg("--spool").arg(self.spool.layout().root());
        command.arg("--state").arg(self.state()).arg("--config").arg(file);
        command.envs(self.engine.iter().map(|engine| ("DOCKER_HOST", engine)));
        command
    }

    pub(crate) fn audit(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.state().join(janitor::AUDIT_FILE)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let made = std::mem::take(&mut *self.made.lock().expect("unpoisoned"));
        let docker = self.docker.clone();
        let clean = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                for id in made.containers {
                    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                    let _ = docker.remove_container(&id, Some(options)).await;
                }
                for id in made.images.into_iter().rev() {
                    // By force: a test may have given it several tags.
                    let options = RemoveImageOptionsBuilder::new().force(true).noprune(true).build();
                    let _ = docker.remove_image(&id, Some(options), None).await;
                }
            });
        });
        let _ = clean.join();
    }
}

pub(crate) fn id(task: &str) -> TaskId {
    task.parse().expect("an id")
}

/// What a worker calls the container of an object.
pub(crate) fn container_name(labels: &Labels) -> String {
    format!("janitor-test-{}", labels.object)
}

/// An image to run a shell from: some Python that this node has. By its id, for its tag may move to a newer build.
pub(crate) async fn base_image(docker: &Docker) -> String {
    let images = docker.list_images(Some(ListImagesOptionsBuilder::new().build())).await.expect("images");
    let is_base = |image: &ImageSummary| {
        image
            .repo_tags
            .iter()
            .any(|tag| tag.trim_start_matches("localhost/").starts_with("openswe-python-3."))
    };
    let newest = images.into_iter().filter(is_base).max_by_key(|image| image.created);
    newest.expect("a base image is needed; make one with: bottega images build").id
}

fn name_of(labels: &HashMap<String, String>) -> String {
    let labels = Labels::from_map(labels);
    labels.map_or_else(|| format!("janitor-test-{}", Uuid::now_v7()), |labels| container_name(&labels))
}

pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, name, *bytes).expect("an archive");
    }
    archive.into_inner().expect("an archive")
}
