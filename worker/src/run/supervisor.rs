use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};
use serde::{Deserialize, Serialize};

use super::group::Group;
use super::processes;

/// The argument by which the worker's own program becomes a supervisor.
pub const SUPERVISE: &str = "supervise-native-command";

/// What a shell says of a program that is not there, and of one that it may not start.
const STATUS_NOT_FOUND: i32 = 127;
const STATUS_NOT_STARTED: i32 = 126;
/// What a shell adds to the number of a signal.
const STATUS_SIGNALLED: i32 = 128;

/// What a supervisor is asked to do: one line of JSON on its standard input, which stays open as long as the command is
/// wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) command: Vec<String>,
    pub(super) dir: PathBuf,
    /// All its variables.
    pub(super) env: BTreeMap<String, String>,
    /// The one of them, `NAME=value`, that tells its processes from all others.
    pub(super) mark: String,
    pub(super) group: String,
    pub(super) cores: Vec<u32>,
    pub(super) memory_bytes: u64,
    pub(super) pids_max: u64,
    pub(super) nofile_max: u64,
    pub(super) timeout: Duration,
}

/// What became of it: one line of JSON on the supervisor's standard error.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) end: End,
    pub(super) seconds: f64,
    pub(super) peak_memory_bytes: Option<u64>,
    pub(super) notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    /// With this status, 128 and the signal's number where one killed it.
    Exited(i32),
    TimedOut,
    OutOfMemory,
    /// The node was out of memory, not the command.
    ShortOfMemory,
    /// Nobody wanted it any more.
    Abandoned,
}

/// Why everything was killed before the command ended by itself; the first says that nothing was.
const RUNNING: u8 = 0;
const TIMED_OUT: u8 = 1;
const ABANDONED: u8 = 2;

/// Runs one native command for a worker, and ends all that it started when it ends, at its deadline, or when the worker
/// is gone. Call it first thing in `main`, before anything makes a thread.
pub fn supervise() -> ExitCode {
    let mut line = String::new();
    let request = io::stdin().lock().read_line(&mut line).map_err(|e| e.to_string());
    let request = request.and_then(|_| serde_json::from_str::<Request>(&line).map_err(|e| e.to_string()));
    let report = request.and_then(|request| attend(&request).map_err(|e| e.to_string()));
    let said = match &report {
        Ok(report) => serde_json::to_string(report).unwrap_or_default(),
        Err(why) => why.clone(),
    };
    // A worker that is gone reads nothing any more.
    let _ = writeln!(io::stderr(), "{said}");
    if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn attend(request: &Request) -> io::Result<Report> {
    let mut notes = Vec::new();
    // A terminal's signals are the worker's business, and orphans come to us.
    setsid()?;
    nix::sys::prctl::set_child_subreaper(true)?;
    if let Err(error) = bind(&request.cores) {
        notes.push(format!("it was not kept to its cores: {error}"));
    }
    let group = enclose(request, &mut notes)?;
    setrlimit(Resource::RLIMIT_NOFILE, request.nofile_max, request.nofile_max)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let started = Instant::now();
    let spawned = spawn(request);
    if let Some(Err(error)) = group.as_ref().map(Group::leave) {
        notes.push(format!("its supervisor shares its control group: {error}"));
    }
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let is_missing = error.kind() == io::ErrorKind::NotFound;
            writeln!(io::stdout(), "{}: {error}", request.command[0].escape_debug())?;
            let end = End::Exited(if is_missing { STATUS_NOT_FOUND } else { STATUS_NOT_STARTED });
            return Ok(Report { end, seconds: 0.0, peak_memory_bytes: None, notes });
        }
    };
    let me = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let find = || -> BTreeSet<i32> {
        let mut found = processes::descendants(me);
        found.extend(processes::marked(&request.mark));
        found.extend(group.iter().flat_map(Group::processes));
        found.remove(&me);
        found
    };
    let why = AtomicU8::new(RUNNING);
    let (over, until_over) = channel();
    let worker_gone = over.clone();
    // Ends with this process, if the worker does not end before.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = worker_gone.send(ABANDONED);
    });
    let status = std::thread::scope(|scope| {
        let (find, why) = (&find, &why);
        scope.spawn(move || {
            let cause = match until_over.recv_timeout(request.timeout) {
                Ok(RUNNING) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(cause) => cause,
                Err(RecvTimeoutError::Timeout) => TIMED_OUT,
            };
            why.store(cause, Ordering::SeqCst);
            processes::kill_once(&find());
        });
        let status = wait_for(child);
        let _ = over.send(RUNNING);
        status
    });
    let seconds = started.elapsed().as_secs_f64();
    let left = processes::end_all(|| {
        processes::reap();
        find()
    });
    if left > 0 {
        notes.push(format!("{left} of its processes could not be killed"));
    }
    let oom = group.as_ref().map(Group::oom).unwrap_or_default();
    let end = match why.load(Ordering::SeqCst) {
        _ if oom.is_own() => End::OutOfMemory,
        _ if oom.is_foreign() => End::ShortOfMemory,
        TIMED_OUT => End::TimedOut,
        ABANDONED => End::Abandoned,
        _ => End::Exited(status?),
    };
    Ok(Report { end, seconds, peak_memory_bytes: group.as_ref().and_then(Group::peak_memory_bytes), notes })
}

/// This process, and so all that it starts, runs on these cores only.
fn bind(cores: &[u32]) -> Result<(), Errno> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core as usize)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// Limits the memory of what is started next.
fn enclose(request: &Request, notes: &mut Vec<String>) -> io::Result<Option<Group>> {
    let made = Group::make(&request.group, request.memory_bytes, request.pids_max);
    match made.and_then(|group| group.join().map(|()| group)) {
        Ok(group) => Ok(Some(group)),
        Err(error) => {
            notes.push(format!(
                "no control group can be made here ({error}): RLIMIT_AS limits the memory of each process alone"
            ));
            setrlimit(Resource::RLIMIT_AS, request.memory_bytes, request.memory_bytes)?;
            Ok(None)
        }
    }
}

fn spawn(request: &Request) -> io::Result<Pid> {
    let errors = io::stdout().as_fd().try_clone_to_owned()?;
    let child = Command::new(&request.command[0])
        .args(&request.command[1..])
        .env_clear()
        .envs(&request.env)
        .current_dir(&request.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::inherit())
        .stderr(Stdio::from(errors))
        .spawn()?;
    Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
}

/// Waits until the command itself has ended; of orphans that come to us we take leave on the way.
fn wait_for(child: Pid) -> io::Result<i32> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => return Ok(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return Ok(status_of(signal)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn status_of(signal: Signal) -> i32 {
    STATUS_SIGNALLED + signal as i32
}
