//! A worker: claims tasks, builds and evaluates each environment in containers pinned to a slot, publishes the
//! attempt. See ARCHITECTURE.md for the stages; each has a module here.

pub mod agents;
pub mod allocator;
pub mod attempt;
pub mod board;
pub mod breaker;
pub mod config;
pub mod disk;
pub mod engine;
pub mod evaluate;
pub mod git;
pub mod poll;
pub mod prepare;
pub mod pulse;
pub mod repository;
pub mod run;
pub mod seats;
pub mod slots;
pub mod synthesis;
mod tls;
pub mod topology;
mod work_dir;
mod worker;

pub use worker::{Begun, Left, Mandate, Worker, awaited_cpus, left_behind};
