use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::price::micro_dollars;
use super::wire::Reply;
use super::{Answer, ChatRequest, Failure};
use crate::agents::{AgentsConfig, EndpointConfig};

/// The pause after the first failed try, at most; after each further one twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The pause where every endpoint waits for something.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

/// Several endpoints that are asked as one.
pub struct Pool {
    endpoints: Vec<Arc<Endpoint>>,
    tries_max: u32,
    call_max: Duration,
    surroundings: Surroundings,
}

/// What a pool takes from outside.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where the keys lie.
    pub credentials_dir: Option<PathBuf>,
    /// Time since any fixed moment.
    pub clock: fn() -> Duration,
    /// From 0 to 1.
    pub random: fn() -> f64,
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Nobody says where to ask.
    #[error(
        "no endpoint is configured: add [[worker.agents.endpoints]] (docs/agents.md), or set worker.brain to \"rules\""
    )]
    NoEndpoint,
    /// One cannot be used.
    #[error("endpoint {name}: {why}")]
    Endpoint {
        /// Which.
        name: String,
        /// Why.
        why: String,
    },
}

/// Why a call was not answered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The conversation is longer than the model can read.
    #[error("the conversation is too long for the model: {0}")]
    TooLong(String),
    /// Nobody answered.
    #[error("no endpoint answered within {tries} tries and {seconds} s; the last: {last}")]
    Unavailable {
        /// Tries made.
        tries: u32,
        /// Wall time.
        seconds: u64,
        /// What the last one said.
        last: String,
    },
}

impl Pool {
    /// Of the configuration's endpoints. What `before` knows of those that did not change is kept.
    ///
    /// # Errors
    /// There is none, or the key of one is missing.
    pub fn new(
        config: &AgentsConfig,
        surroundings: Surroundings,
        before: Option<&Self>,
    ) -> Result<Self, PoolError> {
        let dir = surroundings.credentials_dir.as_deref();
        let endpoints = config
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.weight > 0)
            .map(|endpoint| kept_or_new(endpoint, dir, before))
            .collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(PoolError::NoEndpoint);
        }
        let call_max = Duration::from_secs(config.call_seconds_max);
        Ok(Self { endpoints, tries_max: config.tries_max, call_max, surroundings })
    }

    /// Asks until somebody answers, the tries are used up or the time is over.
    ///
    /// # Errors
    /// Nobody answered, or nobody could read it all.
    pub async fn ask(&self, request: &ChatRequest) -> Result<Answer, CallError> {
        let began = self.now();
        let (mut tries, mut last) = (0, None);
        let answered =
            tokio::time::timeout(self.call_max, self.try_all(request, &mut tries, &mut last)).await;
        let seconds = (self.now().saturating_sub(began).as_secs_f64() * 1000.0).round() / 1000.0;
        match answered {
            Ok(Ok(answer)) => Ok(Answer { seconds, ..answer }),
            Ok(Err(Failure::TooLong(said))) => Err(CallError::TooLong(said)),
            Ok(Err(failure)) => Err(unavailable(tries, seconds, Some(&failure))),
            Err(_) => Err(unavailable(tries, seconds, last.as_ref())),
        }
    }

    async fn try_all(
        &self,
        request: &ChatRequest,
        tries: &mut u32,
        last: &mut Option<Failure>,
    ) -> Result<Answer, Failure> {
        loop {
            let endpoint = self.choose(last).await?;
            let failure = match self.try_at(&endpoint, request, tries).await {
                Ok(reply) => return Ok(answer(&endpoint, request, reply, *tries)),
                Err(failure) => failure,
            };
            tracing::debug!(endpoint = endpoint.config.name, agent = request.agent, "no answer: {failure}");
            let is_over = !failure.is_retryable() || *tries >= self.tries_max;
            let is_busy = matches!(failure, Failure::Busy { .. });
            if is_over {
                return Err(failure);
            }
            *last = Some(failure);
            // Whoever asks us to wait is not chosen until then: others may answer at once.
            if !is_busy {
                let longest = PAUSE_MIN * 2_u32.pow(tries.saturating_sub(1).min(10));
                tokio::time::sleep(longest.min(PAUSE_MAX).mul_f64((self.surroundings.random)())).await;
            }
        }
    }

    /// One try: within the endpoint's concurrency and pace. Being asked to wait does not count as one.
    async fn try_at(
        &self,
        endpoint: &Arc<Endpoint>,
        request: &ChatRequest,
        tries: &mut u32,
    ) -> Result<Reply, Failure> {
        let entered = Entered::new(endpoint);
        let Ok(_room) = endpoint.room.acquire().await else {
            return Err(Failure::Connection("the worker ends".to_owned()));
        };
        let guess = request.tokens_guess() + u64::from(request.answer_tokens_max);
        let wait = {
            let (mut state, now) = (endpoint.state(), self.now());
            let paced = state.requests.take(1, now).max(state.tokens.take(guess, now));
            // It may have asked to wait while this call was queued.
            paced.max(state.not_before.saturating_sub(now))
        };
        tokio::time::sleep(wait).await;
        let called = endpoint.call(request).await;
        let mut state = endpoint.state();
        let used = called.as_ref().map_or(0, |reply| reply.usage(request).total());
        state.tokens.correct(guess, used);
        match &called {
            Ok(_) => state.fuse.answered(),
            Err(Failure::Busy { retry_after, .. }) => {
                let wait =
                    retry_after.unwrap_or(PAUSE_MIN * 4).mul_f64(1.0 + (self.surroundings.random)() / 4.0);
                state.not_before = state.not_before.max(self.now() + wait);
                state.fuse.left();
            }
            Err(failure) if failure.is_strike() => {
                let was_closed = state.fuse.is_closed();
                state.fuse.failed(self.now(), failure.needs_a_person(), (self.surroundings.random)());
                if was_closed && !state.fuse.is_closed() {
                    tracing::warn!(endpoint = endpoint.config.name, "rests: {failure}");
                }
            }
            Err(_) => state.fuse.left(),
        }
        drop(state);
        entered.told();
        if !matches!(called, Err(Failure::Busy { .. })) {
            *tries += 1;
        }
        called
    }

    /// An endpoint that may be asked now, by weight among those with room. While every one rests it waits; where none will
    /// be of use before a person has mended it, that is the end.
    async fn choose(&self, last: &Option<Failure>) -> Result<Arc<Endpoint>, Failure> {
        loop {
            let now = self.now();
            let rests = |endpoint: &&Arc<Endpoint>| {
                let state = endpoint.state();
                state.not_before.saturating_sub(now).max(state.fuse.rest(now))
            };
            let able: Vec<_> = self.endpoints.iter().filter(|endpoint| rests(endpoint).is_zero()).collect();
            let free: Vec<_> =
                able.iter().copied().filter(|endpoint| endpoint.room.available_permits() > 0).collect();
            if let Some(chosen) = self.weighted(if free.is_empty() { &able } else { &free })
                && chosen.state().fuse.enter(now).is_zero()
            {
                return Ok(chosen);
            }
            if let Some(failure) = last.as_ref().filter(|failure| failure.needs_a_person())
                && able.is_empty()
            {
                return Err(failure.clone());
            }
            let soonest = self.endpoints.iter().map(|endpoint| rests(&endpoint)).min().unwrap_or_default();
            tokio::time::sleep(soonest.max(LOOK_PERIOD).mul_f64(1.0 + (self.surroundings.random)() / 4.0))
                .await;
        }
    }

    fn weighted(&self, among: &[&Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        let all: u64 = among.iter().map(|endpoint| u64::from(endpoint.config.weight)).sum();
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let mut at = (self.surroundings.random)() * all as f64;
        for endpoint in among {
            at -= f64::from(endpoint.config.weight);
            if at < 0.0 {
                return Some((*endpoint).clone());
            }
        }
        among.last().map(|endpoint| (*endpoint).clone())
    }

    fn now(&self) -> Duration {
        (self.surroundings.clock)()
    }
}

