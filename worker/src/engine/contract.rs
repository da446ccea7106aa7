use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use queue_format::{Labels, NodeRecord, ObjectKind, Owner, SpoolError};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use super::dockerfile::Refused;
use super::plain_bytes;
use crate::repository::SourceTree;

/// The tests' user; every base image has it, and it is nobody on the node.
const USER: &str = "1000:1000";
/// What a command of the worker's own is given.
const RUN_MAX: Duration = Duration::from_secs(60);
const LOG_BYTES_MAX: usize = 1 << 14;
/// How often a slot's group is fitted, and the pause in between: what an engine watched a container with ends a moment
/// after it, in the same group.
const CONFINES_MAX: u32 = 30;
const CONFINE_AGAIN: Duration = Duration::from_millis(100);

/// What a container or a build may use. Zero or `None` is never "unlimited by accident": every field is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Cores, as the kernel writes sets: `0-3`.
    pub cpuset_cpus: String,
    /// NUMA nodes, where the slot lies inside one.
    pub cpuset_mems: Option<String>,
    /// Memory, no swap beyond it.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids_max: u64,
    /// Open files.
    pub nofile_max: u64,
    /// /dev/shm.
    pub shm_bytes: u64,
    /// Growth of the writable layer, or of all layers of a build; watched where the engine cannot limit it. A file for
    /// each 16 KiB of it is the limit of their number.
    pub disk_bytes: u64,
    /// The control group above, where the slot has one: it holds what the engine's own limits do not, such as a build's
    /// processes.
    pub cgroup_parent: Option<String>,
}

/// What a container can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Nothing but its own loopback: every evaluation.
    None,
    /// The engine's default bridge.
    Bridge,
    /// The host's own: builds on nodes whose bridge has no way out.
    Host,
}

/// A build of one image.
#[derive(Clone, Debug, Serialize)]
pub struct BuildRequest {
    /// The directory that is sent as context; `Dockerfile` lies in it.
    #[serde(skip)]
    pub context_dir: PathBuf,
    /// A tree in it, whose files may not be written there.
    #[serde(skip)]
    pub tree: Option<SourceTree>,
    /// The images that the Dockerfile may start from, by name.
    pub bases: Vec<String>,
    /// The tag it gets.
    pub image_name: String,
    /// Injected after every FROM, so that intermediate containers and images carry them too. The layer cache
    /// holds only among builds with equal labels: one object for all builds of an attempt.
    #[serde(serialize_with = "as_map")]
    pub labels: Labels,
    /// What its steps may use.
    pub limits: Limits,
    /// What its steps can reach.
    pub network: Network,
    /// Wall time for all of it.
    pub timeout: Duration,
    /// What is kept of its output: the first and the last halves of so many bytes.
    pub log_bytes_max: usize,
    /// Which of its attempt's rounds asks for it, from 1. The engine heeds it not: one Dockerfile that is built twice may come
    /// to two ends, and a journal must not take the one for the other.
    pub round: u32,
}

/// What a build came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BuildOutcome {
    /// How it ended.
    pub end: BuildEnd,
    /// Its output.
    pub log: String,
    /// The size of what was built beyond its base image's.
    pub own_bytes: Option<u64>,
}

/// How a build ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildEnd {
    /// The image's full id.
    Built(String),
    /// A step failed; the engine's own sentence.
    Failed(String),
    /// Nothing was built: the Dockerfile has what is not taken.
    Refused(Refused),
    /// Killed at its deadline.
    TimedOut,
    /// Killed at its disk limit.
    DiskFull,
}

/// A container that runs one command to its end.
#[derive(Clone, Debug, Serialize)]
pub struct RunRequest {
    /// Its name, unique on the node.
    pub container_name: String,
    /// The image's id or name.
    pub image: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `uid:gid`.
    pub user: String,
    /// Its variables beyond the image's own: `NAME=value`.
    pub env: Vec<String>,
    /// Files put into it before it starts.
    pub files_in: Vec<FileIn>,
    /// Directories that are made in it before it starts, as far as they are not there, owned by its user.
    pub dirs_in: Vec<String>,
    /// Regular files copied out of it after it ended: path and the most bytes that are read.
    pub files_out: Vec<(String, usize)>,
    /// Files and directories copied out of it after it ended.
    pub outputs: Vec<String>,
    /// The most bytes of all of these together.
    pub output_bytes_max: usize,
    /// Its labels; its object is this container's alone.
    #[serde(serialize_with = "as_map")]
    pub labels: Labels,
    /// What it may use.
    pub limits: Limits,
    /// What it can reach.
    pub network: Network,
    /// Wall time, after which every process of it is killed.
    pub timeout: Duration,
    /// What is kept of its output: the first and the last halves of so many bytes.
    pub log_bytes_max: usize,
}

