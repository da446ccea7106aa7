use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use queue_format::{
    CHUNK_TASKS_MAX, EventLog, Intake, Known, LifeLock, Owner, PathError, READ_KEPT, Settling, Spool,
    SpoolError,
};
use systemd::{Notifier, Reload, Shutdown};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::MasterConfig;
use super::round::{Round, Summariser};
use super::steering::Steering;
use crate::pulse::Pulse;
use crate::summary::Watch;

/// A master, ready to serve.
pub struct Daemon {
    /// Its configuration, checked.
    pub config: MasterConfig,
    /// The spool.
    pub spool: Spool,
    /// Who it is.
    pub owner: Owner,
    /// Where its life lock lies.
    pub state_dir: PathBuf,
    /// Where relative paths of the configuration begin.
    pub working_dir: PathBuf,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// Gives a fresh UUID; its random part also draws the pauses.
    pub unique: fn() -> Uuid,
}

/// Why a master cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The spool or the state directory cannot be written.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Others have taken it for dead.
    #[error(transparent)]
    Closed(#[from] SpoolError),
}

/// Between two looks at the least, and while a dropped file is waited for.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// How long a round that has begun may go on after the master was told to end. What it has not finished by then
/// stays taken, and the next master adopts it.
const FINISH: Duration = Duration::from_secs(3);

impl Daemon {
    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// It cannot begin. Later errors are logged, and what failed is tried again in the next round.
    pub async fn serve(
        mut self,
        notifier: &Notifier,
        shutdown: &Shutdown,
        reload: &mut Reload<MasterConfig>,
    ) -> Result<(), DaemonError> {
        let alive = LifeLock::hold(&self.state_dir, &self.owner)?;
        let intake = Intake::open(&self.spool, self.owner.clone())?;
        let (pulse, dead) = Pulse::start(&self.spool, &self.owner)?;
        let mut changes = Changes::watch(&self.spool.layout().incoming());
        let mut round = Round {
            spool: self.spool.clone(),
            owner: self.owner.clone(),
            state_dir: self.state_dir.clone(),
            log: EventLog::new(&self.spool, &self.owner),
            steering: Steering::default(),
            intake,
            repositories: None,
            shard_tasks: CHUNK_TASKS_MAX,
            known: Known::default(),
            settling: Settling::new(Duration::ZERO),
            read: Settling::new(READ_KEPT),
            refused: BTreeSet::new(),
            summariser: Summariser {
                watch: Watch::default(),
                every: Duration::ZERO,
                due: std::time::Instant::now(),
                now: self.now,
            },
            notifier: notifier.clone(),
            forget_due: Duration::ZERO,
            dead,
        };
        round.follow(&self.config, &self.working_dir);
        let mut round = Some(round);
        let mut is_closed = false;
        let began = Instant::now();
        notifier.ready("started");
        while let Some(mut turn) = round.take() {
            let (now, looked_at) = ((self.now)(), Instant::now());
            // Files are moved on a thread of their own: a hung mount must not keep a signal from being heard.
            let mut work = tokio::task::spawn_blocking(move || {
                let said = turn.all(now, began.elapsed());
                (turn, said)
            });
            let done = tokio::select! {
                done = &mut work => done.ok(),
                () = shutdown.requested() => timeout(FINISH, work).await.ok().and_then(Result::ok),
                () = pulse.closed() => {
                    is_closed = true;
                    None
                }
            };
            let Some((mut turn, said)) = done else { break };
            if let Some(said) = said {
                notifier.status(&said);
            }
            notifier.watchdog();
            let pause = if turn.settling.is_waiting() {
                LOOK_PAUSE
            } else {
                self.pause(notifier, turn.summariser.due.into())
            };
            let next = sleep(pause);
            tokio::pin!(next);
            let goes_on = loop {
                tokio::select! {
                    () = shutdown.requested() => break false,
                    () = pulse.closed() => {
                        is_closed = true;
                        break false;
                    }
                    config = reload.next() => {
                        turn.follow(&config, &self.working_dir);
                        self.config = config;
                    }
                    () = &mut next => break true,
                    () = changes.next(looked_at + LOOK_PAUSE) => break true,
                }
            };
            round = Some(turn);
            if !goes_on {
                break;
            }
        }
        if is_closed {
            return Err(SpoolError::LeaseClosed(self.owner).into());
        }
        notifier.stopping("told to end");
        pulse.stop();
        if let Some(round) = round
            && round.intake.close()?
        {
            drop(alive);
            LifeLock::forget(&self.state_dir, &self.owner)?;
        }
        Ok(())
    }

    /// Full jitter between the two limits, cut where systemd or the summary want to hear earlier.
    fn pause(&self, notifier: &Notifier, summary_due: Instant) -> Duration {
        let (min, max) = (self.config.poll_seconds_min, self.config.poll_seconds_max);
        let [.., high, low] = (self.unique)().into_bytes();
        let random = f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX);
        let jittered = Duration::from_secs_f64(min + random * (max - min));
        let summary = summary_due.saturating_duration_since(Instant::now());
        jittered.min(summary).min(notifier.watchdog_interval().unwrap_or(Duration::MAX)).max(LOOK_PAUSE)
    }
}

impl Round {
    /// Does it by this configuration from now on, which was checked.
    fn follow(&mut self, config: &MasterConfig, working_dir: &Path) {
        self.repositories = config.template(working_dir).ok().flatten();
        self.shard_tasks = config.shard_tasks;
        self.settling = Settling::new(Duration::from_secs_f64(config.settle_seconds));
        self.summariser.every = Duration::from_secs_f64(config.summary_seconds);
        log_error("log by the new filter", systemd::log::set_filter(&config.log));
    }

    /// Every step once. Gives the line for people where the summary was due.
    fn all(&mut self, now: Timestamp, elapsed: Duration) -> Option<String> {
        log_error("do what control/ asks for", self.steer(now));
        log_error("take back from the dead", self.reap(now));
        log_error("release delayed tasks", self.release());
        log_error("read incoming/", self.ingest(now, elapsed));
        log_error("look after incoming/read/", self.look_after_read(elapsed));
        log_error("forget what is old in ledger/ and status/", self.forget(elapsed));
        // What cannot be written now is kept for the next round.
        log_error("write the event log", self.log.flush(now));
        log_error("write the summary", self.summariser.look(&self.spool)).flatten()
    }
}

fn log_error<T, E: Display>(step: &str, result: Result<T, E>) -> Option<T> {
    result.inspect_err(|error| tracing::error!("cannot {step}: {error}; trying again")).ok()
}

/// Changes in incoming/, where the kernel tells of them: it does not over NFS, and need not anywhere.
struct Changes {
    receiver: Receiver<()>,
    /// Kept, for without a sender the channel would seem to change all the time.
    _sender: Sender<()>,
    _watcher: Option<RecommendedWatcher>,
}

impl Changes {
    fn watch(incoming: &Path) -> Self {
        let (sender, receiver) = channel(1);
        let seen = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| event.kind.is_create() || event.kind.is_modify()) {
                // Full: a look is due already.
                let _ = seen.try_send(());
            }
        });
        let watching = watcher.and_then(|mut watcher| {
            watcher.watch(incoming, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watching {
            tracing::info!("incoming/ is looked at now and then only: {error}");
        }
        Self { receiver, _sender: sender, _watcher: watching.ok() }
    }

    /// Resolves after a change, but not before `earliest`.
    async fn next(&mut self, earliest: Instant) {
        self.receiver.recv().await;
        sleep_until(earliest).await;
    }
}
