use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::AgentsConfig;
use super::fleet::Fleet;
use super::llm::{Answer, CallError, ChatRequest, Cost, Pool, PoolError, Surroundings};

/// How often a call looks whether the fleet may spend again.
const FLEET_LOOK_PERIOD: Duration = Duration::from_millis(500);

/// How long nothing is begun that needs a model after nobody has answered, and until an attempt asks again.
const AWAY_PAUSE: Duration = Duration::from_secs(15);

/// After so many conversations in a row that came to nothing, none is begun for so long: a model that babbles is no
/// reason to fail a queue of tasks.
const USELESS_MAX: u32 = 3;
const USELESS_PAUSE: Duration = Duration::from_secs(300);

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
    away_max: Mutex<Duration>,
    /// Nobody answered, or not to the purpose; why, and until when nobody is asked on purpose.
    away: Mutex<Option<(Duration, String)>>,
    babble: Mutex<Babble>,
}

/// Conversations that came to nothing.
#[derive(Default)]
struct Babble {
    in_a_row: u32,
    pause: Option<(Duration, String)>,
}

impl Llm {
    /// Of a configuration; where that gives no pool, each call says why.
    #[must_use]
    pub fn new(config: &AgentsConfig, surroundings: Surroundings) -> Self {
        let pool = Pool::new(config, surroundings.clone(), None).map(Arc::new);
        let pool = RwLock::new(pool.map_err(|error| error.to_string()));
        let away_max = Mutex::new(away_max(config));
        let (fleet, away, babble) = (Fleet::default(), Mutex::default(), Mutex::default());
        Self { surroundings, fleet, pool, away_max, away, babble }
    }

    /// Heeds a change: calls on their way end as they began, and what is known of endpoints that did not change is kept.
    ///
    /// # Errors
    /// An endpoint cannot be used as it is now: all stay as they were.
    pub fn reload(&self, config: &AgentsConfig) -> Result<(), String> {
        *locked(&self.away_max) = away_max(config);
        let before = self.pool();
        let pool = Pool::new(config, self.surroundings.clone(), before.as_deref().ok()).map(Arc::new);
        let pool = match pool {
            Err(error @ PoolError::Endpoint { .. }) if before.is_ok() => return Err(error.to_string()),
            pool => pool.map_err(|error| error.to_string()),
        };
        *self.pool.write().unwrap_or_else(PoisonError::into_inner) = pool;
        Ok(())
    }

    /// Takes up credentials whose files have changed; tells of those that cannot be read any more.
    #[must_use]
    pub fn reread_keys(&self) -> Vec<String> {
        let mut failed = Vec::new();
        for reread in self.pool().iter().flat_map(|pool| pool.reread_keys()) {
            match reread {
                Ok(endpoint) => tracing::info!(endpoint, "its key has changed"),
                Err(why) => failed.push(why),
            }
        }
        failed
    }

    /// Why nothing can be asked.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let now = (self.surroundings.clock)();
        let is_yet = |(until, _): &(Duration, String)| now < *until;
        let away = locked(&self.away).clone().filter(is_yet);
        let pause = locked(&self.babble).pause.clone().filter(is_yet);
        self.pool().err().or(away.or(pause).map(|(_, why)| why))
    }

    /// A conversation came to an answer that can be used, or to none for this reason.
    pub(super) fn came_to(&self, answer: Result<(), &str>) {
        let mut babble = locked(&self.babble);
        let Err(why) = answer else { return *babble = Babble::default() };
        babble.in_a_row += 1;
        if babble.in_a_row >= USELESS_MAX {
            let until = (self.surroundings.clock)() + USELESS_PAUSE;
            let why = format!("{} conversations in a row came to nothing; the last: {why}", babble.in_a_row);
            babble.pause = Some((until, why));
        }
    }

    /// What models have cost, here and elsewhere.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Asks; waits where the fleet has spent what it may, and, for so long as is configured, where nobody answers. Tells
    /// also what calls have cost that gave no answer; an answer has that in its own figures.
    ///
    /// # Errors
    /// Nobody answered, or nobody could answer this.
    pub async fn ask(&self, request: &ChatRequest) -> (Result<Answer, CallError>, Cost) {
        let (mut lost, began) = (Cost::default(), (self.surroundings.clock)());
        loop {
            while self.fleet.obstacle().is_some() {
                tokio::time::sleep(FLEET_LOOK_PERIOD).await;
            }
            let (asked, more) = match self.pool() {
                Ok(pool) => pool.ask_counting(request).await,
                Err(last) => (Err(CallError::Unavailable { tries: 0, seconds: 0, last }), Cost::default()),
            };
            self.fleet.charge(more.micro_dollars + asked.as_ref().map_or(0, |answer| answer.micro_dollars));
            lost.add(&more);
            let now = (self.surroundings.clock)();
            *locked(&self.away) = match &asked {
                Err(error @ CallError::Unavailable { .. }) => Some((now + AWAY_PAUSE, error.to_string())),
                _ => None,
            };
            match asked {
                // What was paid for so far is in the attempt's journal: so it stays here.
                Err(CallError::Unavailable { .. })
                    if now.saturating_sub(began) + AWAY_PAUSE <= *locked(&self.away_max) =>
                {
                    tokio::time::sleep(AWAY_PAUSE).await;
                }
                Ok(mut answer) => {
                    let mut cost = Cost { usage: answer.usage, micro_dollars: answer.micro_dollars };
                    cost.add(&lost);
                    (answer.usage, answer.micro_dollars) = (cost.usage, cost.micro_dollars);
                    return (Ok(answer), lost);
                }
                failed => return (failed, lost),
            }
        }
    }

    fn pool(&self) -> Result<Arc<Pool>, String> {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn away_max(config: &AgentsConfig) -> Duration {
    Duration::from_secs(config.away_seconds_max)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