/// What tells two requests apart, but for what directories of the node hold: the same program asks for the same in the
/// same words.
pub(crate) fn digest(request: &impl Serialize) -> String {
    let json = serde_json::to_vec(request).unwrap_or_default();
    blake3::hash(&json).to_hex().to_string()
}

fn as_map<S: Serializer>(labels: &Labels, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels.to_map().into_iter().collect::<BTreeMap<_, _>>())
}

impl BuildRequest {
    /// As the ledger has it.
    pub(super) fn kind(&self) -> ObjectKind {
        ObjectKind::Build { image: self.image_name.clone() }
    }
}

impl RunRequest {
    /// As the ledger has it.
    pub(super) fn kind(&self) -> ObjectKind {
        ObjectKind::Container { name: self.container_name.clone() }
    }

    /// A command as the tests' user, with no network, no files and a minute's time; callers write over what they want
    /// otherwise.
    #[must_use]
    pub fn new(image: &str, command: Vec<String>, labels: Labels, limits: &Limits) -> Self {
        Self {
            container_name: format!("bottega-{}-{}", labels.task, labels.object.simple()),
            image: image.to_owned(),
            command,
            user: USER.to_owned(),
            env: Vec::new(),
            files_in: Vec::new(),
            dirs_in: Vec::new(),
            files_out: Vec::new(),
            outputs: Vec::new(),
            output_bytes_max: 0,
            labels,
            limits: limits.clone(),
            network: Network::None,
            timeout: RUN_MAX,
            log_bytes_max: LOG_BYTES_MAX,
        }
    }
}

/// A file put into a container.
#[derive(Clone, Debug, Serialize)]
pub struct FileIn {
    /// Absolute path; its directory is made, owned by the container's user.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub content: Content,
}

/// What a file holds.
#[derive(Clone, Debug, Serialize)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What this file of the node holds; it is never read into memory as a whole.
    File(#[serde(skip)] PathBuf),
}

/// Something that was to be copied out of a container, or kept of a native command's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// A regular file's content.
    File(#[serde(with = "plain_bytes")] Vec<u8>),
    /// A directory, as a tar archive that begins with its own name. Nobody unpacks it here.
    Directory(#[serde(with = "plain_bytes")] Vec<u8>),
    /// There is no such thing, or none that is kept: why, in words.
    None(String),
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunOutcome {
    /// How it ended.
    pub end: ContainerEnd,
    /// Standard output and error, in the order the engine delivered them.
    pub log: String,
    /// Wall time from start to end.
    pub seconds: f64,
    /// Highest memory use seen.
    pub peak_memory_bytes: Option<u64>,
    /// Those of `files_out` that were there, regular and within their size.
    #[serde(with = "plain_bytes::map")]
    pub files_out: BTreeMap<String, Vec<u8>>,
    /// What became of each of `outputs`.
    pub outputs: BTreeMap<String, Output>,
    /// What the kernel held it to, and what it had to wait for.
    pub node: Option<NodeRecord>,
    /// Limits that do not hold on this node, and what else a person should know: a sentence each.
    pub warnings: Vec<String>,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerEnd {
    /// Its first process returned this status, as the engine says.
    Exited(i64),
    /// Killed at its deadline.
    TimedOut,
    /// The kernel killed a process of it at the memory limit.
    OutOfMemory,
    /// Killed at its disk limit.
    DiskFull,
}

/// A container that runs, and that the node's ledger knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningContainer {
    /// Its full id.
    pub id: String,
    /// Its object.
    pub object: Uuid,
    /// Who made it.
    pub owner: Owner,
    /// Its CPUs, as the kernel writes sets.
    pub cpuset_cpus: String,
}

/// Why the engine could not do what it was asked. The task is never at fault here: it goes back to pending.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No engine answers.
    #[error(transparent)]
    Unreachable(#[from] base_images::Unreachable),
    /// It is not root's, and its user may not limit what it runs.
    #[error(
        "the engine at {address} runs without root and cannot limit {missing}, so nothing would hold a task to its slot: on \
         cgroup v2, write [Service] and Delegate=cpu cpuset memory pids into /etc/systemd/system/user@.service.d/delegate.conf, \
         then systemctl daemon-reload, loginctl enable-linger USER, systemctl restart user@UID.service; or use root's engine"
    )]
    NotDelegated {
        /// Where it is.
        address: String,
        /// What it cannot limit.
        missing: String,
    },
    /// The node's ledger cannot be written, so nothing may be made.
    #[error("nothing is made that the node's ledger does not know: {0}")]
    Ledger(#[from] SpoolError),
    /// An image that should be there is not.
    #[error(
        "image {0} is not on this node; make it with: bottega images build, or, if it is \
         none of ours, load it (docker pull, docker load)"
    )]
    NoImage(String),
    /// An image cannot be had.
    #[error(
        "image {image} is not on this node and cannot be pulled: {detail}; load it here (docker pull, docker load), or \
         name another"
    )]
    Pull {
        /// Its name.
        image: String,
        /// What was said.
        detail: String,
    },
    /// The engine, which works, does not do what was asked for.
    #[error("the engine refuses to {action}: {detail}; correct the task, or name another image")]
    Refused {
        /// What was tried, as a verb.
        action: &'static str,
        /// What was said.
        detail: String,
    },
    /// What ran did not end by itself, nor by the worker: how it ended tells nothing.
    #[error("somebody else had a hand in what ran: {detail}")]
    Disturbed {
        /// What the engine tells.
        detail: String,
    },
    /// The kernel killed what ran though it kept to its limits: how it ended tells nothing.
    #[error("the node is short of memory: the kernel killed a process that had not met its own limit")]
    ShortOfMemory,
    /// What ran says that it lacked disk or network, which may be so.
    #[error("what ran could not do without what it says is missing: {said}")]
    Lacking {
        /// Its words.
        said: String,
    },
    /// Something else.
    #[error("the engine could not {action}: {detail}")]
    Failed {
        /// What was tried, as a verb.
        action: &'static str,
        /// What was said.
        detail: String,
    },
}

