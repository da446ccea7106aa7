//! The worker's life: one loop a slot, one claimer, one status writer.

mod account;
mod look;
mod make;
mod mandate;
mod turn;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use queue_format::{
    Claim, ClaimError, Class, Control, Emergency, Event, EventLog, Labels, Lease, Ledger, Next, Owner,
    PathError, Spool, SpoolError, Token,
};
use systemd::{Notifier, Phase, Shutdown};
use tokio::sync::watch;
use uuid::Uuid;

pub use mandate::{Begun, Left, Mandate, awaited_cpus, left_behind};

use crate::agents::Llm;
use crate::attempt::Workshop;
use crate::attempt::journal::Journal;
use crate::board::{Board, Topic};
use crate::breaker::{Breaker, Gate};
use crate::config::WorkerConfig;
use crate::disk::DiskReserve;
use crate::engine::Engine;
use crate::poll::{Poll, Turn};
use crate::pulse::Heart;
use crate::run;
use crate::seats::Seats;
use crate::slots::Slot;
use crate::work_dir::on_disk;

/// Names seen in pending are used for this long: then the directories are listed again, first priority first.
const CANDIDATES_AGE_MAX: Duration = Duration::from_secs(15);
/// How often the status is published where it changed, and where it did not: the heartbeat says who lives.
const STATUS_PERIOD: Duration = Duration::from_secs(1);
const STATUS_PERIODS_UNCHANGED: u32 = 60;
/// The pause of a slot after the node failed a task.
const NODE_FAULT_PAUSE: Duration = Duration::from_secs(10);
/// An idle slot that has not looked for work for so long hangs: the pause between two looks, and what a look, a claim or
/// a self-test may take.
const TURN_SECONDS_MAX: u64 = 600;
/// What people read while the engine is away.
const ENGINE_AWAY: &str = "the container engine does not answer; start it (systemctl start docker)";

/// What stands in the labels of the container that a node tests itself with.
const SELF_TEST: &str = "bottega-self-test";

/// A worker on one node.
pub struct Worker<E> {
    /// What attempts use.
    pub shop: Workshop<E>,
    /// The configuration that holds now.
    pub config: watch::Receiver<WorkerConfig>,
    /// What this worker is called among those of its node.
    pub instance: String,
    /// Which start of the machine this is.
    pub boot: String,
    /// Who hears how it is.
    pub notifier: Notifier,
    /// Whom agents ask.
    pub llm: Arc<Llm>,
    /// The spool.
    pub spool: Spool,
    /// Who we are.
    pub owner: Owner,
    /// The node's state directory.
    pub state_dir: PathBuf,
    /// Which slots work on what.
    pub seats: Arc<Seats>,
    /// Where work needs room: the spool, the state, the engine's own directory.
    pub disks: DiskReserve,
    /// This program, for the supervisors of native commands.
    pub program: PathBuf,
    /// What the node knows to be ours.
    pub ledger: Ledger,
    /// When a slot last looked for work, in seconds of the clock.
    pub turned_at: AtomicU64,
    /// Where the slots write what they do.
    pub board: Board,
    /// When pending was last listed.
    pub listed_at: Mutex<Option<Instant>>,
    /// When it is looked into again, once nothing was there.
    pub poll: Arc<Poll>,
    /// Whether this node is trusted.
    pub breaker: Mutex<Breaker>,
    /// Time since any fixed moment, time in suspension included.
    pub clock: fn() -> Duration,
    /// What people ask of all daemons; the heartbeat reads it.
    pub control: Arc<Mutex<Control>>,
    /// What happens to tasks here, for people.
    pub log: EventLog,
}

