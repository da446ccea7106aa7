//! What a spool holds and how fast it moves: what `status`, `up` and the master's summary show.
//!
//! Everything is counted from names; what is kept between two looks only saves listing what did not change.

mod status;
mod text;
mod watch;

pub use status::Status;
pub use watch::Watch;
