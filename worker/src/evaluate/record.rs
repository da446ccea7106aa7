use queue_format::{Condition, RunEnd, RunRecord, TestStatus};

use super::junit::{self, Report};
use super::script;
use super::telling;
use super::wrapper::{REPORT_PATH, STATUS_PATH, Vouched, vouched};
use crate::engine::{ContainerEnd, RunOutcome};
use crate::synthesis::{EvalScript, ReportKind};

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
        node: outcome.node.clone(),
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
            Some(bytes) => {
                let report = junit::parse(bytes, &script.targets).unwrap_or_else(|error| {
                    notes.push(format!("a test report cannot be read: {error}"));
                    Report::default()
                });
                match contradiction(&report, &outcome.log) {
                    None => report,
                    Some(said) => {
                        notes.push(format!("a test report counts for nothing: it says that {said}"));
                        Report::default()
                    }
                }
            }
            None => Report::default(),
        },
    }
}

/// What the runner's own summary says against its report: that a test failed which passed, or that none ran, which is so
/// where tests are only set up. Something made the report. The summary is only ever believed where it is worse.
fn contradiction(report: &Report, log: &str) -> Option<String> {
    const FAILED: &str = "FAILED ";
    const END: &str = ">>>>> End Test Output";
    let has_passed = |id: &str| report.tests.get(id) == Some(&TestStatus::Passed);
    let log = telling::strip_escapes(log);
    let failed = log.lines().filter_map(|line| line.strip_prefix(FAILED));
    let mut ids = failed.map(|rest| rest.split_once(" - ").map_or(rest, |(id, _)| id).trim());
    if let Some(test) = ids.find(|id| has_passed(id)) {
        return Some(format!("{test} passed, the runner that it failed"));
    }
    let told = log.rfind(END).map_or(log.as_ref(), |at| &log[..at]);
    let last = told.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let has_none = last.trim_matches(['=', ' ']).starts_with("no tests ran");
    let passed = report.tests.keys().find(|id| has_none && has_passed(id))?;
    Some(format!("{passed} passed, the runner that no tests ran"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_its_runner_contradicts_is_found() {
        let tests = [("t.py::a".to_owned(), TestStatus::Passed), ("t.py::b".to_owned(), TestStatus::Failed)];
        let report = Report { tests: tests.into(), ..Report::default() };
        let check = |log: &str, expected: Option<&str>| {
            let said = contradiction(&report, log);
            let test = said.as_deref().and_then(|said| said.split_whitespace().next());
            assert_eq!(test, expected, "{log}");
        };
        check("PASSED t.py::a\nFAILED t.py::b - assert 1\n", None);
        check("FAILED t.py::a - assert 1\n", Some("t.py::a"));
        check("\u{1b}[31mFAILED\u{1b}[0m t.py::a\n", Some("t.py::a"));
        check("FAILED nested.py::a - of another session\n", None);
        let ended = |log: &str| format!("{log}>>>>> End Test Output\nOPENSWE_EXIT_CODE=0\n");
        check(&ended("=== no tests ran in 0.01s ===\n"), Some("t.py::a"));
        check(&ended("\nno tests ran in 0.01s\n\n"), Some("t.py::a"));
        check(&ended("=== no tests ran in 0.01s ===\n=== 2 passed in 0.02s ===\n"), None);
    }
}
