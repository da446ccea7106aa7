//! The heartbeat of a worker, the fence that ends it when it can beat no more, and its watch over others. Each has a thread
//! of its own: neither a hung mount nor a busy runtime keeps the fence from its turn, which touches no file, and what the
//! dead have left keeps no heart from beating, however slow it is to move.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;
use queue_format::{
    Control, Deceased, Event, EventLog, Heartbeat, Lease, Presence, Reaped, Spool, SpoolError, Timing, Watch,
};

/// How often the fence looks at the clock.
const FENCE_PERIOD: Duration = Duration::from_secs(1);

/// What beats.
pub struct Heart {
    /// The incarnation among the others.
    pub presence: Presence,
    /// Where it beats.
    pub spool: Spool,
    /// Its lease, looked after with every beat.
    pub lease: Arc<Mutex<Lease>>,
    /// What people ask of all daemons, read with every beat.
    pub control: Arc<Mutex<Control>>,
    /// Its log, written with every beat.
    pub log: EventLog,
    /// How often, and how long at most without.
    pub timing: Timing,
    /// Time since any fixed moment, time in suspension included.
    pub clock: fn() -> Duration,
    /// The time of day, for the log.
    pub now: fn() -> Timestamp,
}

/// A heart that beats until it is stopped.
#[derive(Debug)]
pub struct Pulse {
    stop: (Sender<()>, Sender<()>, Sender<()>),
    beating: JoinHandle<Heartbeat>,
}

/// What beats, once the watch over others is somebody else's.
struct Beat {
    heartbeat: Heartbeat,
    spool: Spool,
    lease: Arc<Mutex<Lease>>,
    control: Arc<Mutex<Control>>,
    log: EventLog,
    period: Duration,
    clock: fn() -> Duration,
    now: fn() -> Timestamp,
}

/// Who looks after the others.
struct Reaper {
    watch: Watch,
    log: EventLog,
    period: Duration,
    clock: fn() -> Duration,
    now: fn() -> Timestamp,
}

/// Called at most once, by whichever thread sees first that this incarnation must end.
type Death = Arc<Mutex<Option<Box<dyn FnOnce(&str) + Send>>>>;

impl Heart {
    /// Begins to beat. `die` is called where this incarnation was taken for dead, or could not beat for so long
    /// that it must take itself for dead: it ends everything that runs for it, and then the process.
    ///
    /// # Errors
    /// A thread cannot be made.
    pub fn start(self, die: impl FnOnce(&str) + Send + 'static) -> io::Result<Pulse> {
        let revocation = self.lease.lock().unwrap_or_else(PoisonError::into_inner).revocation();
        let die = move |why: &str| {
            // What ends from here on ends since its containers are taken from it: that is no verdict.
            revocation.revoke();
            die(why);
        };
        let death: Death = Arc::new(Mutex::new(Some(Box::new(die))));
        let last_beat = Arc::new(AtomicU64::new((self.clock)().as_secs()));
        let (stop_beat, beat_stopped) = channel();
        let (stop_fence, fence_stopped) = channel();
        let fence = Fence {
            last_beat: last_beat.clone(),
            limit_seconds: self.timing.fence_seconds,
            clock: self.clock,
            death: death.clone(),
        };
        let Self { presence, spool, lease, control, log, timing, clock, now } = self;
        let (heartbeat, watch) = presence.split();
        let period = Duration::from_secs(timing.beat_seconds);
        let beat = Beat { heartbeat, spool, lease, control, log: log.clone(), period, clock, now };
        let reaper = Reaper { watch, log, period, clock, now };
        let (stop_watch, watch_stopped) = channel();
        Builder::new().name("fence".to_owned()).spawn(move || fence.watch(&fence_stopped))?;
        // Nobody waits for its end: it may hang.
        Builder::new().name("watch".to_owned()).spawn(move || reaper.watch_until(&watch_stopped))?;
        let beating = Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || beat.beat_until(&beat_stopped, &last_beat, &death))?;
        Ok(Pulse { stop: (stop_beat, stop_fence, stop_watch), beating })
    }
}

