//! One attempt at a run task: any command, in a container of any image or on the node itself.
//!
//! ```text
//! inputs ─► (pull) ─► run: one command, or a bundle of them one after another ─► outputs ─► verdict
//! ```
//! A native command has a supervisor of its own: a process that ends everything the command has started when it ends,
//! at its deadline, and when the worker is gone, however it went.

mod bundle;
mod container;
mod group;
mod inputs;
mod job;
mod native;
mod outputs;
mod processes;
mod share;
mod supervisor;
mod verdict;

pub use job::{Job, RunError, run};
pub use native::{end_native_commands_of, end_native_commands_of_the_dead, native_processes_in};
pub(crate) use share::share;
pub use share::{kinds, knows, takes};
pub use supervisor::{SUPERVISE, supervise};
