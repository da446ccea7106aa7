use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use queue_format::{Spool, SpoolError};
use systemd::Source;

use super::cli::{ConfigAction, ConfigArguments};
use super::programs::{find, verb};
use super::{CommandError, Host, Success};
use crate::daemon::MasterConfig;
use crate::filter::FilterConfig;
use crate::text::clean;
use crate::up::Role;

/// What TimeoutStopSec= of the worker's unit leaves time for.
const DRAIN_SECONDS_MAX: u64 = 600;
/// What a worker needs after its drain, to hand back and remove what is left.
const DRAIN_SLACK_SECONDS: u64 = 60;

/// Prints what the daemons and `bottega ingest` make of a configuration, or tells what is wrong with it.
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
            let source = Source::named_or_default(arguments.config.clone());
            let ingest = systemd::config::load_checked(&source, "ingest", FilterConfig::check)?;
            write!(out, "\n{}", systemd::config::print(&ingest, "ingest")?)?;
            Ok(Success::Yes)
        }
        Some(ConfigAction::Check { file }) => {
            let named = file.as_ref().or(arguments.config.as_ref());
            check(named.map_or(Path::new(systemd::config::DEFAULT_PATH), PathBuf::as_path), host, out)
        }
    }
}

fn check(file: &Path, host: &Host, out: &mut dyn Write) -> Result<Success, CommandError> {
    // Said once, instead of by each daemon.
    File::open(file).map_err(|source| CommandError::Open { path: file.to_owned(), source })?;
    let mut errors: Vec<String> = Vec::new();
    let mut effective = String::new();
    for role in Role::ALL {
        match ask(role, Some(file), host)? {
            Ok(printed) => effective.push_str(&printed),
            Err(why) => {
                let new: Vec<_> =
                    why.lines().filter(|line| !errors.iter().any(|said| said == line)).collect();
                errors.extend(new.into_iter().map(ToOwned::to_owned));
            }
        }
    }
    let source = Source::Named(file.to_owned());
    let ingest = systemd::config::load_checked(&source, "ingest", FilterConfig::check);
    for line in ingest.err().map(|error| error.to_string()).iter().flat_map(|why| why.lines()) {
        if !errors.iter().any(|said| said == line) {
            errors.push(line.to_owned());
        }
    }
    if !errors.is_empty() {
        return Err(CommandError::Program(errors.join("\n")));
    }
    writeln!(out, "{}: every key is known", file.display())?;
    for note in notes(file, host).into_iter().chain(long_drain(&effective)).chain(no_room_made(&effective)) {
        writeln!(out, "note: {note}")?;
    }
    Ok(Success::Yes)
}

/// What is missing on this machine, of a file that is valid.
fn notes(file: &Path, host: &Host) -> Vec<String> {
    let source = Source::Named(file.to_owned());
    let mut notes = Vec::new();
    match systemd::config::spool(&source) {
        Ok(Some(spool)) => {
            let shown = spool.display();
            match Spool::open(&spool) {
                Ok(_) => {}
                Err(SpoolError::Denied(_)) => notes.push(format!(
                    "spool: {shown} is not for this user; ask as the daemons': runuser -u bottega -- bottega config check"
                )),
                Err(_) => notes.push(format!(
                    "spool: {shown} is no spool, or not mounted; make one with: bottega init --spool {shown}"
                )),
            }
        }
        Ok(None) if !has_units_spool() => {
            notes.push("spool is not set: the units of systemd do not start without it".to_owned());
        }
        _ => {}
    }
    let master: Option<MasterConfig> = systemd::config::load(&source, "master").ok();
    if let Some(template) = master.and_then(|config| config.repositories) {
        // Up to the first placeholder, and there to the directory.
        let fixed = template.split('{').next().unwrap_or_default();
        let dir = fixed.rsplit_once('/').map(|(dir, _)| host.working_dir.join(dir));
        if let Some(dir) = dir.filter(|dir| !template.contains("://") && !dir.is_dir()) {
            notes.push(format!("master.repositories: there is no directory {}", dir.display()));
        }
    }
    notes
}

/// Whether the units' own file names a spool: that of a second worker of a node need not.
fn has_units_spool() -> bool {
    systemd::config::spool(&Source::named_or_default(None)).is_ok_and(|spool| spool.is_some())
}

/// A number of the effective configuration.
fn value<T: FromStr>(effective: &str, key: &str) -> Option<T> {
    effective.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = ")?.parse().ok())
}

/// A disk that is too full for the worker before it is for the janitor.
fn no_room_made(effective: &str) -> Option<String> {
    let (free, reserved): (f64, f64) =
        (value(effective, "disk_free_gib")?, value(effective, "reserved_disk_gib")?);
    (reserved > 0.0 && free <= reserved).then(|| {
        format!(
            "janitor.disk_free_gib ({free}) is not above worker.reserved_disk_gib ({reserved}): workers may wait for room that \
             nobody makes"
        )
    })
}

/// A drain that the units of systemd cut off.
fn long_drain(effective: &str) -> Option<String> {
    let seconds: u64 = value(effective, "drain_seconds").filter(|seconds| *seconds > DRAIN_SECONDS_MAX)?;
    Some(format!(
        "worker.drain_seconds: systemd ends a worker {} s after it was told to stop; for {seconds} s, give it \
         TimeoutStopSec={} by: systemctl edit bottega-worker",
        DRAIN_SECONDS_MAX + DRAIN_SLACK_SECONDS,
        seconds + DRAIN_SLACK_SECONDS,
    ))
}

/// The outer error: the daemon cannot be asked. The inner one: what it says is wrong, without its own name.
fn ask(role: Role, config: Option<&Path>, host: &Host) -> Result<Result<String, String>, CommandError> {
    let program = find(role, host)?;
    let mut command = Command::new(&program);
    command.env("RUST_BACKTRACE", "0").args(verb(role)).arg("--print-config").stdin(Stdio::null());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_do_not_go_together_are_told() {
        let check = |text: &str, expected: Option<&str>| {
            let told = long_drain(text).or(no_room_made(text));
            let begins = expected.map(|begin| told.as_ref().is_some_and(|told| told.starts_with(begin)));
            assert!(begins.unwrap_or(told.is_none()), "{text:?}: {told:?}");
        };
        check("", None);
        check("drain_seconds = 600\nreserved_disk_gib = 5.0\ndisk_free_gib = 10.0\n", None);
        check("drain_seconds = 601\n", Some("worker.drain_seconds: systemd ends a worker 660 s after"));
        check(
            "reserved_disk_gib = 10.0\ndisk_free_gib = 10.0\n",
            Some("janitor.disk_free_gib (10) is not above"),
        );
        check("reserved_disk_gib = 0.0\ndisk_free_gib = 0.0\n", None);
    }
}
