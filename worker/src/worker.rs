//! The worker's life: one loop a slot, one claimer, one status writer.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use jiff::Timestamp;
use queue_format::{
    Claim, ClaimError, Control, Event, EventLog, FailureReason, Labels, Lease, Ledger, Next, Owner,
    PathError, Presence, Spool, SpoolError, Token, Work,
};
use systemd::{Phase, Shutdown};
use uuid::Uuid;

use crate::attempt::{Attempt, AttemptError, Job, Workshop, attempt};
use crate::board::Board;
use crate::breaker::{Breaker, Gate};
use crate::disk::DiskReserve;
use crate::engine::{Engine, EngineError};
use crate::poll::Poll;
use crate::pulse::Heart;
use crate::run::{self, RunError};
use crate::slots::Slot;
use crate::synthesis::Brain;
use crate::work_dir::WorkDir;

/// Names seen in pending are used for this long: then the directories are listed again, first priority first.
const CANDIDATES_AGE_MAX: Duration = Duration::from_secs(15);
/// How often a slot asks whether its claim is still there; the heartbeat looks.
const HELD_CHECK_PERIOD: Duration = Duration::from_secs(1);
/// How often a worker looks at the other daemons' heartbeats in the time after which a silent one is dead.
const LOOKS_A_SILENCE: u32 = 3;
/// How often the status is published where it changed, and where it did not: the heartbeat says who lives.
const STATUS_PERIOD: Duration = Duration::from_secs(1);
const STATUS_PERIODS_UNCHANGED: u32 = 60;
/// The pause of a slot after the node failed a task.
const NODE_FAULT_PAUSE: Duration = Duration::from_secs(10);
/// When at the latest a task that the node failed is tried again; four times as long after each further fault, an hour
/// in all.
const RETRY_SECONDS_MIN: u64 = 10;
const RETRY_SECONDS_FACTOR: u64 = 4;
/// What people read while the engine is away.
const ENGINE_AWAY: &str = "the container engine does not answer; start it (systemctl start docker)";

/// What stands in the labels of the container that a node tests itself with.
const SELF_TEST: &str = "bottega-self-test";

