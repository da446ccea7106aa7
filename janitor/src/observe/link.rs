use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::engine::Engine;
use crate::config::Config;
use crate::inventory::Objects;
use crate::uses::Heard;

/// The longest time for which an engine that failed is left alone.
const RETRY_MAX: Duration = Duration::from_secs(240);

/// The way to the engine, which may be away, hang, or come back as another process.
#[derive(Debug)]
pub(crate) struct Link {
    address: Option<String>,
    engine: Option<Engine>,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Link {
    pub(crate) fn new(address: Option<String>) -> Self {
        Self { address, engine: None, failures: 0, retry_at: None }
    }

    /// The engine, if it answered when it was last asked.
    pub(crate) fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// What it holds, and what it told since `heard_at`. `None` while it does not answer: one warning, then silence, and
    /// fewer and fewer questions.
    pub(crate) async fn objects(
        &mut self,
        config: &Config,
        heard_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<(Objects, Heard)> {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        // A new engine may have forgotten what it was told.
        let was_lost = self.failures > 0;
        let engine = match self.engine.take() {
            Some(engine) => Ok(engine),
            None => Engine::connect(self.address.as_deref(), config.engine_timeout()).await,
        };
        let listed = match engine {
            Ok(engine) => match engine.list().await {
                Ok(objects) => engine.heard(heard_at, now).await.map(|heard| (engine, objects, heard)),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match listed {
            Ok((engine, objects, heard)) => {
                if self.failures > 0 {
                    tracing::info!("the container engine answers again");
                }
                self.engine = Some(engine);
                self.failures = 0;
                self.retry_at = None;
                Some((objects, Heard { is_partial: heard.is_partial || was_lost, ..heard }))
            }
            Err(error) => {
                if self.failures == 0 {
                    tracing::warn!("{error}; containers and images are left alone until then");
                }
                let period = Duration::from_secs(config.period_seconds);
                let pause = period.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
                self.failures += 1;
                self.retry_at = Some(Instant::now() + pause);
                None
            }
        }
    }
}
