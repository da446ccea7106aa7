use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How urgently a daemon is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It is not.
    Running,
    /// Take nothing new, finish what is begun, then end. Only a daemon that can knows it.
    Draining,
    /// Finish or hand back what is begun, then end.
    Requested,
    /// End at once; whatever is left is for the janitor.
    Now,
}

/// Tells every part of a daemon that it is to end; cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    phase: watch::Receiver<Phase>,
}

/// Asks for the end of a daemon; for tests, and for daemons that run inside another program.
#[derive(Debug)]
pub struct Trigger {
    phase: watch::Sender<Phase>,
}

impl Shutdown {
    /// On SIGTERM or SIGINT; a second one of either means [`Phase::Now`]. See also [`Shutdown::on_signals_draining`].
    ///
    /// A terminal sends its SIGINT to the whole process group: whoever starts a daemon and forwards signals to
    /// it gives it a process group of its own, or one Ctrl-C counts twice.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The signal handlers cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        Self::on_signals_from(Phase::Requested, || Duration::ZERO)
    }

    /// As [`Shutdown::on_signals`], but the first SIGTERM means [`Phase::Draining`], which ends by itself
    /// `drain_max` later, as that is at the signal. SIGINT is a person at a terminal, who waits: it drains nothing.
    ///
    /// # Errors
    /// The signal handlers cannot be installed.
    pub fn on_signals_draining(drain_max: impl Fn() -> Duration + Send + 'static) -> io::Result<Self> {
        Self::on_signals_from(Phase::Draining, drain_max)
    }

    fn on_signals_from(first: Phase, drain_max: impl Fn() -> Duration + Send + 'static) -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (trigger, shutdown) = Self::manual();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => trigger.raise(first),
                _ = interrupt.recv() => trigger.request(),
            }
            if *trigger.phase.borrow() == Phase::Draining {
                tokio::select! {
                    () = next(&mut terminate, &mut interrupt) => {}
                    () = tokio::time::sleep(drain_max()) => {}
                }
                trigger.request();
            }
            next(&mut terminate, &mut interrupt).await;
            trigger.now();
        });
        Ok(shutdown)
    }

    /// On demand.
    #[must_use]
    pub fn manual() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(Phase::Running);
        (Trigger { phase: sender }, Self { phase: receiver })
    }

    /// How urgent it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Resolves once the daemon is to take nothing new.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Resolves once the daemon is to end.
    pub async fn requested(&self) {
        self.reached(Phase::Requested).await;
    }

    /// Resolves once it is to end at once.
    pub async fn now(&self) {
        self.reached(Phase::Now).await;
    }

    async fn reached(&self, wanted: Phase) {
        let mut phase = self.phase.clone();
        if phase.wait_for(|phase| *phase >= wanted).await.is_err() {
            // Nobody is left who could ask for it.
            std::future::pending::<()>().await;
        }
    }
}

impl Trigger {
    /// Asks the daemon to take nothing new.
    pub fn drain(&self) {
        self.raise(Phase::Draining);
    }

    /// Asks the daemon to end.
    pub fn request(&self) {
        self.raise(Phase::Requested);
    }

    /// Asks it to end at once.
    pub fn now(&self) {
        self.raise(Phase::Now);
    }

    fn raise(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let higher = to > *phase;
            *phase = to.max(*phase);
            higher
        });
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal as Kind, raise};

    /// Far longer than any of it takes; it only keeps a failing test from hanging.
    const BOUND: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn two_signals_escalate() {
        let shutdown = Shutdown::on_signals().expect("handlers");
        let other = shutdown.clone();
        assert_eq!(shutdown.phase(), Phase::Running);
        raise(Kind::SIGTERM).expect("raise");
        tokio::time::timeout(BOUND, other.requested()).await.expect("requested");
        assert_eq!(shutdown.phase(), Phase::Requested);
        raise(Kind::SIGINT).expect("raise");
        tokio::time::timeout(BOUND, shutdown.now()).await.expect("now");
        assert_eq!(other.phase(), Phase::Now);
    }

    #[tokio::test]
    async fn urgency_only_grows() {
        let (trigger, shutdown) = Shutdown::manual();
        trigger.now();
        trigger.request();
        assert_eq!(shutdown.phase(), Phase::Now);
        shutdown.requested().await;
    }

    #[tokio::test]
    async fn draining_is_no_request_yet() {
        let (trigger, shutdown) = Shutdown::manual();
        trigger.drain();
        tokio::time::timeout(BOUND, shutdown.draining()).await.expect("draining");
        assert!(tokio::time::timeout(Duration::from_millis(10), shutdown.requested()).await.is_err());
        trigger.request();
        trigger.drain();
        assert_eq!(shutdown.phase(), Phase::Requested);
    }

    #[tokio::test]
    async fn nobody_left_to_ask_means_never() {
        let (trigger, shutdown) = Shutdown::manual();
        drop(trigger);
        let waited = tokio::time::timeout(Duration::from_millis(10), shutdown.requested()).await;
        assert!(waited.is_err());
    }
}
