//! Pull requests from GitHub: collected into a directory, from where they are filtered as any rows are.
//!
//! What was collected is only added to; how far it came is one small file, replaced as a whole after every pull request.
//! Whoever is killed goes on there, and what was written beyond is cut off: no pull request is missed, none stands there
//! twice.

mod answer;
mod candidate;
mod client;
mod collect;
mod compare;
mod journal;
mod links;
mod pages;
mod patience;
mod progress;
mod query;
mod reader;
mod search;
mod store;
mod tokens;
mod waiting;

pub use collect::{Collector, Repositories};
pub use links::{IssueLink, closed_issues};
pub use patience::Patience;
pub use progress::{Progress, Waits};
pub use store::{PASSED_FILE, PULLS_FILE, SKIPPED_FILE};

use std::io;
use std::path::PathBuf;

/// Why collecting ended before its end. The next run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum GithubError {
    /// The server cannot be asked, or does not answer as GitHub does.
    #[error("{url}: {why}; run the same command again to go on from here")]
    Failed {
        /// What was asked.
        url: String,
        /// What happened.
        why: String,
    },
    /// A search that finds more than the server shows.
    #[error(
        "{query:?} finds more than {shown} repositories with {stars} stars; part it by another qualifier, such as created:2019-01-01..2019-12-31"
    )]
    TooMany {
        /// The search.
        query: String,
        /// How many of them the server shows.
        shown: usize,
        /// The stars that they all have.
        stars: u64,
    },
    /// Every token was refused.
    #[error(
        "the server knows none of the tokens; set BOTTEGA_GITHUB_TOKENS to valid ones, with commas between them"
    )]
    NoToken,
    /// HTTP itself.
    #[error("cannot prepare HTTPS requests: {0}")]
    Client(String),
    /// What was collected lost a part.
    #[error(
        "{} has {length} bytes, of which not all are rows, and had {bytes}; restore it, or remove it to begin anew",
        path.display()
    )]
    Torn {
        /// The file.
        path: PathBuf,
        /// What it has.
        length: u64,
        /// What it had.
        bytes: u64,
    },
    /// What was collected is from elsewhere.
    #[error("{} holds what {server} has; name another --out for another server", dir.display())]
    OtherServer {
        /// The directory.
        dir: PathBuf,
        /// Where it is from.
        server: String,
    },
    /// What was collected cannot be read or written.
    #[error("cannot use {}: {source}; free space there, or name another directory", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
