use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::AgentsConfig;
use super::fleet::Fleet;
use super::llm::{Answer, CallError, ChatRequest, Pool, Surroundings};

/// How often a call looks whether the fleet may spend again.
const FLEET_LOOK_PERIOD: Duration = Duration::from_millis(500);

/// How long nothing is begun that needs a model after nobody has answered.
const AWAY_PAUSE: Duration = Duration::from_secs(15);

/// What answers: a worker's endpoints, or nobody where an attempt is replayed.
#[derive(Clone)]
pub enum Model {
    /// The endpoints.
    Live(Arc<Llm>),
    /// Only answers that are recorded count.
    Recorded,
}

/// A worker's endpoints, as its configuration has them now.
pub struct Llm {
    surroundings: Surroundings,
    fleet: Fleet,
    /// The pool, or why there is none.
    pool: RwLock<Result<Arc<Pool>, String>>,
    /// Nobody answered; why, and until when nobody is asked on purpose.
    away: Mutex<Option<(Duration, String)>>,
}

impl Llm {
    /// Of a configuration; where that gives no pool, each call says why.
    #[must_use]
    pub fn new(config: &AgentsConfig, surroundings: Surroundings) -> Self {
        let pool = Pool::new(config, surroundings.clone(), None).map(Arc::new);
        let pool = RwLock::new(pool.map_err(|error| error.to_string()));
        Self { surroundings, fleet: Fleet::default(), pool, away: Mutex::default() }
    }

    /// Heeds a change: calls on their way end as they began, and what is known of endpoints that did not change is kept.
    pub fn reload(&self, config: &AgentsConfig) {
        let before = self.pool();
        let pool = Pool::new(config, self.surroundings.clone(), before.as_deref().ok()).map(Arc::new);
        *self.pool.write().unwrap_or_else(PoisonError::into_inner) = pool.map_err(|error| error.to_string());
    }

    /// Why nothing can be asked.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let away = self.away().clone().filter(|(until, _)| (self.surroundings.clock)() < *until);
        self.pool().err().or(away.map(|(_, why)| why))
    }

    /// What models have cost, here and elsewhere.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Asks; waits before where the fleet has spent what it may.
    ///
    /// # Errors
    /// Nobody answered.
    pub async fn ask(&self, request: &ChatRequest) -> Result<Answer, CallError> {
        while self.fleet.obstacle().is_some() {
            tokio::time::sleep(FLEET_LOOK_PERIOD).await;
        }
        match self.pool() {
            Ok(pool) => {
                let asked = pool.ask(request).await;
                *self.away() = match &asked {
                    Err(error @ CallError::Unavailable { .. }) => {
                        Some(((self.surroundings.clock)() + AWAY_PAUSE, error.to_string()))
                    }
                    _ => None,
                };
                let answer = asked?;
                self.fleet.charge(answer.micro_dollars);
                Ok(answer)
            }
            Err(last) => Err(CallError::Unavailable { tries: 0, seconds: 0, last }),
        }
    }

    fn away(&self) -> MutexGuard<'_, Option<(Duration, String)>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self) -> Result<Arc<Pool>, String> {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
