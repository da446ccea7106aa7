//! The brain that asks a model: explorer, Dockerfile writer, script writer and analyst, each a bounded dialogue, starting
//! from what the [rules](crate::synthesis::Rules) found.
//!
//! ```text
//! Brains ─► Agents ─► dialogue ─► Asker ─► journal: was this asked before? ─► Llm ─► Pool ─► endpoints
//! ```
//! An agent returns text and nothing else: a Dockerfile is linted, a script is put together by us from words, paths are
//! looked up in a list of the tree's files, and the analyst may refuse what the evidence shows but never improve it.

mod agent;
mod answer;
mod asker;
mod babble;
mod brain;
mod checks;
mod config;
mod dialogue;
mod fleet;
mod llm;
mod memory;
mod model;
mod prompt;
mod script;
mod shown;
mod told;
mod tools;
mod words;

pub use asker::{Asker, Budget, NoAnswer, Reply};
pub use brain::{BrainKind, Brains};
pub use config::{AgentsConfig, AnswerLimit, EndpointConfig};
pub use fleet::Fleet;
pub use llm::*;
pub use memory::{Memory, Reference, accepted_in};
pub use model::{AskError, Llm, Model, Used};
pub use prompt::digest as prompts_digest;
pub use told::{Exchange, Told};
