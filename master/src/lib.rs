//! The master: publishes tasks, keeps the summary, exports results; and the `bottega` command.

pub mod ingest;
pub mod summary;
pub mod text;
