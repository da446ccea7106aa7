//! Debian's releases: the Python of each, and the root that every image stands on.

use std::fmt;

use crate::providers::{Interpreter, Offer, ProviderKind};
use crate::version::PythonVersion;

/// A Debian release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Debian 11.
    Bullseye,
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    Trixie,
}

/// What every root holds: what sdists and tests need, and Debian's own Python, whose dependencies are the run-time
/// libraries that any other CPython links. Debian's Python is also the one uv resolves with where it cannot run
/// the environment's.
pub(crate) const ROOT_PACKAGES: [&str; 13] = [
    "bash",
    "build-essential",
    "ca-certificates",
    "curl",
    "git",
    "netbase",
    "pkg-config",
    "procps",
    "python3-dev",
    "python3-gdbm",
    "python3-tk",
    "python3-venv",
    "tzdata",
];

/// Parts of the standard library that Debian splits off; gone with Python 3.12.
const SPLIT_PACKAGES: [&str; 2] = ["python3-distutils", "python3-lib2to3"];

impl Suite {
    pub(crate) const ALL: [Self; 3] = [Self::Bullseye, Self::Bookworm, Self::Trixie];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    /// The Python that the release ships.
    pub(crate) const fn python(self) -> PythonVersion {
        match self {
            Self::Bullseye => PythonVersion::new(3, 9),
            Self::Bookworm => PythonVersion::new(3, 11),
            Self::Trixie => PythonVersion::new(3, 13),
        }
    }

    /// The minor number of its glibc 2.x: what programs built elsewhere may need at most.
    pub(crate) const fn glibc_minor(self) -> u32 {
        match self {
            Self::Bullseye => 31,
            Self::Bookworm => 36,
            Self::Trixie => 41,
        }
    }

    /// Packages of its root beyond [`ROOT_PACKAGES`].
    pub(crate) fn extra_packages(self) -> &'static [&'static str] {
        match self {
            Self::Bullseye | Self::Bookworm => &SPLIT_PACKAGES,
            Self::Trixie => &[],
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// Debian's own Python of that version, or why there is none.
pub(super) fn offer(version: PythonVersion) -> Result<Offer, String> {
    let suite = Suite::ALL.into_iter().find(|suite| suite.python() == version);
    let suite = suite.ok_or_else(|| {
        let shipped: Vec<String> = Suite::ALL.iter().map(|suite| suite.python().to_string()).collect();
        format!("Debian's releases ship {}", shipped.join(", "))
    })?;
    Ok(Offer {
        version,
        provider: ProviderKind::Debian,
        suite,
        interpreter: Interpreter::Debian,
        origin: format!("Debian {suite}"),
    })
}
