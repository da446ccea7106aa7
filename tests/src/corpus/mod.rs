//! The corpus of real tasks: pairs of releases of real packages, made into repositories and rows.
//!
//! ```text
//! tasks.toml ──► fetch (container: pip's own index) ──► sdists/<file>          cached, sha256 verified
//!                                                          │ unpack
//!            DIR/repositories/<owner>+<name>/repo ◄── base, fix (git) ──► DIR/tasks.jsonl, DIR/expected.json
//! ```
//!
//! Nothing of the packages lies in this repository: the table names them, and they are fetched at run time.
//! Commit ids are the same in every run, on every machine: authors, dates and trees depend on the table alone.

mod compare;
mod error;
mod fetch;
mod git;
mod make;
mod outcomes;
mod repository;
mod sdist;
mod table;

pub use compare::{Comparison, Expectation, Expectations, Outcome, Outcomes, compare};
pub use error::CorpusError;
pub use fetch::{Downloader, FETCH_IMAGE};
pub use make::{Made, Selection, look, make};
pub use outcomes::outcomes;
pub use table::{Edit, EditAt, Package, Release, Table, Task};