/// A call that is dropped on its way leaves the fuse as it was.
struct Entered<'a>(Option<&'a Endpoint>);

impl<'a> Entered<'a> {
    fn new(endpoint: &'a Endpoint) -> Self {
        Self(Some(endpoint))
    }

    fn told(mut self) {
        self.0 = None;
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if let Some(endpoint) = self.0 {
            endpoint.state().fuse.left();
        }
    }
}

fn kept_or_new(
    config: &EndpointConfig,
    credentials_dir: Option<&Path>,
    before: Option<&Pool>,
) -> Result<Arc<Endpoint>, PoolError> {
    let new = Endpoint::new(config, credentials_dir)?;
    let same = before.into_iter().flat_map(|pool| &pool.endpoints);
    let same = same.into_iter().find(|known| known.config == *config && known.key == new.key);
    Ok(same.cloned().unwrap_or_else(|| Arc::new(new)))
}

fn answer(endpoint: &Endpoint, request: &ChatRequest, reply: Reply, tries: u32) -> Answer {
    let usage = reply.usage(request);
    Answer {
        is_whole: reply.finish.as_deref() != Some("length"),
        // A key that came back must not get into a journal.
        text: endpoint.scrub(&reply.text),
        reasoning: reply.reasoning.map(|thought| endpoint.scrub(&thought)),
        usage,
        endpoint: endpoint.config.name.clone(),
        model: endpoint.config.model.clone(),
        micro_dollars: micro_dollars(&endpoint.config, &usage),
        tries,
        seconds: 0.0,
    }
}

fn unavailable(tries: u32, seconds: f64, last: Option<&Failure>) -> CallError {
    let last = last.map_or_else(|| "every endpoint was resting".to_owned(), ToString::to_string);
    CallError::Unavailable { tries, seconds: seconds as u64, last }
}
