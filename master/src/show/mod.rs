//! One task's page: where is it, why, what did it cost, what should I do.

mod advice;
mod conversation;
mod gather;
mod json;
mod nearest;
mod text;

pub use advice::shell_word;
pub use conversation::tell_conversation;
pub use gather::{Attempt, Log, Page};
pub use nearest::{Nearest, find_id};
pub(crate) use text::stage_sums;
