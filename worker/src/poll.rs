//! When an empty spool is looked at again: after a random pause that all slots of a worker share, or as soon as this
//! machine itself sees something arrive. NFS tells nobody of what other nodes do, so the pause is what counts there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{ModifyKind, RenameMode};
use notify::{EventKind, RecursiveMode, Watcher};
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
    due: Instant,
    empty_looks: u32,
    rings: u64,
}

/// The turn to look, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    poll: &'a Poll,
    /// How often the bell had rung when it began.
    rings: u64,
    _looking: MutexGuard<'a, ()>,
}

impl Default for Poll {
    /// The first look is due at once.
    fn default() -> Self {
        Self {
            state: Mutex::new(State { due: Instant::now(), empty_looks: 0, rings: 0 }),
            bell: Notify::new(),
            looking: tokio::sync::Mutex::default(),
        }
    }
}

impl Turn<'_> {
    /// Nothing was there, or nothing may be claimed; `random` is drawn from 0 to 1.
    pub fn found_nothing(&self, random: f64) {
        let mut state = self.poll.state();
        // What rang since may have come to where this look had been already.
        if state.rings != self.rings {
            return;
        }
        let longest = if state.empty_looks >= EMPTY_LOOKS { PAUSE_MAX_IDLE } else { PAUSE_MAX };
        state.empty_looks = state.empty_looks.saturating_add(1);
        state.due = Instant::now() + PAUSE_MIN + (longest - PAUSE_MIN).mul_f64(random);
    }

    /// A task was there.
    pub fn found_something(&self) {
        self.poll.state().empty_looks = 0;
    }
}

impl Poll {
    /// Waits until a look is due, and nobody else of this worker is looking.
    pub async fn turn(&self) -> Turn<'_> {
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
            let looking = self.looking.lock().await;
            // Whoever had the turn before may have found nothing.
            let (due, rings) = {
                let state = self.state();
                (state.due, state.rings)
            };
            if due <= Instant::now() {
                return Turn { poll: self, rings, _looking: looking };
            }
        }
    }

    /// Something may be there.
    pub fn ring(&self) {
        {
            let mut state = self.state();
            *state = State { due: Instant::now(), empty_looks: 0, rings: state.rings + 1 };
        }
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
            if let Ok(event) = event
                && tells_of_arrival(event.kind)
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
                    // Gone again, or a file: nothing will come there.
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

/// What leaves, such as a task that is claimed, is no reason to look.
fn tells_of_arrival(kind: EventKind) -> bool {
    let leaves = kind == EventKind::Modify(ModifyKind::Name(RenameMode::From));
    (kind.is_create() || kind.is_modify()) && !leaves
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
    use notify::event::{CreateKind, RemoveKind};

    use super::*;

    const BOUND: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn slots_share_one_pause_and_look_one_after_the_other() {
        let poll = Poll::default();
        let began = Instant::now();
        poll.turn().await.found_nothing(0.0);
        assert_eq!(began.elapsed(), Duration::ZERO);
        let turn = poll.turn().await;
        assert!(began.elapsed() >= PAUSE_MIN && began.elapsed() < PAUSE_MAX);

        // Two wait; whoever looks first finds nothing, and so the other does not look either.
        turn.found_nothing(0.0);
        drop(turn);
        let again = Instant::now();
        let look = || async {
            poll.turn().await.found_nothing(1.0);
            again.elapsed()
        };
        let (one, other) = tokio::join!(look(), look());
        assert!(one.min(other) < PAUSE_MAX, "{one:?}, {other:?}");
        assert!(one.max(other) >= PAUSE_MAX, "{one:?}, {other:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_arrives_during_a_look_is_looked_for_at_once() {
        let poll = Poll::default();
        let turn = poll.turn().await;
        poll.ring();
        turn.found_nothing(1.0);
        drop(turn);
        let began = Instant::now();
        poll.turn().await.found_nothing(1.0);
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(poll.turn().await);
        assert_eq!(began.elapsed(), PAUSE_MAX, "it has rung once");
    }

    #[test]
    fn what_is_claimed_wakes_nobody() {
        let check = |kind, expected: bool| assert_eq!(tells_of_arrival(kind), expected, "{kind:?}");
        check(EventKind::Create(CreateKind::File), true);
        check(EventKind::Modify(ModifyKind::Name(RenameMode::To)), true);
        check(EventKind::Modify(ModifyKind::Name(RenameMode::From)), false);
        check(EventKind::Remove(RemoveKind::File), false);
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
