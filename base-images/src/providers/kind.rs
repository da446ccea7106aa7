//! The names of the providers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Who brings the interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// The Python of a Debian release, in a virtual environment.
    Debian,
    /// An interpreter tree of the host, such as pyenv's or a module tree's.
    Prefix,
    /// An environment made by the host's conda, mamba or micromamba.
    Conda,
}

/// A word that names no provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no provider; there are: debian, prefix, conda")]
pub struct ParseProviderError {
    text: String,
}

impl ProviderKind {
    /// Every provider, in the order in which they are asked by default: Debian's Python is the same on every node.
    pub const ALL: [Self; 3] = [Self::Debian, Self::Prefix, Self::Conda];

    /// The provider's name, as in labels and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Prefix => "prefix",
            Self::Conda => "conda",
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for ProviderKind {
    type Err = ParseProviderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|kind| kind.name() == text);
        named.ok_or_else(|| ParseProviderError { text: text.to_owned() })
    }
}
