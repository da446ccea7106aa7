use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::price::micro_dollars;
use super::wire::Reply;
use super::{Answer, ChatRequest, Cost, Failure};
use crate::agents::{AgentsConfig, EndpointConfig};

/// The pause after the first failed try, at most; after each further one twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// So often asked to wait counts as one try: what never fits ends.
const BUSY_A_TRY: u32 = 8;
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
    /// Nobody has an answer to this conversation that can be used.
    #[error("no endpoint has an answer to this conversation: {0}")]
    Unusable(String),
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
    /// Nobody answered, or nobody could answer this.
    pub async fn ask(&self, request: &ChatRequest) -> Result<Answer, CallError> {
        self.ask_counting(request).await.0
    }

    /// As [`Pool::ask`], with what calls have cost that gave no answer.
    pub async fn ask_counting(&self, request: &ChatRequest) -> (Result<Answer, CallError>, Cost) {
        let began = self.now();
        let mut course = Course::default();
        let answered = tokio::time::timeout(self.call_max, self.try_all(request, &mut course)).await;
        let seconds = (self.now().saturating_sub(began).as_secs_f64() * 1000.0).round() / 1000.0;
        let answer = match answered {
            Ok(Ok(answer)) => Ok(Answer { seconds, ..answer }),
            Ok(Err(Failure::TooLong(said))) => Err(CallError::TooLong(said)),
            Ok(Err(Failure::Unusable(said))) => Err(CallError::Unusable(said)),
            Ok(Err(failure)) => Err(unavailable(course.tries, seconds, Some(&failure))),
            Err(_) => Err(unavailable(course.tries, seconds, course.last.as_ref())),
        };
        (answer, course.lost)
    }

    /// Takes up credentials that have changed; tells which, and which cannot be read.
    pub fn reread_keys(&self) -> Vec<Result<String, String>> {
        let dir = self.surroundings.credentials_dir.as_deref();
        let reread = |endpoint: &Arc<Endpoint>| match endpoint.reread_key(dir) {
            Ok(false) => None,
            Ok(true) => Some(Ok(endpoint.config.name.clone())),
            Err(error) => Some(Err(format!("endpoint {}: {error}", endpoint.config.name))),
        };
        self.endpoints.iter().filter_map(reread).collect()
    }

    async fn try_all(&self, request: &ChatRequest, course: &mut Course) -> Result<Answer, Failure> {
        loop {
            let (endpoint, is_probe) = self.choose(course).await?;
            let failure = match self.try_at(&endpoint, is_probe, request, course).await {
                Ok(Some(reply)) => return Ok(answer(&endpoint, request, reply, course.tries)),
                Ok(None) => continue,
                Err(failure) => failure,
            };
            tracing::debug!(endpoint = endpoint.config.name, agent = request.agent, "no answer: {failure}");
            if failure.is_of_conversation() {
                // Another may have a larger window, or another filter.
                course.aside.push((endpoint.config.name.clone(), failure));
                continue;
            }
            if course.tries >= self.tries_max {
                return Err(failure);
            }
            let is_busy = matches!(failure, Failure::Busy { .. });
            course.last = Some(failure);
            // Whoever asks us to wait is not chosen until then: others may answer at once.
            if !is_busy {
                let longest = PAUSE_MIN * 2_u32.pow(course.tries.saturating_sub(1).min(10));
                tokio::time::sleep(longest.min(PAUSE_MAX).mul_f64((self.surroundings.random)())).await;
            }
        }
    }

    /// One try: within the endpoint's concurrency and pace. Being asked to wait hardly counts as one. None was made where
    /// the endpoint went to rest while this call was queued.
    async fn try_at(
        &self,
        endpoint: &Arc<Endpoint>,
        is_probe: bool,
        request: &ChatRequest,
        course: &mut Course,
    ) -> Result<Option<Reply>, Failure> {
        let mut entered = Entered { endpoint, is_probe, tokens: None, is_sent: false };
        let Ok(_room) = endpoint.room.acquire().await else {
            return Err(Failure::Connection("the worker ends".to_owned()));
        };
        let guess = request.tokens_guess() + u64::from(request.answer_tokens_max);
        let wait = {
            let (mut state, now) = (endpoint.state(), self.now());
            let rest = state.not_before.saturating_sub(now);
            let may = is_probe || state.fuse.is_closed();
            may.then(|| rest.max(state.requests.take(1, now)).max(state.tokens.take(guess, now)))
        };
        let Some(wait) = wait else { return Ok(None) };
        entered.tokens = Some(guess);
        tokio::time::sleep(wait).await;
        let sent = self.now();
        let rests = {
            let state = endpoint.state();
            (!is_probe && !state.fuse.is_closed()) || state.not_before > sent
        };
        if rests {
            return Ok(None);
        }
        entered.is_sent = true;
        let (reply, ended) = endpoint.call(request).await;
        let usage = reply.is_begun().then(|| reply.usage(request));
        entered.tokens = None;
        let mut state = endpoint.state();
        state.tokens.correct(guess, usage.map_or(0, |usage| usage.total()));
        match &ended {
            Ok(()) => {
                state.fuse.answered();
                (state.busy_in_a_row, state.to_mend) = (0, None);
            }
            Err(Failure::Busy { retry_after, .. }) => {
                state.busy_in_a_row += u32::from(state.not_before <= sent);
                let own = PAUSE_MIN * 2_u32.pow(state.busy_in_a_row.saturating_sub(1).min(10));
                let wait = retry_after.unwrap_or_default().max(own.min(PAUSE_MAX));
                let until = self.now() + wait.mul_f64(1.0 + (self.surroundings.random)() / 4.0);
                state.not_before = state.not_before.max(until);
            }
            Err(failure) if failure.is_strike() => {
                let was_closed = state.fuse.is_closed();
                state.fuse.failed(self.now(), failure.needs_a_person(), (self.surroundings.random)());
                entered.is_probe = false;
                state.to_mend = failure.needs_a_person().then(|| failure.clone());
                if was_closed && !state.fuse.is_closed() {
                    tracing::warn!(endpoint = endpoint.config.name, "rests: {failure}");
                }
            }
            Err(_) => {}
        }
        drop(state);
        match &ended {
            Err(Failure::Busy { .. }) => {
                course.busy += 1;
                course.tries += u32::from(course.busy.is_multiple_of(BUSY_A_TRY));
            }
            _ => course.tries += 1,
        }
        if let (Err(_), Some(usage)) = (&ended, usage) {
            course.lost.add(&Cost { usage, micro_dollars: micro_dollars(&endpoint.config, &usage) });
        }
        ended.map(|()| Some(reply))
    }

    /// An endpoint that may be asked now, by weight among those with room, and whether this call is the one that tries
    /// whether it is up again. While every one rests it waits; where none will be of use before a person has mended it, or
    /// nobody is left who has not said that this conversation is none for it, that is the end.
    async fn choose(&self, course: &Course) -> Result<(Arc<Endpoint>, bool), Failure> {
        loop {
            let now = self.now();
            let is_left = |endpoint: &&Arc<Endpoint>| {
                course.aside.iter().all(|(name, _)| *name != endpoint.config.name)
            };
            let left: Vec<_> = self.endpoints.iter().filter(is_left).collect();
            let rests = |endpoint: &Arc<Endpoint>| {
                let state = endpoint.state();
                state.not_before.saturating_sub(now).max(state.fuse.rest(now))
            };
            let able: Vec<_> = left.iter().copied().filter(|endpoint| rests(endpoint).is_zero()).collect();
            let free: Vec<_> =
                able.iter().copied().filter(|endpoint| endpoint.room.available_permits() > 0).collect();
            if let Some(chosen) = self.weighted(if free.is_empty() { &able } else { &free }) {
                let mut state = chosen.state();
                if state.fuse.enter(now).is_zero() {
                    let is_probe = !state.fuse.is_closed();
                    drop(state);
                    return Ok((chosen, is_probe));
                }
            }
            // What a person has to mend of each that rests.
            let down: Vec<Option<Failure>> = left
                .iter()
                .map(|endpoint| endpoint.state())
                .filter(|state| !state.fuse.rest(now).is_zero())
                .map(|state| state.to_mend.clone())
                .collect();
            if let Some((_, said)) = course.aside.first()
                && down.len() == left.len()
            {
                return Err(said.clone());
            }
            let to_mend: Vec<Failure> = down.into_iter().flatten().collect();
            if to_mend.len() == left.len()
                && let Some(last) = to_mend.into_iter().next_back()
            {
                return Err(last);
            }
            let soonest = left.iter().map(|endpoint| rests(endpoint)).min().unwrap_or_default();
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

/// What one call has seen so far.
#[derive(Default)]
struct Course {
    tries: u32,
    busy: u32,
    last: Option<Failure>,
    /// Who is not asked about this conversation any more, and why.
    aside: Vec<(String, Failure)>,
    lost: Cost,
}

/// A call that is dropped on its way leaves fuse and paces as they were.
struct Entered<'a> {
    endpoint: &'a Endpoint,
    is_probe: bool,
    /// What was taken of its pace.
    tokens: Option<u64>,
    is_sent: bool,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut state = self.endpoint.state();
        if self.is_probe {
            state.fuse.left();
        }
        if let Some(tokens) = self.tokens {
            state.tokens.correct(tokens, 0);
            if !self.is_sent {
                state.requests.correct(1, 0);
            }
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
    let same = same.into_iter().find(|known| known.config == *config && known.key() == new.key());
    Ok(same.cloned().unwrap_or_else(|| Arc::new(new)))
}

fn answer(endpoint: &Endpoint, request: &ChatRequest, reply: Reply, tries: u32) -> Answer {
    let usage = reply.usage(request);
    Answer {
        is_whole: reply.finish.as_deref() != Some("length"),
        // A key that came back must not get into a journal.
        reasoning: reply.reasoning.as_ref().map(|thought| endpoint.scrub(thought)),
        text: endpoint.scrub(&reply.into_text()),
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
