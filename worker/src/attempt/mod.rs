//! One attempt at one task: provision, explore, then rounds of build, evaluate and analyse, until a verdict.
//!
//! ```text
//! provision ─► explore ─► Dockerfile ─► build ─► eval script ─► evaluate ─► analyse ─► verdict
//!                 ▲            ▲                      ▲                        │
//!                 └────────────┴──────── feedback ────┴────────────────────────┘   at most iterations_max times
//! ```
//! An unchanged Dockerfile is not built again.

mod bench;
mod fault;
pub mod journal;
mod log;
mod recorded;
pub mod replay;
mod report;
mod run;
mod self_test;
mod verdict;

pub(crate) use log::took;
pub use recorded::Recorded;
pub use report::{Attempt, Conclusion};
pub use run::{AttemptError, Job, Workshop, attempt};
pub(crate) use verdict::last_lines;
