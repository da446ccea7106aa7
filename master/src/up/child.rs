use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use systemd::{Phase, Shutdown};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::listener::Listener;
use super::log::LogFile;

/// Which daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Publishes and counts.
    Master,
    /// Builds and verifies.
    Worker,
    /// Sweeps.
    Janitor,
}

/// How a daemon is started.
#[derive(Clone, Debug)]
pub struct Program {
    /// Which one it is.
    pub role: Role,
    /// Its executable.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// What happened to a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It does its work now.
    Ready(Role),
    /// What it says it does.
    Status(Role, String),
    /// It died and is started again.
    Restarted(Role, Death),
    /// It died and is not started again: never ready, or dead too often.
    Lost(Role, Death),
    /// It ended because it was told to; false where it had to be killed.
    Stopped(Role, bool),
}

/// How a daemon died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// `exit status: 1`, or the signal.
    pub how: String,
    /// Whether it had ever been ready.
    pub was_ready: bool,
    /// The last lines of its log.
    pub lines: Vec<String>,
}

/// A daemon that says nothing is taken to be ready after so long.
const STARTED: Duration = Duration::from_secs(20);

/// Deaths within [`RESTART_WINDOW`] after which a daemon is not started again.
const RESTARTS_MAX: usize = 3;

/// How long a death counts.
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// Lines of log shown with a death.
const LINES_MAX: usize = 8;

impl Role {
    /// All, in the order of starting.
    pub const ALL: [Self; 3] = [Self::Master, Self::Worker, Self::Janitor];

    /// The name of its program.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Master => "bottega-master",
            Self::Worker => "bottega-worker",
            Self::Janitor => "bottega-janitor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

/// Keeps one daemon alive until it is told to stop: [`Phase::Requested`] asks it to end, [`Phase::Now`] kills it.
pub(super) struct Keeper {
    pub(super) program: Program,
    pub(super) log: LogFile,
    pub(super) events: UnboundedSender<Event>,
    pub(super) stop: Shutdown,
    pub(super) unique: fn() -> Uuid,
}

enum End {
    Stopped { cleanly: bool },
    Died(Death),
}

impl Keeper {
    pub(super) async fn keep(self) {
        let role = self.program.role;
        let mut deaths: VecDeque<Instant> = VecDeque::new();
        let last = loop {
            let death = match self.live_once().await {
                Ok(End::Stopped { cleanly }) => break Event::Stopped(role, cleanly),
                Ok(End::Died(death)) => death,
                Err(e) => {
                    let how = format!("it cannot be started: {e}");
                    break Event::Lost(role, Death { how, was_ready: false, lines: Vec::new() });
                }
            };
            deaths.push_back(Instant::now());
            deaths.retain(|at| at.elapsed() < RESTART_WINDOW);
            // What never got ready will not the second time either: its message is what helps.
            if !death.was_ready || deaths.len() > RESTARTS_MAX {
                break Event::Lost(role, death);
            }
            let _ = self.events.send(Event::Restarted(role, death));
        };
        let _ = self.events.send(last);
    }

    async fn live_once(&self) -> io::Result<End> {
        let role = self.program.role;
        let listener = Listener::bind((self.unique)())?;
        let (output, from) = self.log.open()?;
        let mut command = Command::new(&self.program.path);
        command.args(&self.program.arguments).env("NOTIFY_SOCKET", listener.address());
        command.env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID").stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output).process_group(0).kill_on_drop(true);
        die_with_parent(&mut command);
        let mut child = command.spawn()?;
        let started = Instant::now() + STARTED;
        let (mut ready, mut asked, mut killed) = (false, false, false);
        loop {
            tokio::select! {
                status = child.wait() => {
                    // It may have been told by somebody else a moment earlier.
                    if asked || self.stop.phase() != Phase::Running {
                        return Ok(End::Stopped { cleanly: !killed });
                    }
                    let lines = self.log.last_lines(from, LINES_MAX);
                    return Ok(End::Died(Death { how: how(status?), was_ready: ready, lines }));
                }
                notice = listener.next() => {
                    if notice.ready && !ready {
                        ready = true;
                        let _ = self.events.send(Event::Ready(role));
                    }
                    if let Some(status) = notice.status {
                        let _ = self.events.send(Event::Status(role, status));
                    }
                    let _ = self.log.cut();
                }
                () = sleep_until(started), if !ready => {
                    ready = true;
                    let _ = self.events.send(Event::Ready(role));
                }
                () = self.stop.requested(), if !asked => {
                    asked = true;
                    // A person waits: nothing is drained.
                    signal(&child, Signal::SIGINT);
                }
                () = self.stop.now(), if !killed => {
                    (asked, killed) = (true, true);
                    signal(&child, Signal::SIGKILL);
                }
            }
        }
    }
}

/// To the daemon and whatever it started in its group; its pid is its own as long as it was not waited for.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = match signal {
            // A child of the daemon that were told to end too would look like a failure of its own.
            Signal::SIGINT => nix::sys::signal::kill(Pid::from_raw(pid), signal),
            _ => killpg(Pid::from_raw(pid), signal),
        };
    }
}

#[expect(unsafe_code, reason = "nothing but two system calls, both safe between fork and exec")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let ask = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // It may have died before the kernel was asked.
        if nix::unistd::getppid().as_raw().unsigned_abs() == parent {
            Ok(())
        } else {
            Err(io::Error::other("bottega up is gone"))
        }
    };
    // SAFETY: the closure allocates nothing on the way that succeeds, and takes no lock.
    unsafe {
        command.pre_exec(ask);
    }
}

fn how(status: ExitStatus) -> String {
    status.to_string()
}
