//! The `bottega` command: one module a subcommand. Each says what it does to `out`, and gives whether that was a
//! success.

mod cli;
mod config;
mod doctor;
mod error;
mod explain;
mod export;
mod fsck;
mod host;
mod images;
mod ingest;
mod init;
mod operate;
mod programs;
mod replay;
mod retry;
mod run;
mod show;
mod status;
mod steer;
mod submit;
mod telling;
mod up;

pub use cli::{Cli, Command};
pub use error::CommandError;
pub use host::Host;

use std::io::Write;

/// Whether everything that was asked for was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// Yes.
    Yes,
    /// Not all of it; what is missing was said.
    No,
    /// A person ended it before.
    Interrupted,
}

impl From<bool> for Success {
    fn from(is_success: bool) -> Self {
        if is_success { Self::Yes } else { Self::No }
    }
}

/// Runs a command.
///
/// # Errors
/// What it could not do, in one sentence that says what to do next.
pub fn run(cli: Cli, host: &Host, out: &mut dyn Write) -> Result<Success, CommandError> {
    match cli.command {
        Command::Init(arguments) => init::run(&arguments, host, out),
        Command::Ingest(arguments) => ingest::run(&arguments, host, out),
        Command::Submit(arguments) => submit::run(&arguments, host, out),
        Command::Run(arguments) => run::run(&arguments, host, out),
        Command::Up(arguments) => up::run(&arguments, host, out),
        Command::Status(arguments) => status::run(&arguments, host, out),
        Command::Show(arguments) => show::run(&arguments, host, out),
        Command::Replay(arguments) => replay::run(&arguments, host, out),
        Command::Retry(arguments) => retry::run(&arguments, out),
        Command::Cancel(arguments) => steer::cancel(&arguments, out),
        Command::Hold(arguments) => steer::hold(&arguments, out),
        Command::Pause(arguments) => steer::pause(&arguments, out),
        Command::Resume(arguments) => steer::resume(&arguments, out),
        Command::Drain(arguments) => steer::drain(&arguments, out),
        Command::Explain(arguments) => explain::run(&arguments, host, out),
        Command::Doctor(arguments) => doctor::run(&arguments, host, out),
        Command::Fsck(arguments) => fsck::run(&arguments, out),
        Command::Export(arguments) => export::run(&arguments, out),
        Command::Images(arguments) => images::run(arguments, host, out),
        Command::Config(arguments) => config::run(&arguments, host, out),
    }
}