/// A worker on one node.
pub struct Worker<E, B> {
    /// What attempts use.
    pub shop: Workshop<E>,
    /// A fresh brain for each attempt.
    pub new_brain: fn() -> B,
    /// The spool.
    pub spool: Spool,
    /// Who we are.
    pub owner: Owner,
    /// The node's state directory.
    pub state_dir: PathBuf,
    /// Where work needs room: the spool, the state, the engine's own directory.
    pub disks: DiskReserve,
    /// This program, for the supervisors of native commands.
    pub program: PathBuf,
    /// What the node knows to be ours.
    pub ledger: Ledger,
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

/// Why a slot's turn ended without a verdict.
enum Interruption {
    /// The claim's file was moved or removed.
    Lost,
    /// A person asked for it in `control/cancel/`.
    Cancelled,
    Shutdown,
    Node(String),
    /// The node works, and lacks what this task needs.
    Lacking(String),
}

impl<E: Engine + 'static, B: Brain + 'static> Worker<E, B> {
    /// Works until `shutdown`; then hands every claim back. `die` ends the process, and all that runs for it, once
    /// others take it for dead.
    ///
    /// # Errors
    /// The lease directory or the heartbeat cannot be made or closed.
    pub async fn run(
        self: Arc<Self>,
        slots: Vec<Slot>,
        shutdown: Shutdown,
        die: impl FnOnce(&str) + Send + 'static,
    ) -> Result<(), SpoolError> {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = self.spool.control()?;
        let lease = Arc::new(Mutex::new(Lease::open(&self.spool, self.owner.clone())?));
        let timing = self.spool.timing();
        let look_pause = Duration::from_secs(timing.silence_seconds) / LOOKS_A_SILENCE;
        let presence = Presence::begin(&self.spool, self.owner.clone(), look_pause)?;
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
        let status = tokio::spawn(self.clone().publish_status());
        let listening = self.poll.listen(&self.spool.layout().pending(), &self.spool.pending_classes()?);
        if let Err(error) = &listening {
            tracing::info!("pending/ is looked at now and then only: {error}");
        }
        let turns: Vec<_> = slots
            .into_iter()
            .map(|slot| tokio::spawn(self.clone().work(slot, lease.clone(), shutdown.clone())))
            .collect();
        for turn in turns {
            if let Err(error) = turn.await {
                tracing::error!(%error, "a slot ended unexpectedly; its claim is handed back at the next start");
            }
        }
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

    async fn work(self: Arc<Self>, slot: Slot, lease: Arc<Mutex<Lease>>, shutdown: Shutdown) {
        while shutdown.phase() == Phase::Running {
            let turn = tokio::select! {
                () = shutdown.requested() => break,
                turn = self.poll.turn() => turn,
            };
            let claimed = if self.is_fit(&slot).await {
                self.claim(&slot, &lease).await
            } else {
                self.poll.found_nothing(random());
                Ok(None)
            };
            drop(turn);
            let pause = match claimed {
                Ok(Some(claim)) => self.serve(&slot, &claim, &shutdown).await,
                Ok(None) => Duration::ZERO,
                Err(error) => {
                    tracing::error!(%error, "cannot claim");
                    self.board.notice(&error.to_string());
                    NODE_FAULT_PAUSE
                }
            };
            self.board.idle(slot.number);
            tokio::select! {
                () = shutdown.requested() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// A node that could not work fails no task: nothing is claimed until its engine answers, its disk has room, and
    /// it has proved that it works where there is doubt.
    async fn is_fit(&self, slot: &Slot) -> bool {
        let asked = self.control.lock().unwrap_or_else(PoisonError::into_inner).obstacle(self.owner.node());
        let obstacle = match self.shop.engine.ping().await {
            Ok(()) => asked.or_else(|| self.disks.shortage()),
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

    async fn claim(&self, slot: &Slot, lease: &Arc<Mutex<Lease>>) -> Result<Option<Claim>, SpoolError> {
        let lease = lease.clone();
        let forgets = self.is_listing_old();
        let limits = self.control.lock().unwrap_or_else(PoisonError::into_inner).limits().clone();
        let (spool, node) = (self.spool.clone(), self.owner.node().to_owned());
        let (slot, native) = (slot.clone(), self.shop.config.native);
        let looked = tokio::task::spawn_blocking(move || {
            let mut lease = lease.lock().unwrap_or_else(PoisonError::into_inner);
            if forgets {
                lease.forget_candidates();
            }
            let room = spool.room(&limits, &node)?;
            lease.claim_next(|class| run::takes(class, &slot, native) && room.admits(class))
        });
        match looked.await.map_err(std::io::Error::other) {
            Ok(Ok(Next::Claimed(claim))) => {
                self.poll.found_something();
                Ok(Some(*claim))
            }
            Ok(Ok(Next::Empty)) => {
                self.poll.found_nothing(random());
                Ok(None)
            }
            Ok(Ok(Next::Rejected { name, why })) => {
                tracing::warn!(task = %name.id, "moved to failed/badspec: {why}");
                self.note(Event::Rejected { task: name.id, token: name.token, reason: why });
                Ok(None)
            }
            Ok(Err(error)) => Err(error),
            Err(error) => {
                tracing::error!(%error, "the claimer ended unexpectedly");
                Ok(None)
            }
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

    /// Serves one claim to its end; gives the pause before the next.
    async fn serve(&self, slot: &Slot, claim: &Claim, shutdown: &Shutdown) -> Duration {
        let id = &claim.name().id;
        let token = claim.name().token;
        tracing::info!(task = %id, %token, slot = slot.number, "claimed");
        self.note(Event::Claimed { task: id.clone(), token, class: claim.class().to_string() });
        if !run::takes(&claim.spec().class(), slot, self.shop.config.native) {
            return self.hand_over(claim);
        }
        let started_at = Timestamp::now();
        let attempted = tokio::select! {
            attempted = AssertUnwindSafe(self.attempt(slot, claim)).catch_unwind() => attempted.unwrap_or_else(|_| {
                Err(Interruption::Node("the worker failed within itself; its log has the place".to_owned()))
            }),
            interruption = self.interrupted(claim, shutdown) => Err(interruption),
        };
        let (settled, pause) = match attempted {
            Ok(attempt) => (self.conclude(slot, claim, &attempt, started_at, shutdown).await, Duration::ZERO),
            Err(Interruption::Shutdown) => (self.release(claim, "the worker ends"), Duration::ZERO),
            Err(Interruption::Lost) => (Err(ClaimError::Lost(claim.name().clone())), Duration::ZERO),
            Err(Interruption::Cancelled) => (self.cancel(claim), Duration::ZERO),
            Err(Interruption::Node(why)) => {
                (self.postpone(claim, &why, true, started_at).await, NODE_FAULT_PAUSE)
            }
            Err(Interruption::Lacking(why)) => {
                (self.postpone(claim, &why, false, started_at).await, Duration::ZERO)
            }
        };
        match settled {
            Ok(outcome) => tracing::info!(task = %id, %token, slot = slot.number, "{outcome}"),
            Err(error @ ClaimError::Lost(_)) => {
                tracing::warn!(task = %id, %token, "{error}");
                self.note(Event::Lost { task: id.clone(), token });
            }
            Err(ClaimError::Spool(error)) => {
                // Nothing was published: the task goes back, and if even that fails it stays claimed and is
                // handed back when this incarnation is reaped.
                tracing::error!(task = %id, %token, %error, "cannot publish the attempt");
                self.board.notice(&error.to_string());
                if let Err(error) = claim.release() {
                    tracing::error!(task = %id, %token, %error, "cannot hand the task back");
                }
                return NODE_FAULT_PAUSE;
            }
        }
        pause
    }

    async fn attempt(&self, slot: &Slot, claim: &Claim) -> Result<Attempt, Interruption> {
        let labels = Labels {
            spool: self.spool.id(),
            owner: self.owner.clone(),
            task: claim.name().id.clone(),
            token: claim.name().token,
            object: Uuid::now_v7(),
        };
        let say = |stage: &str| self.board.begin(slot.number, &claim.name().id, stage);
        let node_fault = |error: &dyn std::fmt::Display| Interruption::Node(error.to_string());
        let work_dir = WorkDir::make(&self.state_dir, &self.ledger, &labels).map_err(|e| node_fault(&e))?;
        let task = match &claim.spec().work {
            Work::Build(task) => task,
            Work::Run(task) => {
                let job = run::Job {
                    engine: &self.shop.engine,
                    config: &self.shop.config,
                    spool: &self.spool,
                    task,
                    resources: &claim.spec().resources,
                    slot,
                    dir: &work_dir.path,
                    program: &self.program,
                    labels: &labels,
                    unique: Uuid::now_v7,
                    say: &say,
                };
                return run::run(&job).await.map_err(|error| match error {
                    // The image may be misspelt: no reason to doubt the node.
                    RunError::Engine(error @ EngineError::Pull { .. }) => {
                        Interruption::Lacking(error.to_string())
                    }
                    error => node_fault(&error),
                });
            }
        };
        let mut slot = slot.clone();
        let timeout = claim.spec().resources.timeout_seconds;
        if let Some(memory) = claim.spec().resources.memory_bytes {
            slot.limits.memory_bytes = slot.limits.memory_bytes.min(memory);
        }
        let job = Job {
            shop: &self.shop,
            task,
            slot: &slot,
            context_dir: &work_dir.path,
            run_timeout: Duration::from_secs(timeout.unwrap_or(self.shop.config.run_timeout_seconds)),
            labels: &labels,
            unique: Uuid::now_v7,
            say: &say,
        };
        let mut made =
            attempt(&job, &mut (self.new_brain)()).await.map_err(|error: AttemptError| node_fault(&error))?;
        if let Some(cores) = claim.spec().resources.cores.filter(|cores| *cores as usize != slot.cores.len())
        {
            made.notes.push(format!("asked for {cores} cores, ran on the {} of a slot", slot.cores.len()));
        }
        Ok(made)
    }

    /// Publishes an attempt. While the spool cannot be written the verdict is kept and published again and
    /// again: a full disk does not cost the work.
    async fn conclude(
        &self,
        slot: &Slot,
        claim: &Claim,
        attempt: &Attempt,
        started_at: Timestamp,
        shutdown: &Shutdown,
    ) -> Result<String, ClaimError> {
        self.board.begin(slot.number, &claim.name().id, "publish");
        let manifest = attempt.manifest(claim.name(), &self.owner, started_at, Timestamp::now());
        let mut trouble = None;
        loop {
            let concluded = claim.conclude(&manifest, &attempt.files).map(|_| attempt.outcome());
            trouble.take().inspect(|said: &String| self.board.withdraw(said));
            match concluded {
                Err(ClaimError::Spool(error)) if shutdown.phase() == Phase::Running => {
                    let said = format!("a verdict waits to be written: {error}");
                    tracing::error!(task = %claim.name().id, token = %claim.name().token, "{said}");
                    self.board.notice(&said);
                    trouble = Some(said);
                }
                concluded => {
                    if concluded.is_ok() {
                        self.breaker().settle();
                        let (task, token) = (claim.name().id.clone(), claim.name().token);
                        self.note(Event::concluded(task, token, &manifest.verdict));
                    }
                    return concluded;
                }
            }
            tokio::select! {
                () = shutdown.requested() => {}
                () = tokio::time::sleep(NODE_FAULT_PAUSE) => {}
            }
        }
    }

    /// Hands a task back that the node failed. It pays for that with a retry only if the engine is there.
    /// What makes the node suspect counts against it too.
    async fn postpone(
        &self,
        claim: &Claim,
        why: &str,
        is_suspect: bool,
        started_at: Timestamp,
    ) -> Result<String, ClaimError> {
        if self.shop.engine.ping().await.is_err() {
            return self.release(claim, &format!("until the engine answers: {why}"));
        }
        if is_suspect {
            self.board.notice(why);
            self.breaker().strike((self.clock)(), why, random());
        }
        let longest = RETRY_SECONDS_MIN * RETRY_SECONDS_FACTOR.saturating_pow(claim.name().retries.min(8));
        let wait = Duration::from_secs(longest).mul_f64(random()).as_secs() + 1;
        // By the server's clock, which those who look at the date share.
        let now = self.spool.server_time(&self.owner).map_err(SpoolError::from)?;
        let due = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs() + wait;
        if claim.delay(due, why)? {
            let (task, token) = (claim.name().id.clone(), claim.name().token);
            self.note(Event::Delayed { task, token, due_seconds: due, reason: why.to_owned() });
            return Ok(format!("the node failed it, it will be tried again: {why}"));
        }
        let poison = Attempt::failed(
            &claim.spec().work,
            FailureReason::Poison,
            format!("the node failed it again and again, at last: {why}"),
        );
        claim.conclude(&poison.manifest(claim.name(), &self.owner, started_at, Timestamp::now()), &[])?;
        Ok(poison.outcome())
    }

    /// Hands a task over to who can do it: somebody had put it among such that any worker can do.
    fn hand_over(&self, claim: &Claim) -> Duration {
        let (task, token) = (claim.name().id.clone(), claim.name().token);
        match claim.hand_over() {
            Ok(()) => {
                let reason =
                    format!("it is one of {}, which this worker does not take", claim.spec().class());
                tracing::info!(%task, %token, "handed over: {reason}");
                self.note(Event::Released { task, token, reason });
            }
            Err(error) => tracing::warn!(%task, %token, "cannot hand it over: {error}"),
        }
        Duration::ZERO
    }

    /// Hands a task back as it was.
    fn release(&self, claim: &Claim, why: &str) -> Result<String, ClaimError> {
        claim.release()?;
        let (task, token) = (claim.name().id.clone(), claim.name().token);
        self.note(Event::Released { task, token, reason: why.to_owned() });
        Ok(format!("handed back: {why}"))
    }

    /// Sets a task aside that a person cancelled.
    fn cancel(&self, claim: &Claim) -> Result<String, ClaimError> {
        claim.cancel()?;
        self.note(Event::Cancelled { task: claim.name().id.clone(), token: Some(claim.name().token) });
        Ok("cancelled by a person: set aside in failed/cancelled".to_owned())
    }

    /// Ends when the attempt must: on shutdown, or when a person has cancelled the task or taken the claim away.
    async fn interrupted(&self, claim: &Claim, shutdown: &Shutdown) -> Interruption {
        loop {
            tokio::select! {
                () = shutdown.requested() => return Interruption::Shutdown,
                () = tokio::time::sleep(HELD_CHECK_PERIOD) => {}
            }
            if !claim.is_held() {
                return Interruption::Lost;
            }
            let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
            if control.cancelled().contains(&claim.name().id) {
                return Interruption::Cancelled;
            }
        }
    }

    fn note(&self, event: Event) {
        self.log.note(Timestamp::now(), event);
    }

    async fn publish_status(self: Arc<Self>) {
        let mut unchanged = 0;
        loop {
            let (status, changed) = self.board.status();
            unchanged = if changed { 0 } else { unchanged + 1 };
            if changed || unchanged >= STATUS_PERIODS_UNCHANGED {
                unchanged = 0;
                if let Err(error) = self.spool.write_worker_status(&status) {
                    tracing::warn!(%error, "cannot publish the status");
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
