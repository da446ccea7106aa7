//! Commands as tasks: what `bottega run` publishes, and how it follows them.

mod array;
mod follow;
mod plan;
mod publish;
mod quantity;

pub use array::{Items, LineError};
pub use follow::{Followed, follow};
pub use plan::{Plan, PlanError, Template};
pub use publish::{Published, Publishing, RunError};
pub use quantity::{parse_bytes, parse_seconds};
