//! One task's page: where is it, why, what did it cost, what should I do.

mod advice;
mod gather;
mod json;
mod nearest;
mod text;

pub use advice::shell_word;
pub use gather::{Attempt, Log, Page};
pub use nearest::{find_id, nearest_ids};
pub(crate) use text::stage_sums;
