//! What a provider offers, and the survey of all of them.

use std::path::PathBuf;

use crate::catalogue::CATALOGUE;
use crate::providers::{InterpreterTree, ProviderKind, Suite, conda, debian, tree};
use crate::settings::HostSettings;
use crate::version::PythonVersion;

/// A Python that a provider can bring.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The Python.
    pub version: PythonVersion,
    /// Who brings it.
    pub provider: ProviderKind,
    /// Where it comes from, for a person to read.
    pub origin: String,
    pub(crate) suite: Suite,
    pub(crate) interpreter: Interpreter,
}

/// How the interpreter gets into the root.
#[derive(Clone, Debug)]
pub(crate) enum Interpreter {
    /// It is in the root already.
    Debian,
    /// It is copied from the host.
    Tree(InterpreterTree),
    /// It is created by that executable, then copied.
    Conda { executable: PathBuf },
}

/// What one provider says about one Python.
#[derive(Clone, Debug)]
pub struct Source {
    /// The Python.
    pub version: PythonVersion,
    /// The provider asked.
    pub provider: ProviderKind,
    /// Its offer, or why it has none and what would change that.
    pub offer: Result<Offer, String>,
}

/// What the configured providers say about a Python, in the configured order.
pub fn offers(version: PythonVersion, settings: &HostSettings) -> Vec<Source> {
    let ask = |provider: ProviderKind| {
        let offer = match provider {
            ProviderKind::Debian => debian::offer(version),
            ProviderKind::Prefix => tree::offer(version, settings),
            ProviderKind::Conda => conda::offer(version, settings),
        };
        let offer = offer.and_then(|offer| match settings.program(MMDEBSTRAP) {
            Some(_) => Ok(offer),
            None => Err(format!("{MMDEBSTRAP} is not on PATH; install the package {MMDEBSTRAP}")),
        });
        Source { version, provider, offer }
    };
    settings.providers.iter().copied().map(ask).collect()
}

/// The whole catalogue: what every provider says about every Python.
pub fn sources(settings: &HostSettings) -> Vec<Source> {
    CATALOGUE.iter().flat_map(|release| offers(release.version, settings)).collect()
}

/// Every image's root is made by it.
pub(crate) const MMDEBSTRAP: &str = "mmdebstrap";