impl Beat {
    fn beat_until(mut self, stopped: &Receiver<()>, last_beat: &AtomicU64, death: &Death) -> Heartbeat {
        while stopped.recv_timeout(self.period) == Err(RecvTimeoutError::Timeout) {
            match self.heartbeat.beat() {
                Ok(()) => last_beat.store((self.clock)().as_secs(), Ordering::Release),
                Err(SpoolError::LeaseClosed(owner)) => {
                    end(death, &SpoolError::LeaseClosed(owner).to_string());
                    break;
                }
                Err(error) => tracing::warn!(%error, "cannot beat; trying again"),
            }
            if let Err(error) = self.look_after() {
                if matches!(error, SpoolError::LeaseClosed(_)) {
                    end(death, &error.to_string());
                    break;
                }
                tracing::warn!(%error, "cannot look after the claims; trying again");
            }
            self.heed();
            self.flush();
        }
        self.flush();
        self.heartbeat
    }

    fn look_after(&self) -> Result<(), SpoolError> {
        let strays = match self.lease.try_lock() {
            Ok(mut lease) => lease.look_after()?,
            Err(TryLockError::Poisoned(lease)) => lease.into_inner().look_after()?,
            // A claim is being made just now: the next beat looks.
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        for name in strays {
            tracing::warn!(task = %name.id, "handed back: its claim failed, and was made all the same");
            self.log.note((self.now)(), Event::Returned { task: name.id, token: name.token });
        }
        Ok(())
    }

    /// Hears what people ask by files in `control/`.
    fn heed(&self) {
        match self.spool.control() {
            Ok(control) => {
                let mut heard = self.control.lock().unwrap_or_else(PoisonError::into_inner);
                let control = control.after(&heard);
                for notice in control.notices().iter().filter(|notice| !heard.notices().contains(notice)) {
                    tracing::warn!("{notice}");
                }
                *heard = control;
            }
            Err(error) => tracing::warn!(%error, "cannot read control/; trying again"),
        }
    }

    fn flush(&self) {
        if let Err(error) = self.log.flush((self.now)()) {
            tracing::warn!(%error, "cannot write the log; trying again");
        }
    }
}

impl Reaper {
    fn watch_until(mut self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(self.period) == Err(RecvTimeoutError::Timeout) {
            self.judge();
        }
    }

    fn judge(&mut self) {
        match self.watch.look(self.clock) {
            Ok(dead) => dead.into_iter().for_each(|Deceased { owner, reaped }| match reaped {
                Ok(Reaped::Alive) => {}
                Ok(reaped) => {
                    let tasks = reaped.tasks();
                    tracing::warn!(%owner, tasks = tasks.len(), "taken for dead: its claims are pending again");
                    for name in tasks {
                        let (task, token, owner) = (name.id.clone(), name.token, owner.clone());
                        self.log.note((self.now)(), Event::Reaped { task, token, owner });
                    }
                }
                Err(error) => {
                    tracing::warn!(%owner, %error, "cannot take back from a dead daemon; trying again");
                }
            }),
            Err(error) => tracing::warn!(%error, "cannot look after the other daemons; trying again"),
        }
    }
}

impl Pulse {
    /// Beats no more, and takes the heartbeat away. Everything that was held must be settled.
    pub fn stop(self) {
        drop(self.stop);
        let ended = self.beating.join().map(Heartbeat::end);
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the heartbeat stays, and is taken for a dead one's in time");
        }
    }
}

struct Fence {
    last_beat: Arc<AtomicU64>,
    limit_seconds: u64,
    clock: fn() -> Duration,
    death: Death,
}

impl Fence {
    fn watch(&self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(FENCE_PERIOD) == Err(RecvTimeoutError::Timeout) {
            let silent = (self.clock)().as_secs().saturating_sub(self.last_beat.load(Ordering::Acquire));
            if silent >= self.limit_seconds {
                let limit = self.limit_seconds;
                end(
                    &self.death,
                    &format!(
                        "the spool could not be written for {silent} s (timing.fence_seconds is {limit}): others will \
                         soon take this worker for dead"
                    ),
                );
                return;
            }
        }
    }
}

fn end(death: &Death, why: &str) {
    let die = death.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(die) = die {
        die(why);
    }
}
