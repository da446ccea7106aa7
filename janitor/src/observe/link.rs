use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::engine::Engine;
use super::events::Listener;
use crate::config::Config;
use crate::error::EngineError;
use crate::inventory::Objects;
use crate::uses::{Heard, Uses};

/// The longest time for which an engine that failed is left alone.
const RETRY_MAX: Duration = Duration::from_secs(240);

/// So many periods without a look, and with no event by which to tell, an engine may have started anew in between.
const GAP_PERIODS: u64 = 4;

/// How long it may take an engine in all to tell what it holds: answer by answer it may be slower than anybody waits for.
const LISTING_MAX: Duration = Duration::from_secs(600);

/// The way to the engine, which may be away, hang, or come back as another process.
#[derive(Debug)]
pub(crate) struct Link {
    address: Option<String>,
    engine: Option<Engine>,
    /// One that took too long for all that it holds: what it has told is known to it, and need not be told again.
    slow: Option<Engine>,
    /// Where it keeps images, as it last said: its disk is no emptier while it does not answer.
    image_dirs: Vec<PathBuf>,
    failures: u32,
    retry_at: Option<Instant>,
    /// Whether its events are heard between two passes too.
    listens: bool,
    listener: Option<Listener>,
}

impl Link {
    pub(crate) fn new(address: Option<String>) -> Self {
        Self {
            address,
            engine: None,
            slow: None,
            image_dirs: Vec::new(),
            failures: 0,
            retry_at: None,
            listens: false,
            listener: None,
        }
    }

    /// Hears its events between two passes too from now on.
    pub(crate) fn listen(&mut self) {
        self.listens = true;
    }

    /// The engine, if it answered when it was last asked.
    pub(crate) fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// Where images are kept on this machine, as far as the engine has ever said.
    pub(crate) fn image_dirs(&self) -> &[PathBuf] {
        &self.image_dirs
    }

    /// What it holds, and what it told since it was last heard. `None` while it does not answer: one warning, then silence, and
    /// fewer and fewer questions.
    pub(crate) async fn objects(
        &mut self,
        config: &Config,
        uses: &Uses,
        now: Timestamp,
    ) -> Option<(Objects, Heard)> {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        // Without an event by which it is known again, it may have started anew.
        let gap = i64::try_from(config.period_seconds.saturating_mul(GAP_PERIODS)).unwrap_or(i64::MAX);
        let is_late = uses.heard_at.is_some_and(|at| now.as_second().saturating_sub(at.as_second()) > gap);
        let may_be_new = uses.last.is_none() && (self.failures > 0 || is_late);
        let asked = tokio::time::timeout(LISTING_MAX, self.ask(config, uses, now)).await;
        let late =
            |_| EngineError::TimedOut { action: "tell all that it holds", seconds: LISTING_MAX.as_secs() };
        match asked.map_err(late).flatten() {
            Ok((engine, objects, heard)) => {
                if self.failures > 0 {
                    tracing::info!("the container engine answers again");
                }
                engine.image_dirs().clone_into(&mut self.image_dirs);
                self.engine = Some(engine);
                self.failures = 0;
                self.retry_at = None;
                Some((objects, Heard { is_partial: heard.is_partial || may_be_new, ..heard }))
            }
            Err(error) => {
                if self.failures == 0 {
                    tracing::warn!("{error}; containers and images are left alone until then");
                }
                let period = Duration::from_secs(config.period_seconds);
                let pause = period.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
                self.failures += 1;
                // What it has heard and nobody noted is asked for again.
                self.listener = None;
                self.retry_at = Some(Instant::now() + pause);
                None
            }
        }
    }

    async fn ask(
        &mut self,
        config: &Config,
        uses: &Uses,
        now: Timestamp,
    ) -> Result<(Engine, Objects, Heard), EngineError> {
        let engine = match self.engine.take().or(self.slow.take()) {
            Some(engine) => engine,
            None => Engine::connect(self.address.as_deref(), config.engine_timeout()).await?,
        };
        self.slow = Some(engine.clone());
        let listed = engine.list().await;
        self.slow = None;
        let objects = listed?;
        let heard = self.heard(&engine, uses, now).await;
        Ok((engine, objects, heard))
    }

    /// What it told since it was last heard. It is asked by the last event of all that were heard in between: where it
    /// still knows that, none is missing.
    async fn heard(&mut self, engine: &Engine, uses: &Uses, now: Timestamp) -> Heard {
        let between = self.listener.as_ref().map(Listener::take).unwrap_or_default();
        let mut heard = engine.heard(between.last.max(uses.last), uses.heard_at, now).await;
        heard.uses.extend(between.uses);
        if heard.is_partial || self.listener.as_ref().is_some_and(Listener::is_over) {
            self.listener = None;
        }
        if self.listens && self.listener.is_none() {
            self.listener = Some(engine.listen(heard.last, now));
        }
        heard
    }
}
