use std::collections::BTreeSet;

use queue_format::{
    AcceptanceClass, Condition, FailureReason, RunEnd, RunRecord, TestStatus, Transitions, Verdict,
};

use super::transitions::{Moves, missing_dependency, moves};
use crate::synthesis::ReportKind;

/// How many names a sentence has.
const NAMES_SHOWN: usize = 3;

/// What a judgement rests on beside the runs.
#[derive(Clone, Debug)]
pub struct Grounds {
    /// How the runs tell each test's status.
    pub report: ReportKind,
    /// The names that the project's own modules can have.
    pub own_names: BTreeSet<String>,
    /// The classes that are accepted.
    pub accept: BTreeSet<AcceptanceClass>,
}

/// What the runs come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Every test, by how its status moved.
    pub transitions: Transitions,
    /// The verdict, without lines of a log.
    pub verdict: Verdict,
    /// The run whose log tells most about a failure.
    pub telling: Option<(Condition, u32)>,
    /// What the verdict does not say.
    pub notes: Vec<String>,
}

/// Judges the runs of both conditions, test by test; an exit status alone decides nothing where tests have names.
///
/// Accepted: every run ended by itself, tests ran in both conditions, at least one fails in all runs before the fix
/// and passes in all runs after it, and none the other way round.
///
/// **Flaky tests** are in no list. They reject the task where they may hide that the fix breaks something (passed
/// in some run without it, failed in some run with it), or where no stable test is left that the fix mends. Others,
/// such as a test that only fails without the fix now and then, are named in the notes and do no harm: nobody is
/// graded by them.
///
/// **An import error** before the fix counts as a failure of the file's tests (`error_to_pass`) if they pass after
/// it: with the same image and the same tests it is the fix that made the difference. One exception: a missing
/// module that is none of the project's shows an incomplete environment, so its tests count for nothing.
#[must_use]
pub fn judge(runs: &[RunRecord], grounds: &Grounds) -> Judgement {
    let moves = moves(runs, &grounds.own_names);
    let notes = notes(&moves, runs);
    let (verdict, telling) = match fault(runs, &moves, grounds) {
        Some(fault) => {
            let Fault { reason, detail, remedy, telling } = fault;
            (Verdict::Failed { reason, detail, log: Vec::new(), remedy }, Some(telling))
        }
        None => {
            let class = class(runs, &moves, grounds.report);
            (accepted(class, grounds), None)
        }
    };
    Judgement { transitions: moves.transitions, verdict, telling, notes }
}

struct Fault {
    reason: FailureReason,
    detail: String,
    remedy: String,
    telling: (Condition, u32),
}

/// The first of all faults, from the grossest to the finest.
fn fault(runs: &[RunRecord], moves: &Moves, grounds: &Grounds) -> Option<Fault> {
    runs.iter().find_map(bad_end).or_else(|| nothing_ran(runs)).or_else(|| bad_moves(runs, moves, grounds))
}

fn fault_of(run: &RunRecord, reason: FailureReason, detail: String, remedy: &str) -> Fault {
    Fault { reason, detail, remedy: remedy.to_owned(), telling: (run.condition, run.repeat) }
}

fn bad_end(run: &RunRecord) -> Option<Fault> {
    let which = which(run);
    let (reason, detail, remedy) = match run.end {
        RunEnd::Exited => return None,
        RunEnd::PatchFailed => (
            FailureReason::Patch,
            format!("{which}: a patch did not apply to the base commit"),
            "Compare the row's patches with base_commit; a build step may also have changed the files they touch.",
        ),
        RunEnd::TimedOut => (
            FailureReason::Timeout,
            format!("{which} was killed after {:.0} s", run.seconds),
            "Raise timeout_seconds, or look in the log for the test that hangs.",
        ),
        RunEnd::OutOfMemory => (
            FailureReason::OutOfMemory,
            format!("{which} was killed at its memory limit"),
            "Raise memory_bytes, or look in the log for the test that fills the memory.",
        ),
        RunEnd::Lost => (
            FailureReason::NoTests,
            format!("{which} ended without a word from its wrapper: something killed it"),
            "Look at the end of the log: the tests may kill their parent, or have filled the disk.",
        ),
    };
    Some(fault_of(run, reason, detail, remedy))
}

