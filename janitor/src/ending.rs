//! An end that is asked for in the middle of a pass: no build begins while the engine still removes an image.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use systemd::Shutdown;
use tokio::sync::watch;

/// How long removals that are in flight are waited for: shorter than systemd waits for the process.
const IN_FLIGHT_MAX: Duration = Duration::from_secs(45);

/// Whether a pass is to come to its end, and whether it keeps builds waiting just now.
#[derive(Clone, Debug, Default)]
pub struct Ending(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_asked: AtomicBool,
    is_alone: watch::Sender<bool>,
}

/// The lock that keeps builds waiting, and since when.
#[derive(Debug)]
pub(crate) struct Alone<A> {
    _gate: A,
    pub(crate) since: Instant,
    ending: Ending,
}

impl Ending {
    /// Nothing more is begun.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.is_asked.load(Ordering::Relaxed)
    }

    pub(crate) fn hold<A>(&self, gate: A) -> Alone<A> {
        self.0.is_alone.send_replace(true);
        Alone { _gate: gate, since: Instant::now(), ending: self.clone() }
    }
}

impl<A> Drop for Alone<A> {
    fn drop(&mut self) {
        self.ending.0.is_alone.send_replace(false);
    }
}

/// What a janitor's `work` gives; `None` where the shutdown is requested before. The work is dropped then, but not while it
/// keeps builds waiting: the engine goes on with the removals that it was asked for.
pub async fn unless_ended<T>(
    work: impl Future<Output = T>,
    ending: &Ending,
    shutdown: &Shutdown,
) -> Option<T> {
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return Some(done),
        () = shutdown.requested() => ending.0.is_asked.store(true, Ordering::Relaxed),
    }
    let mut is_alone = ending.0.is_alone.subscribe();
    tokio::select! {
        _ = &mut work => {}
        _ = is_alone.wait_for(|is_alone| !is_alone) => {}
        () = shutdown.now() => {}
        () = tokio::time::sleep(IN_FLIGHT_MAX) => {}
    }
    None
}
