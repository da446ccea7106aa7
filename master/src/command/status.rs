use std::io::Write;
use std::time::Duration;

use queue_format::Spool;

use super::cli::StatusArguments;
use super::{CommandError, Host, Success};
use crate::summary::{Status, Watch};

/// How often `--watch` looks.
const WATCH: Duration = Duration::from_secs(2);

/// Cursor home, clear to the end (ECMA-48: CUP, ED).
const HOME: &str = "\u{1b}[H\u{1b}[J";

/// Counts tasks, once or until it is interrupted.
pub(super) fn run(
    arguments: &StatusArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    let spool = Spool::open(&arguments.spool.spool)?;
    let mut watch = Watch::default();
    loop {
        let status = Status::ask(&spool, &mut watch, (host.now)())?;
        if arguments.watch && host.columns().is_some() {
            write!(out, "{HOME}")?;
        }
        if arguments.json && arguments.watch {
            writeln!(out, "{}", status.to_json())?;
        } else if arguments.json {
            writeln!(out, "{:#}", status.to_json())?;
        } else {
            write!(out, "{}", status.to_text())?;
        }
        out.flush()?;
        if !arguments.watch {
            return Ok(Success::Yes);
        }
        std::thread::sleep(WATCH);
    }
}
