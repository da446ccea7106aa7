use std::io::Write;

use queue_format::Spool;

use super::cli::SpoolArguments;
use super::{CommandError, Host, Success};

/// Makes a spool, or finds that it is one.
pub(super) fn run(
    arguments: &SpoolArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    let was_there = arguments.spool.join("spool.toml").exists();
    let spool = Spool::init(&arguments.spool, (host.unique)())?;
    let what = if was_there { "is a spool already" } else { "is a spool now" };
    writeln!(out, "{} {what} (uuid {})", spool.layout().root().display(), spool.id())?;
    Ok(Success::Yes)
}
