//! The `bottega` command: reads the command line, the environment, the clock and randomness, here and nowhere else.

use std::ffi::OsString;
use std::io::{IsTerminal, Write, stdout};
use std::process::ExitCode;

use clap::Parser;
use jiff::Timestamp;
use master::command::{Cli, CommandError, Host, Success, run};
use master::up::TerminalSize;
use systemd::Environment;
use uuid::Uuid;

fn main() -> ExitCode {
    if let Some(status) = systemd::manual::asked::<Cli>(std::env::args_os()) {
        return status;
    }
    let cli = Cli::parse();
    let mut out = stdout().lock();
    let result = host().and_then(|host| run(cli, &host, &mut out));
    let result = result.and_then(|success| Ok(out.flush().map(|()| success)?));
    match result {
        Ok(Success::Yes) => ExitCode::SUCCESS,
        Ok(Success::No) => ExitCode::FAILURE,
        // As shells say it: 128 and the number of SIGINT.
        Ok(Success::Interrupted) => ExitCode::from(130),
        // Whoever read the output, such as head, has had enough.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bottega: {error}");
            ExitCode::from(error.exit_status())
        }
    }
}

fn host() -> Result<Host, CommandError> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    Ok(Host {
        variables: std::env::vars_os().filter_map(text).collect(),
        environment: Environment::from_os(std::env::vars_os()),
        hostname: systemd::hostname(),
        is_root: nix::unistd::geteuid().is_root(),
        executable: std::env::current_exe()?,
        working_dir: std::env::current_dir()?,
        terminal,
        now: Timestamp::now,
        unique: Uuid::now_v7,
    })
}

fn terminal() -> Option<TerminalSize> {
    let (columns, rows) = terminal_size::terminal_size_of(stdout()).filter(|_| stdout().is_terminal())?;
    Some(TerminalSize { columns: columns.0.into(), rows: rows.0.into() })
}
