//! From rows of datasets to tasks in `pending/`: what `bottega submit` and the master's look into `incoming/` share.
//!
//! A row that is not valid is refused by line and field and kept aside in `incoming/rejected/`; the rest goes on.
//! Whether a well-formed patch applies is found out by the worker that tries.

mod candidate;
mod columns;
mod commits;
mod fields;
mod lines;
mod read;
mod repository;
mod row;
mod run;
mod scratch;
mod split;
mod unpack;

pub use commits::Looking;
pub(crate) use fields::{kind, whole_number};
pub use lines::{Line, Lines};
pub(crate) use read::RawRow;
pub use read::{Row, Rows};
pub use repository::{Template, check_repository};
pub use row::{Refusal, instance_of, task_of};
#[cfg(test)]
pub(crate) use run::PROGRESS_ROWS;
pub use run::{Ingest, IngestError, Report, Source};
