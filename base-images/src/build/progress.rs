//! What a build tells while it goes on.

use std::fmt;

use crate::providers::ProviderKind;
use crate::version::PythonVersion;

/// One piece of news; its text is a line for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Another process builds in the same directory.
    Waiting,
    /// The Debian root that images share is being made.
    Root {
        /// The Debian release.
        suite: &'static str,
    },
    /// The interpreter is being put into its root.
    Interpreter {
        /// The Python.
        python: PythonVersion,
        /// Who brings it.
        provider: ProviderKind,
        /// Where it comes from.
        origin: String,
    },
    /// The finished image is being checked from inside.
    Check {
        /// The Python.
        python: PythonVersion,
    },
    /// A provider failed and the next one is tried.
    NextProvider {
        /// The Python.
        python: PythonVersion,
        /// Who failed.
        failed: ProviderKind,
        /// Why.
        reason: String,
    },
    /// A line that a program said.
    Line(String),
}

impl fmt::Display for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => write!(formatter, "waiting for another build in the same directory"),
            Self::Root { suite } => write!(formatter, "making the Debian {suite} root that images share"),
            Self::Interpreter { python, provider, origin } => {
                write!(formatter, "Python {python}: putting it in from {provider} ({origin})")
            }
            Self::Check { python } => write!(formatter, "Python {python}: checking the image from inside"),
            Self::NextProvider { python, failed, reason } => {
                write!(formatter, "Python {python}: {failed} failed, trying the next provider: {reason}")
            }
            Self::Line(line) => write!(formatter, "  {line}"),
        }
    }
}
