use std::collections::BTreeMap;

use queue_format::{Condition, RunEnd, RunRecord, TestStatus};

use super::junit::{self, Report};
use super::script;
use super::telling;
use super::wrapper::{REPORT_PATH, STATUS_PATH, Vouched, vouched};
use crate::engine::{ContainerEnd, RunOutcome};
use crate::synthesis::{EvalScript, ReportKind};

/// pytest's status for a command that it cannot begin, such as one whose conftest.py cannot be imported.
const USAGE_ERROR: i32 = 4;
/// A shell's statuses for a command that is not there or cannot be run.
const NOT_RUN: [i32; 2] = [126, 127];

/// A run as it is judged, with sentences about what a person should know of it.
pub(super) struct Recorded {
    pub(super) run: RunRecord,
    pub(super) notes: Vec<String>,
}

/// Reads what a container left. Only a run whose end the wrapper vouches for has tests.
pub(super) fn record(
    condition: Condition,
    repeat: u32,
    nonce: &str,
    script: &EvalScript,
    outcome: &RunOutcome,
) -> Recorded {
    let mut notes = outcome.warnings.clone();
    let (end, exit_code) = match outcome.end {
        ContainerEnd::TimedOut => (RunEnd::TimedOut, None),
        ContainerEnd::OutOfMemory => (RunEnd::OutOfMemory, None),
        ContainerEnd::DiskFull => {
            notes.push("a container was killed at its disk limit".to_owned());
            (RunEnd::Lost, None)
        }
        ContainerEnd::Exited(code) => {
            match vouched(outcome.files_out.get(STATUS_PATH).map(Vec::as_slice), nonce, code) {
                Some(Vouched::Exited(status)) => (RunEnd::Exited, Some(status)),
                Some(Vouched::PatchFailed(status)) => (RunEnd::PatchFailed, Some(status)),
                None => (RunEnd::Lost, None),
            }
        }
    };
    let report = match (end, exit_code) {
        (RunEnd::Exited, Some(status)) => report(script, status, outcome, &mut notes),
        _ => Report::default(),
    };
    let run = RunRecord {
        condition,
        repeat,
        end,
        exit_code,
        seconds: outcome.seconds,
        peak_memory_bytes: outcome.peak_memory_bytes,
        tests: report.tests,
        collection_errors: report.collection_errors,
    };
    Recorded { run, notes }
}

fn report(script: &EvalScript, status: i32, outcome: &RunOutcome, notes: &mut Vec<String>) -> Report {
    match script.report {
        ReportKind::ExitStatus => {
            let status = (!NOT_RUN.contains(&status)).then_some(match status {
                0 => TestStatus::Passed,
                _ => TestStatus::Failed,
            });
            let name = script::command_name(&script.skeleton);
            Report { tests: status.map(|status| (name, status)).into_iter().collect(), ..Report::default() }
        }
        ReportKind::JUnit => match outcome.files_out.get(REPORT_PATH) {
            Some(bytes) => junit::parse(bytes, &script.targets).unwrap_or_else(|error| {
                notes.push(format!("a test report cannot be read: {error}"));
                Report::default()
            }),
            None if status == USAGE_ERROR => {
                Report { collection_errors: broken_conftest(&outcome.log), ..Report::default() }
            }
            None => Report::default(),
        },
    }
}

/// A conftest.py that cannot be imported ends pytest before its report: then its output is all there is. What a
/// test could print there only ever turns "no test ran" into "not imported", which the run with the fix must mend.
fn broken_conftest(log: &str) -> BTreeMap<String, String> {
    const SAYS: &str = "ImportError while loading conftest '";
    let log = telling::strip_escapes(log);
    let Some(at) = log.find(SAYS) else { return BTreeMap::new() };
    let rest = &log[at + SAYS.len()..];
    let Some((path, traceback)) = rest.split_once('\'') else { return BTreeMap::new() };
    let path = path.strip_prefix("/testbed/").unwrap_or(path);
    BTreeMap::from([(path.to_owned(), telling::exception_line(traceback))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_conftest_is_found_in_the_output() {
        let log = "x\nImportError while loading conftest '/testbed/t/conftest.py'.\nt/conftest.py:1: in <module>\n    \
                   import p\nE   ModuleNotFoundError: No module named 'p'\n";
        let expected = [("t/conftest.py".to_owned(), "ModuleNotFoundError: No module named 'p'".to_owned())];
        assert_eq!(broken_conftest(log), expected.into());
        assert!(broken_conftest("nothing").is_empty());
    }
}