/// An engine.
pub trait Engine: Send + Sync {
    /// Whether it answers at all.
    fn ping(&self) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// The containers of bottega that run now.
    fn running(&self) -> impl Future<Output = Result<Vec<RunningContainer>, EngineError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Fits the control group of a slot, by its first CPU, to limits, and names it in them.
    ///
    /// Where there is none, gives why, in a sentence: then containers have their own limits alone.
    ///
    /// # Errors
    /// There is none, and without it the slot must not be used: a sentence.
    fn confine(&self, _first_cpu: u32, _limits: &mut Limits) -> Result<Option<String>, String> {
        Ok(None)
    }

    /// Waits, for a while at most, until what dropped runs and builds have left on a slot's CPUs is removed, and ends what
    /// runs in their control groups and is listed nowhere: before they are given out again.
    ///
    /// # Errors
    /// Something runs on: a sentence.
    fn clear(&self, _cpus: &[u32]) -> impl Future<Output = Result<(), String>> + Send {
        async { Ok(()) }
    }

    /// Prepares what a task is about to be given: nothing runs there any more, and its control group has these limits, or
    /// a sentence says why it has none.
    ///
    /// # Errors
    /// It must not be used: a sentence.
    fn make_ready(
        &self,
        cpus: &[u32],
        limits: &mut Limits,
    ) -> impl Future<Output = Result<Option<String>, String>> + Send {
        async {
            self.clear(cpus).await?;
            let first_cpu = cpus.first().copied().unwrap_or_default();
            for _ in 1..CONFINES_MAX {
                if let Ok(confined) = self.confine(first_cpu, limits) {
                    return Ok(confined);
                }
                tokio::time::sleep(CONFINE_AGAIN).await;
            }
            self.confine(first_cpu, limits)
        }
    }

    /// Builds an image. A failed step is an outcome, not an error.
    fn build(&self, request: &BuildRequest)
    -> impl Future<Output = Result<BuildOutcome, EngineError>> + Send;

    /// Runs a command in a fresh container, and removes the container whatever happens.
    fn run(&self, request: &RunRequest) -> impl Future<Output = Result<RunOutcome, EngineError>> + Send;

    /// Goes on with the container that an earlier process began for this very request, and removes it whatever happens.
    /// `None` where it is not there, was made for another request, or has ended and nobody knows by whose hand: then
    /// nothing of it is left.
    fn adopt(
        &self,
        request: &RunRequest,
    ) -> impl Future<Output = Result<Option<RunOutcome>, EngineError>> + Send;

    /// Removes what an earlier process began for these objects and nobody goes on with.
    fn remove_left(&self, _objects: &HashSet<Uuid>) -> impl Future<Output = Result<(), EngineError>> + Send {
        async { Ok(()) }
    }

    /// The names of the images that begin with `prefix`, with their ids.
    fn images(
        &self,
        prefix: &str,
    ) -> impl Future<Output = Result<BTreeMap<String, String>, EngineError>> + Send;

    /// Gives an image, by its id, the name as well; whatever had that name before loses it.
    fn tag_image(&self, id: &str, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Gets an image from its registry.
    fn pull_image(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a tag, and the image if it was the last one; a missing image is fine.
    fn remove_image(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;
}