/// A run in which no test came to an end, and no import error says why.
fn nothing_ran(runs: &[RunRecord]) -> Option<Fault> {
    let is_empty = |run: &&RunRecord| run.tests.values().all(|status| *status == TestStatus::Skipped);
    let has_no_reason =
        |run: &&RunRecord| run.condition == Condition::WithFix || run.collection_errors.is_empty();
    let Some(run) = runs.iter().filter(is_empty).find(has_no_reason) else {
        let is_missing = |condition| !runs.iter().any(|run| run.condition == condition);
        return [Condition::TestOnly, Condition::WithFix].into_iter().find(|&c| is_missing(c)).map(
            |condition| Fault {
                reason: FailureReason::NoTests,
                detail: format!("{} was never run", name_of(condition)),
                remedy: "Retry the task.".to_owned(),
                telling: (condition, 1),
            },
        );
    };
    let import =
        run.collection_errors.iter().next().map(|(path, line)| format!("{path} cannot be imported: {line}"));
    let skipped = (!run.tests.is_empty()).then(|| format!("all {} tests were skipped", run.tests.len()));
    let why = import.or(skipped).unwrap_or_else(|| by_status(run.exit_code));
    let remedy = "Install what is missing, or mend the test command or its targets.";
    Some(fault_of(run, FailureReason::NoTests, format!("{}: {why}", which(run)), remedy))
}

/// pytest's statuses: <https://docs.pytest.org/en/stable/reference/exit-codes.html>
fn by_status(exit_code: Option<i32>) -> String {
    match exit_code {
        Some(0) => {
            "it ended with status 0 and no test: something ended the runner before its report".to_owned()
        }
        Some(2) => "the runner was interrupted (status 2) and reported no test".to_owned(),
        Some(4) => "the runner did not understand its command (status 4)".to_owned(),
        Some(5) => "no test was collected (status 5)".to_owned(),
        Some(126 | 127) => "the test command cannot be run".to_owned(),
        Some(status @ 129..=192) => format!("the runner was killed by signal {}", status - 128),
        Some(status) => format!("it ended with status {status} and reported no test"),
        None => "it reported no test".to_owned(),
    }
}

fn bad_moves(runs: &[RunRecord], moves: &Moves, grounds: &Grounds) -> Option<Fault> {
    let of = |condition| runs.iter().filter(move |run| run.condition == condition);
    let (before, after) = (of(Condition::TestOnly).next()?, of(Condition::WithFix).next()?);
    let lists = &moves.transitions;
    if !moves.maybe_broken.is_empty() {
        let detail = format!(
            "passed without the fix and failed with it, but not in every run: {}",
            names(&moves.maybe_broken)
        );
        let remedy =
            "Leave these tests out of the targets, or pin what they depend on (time, order, random seeds).";
        return Some(fault_of(after, FailureReason::Flaky, detail, remedy));
    }
    if !lists.fail_to_pass.is_empty() {
        let remedy =
            "Look whether the fix needs another version of a dependency; else the row is not usable.";
        let detail = format!("the fix breaks {}", names(&lists.pass_to_fail));
        return (!lists.pass_to_fail.is_empty())
            .then(|| fault_of(after, FailureReason::PassToFail, detail, remedy));
    }
    // No stable test fails before the fix and passes after it. Why?
    if !moves.maybe_fixed.is_empty() {
        let detail = format!(
            "no test fails before the fix and passes after it in every run; in some: {}",
            names(&moves.maybe_fixed)
        );
        let remedy = "Pin what these tests depend on (time, order, random seeds).";
        return Some(fault_of(after, FailureReason::Flaky, detail, remedy));
    }
    if let Some((path, line)) = missing_dependency(of(Condition::TestOnly), &grounds.own_names) {
        let detail = format!(
            "{path} cannot be imported before the fix: {line}, which is none of the project's modules"
        );
        return Some(fault_of(before, FailureReason::NoTests, detail, "Install the missing module."));
    }
    if let Some((path, line)) = after.collection_errors.iter().next() {
        let detail = format!("{path} cannot be imported even with the fix: {line}");
        let remedy = "Install what is missing; if nothing is, the row's patches do not belong together.";
        return Some(fault_of(after, FailureReason::NoTests, detail, remedy));
    }
    if !lists.fail_to_fail.is_empty() {
        let detail = format!("still fail with the fix: {}", names(&lists.fail_to_fail));
        let remedy =
            "Read why they fail: a dependency may be missing, or newer than the project of that day knew.";
        return Some(fault_of(after, FailureReason::FixFails, detail, remedy));
    }
    if !lists.pass_to_fail.is_empty() {
        let detail = format!("no test is mended, and the fix breaks {}", names(&lists.pass_to_fail));
        return Some(fault_of(after, FailureReason::PassToFail, detail, "The row is not usable."));
    }
    if !moves.evaded.is_empty() {
        let detail = format!("fail without the fix, and do not run with it: {}", names(&moves.evaded));
        let remedy = "Look why the fix removes or skips them; a fix that evades its tests proves nothing.";
        return Some(fault_of(after, FailureReason::NoFailToPass, detail, remedy));
    }
    let detail = match lists.pass_to_pass.len() {
        0 => "no test ran in both conditions".to_owned(),
        1 => "the one targeted test passes before the fix already".to_owned(),
        passed => format!("all {passed} targeted tests pass before the fix already"),
    };
    let remedy =
        "If the tests that show the fix are in other files, target those; else the row is not usable.";
    Some(fault_of(before, FailureReason::NoFailToPass, detail, remedy))
}

