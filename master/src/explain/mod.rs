//! Why a task is where it is and not further: everything that keeps it there, and how it came there.

mod reasons;
mod scene;
mod timeline;

pub use scene::Scene;
pub use timeline::{Moment, timeline};
