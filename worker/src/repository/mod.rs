//! From a bare repository to a clean tree at the base commit, without a trace of the future.

mod cache;
mod copy;
mod incomplete;
mod partial;
mod provision;

pub use cache::{BareRepository, GitTimeouts, RepositoryCache};
pub use provision::{Checkout, ProvisionError, provision};
