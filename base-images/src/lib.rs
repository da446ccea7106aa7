//! The catalogue of `openswe-python-*` images and how each is made on this host.

mod catalogue;
mod version;

pub use catalogue::{CATALOGUE, Choice, Release, choose, nearest, release_of};
pub use version::{IMAGE_PREFIX, Installer, ParsePythonVersionError, PythonVersion};
