//! What a spool holds and how fast it moves: what `status`, `up` and the master's summary show.
//!
//! Everything is counted anew from names and manifests; nothing that is kept between two looks is needed.

mod manifests;
mod pace;
mod status;
mod text;

pub use manifests::{Manifests, Outcome};
pub use pace::Pace;
pub use status::Status;
