use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use queue_format::{Deceased, Heartbeat, Owner, PathError, Presence, Reaped, Spool, SpoolError, Watch};
use tokio::sync::watch;

/// How often a master looks at the heartbeats in the time after which a silent one is dead: often enough that a
/// dead worker's tasks are pending again little later.
const LOOKS_A_SILENCE: u32 = 18;

/// A master's heartbeat, on a thread of its own: neither reading a large file nor what the dead have left must silence it.
pub(crate) struct Pulse {
    stop: (Sender<()>, Sender<()>),
    thread: JoinHandle<Heartbeat>,
    /// True once others have taken this master for dead.
    closed: watch::Receiver<bool>,
}

impl Pulse {
    /// Begins to beat, and to reap the dead; gives them, and what they had claimed, through the channel too.
    pub(crate) fn start(spool: &Spool, owner: &Owner) -> Result<(Self, Receiver<Deceased>), PathError> {
        let timing = spool.timing();
        let look_pause = Duration::from_secs(timing.silence_seconds) / LOOKS_A_SILENCE;
        let presence = Presence::begin(spool, owner.clone(), look_pause)?;
        let (heartbeat, watch) = presence.split();
        let (stop, stopped) = channel();
        let (stop_watch, watch_stopped) = channel();
        let (tell, dead) = channel();
        let (close, closed) = watch::channel(false);
        let period = Duration::from_secs(timing.beat_seconds).min(look_pause);
        let thread = Builder::new().name("heartbeat".to_owned());
        let thread = thread.spawn(move || beat_until(heartbeat, period, &stopped, &close));
        // Nobody waits for its end: it may hang.
        let watching = Builder::new().name("watch".to_owned());
        let watching = watching.spawn(move || watch_until(watch, period, &watch_stopped, &tell));
        let no_thread = |source: io::Error| PathError {
            action: "start the thread of",
            path: spool.layout().nodes(),
            source,
        };
        watching.map_err(&no_thread)?;
        Ok((Self { stop: (stop, stop_watch), thread: thread.map_err(&no_thread)?, closed }, dead))
    }

    /// Beats while a command works, and no longer, whatever comes of it.
    pub(crate) fn during<T>(spool: &Spool, owner: &Owner, work: impl FnOnce() -> T) -> Result<T, PathError> {
        let (pulse, _dead) = Self::start(spool, owner)?;
        let done = work();
        pulse.stop();
        Ok(done)
    }

    /// Resolves once others have taken this master for dead.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + use<> {
        let mut closed = self.closed.clone();
        async move {
            if closed.wait_for(|closed| *closed).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Beats no more, and takes the heartbeat away.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if let Ok(Err(error)) = self.thread.join().map(Heartbeat::end) {
            tracing::warn!(%error, "the heartbeat stays, and is taken for a dead one's in time");
        }
    }
}

fn beat_until(
    mut heartbeat: Heartbeat,
    period: Duration,
    stopped: &Receiver<()>,
    close: &watch::Sender<bool>,
) -> Heartbeat {
    while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
        match heartbeat.beat() {
            Ok(()) => {}
            Err(error @ SpoolError::LeaseClosed(_)) => {
                tracing::error!("{error}");
                close.send_replace(true);
                break;
            }
            Err(error) => tracing::warn!(%error, "cannot beat; trying again"),
        }
    }
    heartbeat
}

fn watch_until(mut others: Watch, period: Duration, stopped: &Receiver<()>, tell: &Sender<Deceased>) {
    let start = Instant::now();
    while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
        match others.look(|| start.elapsed()) {
            Ok(dead) => {
                for Deceased { owner, reaped } in dead {
                    match reaped {
                        Ok(Reaped::Alive) => {}
                        Ok(reaped) => {
                            let tasks = reaped.tasks().len();
                            tracing::warn!(%owner, tasks, "taken for dead: its claims are pending again");
                            // Nobody listens any more when the master ends.
                            let _ = tell.send(Deceased { owner, reaped: Ok(reaped) });
                        }
                        Err(error) => {
                            tracing::warn!(%owner, %error, "cannot take back from a dead daemon; trying again");
                        }
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot look after the other daemons; trying again"),
        }
    }
}
