//! Diffs as git writes them: their files, and which of them are tests.
//!
//! Nothing here changes a byte of a file's part. What is split is put together again by applying both sides, in
//! either order: `master/tests/patches.rs` asks git.

mod check;
mod file;
mod path;
mod split;
mod test_paths;

pub use check::check_patch;
pub use file::{Binary, FileDiff, files};
pub use split::{Split, split};
pub use test_paths::{TEST_WORDS, TestPaths};
