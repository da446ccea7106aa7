use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use queue_format::{
    COMMANDS_FILE, CommandRecord, FailureReason, InputError, Labels, NodeRecord, OUTPUT_FILE, Resources,
    RunReport, RunTask, Spool, Verdict, WorkReport, output_name,
};
use uuid::Uuid;

use super::{container, inputs, native, share, verdict};
use crate::attempt::{Attempt, took};
use crate::config::WorkerConfig;
use crate::engine::{ContainerEnd, Engine, EngineError, Output};
use crate::slots::Slot;

/// One attempt's surroundings.
pub struct Job<'a, E> {
    /// The engine, for tasks with an image.
    pub engine: &'a E,
    /// The limits.
    pub config: &'a WorkerConfig,
    /// Where inputs lie.
    pub spool: &'a Spool,
    /// What is to be done.
    pub task: &'a RunTask,
    /// With what.
    pub resources: &'a Resources,
    /// Where it may run.
    pub slot: &'a Slot,
    /// An empty directory of its own.
    pub dir: &'a Path,
    /// This program, for supervisors of native commands.
    pub program: &'a Path,
    /// The labels of what it makes.
    pub labels: &'a Labels,
    /// Gives fresh names.
    pub unique: &'a (dyn Fn() -> Uuid + Send + Sync),
    /// Tells people the stage.
    pub say: &'a (dyn Fn(&str) + Send + Sync),
}

/// Why there is no verdict: the node's fault, never the task's.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The spool cannot be read, or a copy not be written.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The node's disk.
    #[error("cannot write {}: {source}", path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A native command's supervisor failed.
    #[error("a native command was not supervised to its end: {0}")]
    Supervisor(String),
    /// A native command's supervisor was killed, which the command itself may have done.
    #[error("a native command's supervisor was killed before the command ended")]
    Unsupervised,
    /// The worker itself.
    #[error("the worker failed within itself: {0}; its log has the place")]
    Worker(String),
}

/// What a run came to, wherever it ran.
#[derive(Debug)]
pub(super) struct Ran {
    /// How it ended; a bundle exits with 0 once every command has ended.
    pub(super) end: ContainerEnd,
    /// Each command.
    pub(super) commands: Vec<CommandRecord>,
    /// What they printed.
    pub(super) log: String,
    /// Highest memory use seen.
    pub(super) peak_memory_bytes: Option<u64>,
    /// What became of each output.
    pub(super) outputs: BTreeMap<String, Output>,
    /// What the kernel held its container to, and what it had to wait for.
    pub(super) node: Option<NodeRecord>,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

/// Makes one attempt.
///
/// # Errors
/// The node failed; the task should be tried again elsewhere or later.
pub async fn run<E: Engine>(job: &Job<'_, E>) -> Result<Attempt, RunError> {
    let slot = share(job.slot, job.resources);
    let timeout = job.resources.timeout_seconds.unwrap_or(job.config.run_timeout_seconds);
    let mut stages = Vec::new();
    let mut report = RunReport {
        failed: job.task.commands.len(),
        cpuset: slot.limits.cpuset_cpus.clone(),
        memory_bytes: slot.limits.memory_bytes,
        ..RunReport::default()
    };
    let copies = match job.task.image {
        Some(_) => container::copies(job),
        None => native::copies(job),
    };
    if !copies.is_empty() {
        (job.say)("inputs");
        let started = Instant::now();
        let at_fault = inputs::fetch(job.spool, copies, job.task.image.is_none()).await?;
        stages.push(took("inputs", started));
        if let Some(detail) = at_fault {
            let verdict = Verdict::failed(FailureReason::Input, detail, Vec::new());
            let (notes, files, work) = (Vec::new(), Vec::new(), WorkReport::Run { run: report });
            return Ok(Attempt { verdict, stages, work, peak_memory_bytes: None, notes, files });
        }
    }
    (job.say)("run");
    let started = Instant::now();
    let ran = match &job.task.image {
        Some(image) => container::run(job, image, &slot, Duration::from_secs(timeout)).await?,
        None => native::run(job, &slot, Duration::from_secs(timeout)).await?,
    };
    stages.push(took("run", started));
    let verdict = verdict::of(&ran, timeout);
    report.succeeded = ran.commands.iter().filter(|command| command.status == Some(0)).count();
    report.failed -= report.succeeded;
    report.node = ran.node;
    let mut files = vec![(OUTPUT_FILE.to_owned(), ran.log.into_bytes())];
    if job.task.commands.len() > 1 {
        let bytes = serde_json::to_vec_pretty(&ran.commands).unwrap_or_else(|e| e.to_string().into_bytes());
        files.push((COMMANDS_FILE.to_owned(), bytes));
    }
    for (path, output) in ran.outputs {
        let (name, bytes) = match output {
            Output::File(bytes) => (output_name(&path), bytes),
            Output::Directory(bytes) => (format!("{}.tar", output_name(&path)), bytes),
            Output::None(_) => continue,
        };
        report.outputs.insert(path, name.clone());
        files.push((name, bytes));
    }
    let (work, peak_memory_bytes) = (WorkReport::Run { run: report }, ran.peak_memory_bytes);
    Ok(Attempt { verdict, stages, work, peak_memory_bytes, notes: ran.notes, files })
}
