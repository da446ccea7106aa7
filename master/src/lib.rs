//! The master: publishes tasks, keeps the summary, exports results; and the `bottega` command.

pub mod command;
pub mod daemon;
pub mod explain;
pub mod export;
pub mod filter;
pub mod github;
pub mod ingest;
pub mod patch;
mod pulse;
pub mod run;
pub mod show;
pub mod summary;
pub mod text;
pub mod up;
