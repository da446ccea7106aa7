//! From accepted tasks to datasets.
//!
//! A row is made of the official attempt alone: the one whose token a name in `done/` carries. Its files are held
//! against the digests in its manifest.

mod row;
mod run;

pub use row::Format;
pub use run::{Export, ExportError, Exported, Filter};
