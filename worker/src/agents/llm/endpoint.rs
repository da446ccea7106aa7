use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::header::{AUTHORIZATION, DATE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Proxy, Response};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::fuse::Fuse;
use super::pace::Pace;
use super::pool::PoolError;
use super::stream::Events;
use super::wire::{self, Reply};
use super::{ChatRequest, Failure, Key, KeyError};
use crate::agents::EndpointConfig;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// The longest text of an answer, in bytes for each token that is asked for: no token is longer on the average.
const TOKEN_BYTES_MAX: usize = 16;
/// The most of a refusal that is read, in bytes.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// How long a stream that has said its end is listened to: what it took may follow.
const AFTER_FINISH_MAX: Duration = Duration::from_secs(5);
/// The longest that a connection takes.
const CONNECT_MAX: Duration = Duration::from_secs(20);

/// One place to ask, with all that is known of how it gets on.
pub(super) struct Endpoint {
    pub(super) config: EndpointConfig,
    key: RwLock<Option<Key>>,
    pub(super) room: Semaphore,
    pub(super) state: Mutex<State>,
    client: Client,
}

pub(super) struct State {
    pub(super) requests: Pace,
    pub(super) tokens: Pace,
    pub(super) fuse: Fuse,
    /// It asked us to wait until then.
    pub(super) not_before: Duration,
    /// How often it asked since it last answered; calls that it sends away together count once.
    pub(super) busy_in_a_row: u32,
    /// What a person has to mend before it is of any use.
    pub(super) to_mend: Option<Failure>,
}

impl Endpoint {
    pub(super) fn new(config: &EndpointConfig, credentials_dir: Option<&Path>) -> Result<Self, PoolError> {
        let named = |why: String| PoolError::Endpoint { name: config.name.clone(), why };
        let key = key_of(config, credentials_dir).map_err(|error| named(error.to_string()))?;
        crate::tls::install();
        // A key is for this host alone.
        let builder = Client::builder().redirect(Policy::none()).connect_timeout(CONNECT_MAX);
        let builder = match config.proxy.as_str() {
            "" => builder.no_proxy(),
            proxy => builder.proxy(Proxy::all(proxy).map_err(|error| named(error.to_string()))?),
        };
        let client = builder.build().map_err(|error| named(error.to_string()))?;
        let state = State {
            requests: Pace::new(config.requests_per_minute.into()),
            tokens: Pace::new(config.tokens_per_minute),
            fuse: Fuse::default(),
            not_before: Duration::ZERO,
            busy_in_a_row: 0,
            to_mend: None,
        };
        let room = Semaphore::new(config.concurrency_max as usize);
        let (key, state) = (RwLock::new(key), Mutex::new(state));
        Ok(Self { config: config.clone(), key, room, state, client })
    }

    pub(super) fn key(&self) -> Option<Key> {
        self.key.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up a credential that has changed: with a new key it may well let us in.
    ///
    /// # Errors
    /// It cannot be read: the key that there was stays.
    pub(super) fn reread_key(&self, credentials_dir: Option<&Path>) -> Result<bool, KeyError> {
        let key = key_of(&self.config, credentials_dir)?;
        if key == self.key() {
            return Ok(false);
        }
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = key;
        let mut state = self.state();
        (state.fuse, state.to_mend) = (Fuse::default(), None);
        Ok(true)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one call, within the time of one try; what came is told however it ended, for it may have to be paid.
    pub(super) async fn call(&self, request: &ChatRequest) -> (Reply, Result<(), Failure>) {
        let bound = Duration::from_secs(self.config.timeout_seconds);
        let key = self.key();
        let bytes_max = TOKEN_BYTES_MAX.saturating_mul(request.answer_tokens_max as usize);
        let mut reply = Reply::within(bytes_max, key.clone(), self.config.tools && !request.tools.is_empty());
        let called = timeout(bound, self.exchange(request, key.as_ref(), &mut reply)).await;
        let ended = called.unwrap_or(Err(Failure::TimedOut("timeout_seconds are over")));
        let ended = ended.and_then(|()| reply.check());
        (reply, ended)
    }

    async fn exchange(
        &self,
        request: &ChatRequest,
        key: Option<&Key>,
        reply: &mut Reply,
    ) -> Result<(), Failure> {
        let url = format!("{}/chat/completions", self.config.url.trim_end_matches('/'));
        let mut call = self.client.post(url).json(&wire::body(&self.config, request));
        if let Some(header) = key.and_then(Key::header) {
            call = call.header(AUTHORIZATION, header);
        }
        let response = call.send().await.map_err(|error| self.broken(&error))?;
        let status = response.status().as_u16();
        if status != 200 {
            let header =
                |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let (retry_after, date) = (header(RETRY_AFTER), header(DATE));
            let body = self.read(response, REFUSAL_BYTES_MAX).await.unwrap_or_default();
            let body = self.scrub(&String::from_utf8_lossy(&body));
            return Err(Failure::of_status(status, retry_after.as_deref(), date.as_deref(), &body));
        }
        if self.config.stream {
            return self.listen(response, reply).await;
        }
        let body = self.read(response, ANSWER_BYTES_MAX).await?;
        reply.take(&String::from_utf8_lossy(&body))
    }

    async fn listen(&self, response: Response, reply: &mut Reply) -> Result<(), Failure> {
        let silence = Duration::from_secs(self.config.silence_seconds);
        let (mut events, mut pieces, mut bytes) = (Events::default(), response.bytes_stream(), 0);
        while !events.is_done() && !reply.is_full() {
            // Some say that they are done, and neither say so again nor hang up.
            let patience = if reply.is_finished() { silence.min(AFTER_FINISH_MAX) } else { silence };
            let piece = match timeout(patience, pieces.next()).await {
                Ok(Some(piece)) => piece.map_err(|error| self.broken(&error))?,
                Ok(None) => break,
                Err(_) if reply.is_finished() => return Ok(()),
                Err(_) => return Err(Failure::TimedOut("the stream fell silent")),
            };
            bytes += piece.len();
            if bytes > ANSWER_BYTES_MAX {
                return Err(too_large());
            }
            events.take(&piece, reply)?;
        }
        if reply.is_full() { Ok(()) } else { events.close(reply) }
    }

    async fn read(&self, response: Response, most: usize) -> Result<Vec<u8>, Failure> {
        let (mut pieces, mut body) = (response.bytes_stream(), Vec::new());
        while let Some(piece) = pieces.next().await {
            body.extend_from_slice(&piece.map_err(|error| self.broken(&error))?);
            if body.len() > most {
                return Err(too_large());
            }
        }
        Ok(body)
    }

    pub(super) fn scrub(&self, text: &str) -> String {
        self.key().map_or_else(|| text.to_owned(), |key| key.scrub(text))
    }

    /// With all its causes, of which reqwest's own words leave out the last.
    fn broken(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() {
            return Failure::TimedOut("the connection was not made in time");
        }
        Failure::Connection(self.scrub(&systemd::chain(error)))
    }
}

fn key_of(config: &EndpointConfig, credentials_dir: Option<&Path>) -> Result<Option<Key>, KeyError> {
    match config.key.as_str() {
        "" => Ok(None),
        name => Key::read(credentials_dir, name).map(Some),
    }
}

fn too_large() -> Failure {
    Failure::Garbled("it is larger than any answer".to_owned())
}
