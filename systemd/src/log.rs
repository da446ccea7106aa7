//! Where records go: the journal where systemd reads the daemon's stderr, lines for people elsewhere.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::Environment;

/// Where the records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Structured, to the journal.
    Journal,
    /// Lines, to stderr.
    Stderr,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is none.
    #[error(
        "{filter:?} is not a log filter: {source}; use error, warn, info, debug, trace, or info,janitor=debug"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A subscriber is there already.
    #[error("logging is set up already")]
    Again(#[from] TryInitError),
}

/// It warns of every directory that goes while it is watched: those of a spool come and go.
const QUIET: &str = "notify=error";

/// What lets the filter be changed; there is one process-wide subscriber, and so one of these.
static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Sets logging up for the whole process. `filter` is a level, or directives such as `info,janitor=debug`.
///
/// # Errors
/// The filter is malformed, or logging is set up already.
pub fn init(filter: &str, environment: &Environment) -> Result<Sink, LogError> {
    let (parsed, handle) = reload::Layer::new(parse(filter)?);
    let wants_journal = environment.get("JOURNAL_STREAM").is_some_and(|id| is_stream(io::stderr(), id));
    let (journal, fallback) = match wants_journal.then(tracing_journald::layer) {
        Some(Ok(journal)) => (Some(journal), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let (sink, layer): (Sink, Box<dyn Layer<Registry> + Send + Sync>) = match journal {
        // A field `task` is asked for as TASK=: no program of ours has a field that journald gives a meaning to.
        Some(journal) => (Sink::Journal, Box::new(journal.with_field_prefix(None))),
        None => (Sink::Stderr, Box::new(lines())),
    };
    tracing_subscriber::registry().with(layer.with_filter(parsed)).try_init()?;
    let _ = FILTER.set(handle);
    if let Some(error) = fallback {
        tracing::warn!("the journal does not answer ({error}); records go to stderr");
    }
    Ok(sink)
}

/// Logs by another filter from now on, where [`init`] was called.
///
/// # Errors
/// The filter is malformed.
pub fn set_filter(filter: &str) -> Result<(), LogError> {
    let parsed = parse(filter)?;
    if let Some(handle) = FILTER.get() {
        // It fails only where the subscriber is gone: then nobody hears anyway.
        let _ = handle.reload(parsed);
    }
    Ok(())
}

/// Whether a filter is one.
///
/// # Errors
/// It is malformed.
pub fn check_filter(filter: &str) -> Result<(), LogError> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let parsed = EnvFilter::builder().parse(format!("{QUIET},{filter}"));
    parsed.map_err(|source| LogError::Filter { filter: filter.to_owned(), source })
}

fn lines<S>() -> impl Layer<S> + Send + Sync
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal())
}

/// Whether `fd` is the stream that `JOURNAL_STREAM` names: `<device>:<inode>`, both decimal. The variable alone
/// proves nothing, for it is inherited by a daemon whose stderr was redirected.
fn is_stream(fd: impl AsFd, journal_stream: &str) -> bool {
    let Ok(found) = nix::sys::stat::fstat(fd) else { return false };
    journal_stream == format!("{}:{}", found.st_dev, found.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_journal_is_used_only_where_stderr_is_it() {
        let file = tempfile::tempfile().expect("file");
        let found = file.metadata().expect("metadata");
        let check = |id: String, expected: bool| assert_eq!(is_stream(&file, &id), expected, "{id}");
        check(format!("{}:{}", found.dev(), found.ino()), true);
        check(format!("{}:{}", found.dev(), found.ino() + 1), false);
        check(String::new(), false);
        check("nonsense".to_owned(), false);
    }

    #[test]
    fn a_bad_filter_is_refused_and_a_good_one_is_taken_once() {
        let refused = init("info,janitor=loud", &Environment::default()).expect_err("no such level");
        assert!(refused.to_string().contains("janitor=debug"), "{refused}");
        set_filter("trace").expect("nothing to change yet");
        assert_eq!(init("error", &Environment::default()).expect("first"), Sink::Stderr);
        let is_heard = || tracing::enabled!(tracing::Level::DEBUG);
        assert!(!is_heard());
        set_filter("debug").expect("a level");
        assert!(is_heard());
        let is_watcher_heard = || tracing::enabled!(target: "notify::inotify", tracing::Level::WARN);
        assert!(!is_watcher_heard());
        set_filter("debug,notify=debug").expect("a level");
        assert!(is_watcher_heard());
        set_filter("info,janitor=loud").expect_err("no level");
        assert!(is_heard(), "what is malformed changes nothing");
        set_filter("error").expect("a level");
        assert!(matches!(init("error", &Environment::default()), Err(LogError::Again(_))));
    }
}
