//! The container engine behind one narrow trait: what the stages need of it, and nothing that is Docker's own.
//!
//! [`Docker`] is the engine of today: every limit set on each container and read back, every object in the node's
//! ledger before it is made, nothing left when a future is dropped.

mod adopt;
mod build;
mod build_stream;
mod cgroup;
mod connect;
mod container;
mod context;
mod contract;
mod disk;
mod docker;
pub mod dockerfile;
mod files;
mod lookup;
mod network;
mod node;
mod output;
mod parent;
pub(crate) mod plain_bytes;
mod removal;
mod strain;
mod unlisted;
mod watch;

pub(crate) use cgroup::{Cgroup, Oom, processes_in};
pub use connect::{Docker, DockerOptions, EngineFacts};
pub(crate) use container::program_status;
pub use context::context_stream;
pub use contract::*;
pub(crate) use files::too_large;
pub use node::NodeEngine;
pub(crate) use output::HeadTail;
pub use parent::SlotGroups;
