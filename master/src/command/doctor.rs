use std::io::Write;
use std::path::Path;
use std::time::{Instant, SystemTime};

use queue_format::{Diagnosis, Measured, Severity, Space, Spool, Spread};
use serde_json::json;

use super::operate::DoctorArguments;
use super::{CommandError, Host, Success};
use crate::text::{bytes, clean_line, plural};

/// What is mounted, as this process sees it (proc_pid_mountinfo(5)).
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// The version of the JSON that `doctor --json` prints. 1: first.
const FORMAT: u32 = 1;

/// Measures a spool's file system.
pub(super) fn run(
    arguments: &DoctorArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    let spool = Spool::open(&arguments.spool.spool)?;
    let me = host.owner();
    // Without it nothing is known of the mount, and everything else still is.
    let mountinfo = std::fs::read_to_string(MOUNTINFO).unwrap_or_default();
    let began = Instant::now();
    let now = || SystemTime::from((host.now)());
    let diagnosis = spool.examine(&me, &mountinfo, arguments.renames, &|| began.elapsed(), &now)?;
    let is_well = diagnosis.symptoms.iter().all(|symptom| symptom.severity < Severity::Error);
    if arguments.json {
        let mut value = serde_json::to_value(&diagnosis).map_err(std::io::Error::from)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("format".to_owned(), json!(FORMAT));
            object.insert("spool".to_owned(), json!(spool.layout().root()));
        }
        writeln!(out, "{value:#}")?;
    } else {
        print(&diagnosis, spool.layout().root(), out)?;
    }
    Ok(is_well.into())
}

fn print(diagnosis: &Diagnosis, root: &Path, out: &mut dyn Write) -> Result<(), CommandError> {
    let mut line = |label: &str, text: String| writeln!(out, "{label:12} {text}");
    line("spool", clean_line(&root.display().to_string()))?;
    match &diagnosis.mount {
        Some(mount) => {
            let at = clean_line(&mount.mount_point.display().to_string());
            line("mount", format!("{} {} at {at}", mount.file_system, clean_line(&mount.source)))?;
            line("options", clean_line(&mount.options.join(",")))?;
        }
        None => line("mount", format!("unknown: {MOUNTINFO} does not tell"))?,
    }
    let Space { free_bytes, total_bytes, free_files, total_files } = diagnosis.space;
    let files =
        if total_files > 0 { format!("; {free_files} of {total_files} files") } else { String::new() };
    line("free", format!("{} of {}{files}", bytes(free_bytes), bytes(total_bytes)))?;
    if let Some(measured) = &diagnosis.measured {
        let Measured {
            clock_ahead_seconds, clock_uncertainty_seconds, tasks_per_second: (least, most), ..
        } = measured;
        line("rename", format!("{} within a directory", spread(&measured.rename)))?;
        line("", format!("{} into another one", spread(&measured.rename_across)))?;
        line(
            "write",
            format!("{} for a file of 1 KiB, until it is on disk", spread(&measured.create_and_sync)),
        )?;
        line(
            "clock",
            format!(
                "the server's is {clock_ahead_seconds:+.3} s from ours (± {clock_uncertainty_seconds:.3} s)"
            ),
        )?;
        line(
            "expect",
            format!(
                "{least:.0} to {most:.0} tasks a second of each worker: 12 to 9 round trips a task, one result written"
            ),
        )?;
        line(
            "",
            "(a ceiling: what tasks themselves take comes on top; nodes add up until the server is busy)"
                .to_owned(),
        )?;
    }
    for symptom in &diagnosis.symptoms {
        let label = match symptom.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        line(label, clean_line(&symptom.what))?;
        line("", format!("→ {}", clean_line(&symptom.remedy)))?;
    }
    for (index, unseen) in diagnosis.unseen.iter().enumerate() {
        line(if index == 0 { "unseen" } else { "" }, unseen.clone())?;
    }
    let errors = diagnosis.symptoms.iter().filter(|symptom| symptom.severity == Severity::Error).count();
    let warnings = diagnosis.symptoms.iter().filter(|symptom| symptom.severity == Severity::Warning).count();
    writeln!(out, "{}, {}", plural(errors, "error"), plural(warnings, "warning"))?;
    Ok(())
}

fn spread(spread: &Spread) -> String {
    let Spread { median_seconds, p99_seconds, count } = spread;
    format!("{:.3} ms (p99 {:.3} ms, of {count})", median_seconds * 1000.0, p99_seconds * 1000.0)
}
