use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use queue_format::{Spool, SpoolError};
use systemd::{Phase, Shutdown, Trigger};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};
use uuid::Uuid;

use super::child::{Death, Keeper};
use super::log::LogFile;
use super::progress::{Condition, Progress};
use super::screen::{Screen, TerminalSize};
use super::{Before, Event, Program, Role};
use crate::summary::{Status, Watch};
use crate::text::{clean_line, duration};

/// What `up` is asked to do.
pub struct Settings {
    /// The spool.
    pub spool: Spool,
    /// Where the logs go, below `log/`.
    pub state_dir: PathBuf,
    /// The three daemons.
    pub programs: Vec<Program>,
    /// End when nothing is pending, claimed, delayed or dropped.
    pub until_idle: bool,
    /// How large the terminal is; `None` where there is none.
    pub terminal: fn() -> Option<TerminalSize>,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// Gives a fresh UUID.
    pub unique: fn() -> Uuid,
}

/// A run that has ended in good order.
pub struct Up {
    /// What was settled when it began.
    pub before: Before,
    /// How long it took.
    pub seconds: f64,
    /// True where a person ended it.
    pub interrupted: bool,
}

/// Why `up` could not do its work. Whatever it had started has ended.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The spool cannot be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The place for logs cannot be made.
    #[error("cannot make {}: {source}; name a directory you may write with --state", path.display())]
    Logs {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A daemon is gone for good.
    #[error("{role} {}: {}{}\nits log: {}", if death.was_ready { "keeps dying" } else { "could not start" }, death.how, quoted(&death.lines), log.display())]
    Lost {
        /// Which one.
        role: Role,
        /// How it died.
        death: Death,
        /// All that it said.
        log: PathBuf,
    },
    /// The progress cannot be shown.
    #[error("cannot write the progress: {0}")]
    Output(io::Error),
    /// The signal handlers cannot be set.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
}

/// How often the progress is redrawn on a terminal.
const REDRAW: Duration = Duration::from_secs(1);

/// How often a line is written elsewhere.
const LINE: Duration = Duration::from_secs(5);

/// How long master and worker may take to end before they are killed: a worker hands back what it has begun.
const STOP: Duration = Duration::from_secs(60);

/// How long the janitor may take, after them.
const STOP_JANITOR: Duration = Duration::from_secs(15);

/// Looks in a row that must find nothing to do: a task that moves while the spool is listed can be missed once.
const IDLE_LOOKS: u32 = 2;

struct Daemons {
    conditions: BTreeMap<Role, (Condition, String)>,
    stops: BTreeMap<Role, Trigger>,
    events: UnboundedReceiver<Event>,
    keepers: JoinSet<()>,
    lost: Option<(Role, Death)>,
}

struct Running<'a> {
    settings: &'a Settings,
    screen: Screen<'a>,
    watch: Watch,
    daemons: Daemons,
    started_at: Timestamp,
    /// What workers have said once.
    noticed: HashSet<String>,
    last_line: String,
    next_line: Instant,
}

impl Settings {
    /// Starts the daemons and watches them until the end that is asked for. Must be called on the thread that
    /// outlives them: the kernel tells them when it ends.
    ///
    /// # Errors
    /// The spool cannot be read, or a daemon does not live.
    pub async fn run(&self, shutdown: &Shutdown, out: &mut dyn Write) -> Result<Up, UpError> {
        let before = Before::look(&self.spool)?;
        let started_at = (self.now)();
        let log_dir = self.log_dir();
        std::fs::create_dir_all(&log_dir)
            .map_err(|source| UpError::Logs { path: log_dir.clone(), source })?;
        let mut running = Running {
            settings: self,
            screen: Screen::new(out, self.terminal),
            watch: Watch::default(),
            daemons: self.start(&log_dir),
            started_at,
            noticed: HashSet::new(),
            last_line: String::new(),
            next_line: Instant::now(),
        };
        let said = running.screen.say(&format!("logs: {}", log_dir.display())).map_err(UpError::Output);
        let watched = match said {
            Ok(()) => running.watch(shutdown).await,
            Err(e) => Err(e),
        };
        // Whatever went wrong, the daemons are ended first.
        let stopped = running.stop(shutdown).await;
        let lost = running.daemons.lost.take();
        let interrupted = watched?;
        stopped?;
        if let Some((role, death)) = lost {
            let log = LogFile::new(&log_dir, role.program()).path().to_owned();
            return Err(UpError::Lost { role, death, log });
        }
        let seconds = (self.now)().duration_since(started_at).as_secs_f64();
        Ok(Up { before, seconds, interrupted })
    }

    fn log_dir(&self) -> PathBuf {
        self.state_dir.join("log")
    }

    fn start(&self, log_dir: &Path) -> Daemons {
        let (sender, events) = unbounded_channel();
        let (mut conditions, mut stops, mut keepers) = (BTreeMap::new(), BTreeMap::new(), JoinSet::new());
        for program in &self.programs {
            let (trigger, stop) = Shutdown::manual();
            let role = program.role;
            conditions.insert(role, (Condition::Starting, String::new()));
            stops.insert(role, trigger);
            let log = LogFile::new(log_dir, role.program());
            let keeper =
                Keeper { program: program.clone(), log, events: sender.clone(), stop, unique: self.unique };
            keepers.spawn(keeper.keep());
        }
        Daemons { conditions, stops, events, keepers, lost: None }
    }
}

