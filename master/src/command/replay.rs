use std::io::Write;
use std::process::{Command, Stdio};

use super::cli::ReplayArguments;
use super::programs::find;
use super::{CommandError, Host, Success};
use crate::text::clean;
use crate::up::Role;

/// Has the worker make an attempt again, for what makes attempts is its own.
pub(super) fn run(
    arguments: &ReplayArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    let program = find(Role::Worker, host)?;
    let mut command = Command::new(&program);
    command
        .env("RUST_BACKTRACE", "0")
        .arg("--spool")
        .arg(&arguments.spool.spool)
        .args(["replay", &arguments.id]);
    if let Some(attempt) = &arguments.attempt {
        command.args(["--attempt", attempt]);
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| CommandError::Program(format!("cannot start {}: {e}", program.display())))?;
    write!(out, "{}", clean(&String::from_utf8_lossy(&output.stdout)))?;
    if output.status.success() {
        return Ok(Success::Yes);
    }
    let said = clean(&String::from_utf8_lossy(&output.stderr));
    Err(CommandError::Program(said.trim().trim_start_matches("bottega-worker: ").to_owned()))
}