impl<E: Engine + 'static> Worker<E> {
    /// Works until `shutdown`: goes on with what was begun, claims until it drains, and in the end hands back what is not
    /// finished. `die` ends the process, and all that runs for it, once others take it for dead.
    ///
    /// # Errors
    /// The lease directory or the heartbeat cannot be closed.
    pub async fn run(
        self: Arc<Self>,
        slots: Vec<Slot>,
        mandate: Mandate,
        shutdown: Shutdown,
        die: impl FnOnce(&str) + Send + 'static,
    ) -> Result<(), SpoolError> {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = self.spool.control()?;
        let Mandate { lease, mut presence, mut begun } = mandate;
        // It may be long since the last, and the fence counts from here on.
        presence.beat()?;
        let lease = Arc::new(Mutex::new(lease));
        let timing = self.spool.timing();
        let heart = Heart {
            presence,
            spool: self.spool.clone(),
            lease: lease.clone(),
            control: self.control.clone(),
            log: self.log.clone(),
            timing,
            clock: self.clock,
            now: Timestamp::now,
        };
        let pulse = heart.start(die).map_err(|source| PathError {
            action: "start the threads of",
            path: self.spool.layout().lease(&self.owner),
            source,
        })?;
        let written = on_disk(|| self.open_account());
        let accounting = tokio::spawn(self.clone().keep_account(written));
        let status = tokio::spawn(self.clone().publish_status());
        let listening = self.poll.listen(&self.spool.layout().pending(), &self.spool.pending_classes()?);
        if let Err(error) = &listening {
            tracing::info!("pending/ is looked at now and then only: {error}");
        }
        self.look_at_slots().await;
        let looking = tokio::spawn(self.clone().look_after_slots());
        let draining = tokio::spawn(self.clone().tell_of_drain(shutdown.clone()));
        let turns: Vec<_> = slots
            .into_iter()
            .map(|slot| {
                let begun = begun.remove(&slot.number);
                tokio::spawn(self.clone().work(slot, begun, lease.clone(), shutdown.clone()))
            })
            .collect();
        for turn in turns {
            if let Err(error) = turn.await {
                tracing::error!(%error, "a slot ended unexpectedly; its claim is handed back at the next start");
            }
        }
        looking.abort();
        draining.abort();
        accounting.abort();
        on_disk(|| self.balance(&mut self.spool.spend_of(&self.owner).micro_dollars));
        status.abort();
        // It may be writing just now, and must not write once its file is removed.
        let _ = status.await;
        pulse.stop();
        self.spool.remove_worker_status(&self.owner)?;
        if let Some(lease) = Arc::into_inner(lease) {
            lease.into_inner().unwrap_or_else(PoisonError::into_inner).close()?;
        }
        Ok(())
    }

    async fn tell_of_drain(self: Arc<Self>, shutdown: Shutdown) {
        shutdown.draining().await;
        let seconds = self.config.borrow().drain_max().as_secs();
        let said =
            format!("it was told to end: what runs may finish for {seconds} s, and is handed back then");
        tracing::info!("nothing is claimed: {said}");
        self.board.obstacle(Some(&said));
    }

    async fn work(
        self: Arc<Self>,
        slot: Slot,
        begun: Option<Begun>,
        lease: Arc<Mutex<Lease>>,
        shutdown: Shutdown,
    ) {
        if let Some(Begun { claim, journal, given, .. }) = begun {
            self.occupy(&given, &claim, Some(journal), &shutdown).await;
        }
        while shutdown.phase() == Phase::Running {
            let turn = tokio::select! {
                () = shutdown.draining() => break,
                turn = self.turn_of(slot.number) => turn,
            };
            let is_fit = tokio::select! {
                () = shutdown.draining() => break,
                is_fit = self.is_fit(&slot) => is_fit,
            };
            let claimed = if is_fit {
                self.claim(&slot, &lease, &turn).await
            } else {
                turn.found_nothing(random());
                Ok(None)
            };
            drop(turn);
            let pause = match claimed {
                Ok(Some((claim, given))) => self.occupy(&given, &claim, None, &shutdown).await,
                Ok(None) => Duration::ZERO,
                Err(error) => {
                    tracing::error!("cannot claim: {error}");
                    self.board.tell(Topic::Spool, [error]);
                    NODE_FAULT_PAUSE
                }
            };
            tokio::select! {
                () = shutdown.draining() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Serves a claim in the slots that it was given, joined or not, until nothing of it runs there; gives the pause
    /// before the next.
    async fn occupy(
        &self,
        given: &Slot,
        claim: &Claim,
        begun: Option<Journal>,
        shutdown: &Shutdown,
    ) -> Duration {
        let joined = self.seats.joined_to(given.number);
        let stage = format!("joined to slot {}", given.number);
        for number in joined.iter().filter(|number| **number != given.number) {
            self.board.begin(*number, &claim.name().id, &stage);
        }
        let pause = self.serve(given, claim, begun, shutdown).await;
        self.until_empty(given, shutdown).await;
        joined.iter().for_each(|number| self.board.idle(*number));
        if self.seats.release(given.number) {
            self.poll.ring();
        }
        pause
    }

    /// Makes a slot that was given fit for what is to run in it.
    async fn make_ready(&self, given: &mut Slot) -> Result<(), String> {
        let why_not = self.shop.engine.make_ready(&given.cpus, &mut given.limits).await?;
        for news in self.board.tell(Topic::Slot(given.number), why_not) {
            tracing::warn!("{news}");
        }
        Ok(())
    }

    /// The turn to look, for a slot that can be given something.
    async fn turn_of(&self, number: u32) -> Turn<'_> {
        loop {
            if !self.seats.wait_for(number).await {
                continue;
            }
            // One that cannot be given anything tells nothing of whether those that can are at it.
            self.turned_at.store((self.clock)().as_secs(), Ordering::Relaxed);
            let turn = self.poll.turn().await;
            // A neighbour may have joined it since.
            if self.seats.is_free(number) {
                return turn;
            }
        }
    }

    /// A node that could not work fails no task: nothing is claimed until its engine answers, its disk has room, and
    /// it has proved that it works where there is doubt.
    async fn is_fit(&self, slot: &Slot) -> bool {
        let asked = self.control.lock().unwrap_or_else(PoisonError::into_inner).obstacle(self.owner.node());
        let obstacle = match self.shop.engine.ping().await {
            Ok(()) => asked
                .or_else(|| on_disk(|| self.disks.shortage()))
                .or_else(|| Emergency::raised(&self.state_dir)),
            Err(error) => {
                tracing::debug!(%error, "the engine does not answer");
                Some(ENGINE_AWAY.to_owned())
            }
        };
        let obstacle = match obstacle {
            None => self.distrust(slot).await,
            obstacle => obstacle,
        };
        if self.board.obstacle(obstacle.as_deref()) {
            match &obstacle {
                Some(obstacle) => {
                    tracing::warn!("nothing is claimed: {obstacle}");
                    self.note(Event::Paused { reason: obstacle.clone() });
                }
                None => {
                    tracing::info!("tasks are claimed again");
                    self.note(Event::Resumed);
                }
            }
        }
        obstacle.is_none()
    }

    /// Why the node must not claim after its faults; it tests itself where that is due.
    async fn distrust(&self, slot: &Slot) -> Option<String> {
        let gate = self.breaker().gate((self.clock)());
        if gate == Gate::Test {
            let labels = Labels {
                spool: self.spool.id(),
                owner: self.owner.clone(),
                task: SELF_TEST.parse().ok()?,
                token: Token(0),
                object: Uuid::now_v7(),
            };
            let result = self.shop.self_test(labels, &slot.limits, &self.state_dir).await;
            let result = result.map(|lacking| {
                for news in self.board.tell(Topic::SelfTest, lacking) {
                    tracing::warn!("{news}");
                }
            });
            self.breaker().tested((self.clock)(), result, random());
        }
        match self.breaker().gate((self.clock)()) {
            Gate::Wait(why) => Some(why),
            Gate::Pass | Gate::Test => None,
        }
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn claim(
        &self,
        slot: &Slot,
        lease: &Arc<Mutex<Lease>>,
        turn: &Turn<'_>,
    ) -> Result<Option<(Claim, Slot)>, String> {
        let lease = lease.clone();
        let forgets = self.is_listing_old();
        let limits = self.control.lock().unwrap_or_else(PoisonError::into_inner).limits().clone();
        let (spool, node) = (self.spool.clone(), self.owner.node().to_owned());
        let lacks_model = self.lacks_model();
        let (number, config, seats) = (slot.number, self.config.borrow().clone(), self.seats.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let mut lease = lease.lock().unwrap_or_else(PoisonError::into_inner);
            if forgets {
                lease.forget_candidates();
            }
            let room = spool.room(&limits, &node)?;
            let has_room = |class: &Class| seats.has_room(number, &class.shape()) && room.admits(class);
            lease.claim_next(|class| run::knows(class, &config) && !lacks_model(class) && has_room(class))
        });
        let looked = looked.await;
        if let Ok(Ok(_)) = &looked {
            self.board.tell(Topic::Spool, None::<String>);
        }
        match looked {
            Ok(Ok(Next::Claimed(claim))) => {
                turn.found_something();
                match self.seats.take(number, &claim.class().shape()) {
                    Some(mut given) => match self.make_ready(&mut given).await {
                        Ok(()) => Ok(Some((*claim, given))),
                        Err(why) => {
                            self.seats.set_aside(number, &why);
                            self.tell_of_slots();
                            self.give_back(&claim).map(|()| None)
                        }
                    },
                    // A slot went out of service at this very moment.
                    None => self.give_back(&claim).map(|()| None),
                }
            }
            Ok(Ok(Next::Empty)) => {
                turn.found_nothing(random());
                Ok(None)
            }
            Ok(Ok(Next::Rejected { name, reason, why })) => {
                tracing::warn!(task = %name.id, "moved to failed/{reason}: {why}");
                let (task, token) = (name.id, name.token);
                self.note(Event::Rejected { task, token, reason: why, to: Some(reason) });
                Ok(None)
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => {
                tracing::error!(%error, "the claimer ended unexpectedly");
                turn.found_nothing(random());
                Ok(None)
            }
        }
    }

    fn give_back(&self, claim: &Claim) -> Result<(), String> {
        match on_disk(|| claim.release()) {
            Err(ClaimError::Spool(error)) => Err(error.to_string()),
            Ok(()) | Err(ClaimError::Lost(_)) => Ok(()),
        }
    }

    /// True once for every [`CANDIDATES_AGE_MAX`].
    fn is_listing_old(&self) -> bool {
        let mut listed_at = self.listed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = listed_at.is_none_or(|at| at.elapsed() > CANDIDATES_AGE_MAX);
        if is_old {
            *listed_at = Some(Instant::now());
        }
        is_old
    }

    fn note(&self, event: Event) {
        self.log.note(Timestamp::now(), event);
    }

    /// Whether the work goes on: an idle slot looks for some again and again. What one works on has bounds of its own.
    fn is_turning(&self) -> bool {
        !self.seats.has_free_slot()
            || (self.clock)().as_secs().saturating_sub(self.turned_at.load(Ordering::Relaxed))
                < TURN_SECONDS_MAX
    }

    /// Tells people and systemd how it goes. The spool may hang for long: that is the fence's business, and neither keeps
    /// the watchdog from hearing that the work goes on, nor is it waited for.
    async fn publish_status(self: Arc<Self>) {
        let mut unchanged = 0;
        let mut writing: Option<tokio::task::JoinHandle<()>> = None;
        loop {
            if self.is_turning() {
                self.notifier.watchdog();
            }
            if writing.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                let (status, changed) = self.board.status();
                unchanged = if changed { 0 } else { unchanged + 1 };
                if changed {
                    self.notifier.status(&self.board.line());
                }
                if changed || unchanged >= STATUS_PERIODS_UNCHANGED {
                    unchanged = 0;
                    let spool = self.spool.clone();
                    writing = Some(tokio::task::spawn_blocking(move || {
                        if let Err(error) = spool.write_worker_status(&status) {
                            tracing::warn!(%error, "cannot publish the status");
                        }
                    }));
                }
            }
            tokio::time::sleep(STATUS_PERIOD).await;
        }
    }
}

/// From 0 to 1; the low bits of a fresh UUID v7 are as random as a pause needs to be.
fn random() -> f64 {
    f64::from(Uuid::now_v7().as_u128() as u32) / f64::from(u32::MAX)
}
