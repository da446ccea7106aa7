//! One claim, from the moment it is ours to the one in which it is not any more.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use queue_format::{Claim, ClaimError, Event, FailureReason, Labels, SpoolError, Work};
use systemd::{Phase, Shutdown};
use uuid::Uuid;

use super::{NODE_FAULT_PAUSE, Worker, random};
use crate::attempt::journal::{Begun, Journal};
use crate::attempt::{Attempt, Conclusion, Job};
use crate::board::Topic;
use crate::engine::{Engine, EngineError};
use crate::run::{self, RunError, share};
use crate::slots::Slot;
use crate::topology::online_cpus;
use crate::work_dir::{WorkDir, on_disk};

/// How often a slot asks whether its claim is still there; the heartbeat looks.
const HELD_CHECK_PERIOD: Duration = Duration::from_secs(1);
/// When at the latest a task that the node failed is tried again; four times as long after each further fault, an hour
/// in all.
const RETRY_SECONDS_MIN: u64 = 10;
const RETRY_SECONDS_FACTOR: u64 = 4;

/// Why a slot's turn ended without a verdict.
pub(super) enum Interruption {
    /// The claim's file was moved or removed.
    Lost,
    /// A person asked for it in `control/cancel/`.
    Cancelled,
    Shutdown,
    /// Every CPU of its slot went offline.
    CpusGone,
    Node(String),
    /// The node works, and lacks what this task needs; or somebody else had a hand in it.
    Lacking(String),
    /// No model answers: neither the task's fault nor the node's.
    ModelAway(String),
    /// It is of a class that this worker does not take: a person had put it among such that any can do.
    Misplaced,
}

