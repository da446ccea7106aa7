use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use queue_format::{Ledger, Spool, node_name};
use systemd::Notifier;
use tokio::time::Instant;

use crate::audit::Audit;
use crate::config::Config;
use crate::error::JanitorError;
use crate::execute::{Execution, Report};
use crate::inventory::{Inventory, Objects};
use crate::marks::Marks;
use crate::observe::{Engine, Files};
use crate::plan::plan;
use crate::policy::{Candidate, Patience, policy};
use crate::protect::protect;
use crate::show;
use crate::verify::{Look, World};

/// The longest time for which an engine that failed is left alone.
const ENGINE_RETRY_MAX: Duration = Duration::from_secs(240);

/// What a janitor looks after.
#[derive(Clone, Debug)]
pub struct Place {
    /// The spool.
    pub spool: PathBuf,
    /// The node's state directory.
    pub state: PathBuf,
    /// The node's name, as its workers give it to [`Owner::new`].
    pub hostname: String,
    /// The engine, as in `DOCKER_HOST`; Docker's own socket where it is `None`.
    pub engine: Option<String>,
}

/// Looks after one spool's leftovers on one node.
#[derive(Debug)]
pub struct Janitor {
    files: Arc<Files>,
    config: Config,
    clock: fn() -> Timestamp,
    notifier: Notifier,
    marks: Marks,
    audit: Audit,
    engine_address: Option<String>,
    engine: Option<Engine>,
    engine_failures: u32,
    engine_retry_at: Option<Instant>,
}

impl Janitor {
    /// A janitor that has not looked yet. `clock` dates its log lines.
    ///
    /// # Errors
    /// The configuration makes no sense, there is no spool, or the state directory cannot be written.
    pub fn open(
        place: Place,
        config: Config,
        clock: fn() -> Timestamp,
        notifier: Notifier,
    ) -> Result<Self, JanitorError> {
        config.validate().map_err(JanitorError::Config)?;
        let spool_id = Spool::open(&place.spool)?.id();
        Ledger::open(&place.state)?;
        let state_dir = place.state.canonicalize().map_err(|source| JanitorError::State {
            action: "find",
            path: place.state.clone(),
            source,
        })?;
        let node = node_name(&place.hostname);
        let audit = Audit::new(&state_dir, config.audit_bytes_max);
        Ok(Self {
            files: Arc::new(Files { spool_root: place.spool, spool_id, state_dir, node }),
            config,
            clock,
            notifier,
            marks: Marks::default(),
            audit,
            engine_address: place.engine,
            engine: None,
            engine_failures: 0,
            engine_retry_at: None,
        })
    }

    /// Goes by another configuration from now on, which was checked.
    pub(crate) fn follow(&mut self, config: Config) {
        self.audit = Audit::new(&self.files.state_dir, config.audit_bytes_max);
        self.config = config;
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the engine answered when it was last asked.
    #[must_use]
    pub fn engine_answers(&self) -> bool {
        self.engine.is_some()
    }

    /// One pass: what has been a leftover for the grace period goes.
    ///
    /// # Errors
    /// The spool or the state directory cannot be read: then nothing is removed.
    pub async fn pass(&mut self) -> Result<Report, JanitorError> {
        let inventory = self.observe().await?;
        let found = policy(&inventory, &protect(&inventory));
        let total = found.len();
        let ripe = self.marks.ripe(found, Instant::now().into_std(), self.config.grace());
        let waiting = total - ripe.len();
        let plan = plan(&inventory, ripe, self.config.deletions_max);
        if plan.postponed > 0 {
            tracing::warn!(
                "{} more removals wait for the next passes: each makes {} at most (janitor.deletions_max)",
                plan.postponed,
                self.config.deletions_max
            );
        }
        let execution = Execution {
            world: &self.world(),
            audit: &self.audit,
            notifier: &self.notifier,
            clock: self.clock,
            parallel: self.config.parallel_removals,
        };
        Ok(Report { waiting, ..execution.run(&plan).await })
    }

    /// Looks, waits for the grace period, looks again and removes; what a single run can prove, no more.
    ///
    /// # Errors
    /// As for [`Janitor::pass`].
    pub async fn once(&mut self) -> Result<Report, JanitorError> {
        let first = self.pass().await?;
        if first.waiting == 0 {
            return Ok(first);
        }
        tokio::time::sleep(self.config.grace()).await;
        let second = self.pass().await?;
        Ok(Report { removed: first.removed + second.removed, ..second })
    }

    /// What [`Janitor::once`] would do now, a line each; changes nothing.
    ///
    /// # Errors
    /// As for [`Janitor::pass`].
    pub async fn plan(&mut self) -> Result<Vec<String>, JanitorError> {
        let inventory = self.observe().await?;
        let mut found = policy(&inventory, &protect(&inventory));
        found.retain(|candidate| candidate.patience <= Patience::Grace);
        let plan = plan(&inventory, found, self.config.deletions_max);
        let world = self.world();
        let mut lines = Vec::new();
        for candidate in plan.steps() {
            lines.extend(planned(&world, candidate, (self.clock)()).await);
        }
        if plan.postponed > 0 {
            let max = self.config.deletions_max;
            lines.push(format!("{} more would wait: janitor.deletions_max is {max}", plan.postponed));
        }
        Ok(lines)
    }

    fn world(&self) -> World {
        World { files: Arc::clone(&self.files), engine: self.engine.clone() }
    }

    async fn observe(&mut self) -> Result<Inventory, JanitorError> {
        let objects = self.objects().await;
        let files = Arc::clone(&self.files);
        tokio::task::spawn_blocking(move || files.observe(objects)).await?
    }

    /// `None` while the engine does not answer: one warning, then silence, and fewer and fewer questions.
    async fn objects(&mut self) -> Option<Objects> {
        if self.engine_retry_at.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        let engine = match self.engine.take() {
            Some(engine) => Ok(engine),
            None => Engine::connect(self.engine_address.as_deref(), self.config.engine_timeout()).await,
        };
        let listed = match engine {
            Ok(engine) => engine.list().await.map(|objects| (engine, objects)),
            Err(error) => Err(error),
        };
        match listed {
            Ok((engine, objects)) => {
                if self.engine_failures > 0 {
                    tracing::info!("the container engine answers again");
                }
                self.engine = Some(engine);
                self.engine_failures = 0;
                self.engine_retry_at = None;
                Some(objects)
            }
            Err(error) => {
                if self.engine_failures == 0 {
                    tracing::warn!("{error}; containers and images are left alone until then");
                }
                let period = Duration::from_secs(self.config.period_seconds);
                let pause = period.saturating_mul(1 << self.engine_failures.min(16)).min(ENGINE_RETRY_MAX);
                self.engine_failures += 1;
                self.engine_retry_at = Some(Instant::now() + pause);
                None
            }
        }
    }
}

async fn planned(world: &World, candidate: &Candidate, now: Timestamp) -> Option<String> {
    match world.look(candidate).await {
        Ok(Look::Remove(bytes)) => Some(show::line(candidate, bytes, now)),
        Ok(Look::Keep(_)) => None,
        Err(error) => {
            Some(format!("cannot judge {} {}: {error}", show::kind(&candidate.target), candidate.name))
        }
    }
}
