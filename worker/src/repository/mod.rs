//! From a bare repository to a clean tree at the base commit, without a trace of the future.

mod blobs;
mod cache;
mod commit;
mod copy;
mod incomplete;
mod partial;
mod provision;
mod snapshot;
mod source_tree;

pub(crate) use blobs::Blobs;
pub use cache::{BareRepository, GitTimeouts, RepositoryCache};
pub use provision::{Checkout, ProvisionError, provision};
pub(crate) use source_tree::FileKind;
pub use source_tree::SourceTree;
