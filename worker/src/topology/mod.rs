//! What the machine is made of, and what of it this process may use: CPUs, physical cores, NUMA nodes, memory.
//!
//! [`Topology::read`] takes the root under which `/sys` and `/proc` lie, so that a recording of another machine is read
//! like this one; [`record`] makes such a recording.

mod cgroup;
mod kind;
mod read;
mod recording;
mod tell;
mod tree;
mod types;

pub(crate) use cgroup::MOUNT;
pub use queue_format::CpuSet;
pub use read::online_cpus;
pub use recording::{record, unpack};
pub use tell::recording_of_this_machine;
pub use types::{Core, CoreKind, NumaNode, Topology};
