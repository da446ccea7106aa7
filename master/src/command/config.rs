use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::cli::{ConfigAction, ConfigArguments};
use super::programs::{find, verb};
use super::{CommandError, Host, Success};
use crate::text::clean;
use crate::up::Role;

/// Prints what the daemons make of a configuration, or tells what is wrong with it.
pub(super) fn run(
    arguments: &ConfigArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    match &arguments.action {
        None => {
            for (index, role) in Role::ALL.into_iter().enumerate() {
                let printed = ask(role, arguments.config.as_deref(), host)?;
                let text = printed.map_err(CommandError::Program)?;
                let gap = if index > 0 { "\n" } else { "" };
                write!(out, "{gap}{text}")?;
            }
            Ok(Success::Yes)
        }
        Some(ConfigAction::Check { file }) => {
            // Said once, instead of by each daemon.
            File::open(file).map_err(|source| CommandError::Open { path: file.clone(), source })?;
            let mut errors: Vec<String> = Vec::new();
            for role in Role::ALL {
                if let Err(why) = ask(role, Some(file), host)?
                    && !errors.contains(&why)
                {
                    errors.push(why);
                }
            }
            match errors.as_slice() {
                [] => writeln!(out, "{}: every key is known to the three daemons", file.display())?,
                errors => return Err(CommandError::Program(errors.join("\n"))),
            }
            Ok(Success::Yes)
        }
    }
}

/// The outer error: the daemon cannot be asked. The inner one: what it says is wrong, without its own name.
fn ask(role: Role, config: Option<&Path>, host: &Host) -> Result<Result<String, String>, CommandError> {
    let program = find(role, host)?;
    let mut command = Command::new(&program);
    command
        .env("RUST_BACKTRACE", "0")
        .args(verb(role))
        .args(["--print-config", "--spool", "."])
        .stdin(Stdio::null());
    if let Some(file) = config {
        command.arg("--config").arg(file);
    }
    let output = command
        .output()
        .map_err(|e| CommandError::Program(format!("cannot start {}: {e}", program.display())))?;
    if output.status.success() {
        return Ok(Ok(clean(&String::from_utf8_lossy(&output.stdout))));
    }
    let said = clean(&String::from_utf8_lossy(&output.stderr));
    let said = said.split("\n\n").next().unwrap_or_default().trim();
    let said = said.trim_start_matches(&format!("{role}: ")).trim_start_matches("Error: ");
    Ok(Err(if said.is_empty() { format!("{role} ended with {}", output.status) } else { said.to_owned() }))
}
