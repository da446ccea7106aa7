//! The janitor: removes what finished or dead tasks left on a node (containers, images, work directories), by
//! ownership, and nothing else.
//!
//! One pass goes through five stages; only the first and the last touch the world:
//!
//! ```text
//! observe ──► Inventory ──► spent ───► protect ──► policy ──► marks ──► Plan ──► execute
//! engine, ledger, spool,    whose      what is     zombies,   seen      order,   look again,
//! locks, disks, uses        time is    kept, why   and why    long      limit    then remove
//!                           over                              enough
//! ```
//!
//! **Default deny.** An object is ours only if its labels parse, name our spool and this node, and the node's
//! ledger knows its UUID with the same task, claim and owner. It is a zombie only if, beyond that, its claim is
//! gone from the spool or its worker is proven dead. A zombie is removed only after it was seen as one for a grace
//! period and again just before: by its full id, images without force, children before parents. The engine's
//! prune endpoints are never called: they know no owners, and break builds that run.

mod audit;
mod breaker;
mod config;
mod disk;
mod door;
mod ending;
mod error;
mod execute;
mod explain;
mod here;
mod history;
mod inventory;
mod janitor;
mod maker;
mod marks;
mod memory;
mod metrics;
mod named;
mod observe;
mod plan;
mod policy;
mod protect;
#[cfg(test)]
mod races;
mod resistance;
mod retain;
mod run;
mod show;
mod uses;
mod verify;
mod world;

pub use audit::{AUDIT_FILE, Audit};
pub use breaker::{Breaker, Budget};
pub use config::Config;
pub use disk::{DiskUse, Level, Pressure, Watermarks, pressure};
pub use ending::{Ending, unless_ended};
pub use error::{EngineError, JanitorError};
pub use execute::Report;
pub use explain::explain;
pub use history::{Past, history};
pub use inventory::{ClaimKey, Container, Image, Inventory, Mirror, Objects, WorkDirState};
pub use janitor::{Janitor, Place};
pub use marks::Marks;
pub use metrics::METRICS_FILE;
pub use named::NamedImages;
pub use plan::{Plan, plan};
pub use policy::{Candidate, Patience, Reason, Target, policy};
pub use protect::{Kept, protect};
pub use resistance::Resistance;
pub use retain::{Retention, spent};
pub use run::run;
