//! When an empty spool is looked at again: after a random pause that all slots of a worker share, or as soon as this
//! machine itself sees something arrive. NFS tells nobody of what other nodes do, so the pause is what counts there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecursiveMode, Watcher};
use tokio::sync::{MutexGuard, Notify, mpsc};
use tokio::time::{Instant, sleep_until};

/// The longest pause: how late a worker may see what another node publishes.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// The longest one once nothing was there for a while: a fleet that waits for work must not weigh on the server.
const PAUSE_MAX_IDLE: Duration = Duration::from_secs(30);
/// How often nothing must have been there for that.
const EMPTY_LOOKS: u32 = 8;
/// The shortest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Arrivals that wait to be heard; more are one arrival.
const ARRIVALS_MAX: usize = 64;

/// Whose turn it is to look into `pending/`, and when.
#[derive(Debug)]
pub struct Poll {
    state: Mutex<State>,
    bell: Notify,
    looking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// When the next look is due.
    due: Instant,
    /// Looks in a row that found nothing.
    empty_looks: u32,
    /// Something arrived since the present look began: it may have missed that.
    has_rung: bool,
}

impl Default for Poll {
    /// The first look is due at once.
    fn default() -> Self {
        let state = State { due: Instant::now(), empty_looks: 0, has_rung: false };
        Self { state: Mutex::new(state), bell: Notify::new(), looking: tokio::sync::Mutex::default() }
    }
}

impl Poll {
    /// Waits until a look is due, and nobody else of this worker is looking; the turn ends with what is given.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        loop {
            let rung = self.bell.notified();
            let due = self.state().due;
            if due > Instant::now() {
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = rung => {}
                }
                continue;
            }
            let turn = self.looking.lock().await;
            // Whoever had the turn before may have found nothing.
            let mut state = self.state();
            if state.due <= Instant::now() {
                state.has_rung = false;
                return turn;
            }
        }
    }

    /// Nothing was there, or nothing may be claimed; `random` is drawn from 0 to 1.
    pub fn found_nothing(&self, random: f64) {
        let mut state = self.state();
        if state.has_rung {
            return;
        }
        let longest = if state.empty_looks >= EMPTY_LOOKS { PAUSE_MAX_IDLE } else { PAUSE_MAX };
        state.empty_looks = state.empty_looks.saturating_add(1);
        state.due = Instant::now() + PAUSE_MIN + (longest - PAUSE_MIN).mul_f64(random);
    }

    /// A task was there.
    pub fn found_something(&self) {
        self.state().empty_looks = 0;
    }

    /// Something may be there.
    pub fn ring(&self) {
        *self.state() = State { due: Instant::now(), empty_looks: 0, has_rung: true };
        self.bell.notify_waiters();
    }

    /// Rings whenever this machine's kernel sees something arrive in `pending/`, as long as what is given is kept.
    /// Classes that are there already are named, for the kernel tells of one directory at a time.
    ///
    /// # Errors
    /// The kernel cannot tell: then the pauses have to do.
    pub fn listen(self: &Arc<Self>, pending: &Path, classes: &[PathBuf]) -> notify::Result<Listening> {
        let (sender, mut arrivals) = mpsc::channel(ARRIVALS_MAX);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // What leaves is no news: claims do all the time.
            let is_arrival = |kind: &EventKind| match kind {
                EventKind::Modify(ModifyKind::Name(RenameMode::From)) => false,
                kind => kind.is_create() || kind.is_modify(),
            };
            if let Ok(event) = event
                && is_arrival(&event.kind)
            {
                // Full: it rings soon anyway.
                let _ = sender.try_send(event.paths);
            }
        })?;
        watcher.watch(pending, RecursiveMode::NonRecursive)?;
        for class in classes {
            watcher.watch(class, RecursiveMode::NonRecursive)?;
        }
        let (poll, pending) = (self.clone(), pending.to_owned());
        Ok(Listening(tokio::spawn(async move {
            while let Some(paths) = arrivals.recv().await {
                for class in paths.iter().filter(|path| path.parent() == Some(&pending)) {
                    // What is no directory, or gone again, needs no watch.
                    let _ = watcher.watch(class, RecursiveMode::NonRecursive);
                }
                poll.ring();
            }
        })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends when it is dropped.
#[derive(Debug)]
pub struct Listening(tokio::task::JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn slots_share_one_pause_and_look_one_after_the_other() {
        let poll = Poll::default();
        let began = Instant::now();
        drop(poll.turn().await);
        assert_eq!(began.elapsed(), Duration::ZERO);
        poll.found_nothing(0.0);
        drop(poll.turn().await);
        assert!(began.elapsed() >= PAUSE_MIN && began.elapsed() < PAUSE_MAX);

        // Two wait; whoever looks first finds nothing, and so the other does not look either.
        poll.found_nothing(0.0);
        let again = Instant::now();
        let look = || async {
            let _turn = poll.turn().await;
            poll.found_nothing(1.0);
            again.elapsed()
        };
        let (one, other) = tokio::join!(look(), look());
        assert!(one.min(other) < PAUSE_MAX, "{one:?}, {other:?}");
        assert!(one.max(other) >= PAUSE_MAX, "{one:?}, {other:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_arrives_during_a_look_is_looked_for_at_once() {
        let poll = Poll::default();
        let began = Instant::now();
        let turn = poll.turn().await;
        poll.ring();
        poll.found_nothing(1.0);
        drop(turn);
        drop(poll.turn().await);
        assert_eq!(began.elapsed(), Duration::ZERO);
        poll.found_nothing(1.0);
        drop(poll.turn().await);
        assert!(began.elapsed() >= PAUSE_MAX, "a ring counts once");
    }

    #[tokio::test]
    async fn what_arrives_here_is_heard_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let class = dir.path().join("5-build");
        let poll = Arc::new(Poll::default());
        let _listening = poll.listen(dir.path(), &[]).expect("inotify");
        let rung = async {
            poll.state().due = Instant::now() + BOUND * 2;
            tokio::time::timeout(BOUND, poll.turn()).await.map(drop)
        };
        let (heard, made) = tokio::join!(rung, async { std::fs::create_dir(&class) });
        made.expect("made");
        heard.expect("a new class was not heard");
        // The class is watched itself now, once its arrival was heard.
        let mut files = 0;
        let heard = async {
            poll.state().due = Instant::now() + BOUND * 2;
            tokio::time::timeout(BOUND, poll.turn()).await.map(drop)
        };
        let dropped = async {
            while files < 600 {
                files += 1;
                std::fs::write(class.join(format!("{files}.json")), "{}").expect("written");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            heard = heard => heard.expect("a new task was not heard"),
            () = dropped => panic!("a new task was not heard"),
        }
    }
}
