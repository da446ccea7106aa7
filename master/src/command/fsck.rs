use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use queue_format::{Check, Checked, Depth, Finding, Severity, Spool, Step};
use serde_json::json;

use super::operate::FsckArguments;
use super::{CommandError, Success};
use crate::show::shell_word;
use crate::text::{clean_line, plural};

/// Findings of one kind that are shown to people; all are in the JSON.
const SHOWN_MAX: usize = 20;

/// The version of the JSON that `fsck --json` prints. 1: first.
const FORMAT: u32 = 1;

/// Checks a spool, and repairs it on demand.
pub(super) fn run(arguments: &FsckArguments, out: &mut dyn Write) -> Result<Success, CommandError> {
    let spool = Spool::open(&arguments.spool.spool)?;
    let depth = if arguments.names_only { Depth::Names } else { Depth::Contents };
    let mut report =
        Report { out, is_json: arguments.json, seen: BTreeMap::new(), written: Ok(()), repairs: Vec::new() };
    let checked = spool.fsck(depth, &mut |finding| report.take(finding))?;
    let Report { out, seen, written, repairs, .. } = report;
    written?;
    if !arguments.json {
        for ((_, check), count) in seen.iter().filter(|(_, count)| **count > SHOWN_MAX) {
            writeln!(out, "and {} more: {}", count - SHOWN_MAX, name_of(*check))?;
        }
    }
    let mut tally = Tally::of(&seen);
    if arguments.repair {
        for (severity, steps) in &repairs {
            if repair(&spool, steps, arguments.json, out)? {
                tally.repaired += 1;
                tally.errors -= usize::from(*severity == Severity::Error);
            }
        }
    }
    summarise(&checked, &tally, repairs.len(), arguments, out)?;
    Ok((tally.errors == 0).into())
}

struct Report<'a> {
    out: &'a mut dyn Write,
    is_json: bool,
    seen: BTreeMap<(Severity, Check), usize>,
    written: std::io::Result<()>,
    repairs: Vec<(Severity, Vec<Step>)>,
}

#[derive(Default)]
struct Tally {
    errors: usize,
    warnings: usize,
    notes: usize,
    repaired: usize,
}

impl Report<'_> {
    fn take(&mut self, finding: Finding) {
        let seen = self.seen.entry((finding.severity, finding.check)).or_default();
        *seen += 1;
        if self.written.is_ok() && (self.is_json || *seen <= SHOWN_MAX) {
            self.written = self.print(&finding);
        }
        if !finding.repair.is_empty() {
            self.repairs.push((finding.severity, finding.repair));
        }
    }

    fn print(&mut self, finding: &Finding) -> std::io::Result<()> {
        if self.is_json {
            return writeln!(self.out, "{}", json!({ "format": FORMAT, "finding": finding }));
        }
        let severity = match finding.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let path = clean_line(&finding.path.display().to_string());
        writeln!(
            self.out,
            "{severity:7}  {path}\n         {}: {}",
            name_of(finding.check),
            clean_line(&finding.what)
        )?;
        writeln!(self.out, "         → {}", clean_line(&finding.remedy))?;
        for step in &finding.repair {
            writeln!(self.out, "         $ {}", command(step))?;
        }
        Ok(())
    }
}

impl Tally {
    fn of(seen: &BTreeMap<(Severity, Check), usize>) -> Self {
        let mut tally = Self::default();
        for ((severity, _), count) in seen {
            match severity {
                Severity::Error => tally.errors += count,
                Severity::Warning => tally.warnings += count,
                Severity::Note => tally.notes += count,
            }
        }
        tally
    }
}

/// Every step of one repair; the later ones make no sense without the first.
fn repair(spool: &Spool, steps: &[Step], is_json: bool, out: &mut dyn Write) -> Result<bool, CommandError> {
    for step in steps {
        let is_done = spool.mend(step)?;
        if is_json {
            writeln!(out, "{}", json!({ "format": FORMAT, "repair": step, "done": is_done }))?;
        } else if is_done {
            writeln!(out, "{}", command(step))?;
        } else {
            writeln!(out, "left as it is, for it has changed meanwhile: {}", command(step))?;
        }
        if !is_done {
            return Ok(false);
        }
    }
    Ok(true)
}

fn summarise(
    checked: &Checked,
    tally: &Tally,
    repairs: usize,
    arguments: &FsckArguments,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let Tally { errors, warnings, notes, repaired } = tally;
    if arguments.json {
        let line = json!({
            "format": FORMAT, "checked": checked, "errors": errors, "warnings": warnings, "notes": notes,
            "repairs": repairs, "repaired": repaired,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let Checked { pending, delayed, hold, claimed, done, failed, attempts, files_read } = checked;
    let tasks = plural(pending + delayed + hold + claimed + done + failed, "task");
    writeln!(
        out,
        "{tasks}: {pending} pending, {delayed} delayed, {hold} on hold, {claimed} claimed, {done} done, {failed} failed; {}, {} read",
        plural(*attempts, "attempt"),
        plural(*files_read, "file"),
    )?;
    let left = if *repaired > 0 { " left" } else { "" };
    write!(
        out,
        "{}{left}, {}, {}",
        plural(*errors, "error"),
        plural(*warnings, "warning"),
        plural(*notes, "note")
    )?;
    match (arguments.repair, repairs) {
        (true, _) if *errors > 0 && *repaired > 0 => {
            writeln!(out, "; {repaired} repaired: check again, what was moved may have been several of them")
        }
        (true, _) => writeln!(out, "; {repaired} repaired"),
        (false, 0) => writeln!(out),
        (false, repairs) => writeln!(out, "; --repair mends {repairs} of them, with the commands shown"),
    }?;
    Ok(())
}

/// A step as a person would type it.
fn command(step: &Step) -> String {
    let word = |path: &Path| shell_word(&clean_line(&path.display().to_string()));
    let mv = |from: &Path, to: &Path| {
        let dir = to.parent().unwrap_or(to);
        let make = if dir.is_dir() { String::new() } else { format!("mkdir -p {} && ", word(dir)) };
        format!("{make}mv {} {}", word(from), word(to))
    };
    match step {
        Step::Move { from, to } => mv(from, to),
        Step::Aside { from, to, reason } => {
            let beside = format!("{}.reason", to.display());
            format!(
                "{} && echo {} > {}",
                mv(from, to),
                shell_word(&clean_line(reason)),
                word(Path::new(&beside))
            )
        }
        Step::RemoveDir { path } => format!("rmdir {}", word(path)),
        Step::RemoveLeftover { path } => format!("rm {}", word(path)),
    }
}

/// As it stands in the JSON.
fn name_of(check: Check) -> String {
    serde_json::to_value(check).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}
