//! Asking models: any endpoint that speaks the chat-completions protocol.
//!
//! A [`Pool`] has several [endpoints](EndpointConfig), each with its key, pace, concurrency and fuse; a call that fails
//! at one goes on at another until it is answered, its tries are used up or its time is over. Nothing here knows what is
//! asked.

mod chat;
mod endpoint;
mod failure;
mod fuse;
mod key;
mod pace;
mod pool;
mod price;
mod stream;
mod wire;

pub use chat::{Answer, ChatRequest, Cost, Message, Speaker, Tool, Usage};
pub use failure::Failure;
pub use key::{Key, KeyError};
pub use pool::{CallError, Pool, PoolError, Surroundings};
pub use price::dollars;

#[cfg(doc)]
use super::EndpointConfig;