impl Running<'_> {
    /// Until it is to end; gives whether a person asked for that.
    async fn watch(&mut self, shutdown: &Shutdown) -> Result<bool, UpError> {
        let mut ticks = interval(REDRAW);
        // The terminal is gone, which is no reason to leave the daemons to be killed.
        let mut hangup = signal(SignalKind::hangup()).map_err(UpError::Signals)?;
        let mut idle_looks = 0;
        loop {
            tokio::select! {
                () = shutdown.requested() => return Ok(true),
                _ = hangup.recv() => return Ok(true),
                Some(event) = self.daemons.events.recv() => {
                    self.happened(event)?;
                    if self.daemons.lost.is_some() {
                        return Ok(false);
                    }
                }
                _ = ticks.tick() => {
                    let begun = Instant::now();
                    let status = self.show(None)?;
                    // A spool that is slow to list is looked at less often.
                    ticks.reset_after(REDRAW.max(begun.elapsed() * 10));
                    idle_looks = if status.is_idle() { idle_looks + 1 } else { 0 };
                    if self.settings.until_idle && idle_looks >= IDLE_LOOKS {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Master and worker first: what a worker leaves behind, the janitor still sweeps.
    async fn stop(&mut self, shutdown: &Shutdown) -> Result<(), UpError> {
        let first: Vec<Role> = self.living().into_iter().filter(|role| *role != Role::Janitor).collect();
        let asked = self.stop_these(&first, STOP, shutdown).await;
        let rest = self.living();
        let asked = asked.and(self.stop_these(&rest, STOP_JANITOR, shutdown).await);
        while self.daemons.keepers.join_next().await.is_some() {}
        asked.and(self.screen.wipe().map_err(UpError::Output))
    }

    async fn stop_these(
        &mut self,
        roles: &[Role],
        patience: Duration,
        shutdown: &Shutdown,
    ) -> Result<(), UpError> {
        for role in roles {
            self.daemons.stops[role].request();
            self.daemons.conditions.insert(*role, (Condition::Stopping, String::new()));
        }
        let deadline = Instant::now() + patience;
        // The Ctrl-C that comes after the one, if any, that has led here.
        let asked_before = shutdown.phase() != Phase::Running;
        let again = async { if asked_before { shutdown.now().await } else { shutdown.requested().await } };
        tokio::pin!(again);
        let mut ticks = interval(REDRAW);
        let (mut killed, mut output) = (false, Ok(()));
        self.next_line = Instant::now();
        while roles.iter().any(|role| self.daemons.conditions[role].0 != Condition::Ended) {
            tokio::select! {
                Some(event) = self.daemons.events.recv() => output = output.and(self.happened(event)),
                _ = ticks.tick() => {
                    let closing = self.closing(roles, deadline, asked_before);
                    output = output.and(self.show(Some(&closing)).map(|_| ()));
                }
                () = sleep_until(deadline), if !killed => {
                    killed = true;
                    self.kill(roles);
                }
                () = &mut again, if !killed => {
                    killed = true;
                    self.kill(roles);
                }
            }
        }
        output
    }

    fn closing(&self, roles: &[Role], deadline: Instant, asked_before: bool) -> String {
        let living = self.living();
        let names: Vec<&str> =
            roles.iter().filter(|role| living.contains(role)).map(|r| r.program()).collect();
        let left = deadline.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
        let again = if asked_before { "again " } else { "" };
        let names = names.join(" and ");
        format!("stopping: waiting for {names}, {} at most; Ctrl-C {again}kills", duration(left))
    }

    fn living(&self) -> Vec<Role> {
        let alive =
            self.daemons.conditions.iter().filter(|(_, (condition, _))| *condition != Condition::Ended);
        alive.map(|(role, _)| *role).collect()
    }

    fn kill(&mut self, roles: &[Role]) {
        for role in roles {
            self.daemons.stops[role].now();
        }
    }

    fn happened(&mut self, event: Event) -> Result<(), UpError> {
        let conditions = &mut self.daemons.conditions;
        let line = match event {
            Event::Ready(role) => {
                let said = conditions.remove(&role).map(|(_, said)| said).unwrap_or_default();
                conditions.insert(role, (Condition::Ready, said));
                return Ok(());
            }
            Event::Status(role, status) => {
                if let Some((_, said)) = conditions.get_mut(&role) {
                    *said = status;
                }
                return Ok(());
            }
            Event::Restarted(role, death) => {
                conditions.insert(role, (Condition::Starting, String::new()));
                format!("{role} died ({}) and is started again{}", death.how, quoted(&death.lines))
            }
            Event::Lost(role, death) => {
                conditions.insert(role, (Condition::Ended, String::new()));
                self.daemons.lost.get_or_insert((role, death));
                return Ok(());
            }
            Event::Stopped(role, cleanly) => {
                conditions.insert(role, (Condition::Ended, String::new()));
                if cleanly {
                    return Ok(());
                }
                format!("{role} was killed; what it left is taken back and swept by the next run")
            }
        };
        self.screen.say(&line).map_err(UpError::Output)
    }

    fn show(&mut self, closing: Option<&str>) -> Result<Status, UpError> {
        let now = (self.settings.now)();
        let status = Status::take(&self.settings.spool, &mut self.watch, now)?;
        for notice in status.workers.iter().flat_map(|worker| &worker.notices) {
            if self.noticed.insert(notice.clone()) {
                self.screen.say(&format!("note: {}", clean_line(notice))).map_err(UpError::Output)?;
            }
        }
        let progress = Progress {
            status: &status,
            daemons: &self.daemons.conditions,
            started_at: self.started_at,
            now,
            closing,
        };
        if self.screen.is_terminal() {
            self.screen.draw(&progress.block()).map_err(UpError::Output)?;
        } else if Instant::now() >= self.next_line {
            let line = closing.map_or_else(|| progress.line(), str::to_owned);
            if line != self.last_line {
                self.screen.say(&line).map_err(UpError::Output)?;
            }
            self.last_line = line;
            self.next_line = Instant::now() + LINE;
        }
        Ok(status)
    }
}

fn quoted(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  | {line}")).collect()
}
