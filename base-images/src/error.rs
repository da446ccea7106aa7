//! What can go wrong, one variant a step.

use std::path::{Path, PathBuf};

use crate::providers::Source;
use crate::version::PythonVersion;

/// Why an image was not built, or the engine not asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The engine refused, or did not answer.
    #[error("the container engine could not {step}; if none runs here, systemd/set-up.sh starts one")]
    Engine {
        /// What was asked.
        step: &'static str,
        /// What the engine, or the way to it, said.
        source: bollard::errors::Error,
    },
    /// The engine did as asked but named no image.
    #[error("the container engine was asked to {step} and named no image; see its own log")]
    NoImage {
        /// What was asked.
        step: &'static str,
    },
    /// A file or directory of this host.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a Python that there is.
    #[error("Python {version} is not in the catalogue, which goes from {oldest} to {newest}")]
    NotInCatalogue {
        /// The Python that was asked for.
        version: PythonVersion,
        /// The oldest that is.
        oldest: PythonVersion,
        /// The newest that is.
        newest: PythonVersion,
    },
    /// Nobody can bring this Python.
    #[error(
        "no provider has Python {version}: {}; nearest that can be built here: {}",
        reasons(sources),
        list(nearest)
    )]
    NoProvider {
        /// The Python that was asked for.
        version: PythonVersion,
        /// What each provider said.
        sources: Vec<Source>,
        /// Those that can be built, nearest first.
        nearest: Vec<PythonVersion>,
    },
    /// A program of this host failed.
    #[error("{program} failed ({status}): {}", summary(last_lines))]
    Program {
        /// Its name.
        program: String,
        /// How it ended.
        status: String,
        /// The last it said.
        last_lines: Vec<String>,
    },
    /// A script inside of a container failed.
    #[error("{step} failed with exit status {exit_code}: {}", summary(last_lines))]
    Script {
        /// What the script does.
        step: &'static str,
        /// Its exit status.
        exit_code: i64,
        /// The last it said.
        last_lines: Vec<String>,
    },
    /// A step took too long.
    #[error(
        "{step} did not end within {limit_seconds} s; look at the network, or try again on a quieter machine"
    )]
    TimedOut {
        /// The step.
        step: &'static str,
        /// The limit.
        limit_seconds: u64,
    },
    /// Another build holds the working directory.
    #[error("another build has held {path} for {waited_seconds} s; wait for it, or give another directory", path = path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        waited_seconds: u64,
    },
}

impl BuildError {
    pub(crate) fn engine(step: &'static str) -> impl FnOnce(bollard::errors::Error) -> Self {
        move |source| Self::Engine { step, source }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// Whether the provider's offer is at fault, so that another provider's may do.
    pub(crate) fn is_about_the_offer(&self) -> bool {
        match self {
            Self::Program { .. } | Self::Script { .. } | Self::Io { .. } | Self::TimedOut { .. } => true,
            Self::Engine { .. }
            | Self::NoImage { .. }
            | Self::NotInCatalogue { .. }
            | Self::NoProvider { .. }
            | Self::Busy { .. } => false,
        }
    }
}

/// The end of what a program said, short enough for a message; the error holds more of it.
fn summary(lines: &[String]) -> String {
    const LINES: usize = 4;
    const CHARACTERS: usize = 200;
    let last = &lines[lines.len().saturating_sub(LINES)..];
    let short = |line: &String| line.trim().chars().take(CHARACTERS).collect::<String>();
    let text = last.iter().map(short).collect::<Vec<_>>().join("; ");
    if text.is_empty() { "it said nothing".to_owned() } else { text }
}

fn reasons(sources: &[Source]) -> String {
    let reason =
        |source: &Source| source.offer.as_ref().err().map(|why| format!("{}: {why}", source.provider));
    let reasons: Vec<String> = sources.iter().filter_map(reason).collect();
    if reasons.is_empty() { "none is configured".to_owned() } else { reasons.join("; ") }
}

fn list(versions: &[PythonVersion]) -> String {
    let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
    if versions.is_empty() { "none".to_owned() } else { versions.join(", ") }
}
