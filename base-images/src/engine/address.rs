//! Where an engine is looked for, and what is said where none is.

use std::error::Error;

/// As `DOCKER_HOST` says it, where that does not.
pub const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// No engine answers.
#[derive(Debug, thiserror::Error)]
#[error(
    "no container engine answers at {address}: {}; start it (systemctl start docker), set DOCKER_HOST, or, where it denies access, join its group (usermod -aG docker)",
    root_of(source)
)]
pub struct Unreachable {
    /// Where it was looked for.
    pub address: String,
    /// What was said.
    pub source: bollard::errors::Error,
}

/// The cause below all others: those above it are of the client's parts.
fn root_of<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
        .last()
        .unwrap_or(error)
}
