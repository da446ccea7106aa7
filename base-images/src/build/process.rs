//! Programs of the host, in a process group of their own, ended in good order if the build is dropped.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::engine::Lines;
use crate::error::BuildError;

/// How long a program that was asked to end may take.
const END_LIMIT: Duration = Duration::from_secs(30);

const END_POLL: Duration = Duration::from_millis(50);

/// The process groups that were started and not yet seen to end, each with the standard error that nobody reads any
/// more once it was dropped: it is read to the end, for a program that cleans up behind itself must not die of what it
/// says meanwhile.
#[derive(Clone, Default)]
pub(super) struct Running {
    groups: Arc<Mutex<BTreeMap<i32, Option<ChildStderr>>>>,
}

impl Running {
    /// Waits for programs that were dropped, which were asked to end; ends them by force at the limit.
    pub(super) async fn wait(&self) {
        let groups = std::mem::take(&mut *self.lock());
        for (group, said) in groups {
            let group = Pid::from_raw(group);
            let ended = async {
                while killpg(group, None).is_ok() {
                    tokio::time::sleep(END_POLL).await;
                }
            };
            let heard = async {
                if let Some(mut said) = said {
                    let _ = tokio::io::copy(&mut said, &mut tokio::io::sink()).await;
                }
            };
            let _ = tokio::time::timeout(END_LIMIT, async { tokio::join!(ended, heard) }).await;
            // That it is gone already is fine.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Option<ChildStderr>>> {
        // A map of numbers is whole whoever panicked.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A program that runs.
pub(super) struct Process {
    child: Child,
    name: String,
    group: Option<Pid>,
    running: Running,
}

impl Process {
    /// Starts a program with only the given environment; whoever starts it reads its standard output.
    pub(super) fn start(
        program: &Path,
        arguments: &[String],
        environment: &BTreeMap<String, String>,
        running: &Running,
    ) -> Result<Self, BuildError> {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(environment);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = command.spawn().map_err(BuildError::io(program))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        running.lock().extend(group.map(|group| (group.as_raw(), None)));
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { child, name, group, running: running.clone() })
    }

    /// The same under the name by which errors call it.
    pub(super) fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The standard output; the first time only.
    pub(super) fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Passes the lines of the standard error on, and waits for the end.
    pub(super) async fn finish(
        mut self,
        limit: Duration,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), BuildError> {
        let ended = tokio::time::timeout(limit, self.wait(on_line)).await;
        if ended.is_err() {
            self.signal(Signal::SIGTERM);
            // It cleans up behind itself; the error is the time-out in any case.
            let _ = tokio::time::timeout(END_LIMIT, self.child.wait()).await;
            self.signal(Signal::SIGKILL);
        }
        let timed_out =
            BuildError::TimedOut { step: "a program of this host", limit_seconds: limit.as_secs() };
        ended.unwrap_or(Err(timed_out))
    }

    async fn wait(&mut self, on_line: &mut (dyn FnMut(&str) + Send)) -> Result<(), BuildError> {
        let here = Path::new(&self.name).to_path_buf();
        let mut lines = Lines::default();
        if let Some(output) = &mut self.child.stderr {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let read = output.read(&mut buffer).await.map_err(BuildError::io(&here))?;
                if read == 0 {
                    break;
                }
                lines.push(&buffer[..read], on_line);
            }
        }
        let last_lines = lines.finish(on_line);
        let status = self.child.wait().await.map_err(BuildError::io(&here))?;
        if let Some(group) = self.group.take() {
            self.running.lock().remove(&group.as_raw());
        }
        if status.success() {
            return Ok(());
        }
        Err(BuildError::Program { program: self.name.clone(), status: status.to_string(), last_lines })
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // That it is gone already is fine.
            let _ = killpg(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            self.running.lock().entry(group.as_raw()).and_modify(|said| *said = self.child.stderr.take());
        }
        self.signal(Signal::SIGTERM);
    }
}

/// Runs a program to its end and gives its standard output, of at most `limit_bytes`.
pub(super) async fn output_of(
    program: &Path,
    arguments: &[String],
    environment: &BTreeMap<String, String>,
    limit: Duration,
    limit_bytes: u64,
) -> Result<String, BuildError> {
    let mut process = Process::start(program, arguments, environment, &Running::default())?;
    let output = process.take_output();
    let read = async {
        let mut text = Vec::new();
        if let Some(output) = output {
            output.take(limit_bytes).read_to_end(&mut text).await.map_err(BuildError::io(program))?;
        }
        Ok::<_, BuildError>(String::from_utf8_lossy(&text).into_owned())
    };
    let mut ignore = |_: &str| {};
    let (text, ended) = tokio::join!(read, process.finish(limit, &mut ignore));
    ended?;
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str, limit: Duration) -> (Result<(), BuildError>, Vec<String>) {
        let mut seen = Vec::new();
        let arguments = ["-c".to_owned(), script.to_owned()];
        let process =
            Process::start(Path::new("/bin/sh"), &arguments, &BTreeMap::new(), &Running::default()).unwrap();
        let ended = process.finish(limit, &mut |line| seen.push(line.to_owned())).await;
        (ended, seen)
    }

    #[tokio::test]
    async fn reports_how_a_program_ended() {
        let (ended, seen) = run("echo one >&2; echo two >&2", Duration::from_secs(60)).await;
        assert!(ended.is_ok());
        assert_eq!(seen, ["one", "two"]);
        let (ended, _) = run("echo because >&2; exit 3", Duration::from_secs(60)).await;
        assert_eq!(ended.unwrap_err().to_string(), "sh failed (exit status: 3): because");
        let (ended, _) = run("sleep 600", Duration::from_millis(50)).await;
        assert!(matches!(ended, Err(BuildError::TimedOut { .. })));
    }

    #[tokio::test]
    async fn ends_a_program_that_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("ended");
        let script =
            format!("trap 'touch {}; exit' TERM; echo ready; while :; do sleep 0.05; done", mark.display());
        let running = Running::default();
        let arguments = ["-c".to_owned(), script];
        let mut process =
            Process::start(Path::new("/bin/sh"), &arguments, &BTreeMap::new(), &running).unwrap();
        let mut ready = [0; 5];
        process.take_output().unwrap().read_exact(&mut ready).await.unwrap();
        drop(process);
        running.wait().await;
        assert!(mark.exists(), "it was not asked to end before it was made to");
    }
}