/// Strict asks that the exit statuses and the reports tell the same story, and of the same tests.
fn class(runs: &[RunRecord], moves: &Moves, report: ReportKind) -> AcceptanceClass {
    let lists = &moves.transitions;
    let is_told_by_status = |run: &RunRecord| match run.condition {
        Condition::TestOnly => run.exit_code != Some(0),
        Condition::WithFix => {
            run.exit_code == Some(0)
                && run.collection_errors.is_empty()
                && !run.tests.values().any(|status| matches!(status, TestStatus::Failed | TestStatus::Error))
        }
    };
    if report == ReportKind::ExitStatus {
        AcceptanceClass::Command
    } else if lists.fail_to_pass == lists.error_to_pass {
        AcceptanceClass::NewModule
    } else if runs.iter().all(is_told_by_status) && moves.gone.is_empty() && moves.evaded.is_empty() {
        AcceptanceClass::Strict
    } else {
        AcceptanceClass::PerTest
    }
}

fn accepted(class: AcceptanceClass, grounds: &Grounds) -> Verdict {
    if grounds.accept.contains(&class) {
        return Verdict::Accepted { class };
    }
    Verdict::Failed {
        reason: FailureReason::Policy,
        detail: format!("it would be accepted as {class}, which the configuration drops"),
        log: Vec::new(),
        remedy: format!("Add \"{class}\" to the classes that are accepted, then retry."),
    }
}

fn notes(moves: &Moves, runs: &[RunRecord]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |what: &str, tests: &BTreeSet<String>| {
        if !tests.is_empty() {
            notes.push(format!("{what}: {}", names(tests)));
        }
    };
    note("flaky, in no list", &moves.transitions.flaky);
    note("passed without the fix and do not run with it, in no list", &moves.gone);
    note("failed without the fix and do not run with it, in no list", &moves.evaded);
    note("missing or skipped without the fix, in no list", &moves.in_one_condition);
    note("not imported before the fix for want of a dependency, in no list", &moves.without_dependency);
    let broken: BTreeSet<String> = runs
        .iter()
        .filter(|run| run.condition == Condition::WithFix)
        .flat_map(|run| run.collection_errors.iter().map(|(path, line)| format!("{path} ({line})")))
        .collect();
    note("cannot be imported even with the fix", &broken);
    notes
}

fn which(run: &RunRecord) -> String {
    let repeat = if run.repeat > 1 { format!(" (repeat {})", run.repeat) } else { String::new() };
    format!("{}{repeat}", name_of(run.condition))
}

fn name_of(condition: Condition) -> &'static str {
    match condition {
        Condition::TestOnly => "the run without the fix",
        Condition::WithFix => "the run with the fix",
    }
}

fn names(tests: &BTreeSet<String>) -> String {
    let shown = tests.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match tests.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
