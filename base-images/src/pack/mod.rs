//! Turns what an image needs into tar archives: small files of our own, and whole interpreter trees.

mod archive;
mod files;
mod keep;
mod relocate;

pub(crate) use archive::{create, list_tree, write_files, write_tree};
pub(crate) use files::{ENVIRONMENT, ImageFile, PREFIX, check_script, interpreter_files, root_files};
pub(crate) use keep::Keep;
pub(crate) use relocate::Relocation;