impl<E: Engine + 'static> Worker<E> {
    /// Serves one claim to its end; gives the pause before the next.
    pub(super) async fn serve(
        &self,
        slot: &Slot,
        claim: &Claim,
        begun: Option<Journal>,
        shutdown: &Shutdown,
    ) -> Duration {
        let id = &claim.name().id;
        let token = claim.name().token;
        if begun.is_some() {
            tracing::info!(task = %id, %token, slot = slot.number, "goes on");
            self.note(Event::Adopted { task: id.clone(), token });
        } else {
            tracing::info!(task = %id, %token, slot = slot.number, "claimed");
            self.note(Event::Claimed { task: id.clone(), token, class: claim.class().to_string() });
        }
        let (journal, unkept) = match begun {
            Some(journal) => (journal, None),
            None => on_disk(|| self.journal(slot, claim)),
        };
        let came_to = match unkept {
            Some(why) => Err(Interruption::Node(why)),
            None => self.conclusion(slot, claim, &journal, shutdown).await,
        };
        let pause = self.settle_with(slot, claim, &journal, came_to, shutdown).await;
        // One that ended before it came to what the process before this one had begun has left that as it was.
        if let Err(error) = self.shop.engine.remove_left(journal.left_running()).await {
            tracing::warn!(task = %id, %token, %error, "something of it is left to the janitor");
        }
        on_disk(|| journal.end());
        pause
    }

    /// Does with a claim what it came to; gives the pause before the next.
    async fn settle_with(
        &self,
        slot: &Slot,
        claim: &Claim,
        journal: &Journal,
        came_to: Result<Conclusion, Interruption>,
        shutdown: &Shutdown,
    ) -> Duration {
        let id = &claim.name().id;
        let token = claim.name().token;
        let (settled, pause) = match came_to {
            Ok(conclusion) => (self.conclude(slot, claim, &conclusion, shutdown).await, Duration::ZERO),
            Err(Interruption::Shutdown) => (self.release(claim, "the worker ends"), Duration::ZERO),
            Err(Interruption::CpusGone) => (
                self.release(claim, "every CPU of its slot is offline, or not ours any more"),
                Duration::ZERO,
            ),
            Err(Interruption::Lost) => (Err(ClaimError::Lost(claim.name().clone())), Duration::ZERO),
            Err(Interruption::Cancelled) => (self.cancel(claim), Duration::ZERO),
            Err(Interruption::Misplaced) => (self.hand_over(claim), Duration::ZERO),
            Err(Interruption::Node(why)) => {
                (self.postpone(claim, &why, true, journal).await, NODE_FAULT_PAUSE)
            }
            Err(Interruption::ModelAway(why)) => {
                (self.release(claim, &format!("until a model answers: {why}")), NODE_FAULT_PAUSE)
            }
            Err(Interruption::Lacking(why)) => {
                (self.postpone(claim, &why, false, journal).await, Duration::ZERO)
            }
        };
        match settled {
            Ok(outcome) => tracing::info!(task = %id, %token, slot = slot.number, "{outcome}"),
            Err(error @ ClaimError::Lost(_)) => {
                tracing::warn!(task = %id, %token, "{error}");
                self.note(Event::Lost { task: id.clone(), token });
            }
            Err(error @ ClaimError::Spool(_)) => return self.stuck(claim, &error),
        }
        pause
    }

    /// What the claim came to, kept in the journal.
    async fn conclusion(
        &self,
        slot: &Slot,
        claim: &Claim,
        journal: &Journal,
        shutdown: &Shutdown,
    ) -> Result<Conclusion, Interruption> {
        if let Some(known) = journal.conclusion() {
            return Ok(known.clone());
        }
        let attempt = AssertUnwindSafe(self.attempt(slot, claim, journal)).catch_unwind();
        let attempted = tokio::select! {
            attempted = attempt => attempted.unwrap_or_else(|_| {
                Err(Interruption::Node("the worker failed within itself; its log has the place".to_owned()))
            }),
            interruption = self.interrupted(slot, claim, shutdown) => Err(interruption),
        }?;
        Ok(self.kept(claim, attempted, journal))
    }

    /// What is going to be published of an attempt: in the journal first.
    fn kept(&self, claim: &Claim, attempt: Attempt, journal: &Journal) -> Conclusion {
        let conclusion = attempt.conclusion(claim.name(), &self.owner, journal.begun().at, Timestamp::now());
        on_disk(|| journal.note_conclusion(&conclusion));
        conclusion
    }

    /// Nothing was published: the task goes back, and if even that fails it stays claimed and is handed back when this
    /// incarnation is reaped.
    fn stuck(&self, claim: &Claim, error: &ClaimError) -> Duration {
        let (task, token) = (&claim.name().id, claim.name().token);
        tracing::error!(%task, %token, %error, "cannot settle the claim");
        self.board.tell(Topic::Spool, [error.to_string()]);
        if let Err(error) = on_disk(|| claim.release()) {
            tracing::error!(%task, %token, %error, "cannot hand the task back");
        }
        NODE_FAULT_PAUSE
    }

    /// The journal of a new attempt, and why it cannot be kept. A command without a container dies with its supervisor,
    /// and nobody can go on with it.
    fn journal(&self, slot: &Slot, claim: &Claim) -> (Journal, Option<String>) {
        // Each UUID v7 has some 70 random bits.
        let drawn: [Uuid; 4] = std::array::from_fn(|_| Uuid::now_v7());
        let begun = Begun {
            at: Timestamp::now(),
            instance: self.instance.clone(),
            boot: self.boot.clone(),
            spool: self.spool.id(),
            cpus: slot.cpus.clone(),
            seed: *blake3::hash(format!("{drawn:?}").as_bytes()).as_bytes(),
            limits: slot.limits.clone(),
        };
        match &claim.spec().work {
            Work::Run(task) if task.image.is_none() => (Journal::unkept(begun), None),
            _ => match Journal::begin(&self.state_dir, &self.owner, claim.name(), begun.clone()) {
                Ok(journal) => (journal, None),
                Err(error) => {
                    let dir = self.state_dir.display();
                    let why = format!("cannot keep the attempt's journal in {dir}: {error}");
                    (Journal::unkept(begun), Some(why))
                }
            },
        }
    }

    async fn attempt(&self, slot: &Slot, claim: &Claim, journal: &Journal) -> Result<Attempt, Interruption> {
        let config = self.config.borrow().clone();
        if !run::takes(&claim.spec().class(), slot, &config) {
            return Err(Interruption::Misplaced);
        }
        let labels = Labels {
            spool: self.spool.id(),
            owner: self.owner.clone(),
            task: claim.name().id.clone(),
            token: claim.name().token,
            object: journal.draw(),
        };
        let unique = || journal.draw();
        let shop = self.shop.of_attempt(config, journal);
        let say = |stage: &str| self.board.begin(slot.number, &claim.name().id, stage);
        let node_fault = |error: &dyn std::fmt::Display| Interruption::Node(error.to_string());
        let work_dir =
            on_disk(|| WorkDir::make(&self.state_dir, &self.ledger, &labels)).map_err(|e| node_fault(&e))?;
        let task = match &claim.spec().work {
            Work::Build(task) => task,
            Work::Run(task) => {
                let job = run::Job {
                    engine: &shop.engine,
                    config: &shop.config,
                    spool: &self.spool,
                    task,
                    resources: &claim.spec().resources,
                    slot,
                    dir: &work_dir.path,
                    program: &self.program,
                    labels: &labels,
                    unique: &unique,
                    say: &say,
                };
                let ran = run::run(&job).await.map_err(|error| match error {
                    // The task may have it wrong, or a person did it: no reason to doubt the node.
                    RunError::Unsupervised
                    | RunError::Engine(
                        EngineError::Pull { .. }
                        | EngineError::Refused { .. }
                        | EngineError::ShortOfMemory
                        | EngineError::Disturbed { .. },
                    ) => Interruption::Lacking(error.to_string()),
                    error => node_fault(&error),
                });
                return ran.map(|made| told(made, journal));
            }
        };
        let mut slot = slot.clone();
        let timeout = claim.spec().resources.timeout_seconds;
        if let Some(memory) = claim.spec().resources.memory_bytes {
            slot.limits.memory_bytes = slot.limits.memory_bytes.min(memory);
        }
        let job = Job {
            shop: &shop,
            task,
            slot: &slot,
            context_dir: &work_dir.path,
            run_timeout: Duration::from_secs(timeout.unwrap_or(shop.config.run_timeout_seconds)),
            labels: &labels,
            unique: &unique,
            say: &say,
        };
        let mut made = self.made(&job, journal).await?;
        if let Some(cores) = claim.spec().resources.cores.filter(|cores| *cores as usize != slot.cpus.len()) {
            made.notes.push(format!("asked for {cores} cores, ran on the {} of a slot", slot.cpus.len()));
        }
        Ok(told(made, journal))
    }

    /// Publishes an attempt. While the spool cannot be written the verdict is kept and published again and
    /// again: a full disk does not cost the work.
    async fn conclude(
        &self,
        slot: &Slot,
        claim: &Claim,
        conclusion: &Conclusion,
        shutdown: &Shutdown,
    ) -> Result<String, ClaimError> {
        self.board.begin(slot.number, &claim.name().id, "publish");
        loop {
            let concluded = self.settle(claim, conclusion);
            let unwritten = Topic::Verdict(slot.number);
            match concluded {
                Err(ClaimError::Spool(error)) if shutdown.phase() < Phase::Requested => {
                    let said = format!("a verdict waits to be written: {error}");
                    tracing::error!(task = %claim.name().id, token = %claim.name().token, "{said}");
                    self.board.tell(unwritten, [said]);
                }
                concluded => {
                    self.board.tell(unwritten, None::<String>);
                    if concluded.is_ok() {
                        self.breaker().settle();
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

    /// Publishes what an attempt came to, and says so in the log.
    fn settle(&self, claim: &Claim, conclusion: &Conclusion) -> Result<String, ClaimError> {
        on_disk(|| claim.conclude(&conclusion.manifest, &conclusion.files))?;
        self.remember(claim, conclusion);
        let (task, token) = (claim.name().id.clone(), claim.name().token);
        self.note(Event::concluded(task, token, &conclusion.manifest.verdict));
        Ok(conclusion.outcome())
    }

    /// Hands a task back that the node failed. It pays for that with a retry only if the engine is there.
    /// What makes the node suspect counts against it too.
    async fn postpone(
        &self,
        claim: &Claim,
        why: &str,
        is_suspect: bool,
        journal: &Journal,
    ) -> Result<String, ClaimError> {
        if self.shop.engine.ping().await.is_err() {
            return self.release(claim, &format!("until the engine answers: {why}"));
        }
        if is_suspect {
            self.breaker().strike((self.clock)(), why, random());
        }
        let longest = RETRY_SECONDS_MIN * RETRY_SECONDS_FACTOR.saturating_pow(claim.name().retries.min(8));
        let wait = Duration::from_secs(longest).mul_f64(random()).as_secs() + 1;
        // By the server's clock, which those who look at the date share.
        let now = on_disk(|| self.spool.server_time()).map_err(SpoolError::from)?;
        let due = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs() + wait;
        if on_disk(|| claim.delay(due, why))? {
            let (task, token) = (claim.name().id.clone(), claim.name().token);
            self.note(Event::Delayed { task, token, due_seconds: due, reason: why.to_owned() });
            return Ok(format!("without a verdict, it will be tried again: {why}"));
        }
        let poison = Attempt::failed(
            &claim.spec().work,
            FailureReason::Poison,
            format!("tried again and again without a verdict, at last: {why}"),
        );
        self.settle(claim, &self.kept(claim, poison, journal))
    }

    /// Hands a task over to who can do it.
    fn hand_over(&self, claim: &Claim) -> Result<String, ClaimError> {
        on_disk(|| claim.hand_over())?;
        let reason = format!("it is one of {}, which this worker does not take", claim.spec().class());
        let said = format!("handed over: {reason}");
        self.note(Event::Released { task: claim.name().id.clone(), token: claim.name().token, reason });
        Ok(said)
    }

    /// Hands a task back as it was.
    fn release(&self, claim: &Claim, why: &str) -> Result<String, ClaimError> {
        on_disk(|| claim.release())?;
        let (task, token) = (claim.name().id.clone(), claim.name().token);
        self.note(Event::Released { task, token, reason: why.to_owned() });
        Ok(format!("handed back: {why}"))
    }

    /// Sets a task aside that a person cancelled.
    fn cancel(&self, claim: &Claim) -> Result<String, ClaimError> {
        on_disk(|| claim.cancel())?;
        self.note(Event::Cancelled { task: claim.name().id.clone(), token: Some(claim.name().token) });
        Ok("cancelled by a person: set aside in failed/cancelled".to_owned())
    }

    /// Ends when the attempt must: on shutdown, when nothing is left of its CPUs, or when a person has cancelled the task or
    /// taken the claim away.
    async fn interrupted(&self, slot: &Slot, claim: &Claim, shutdown: &Shutdown) -> Interruption {
        let cpus = share(slot, &claim.spec().resources).cpu_set();
        loop {
            tokio::select! {
                () = shutdown.requested() => return Interruption::Shutdown,
                () = tokio::time::sleep(HELD_CHECK_PERIOD) => {}
            }
            if !claim.is_held() {
                return Interruption::Lost;
            }
            // The kernel lets what ran there run on CPUs of others: that does not wait for the next look.
            if online_cpus(Path::new("/")).is_some_and(|online| !online.touches(&cpus)) {
                tokio::select! {
                    () = shutdown.requested() => return Interruption::Shutdown,
                    _ = self.look_at_slots() => {}
                }
            }
            if self.seats.are_gone(&cpus) {
                return Interruption::CpusGone;
            }
            let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
            if control.cancelled().contains(&claim.name().id) {
                return Interruption::Cancelled;
            }
        }
    }
}

/// People are told where an attempt is not one process's work.
fn told(mut attempt: Attempt, journal: &Journal) -> Attempt {
    if journal.is_continued() {
        attempt.notes.push("the worker was started again meanwhile, and went on with it".to_owned());
    }
    attempt
}
