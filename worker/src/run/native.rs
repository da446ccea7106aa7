use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use queue_format::{CommandRecord, InputFile, Life, LifeLock, Owner, PathError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::job::{Job, Ran, RunError};
use super::supervisor::{End, Report, Request, SUPERVISE};
use super::{bundle, group, outputs, processes};
use crate::engine::{ContainerEnd, EngineError, HeadTail};
use crate::slots::Slot;

/// Its processes carry it: `<owner>/<slot>/<object>`.
const MARK: &str = "BOTTEGA_NATIVE";
/// What a native command finds programs by.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How texts are written.
const LANG: &str = "C.UTF-8";
/// 128 + SIGKILL.
const STATUS_KILLED: i32 = 137;
/// What is read at once of what it prints.
const PIECE_BYTES: usize = 1 << 16;
/// The longest report of a supervisor that is read.
const REPORT_BYTES_MAX: u64 = 1 << 20;
/// How long the last output may take to arrive once everything has ended.
const LAST_OUTPUT_MAX: Duration = Duration::from_secs(2);

/// Where inputs are copied to: where the commands find them.
pub(super) fn copies<E>(job: &Job<'_, E>) -> Vec<(InputFile, PathBuf)> {
    let dir = work_dir(job);
    job.task.inputs.iter().map(|input| (input.clone(), dir.join(&input.path))).collect()
}

/// Runs the commands one after another, all within `timeout`.
pub(super) async fn run<E>(job: &Job<'_, E>, slot: &Slot, timeout: Duration) -> Result<Ran, RunError> {
    let dir = work_dir(job);
    let temporary = job.dir.join("tmp");
    let above = job.task.outputs.iter().filter_map(|path| Some(dir.join(path).parent()?.to_owned()));
    for made in [dir.clone(), temporary.clone()].into_iter().chain(above) {
        std::fs::create_dir_all(&made).map_err(|source| RunError::Disk { path: made, source })?;
    }
    let (owner, object) = (&job.labels.owner, (job.unique)());
    let mark = format!("{owner}/{}/{object}", slot.number);
    let mut env: BTreeMap<String, String> = [
        ("PATH", PATH.to_owned()),
        ("LANG", LANG.to_owned()),
        ("HOME", dir.display().to_string()),
        ("TMPDIR", temporary.display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    env.extend(job.task.env.clone());
    env.insert(MARK.to_owned(), mark.clone());
    let log = Arc::new(Mutex::new(HeadTail::new(job.config.log_bytes_max)));
    let deadline = Instant::now() + timeout;
    let never = CommandRecord { status: None, seconds: None };
    let mut ran = Ran {
        end: ContainerEnd::Exited(0),
        commands: vec![never; job.task.commands.len()],
        log: String::new(),
        peak_memory_bytes: None,
        outputs: BTreeMap::new(),
        node: None,
        notes: Vec::new(),
    };
    for (n, command) in job.task.commands.iter().enumerate() {
        if let Some(index) = bundle::index_of(job.task, n) {
            env.insert(bundle::INDEX_VARIABLE.to_owned(), index.to_string());
        }
        let request = Request {
            command: command.clone(),
            dir: dir.clone(),
            env: env.clone(),
            mark: format!("{MARK}={mark}"),
            group: format!("{}{object}", group_of(owner, slot.number)),
            cores: slot.cpus.clone(),
            memory_bytes: slot.limits.memory_bytes,
            pids_max: slot.limits.pids_max,
            nofile_max: slot.limits.nofile_max,
            timeout: deadline.saturating_duration_since(Instant::now()),
        };
        let report = supervised(job, &request, &log).await?;
        ran.peak_memory_bytes = ran.peak_memory_bytes.max(report.peak_memory_bytes);
        ran.notes
            .extend(report.notes.into_iter().filter(|note| !ran.notes.contains(note)).collect::<Vec<_>>());
        let record = &mut ran.commands[n];
        record.seconds = Some(report.seconds);
        match report.end {
            End::Exited(status) => record.status = Some(status),
            End::OutOfMemory => {
                // As a bundle in a container says of it.
                record.status = Some(STATUS_KILLED);
                ran.end = ContainerEnd::OutOfMemory;
            }
            End::TimedOut => {
                ran.end = ContainerEnd::TimedOut;
                break;
            }
            End::ShortOfMemory => return Err(RunError::Engine(EngineError::ShortOfMemory)),
            End::Abandoned => return Err(RunError::Supervisor("its worker was taken for dead".to_owned())),
        }
    }
    ran.log = log.lock().unwrap_or_else(PoisonError::into_inner).text();
    let (paths, bytes_max) = (job.task.outputs.clone(), job.config.output_bytes_max);
    let collected = tokio::task::spawn_blocking(move || outputs::collect(&dir, &paths, bytes_max)).await;
    ran.outputs = collected.map_err(|error| RunError::Worker(error.to_string()))?;
    Ok(ran)
}

/// Ends every process of an incarnation's native commands; for one that must end at once, or has. Asks no file system
/// but the kernel's own.
pub fn end_native_commands_of(owner: &Owner) {
    end_marked(&format!("{MARK}={owner}/"), &group_prefix(owner));
}

/// Ends what the native commands of every incarnation of this node have left that is dead, whoever has taken its tasks
/// back since.
///
/// # Errors
/// The node's state directory cannot be read.
pub fn end_native_commands_of_the_dead(state_dir: &Path) -> Result<(), PathError> {
    for owner in LifeLock::known(state_dir)? {
        if LifeLock::look(state_dir, &owner)? == Life::Dead {
            end_native_commands_of(&owner);
        }
    }
    Ok(())
}

/// The processes of native commands in a slot: none once what was cut off there has ended.
#[must_use]
pub fn native_processes_in(owner: &Owner, slot: u32) -> BTreeSet<i32> {
    found(&format!("{MARK}={owner}/{slot}/"), &group_of(owner, slot))
}

/// What carries a mark, or is in a control group, that begins so.
fn found(mark: &str, group_prefix: &str) -> BTreeSet<i32> {
    let mut found = processes::marked(mark);
    found.extend(group::processes_of(group_prefix));
    found
}

/// Ends what carries a mark, or is in a control group, that begins so.
fn end_marked(mark: &str, group_prefix: &str) {
    let left = processes::end_all(|| found(mark, group_prefix));
    group::remove_of(group_prefix);
    if left > 0 {
        tracing::error!(left, mark, "native commands could not be killed: look at them with ps");
    }
}

fn group_prefix(owner: &Owner) -> String {
    format!("bottega-native.{owner}.")
}

fn group_of(owner: &Owner, slot: u32) -> String {
    format!("{}{slot}.", group_prefix(owner))
}

fn work_dir<E>(job: &Job<'_, E>) -> PathBuf {
    job.dir.join("work")
}

/// One command under a supervisor. Dropped, it closes the supervisor's standard input, and so ends everything.
async fn supervised<E>(
    job: &Job<'_, E>,
    request: &Request,
    log: &Arc<Mutex<HeadTail>>,
) -> Result<Report, RunError> {
    let failed = |what: &str, error: std::io::Error| RunError::Supervisor(format!("{what}: {error}"));
    let mut child = Command::new(job.program)
        .arg(SUPERVISE)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed("cannot start its supervisor", error))?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(RunError::Supervisor("its supervisor has no pipes".to_owned()));
    };
    let mut pump = JoinSet::new();
    pump.spawn(pump_output(stdout, log.clone()));
    let mut line = serde_json::to_vec(request).map_err(|e| RunError::Supervisor(e.to_string()))?;
    line.push(b'\n');
    stdin.write_all(&line).await.map_err(|error| failed("cannot ask its supervisor", error))?;
    let mut said = String::new();
    let read = stderr.take(REPORT_BYTES_MAX).read_to_string(&mut said).await;
    read.map_err(|error| failed("cannot hear its supervisor", error))?;
    child.wait().await.map_err(|error| failed("cannot wait for its supervisor", error))?;
    drop(stdin);
    let _ = tokio::time::timeout(LAST_OUTPUT_MAX, pump.join_next()).await;
    let report = said.lines().last().and_then(|line| serde_json::from_str(line).ok());
    if let Some(report) = report {
        return Ok(report);
    }
    // Killed, or unable to begin: what it may have started must not go on.
    let (mark, group) = (request.mark.clone(), request.group.clone());
    let ended = tokio::task::spawn_blocking(move || end_marked(&mark, &group)).await;
    ended.map_err(|error| RunError::Worker(error.to_string()))?;
    Err(if said.is_empty() { RunError::Unsupervised } else { RunError::Supervisor(said) })
}

async fn pump_output(mut output: impl AsyncRead + Unpin, log: Arc<Mutex<HeadTail>>) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(read @ 1..) = output.read(&mut piece).await {
        log.lock().unwrap_or_else(PoisonError::into_inner).push(&piece[..read]);
    }
}
