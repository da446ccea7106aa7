use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::AgentsConfig;
use super::babble::Babble;
use super::fleet::Fleet;
use super::llm::{Answer, CallError, ChatRequest, Cost, Message, Pool, PoolError, Surroundings};

/// How often a call looks whether the fleet may spend again, and whether a pause is over.
const PAUSE_LOOK_PERIOD: Duration = Duration::from_millis(500);
/// The longest answer to a question that only tells whether anybody answers, in tokens.
const PROBE_TOKENS_MAX: u32 = 16;

/// How long nothing is begun that needs a model after nobody has answered, and until an attempt asks again.
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
    away_max: Mutex<Duration>,
    /// Nobody answered, or not to the purpose; why, and until when nobody is asked on purpose.
    away: Mutex<Option<(Duration, String)>>,
    babble: Mutex<Babble>,
    /// Questions that came back with anything: who asked another one in vain meanwhile was not failed by the endpoint.
    answered: AtomicU64,
}

/// What asking has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Used {
    /// What calls without an answer have cost.
    pub cost: Cost,
    /// Wall time of all tries; without pauses of the fleet, and without the time in which nobody was answered.
    pub seconds: f64,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AskError {
    /// The conversation is longer than the model can read.
    #[error("the conversation is too long for the model: {0}")]
    TooLong(String),
    /// Nobody has an answer to it that can be used.
    #[error("no endpoint has an answer to this conversation: {0}")]
    Unusable(String),
    /// Nobody answers anything.
    #[error("{0}")]
    Away(String),
    /// Others are answered, and this is not.
    #[error("others are answered, and this conversation never is: {0}")]
    Alone(String),
    /// What it may use is used up.
    #[error("{0}")]
    Spent(String),
}

impl From<CallError> for AskError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::TooLong(said) => Self::TooLong(said),
            CallError::Unusable(said) => Self::Unusable(said),
            CallError::Unavailable { .. } => Self::Away(error.to_string()),
        }
    }
}

impl Llm {
    /// Of a configuration; where that gives no pool, each call says why.
    #[must_use]
    pub fn new(config: &AgentsConfig, surroundings: Surroundings) -> Self {
        let pool = Pool::new(config, surroundings.clone(), None).map(Arc::new);
        let pool = RwLock::new(pool.map_err(|error| error.to_string()));
        let away_max = Mutex::new(away_max(config));
        let (fleet, away, babble) = (Fleet::default(), Mutex::default(), Mutex::default());
        Self { surroundings, fleet, pool, away_max, away, babble, answered: AtomicU64::new(0) }
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
        let now = self.now();
        let is_yet = |(until, _): &(Duration, String)| now < *until;
        let away = locked(&self.away).clone().filter(is_yet);
        let pause = locked(&self.babble).obstacle(now);
        self.pool().err().or(away.map(|(_, why)| why)).or(pause)
    }

    /// A conversation came to an answer that can be used, or to none for this reason.
    pub(super) fn came_to(&self, answer: Result<(), &str>) {
        locked(&self.babble).came_to(answer, self.now());
    }

    /// The last answer of a conversation was refused.
    pub(super) fn was_refused(&self, why: &str) {
        locked(&self.babble).was_refused(why, self.now());
    }

    /// What models have cost, here and elsewhere.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Asks. Waits where the fleet has spent what it may or models babble; for so long as is configured, where nobody
    /// answers; and tells in the end what was used, answer or not. `spent` says what is used up, with what this call has used
    /// by then: it is asked before each time that is tried anew.
    ///
    /// # Errors
    /// Nobody answered, nobody could answer this, or it may not be asked on.
    pub async fn ask(
        &self,
        request: &ChatRequest,
        spent: impl Fn(&Used) -> Option<String>,
    ) -> (Result<Answer, AskError>, Used) {
        let (mut used, mut is_last) = (Used::default(), false);
        let mut away_since: Option<Duration> = None;
        loop {
            let asked_at = self.now();
            self.until_allowed().await;
            // Who may not ask does not wait for an endpoint.
            let paused = self.now().saturating_sub(asked_at);
            away_since = away_since.map(|since| since + paused);
            let (began, answered) = (self.now(), self.answered.load(Ordering::Relaxed));
            let (asked, lost) = self.once(request).await;
            used.cost.add(&lost);
            let took = self.now().saturating_sub(began).as_secs_f64();
            let last = match asked {
                Err(CallError::Unavailable { .. }) => {
                    asked.err().map(|error| error.to_string()).unwrap_or_default()
                }
                asked => {
                    used.seconds = rounded(used.seconds + took);
                    return (asked.map(|answer| whole(answer, &mut used)).map_err(AskError::from), used);
                }
            };
            // What fails while others are answered is this conversation's to wait for; where nobody is, nobody's.
            let are_others = is_last || self.answered.load(Ordering::Relaxed) > answered;
            if are_others {
                used.seconds = rounded(used.seconds + took);
            } else {
                *locked(&self.away) = Some((self.now() + AWAY_PAUSE, last.clone()));
            }
            if let Some(why) = spent(&used) {
                return (Err(AskError::Spent(why)), used);
            }
            if is_last {
                return (Err(AskError::Alone(last)), used);
            }
            let since = *away_since.get_or_insert(began);
            if self.now().saturating_sub(since) + AWAY_PAUSE > *locked(&self.away_max) {
                if !self.answers_another().await {
                    return (Err(AskError::Away(last)), used);
                }
                is_last = true;
                continue;
            }
            tokio::time::sleep(AWAY_PAUSE).await;
        }
    }

    /// One call, which the fleet pays.
    async fn once(&self, request: &ChatRequest) -> (Result<Answer, CallError>, Cost) {
        let (asked, lost) = match self.pool() {
            Ok(pool) => pool.ask_counting(request).await,
            Err(last) => (Err(CallError::Unavailable { tries: 0, seconds: 0, last }), Cost::default()),
        };
        let paid = asked.as_ref().map_or(0, |answer| answer.micro_dollars);
        self.fleet.charge(lost.micro_dollars.saturating_add(paid));
        if !matches!(asked, Err(CallError::Unavailable { .. })) {
            self.answered.fetch_add(1, Ordering::Relaxed);
            *locked(&self.away) = None;
        }
        (asked, lost)
    }

    /// Whether anybody answers a question that nothing is wrong with: then it is not the endpoints that are away.
    async fn answers_another(&self) -> bool {
        let request = ChatRequest {
            agent: "probe".to_owned(),
            messages: vec![Message::user("Say yes.".to_owned())],
            answer_tokens_max: PROBE_TOKENS_MAX,
            tools: Vec::new(),
        };
        !matches!(self.once(&request).await.0, Err(CallError::Unavailable { .. }))
    }

    async fn until_allowed(&self) {
        while self.fleet.obstacle().is_some() || locked(&self.babble).obstacle(self.now()).is_some() {
            tokio::time::sleep(PAUSE_LOOK_PERIOD).await;
        }
    }

    fn now(&self) -> Duration {
        (self.surroundings.clock)()
    }

    fn pool(&self) -> Result<Arc<Pool>, String> {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// To milliseconds: it is kept, and shown.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// The answer with all that was used for it.
fn whole(mut answer: Answer, used: &mut Used) -> Answer {
    used.cost.add(&Cost { usage: answer.usage, micro_dollars: answer.micro_dollars });
    (answer.usage, answer.micro_dollars, answer.seconds) =
        (used.cost.usage, used.cost.micro_dollars, used.seconds);
    answer
}

fn away_max(config: &AgentsConfig) -> Duration {
    Duration::from_secs(config.away_seconds_max)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
