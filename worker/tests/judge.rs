//! Verdicts as a function of runs: a table of every case that real tasks have shown, and what holds for all runs.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use queue_format::{AcceptanceClass, Condition, RunEnd, RunRecord, TestStatus, Verdict};
use worker::evaluate::{Grounds, Judgement, judge};
use worker::synthesis::ReportKind;

const OWN: &str = "ModuleNotFoundError: No module named 'pkg.new'";
const FOREIGN: &str = "ModuleNotFoundError: No module named 'six'";

/// A run as one line: `- 1 a=F b=P !t.py=own`: `-` without the fix, `+` with it; exit status or how it ended; tests;
/// files whose import failed for want of an own or a foreign module.
fn run(line: &str) -> RunRecord {
    let mut words = line.split_whitespace();
    let condition = if words.next() == Some("-") { Condition::TestOnly } else { Condition::WithFix };
    let end = words.next().unwrap();
    let (end, exit_code) = match end {
        "timeout" => (RunEnd::TimedOut, None),
        "oom" => (RunEnd::OutOfMemory, None),
        "patch" => (RunEnd::PatchFailed, Some(97)),
        "lost" => (RunEnd::Lost, None),
        status => (RunEnd::Exited, Some(status.parse().unwrap())),
    };
    let (mut tests, mut collection_errors) = (BTreeMap::new(), BTreeMap::new());
    for word in words {
        let (name, value) = word.split_once('=').unwrap();
        match (name.strip_prefix('!'), value) {
            (Some(path), "own") => drop(collection_errors.insert(path.to_owned(), OWN.to_owned())),
            (Some(path), _) => drop(collection_errors.insert(path.to_owned(), FOREIGN.to_owned())),
            (None, value) => drop(tests.insert(name.to_owned(), status(value))),
        }
    }
    let (seconds, peak_memory_bytes, node) = (1.0, None, None);
    RunRecord {
        condition,
        repeat: 1,
        end,
        exit_code,
        seconds,
        peak_memory_bytes,
        node,
        tests,
        collection_errors,
    }
}

fn status(letter: &str) -> TestStatus {
    match letter {
        "P" => TestStatus::Passed,
        "F" => TestStatus::Failed,
        "E" => TestStatus::Error,
        _ => TestStatus::Skipped,
    }
}

fn grounds(report: ReportKind) -> Grounds {
    let own_names = BTreeSet::from(["pkg".to_owned()]);
    Grounds { report, own_names, accept: AcceptanceClass::ALL.iter().copied().collect() }
}

fn judged(lines: &[&str], report: ReportKind) -> Judgement {
    judge(&lines.iter().map(|line| run(line)).collect::<Vec<_>>(), &grounds(report))
}

/// `class: fail_to_pass | pass_to_pass`, or `reason: a part of the detail`.
fn check(lines: &[&str], expected: &str) {
    let judgement = judged(lines, ReportKind::JUnit);
    let (word, rest) = expected.split_once(": ").unwrap();
    match &judgement.verdict {
        Verdict::Accepted { class } => {
            let join = |tests: &BTreeSet<String>| tests.iter().cloned().collect::<Vec<_>>().join(" ");
            let lists = &judgement.transitions;
            let shown = format!("{} | {}", join(&lists.fail_to_pass), join(&lists.pass_to_pass));
            assert_eq!((class.as_str(), shown.as_str()), (word, rest), "{lines:?}");
            assert_eq!(judgement.telling, None);
        }
        Verdict::Completed => panic!("a build is accepted or fails: {lines:?}"),
        Verdict::Failed { reason, detail, remedy, .. } => {
            assert_eq!(reason.as_str(), word, "{lines:?} {detail}");
            assert!(detail.contains(rest) && !detail.contains('\n'), "{lines:?} {detail}");
            assert!(!remedy.is_empty() && judgement.telling.is_some());
        }
    }
}

#[test]
fn what_is_accepted() {
    check(&["- 1 a=F b=P", "+ 0 a=P b=P"], "strict: a | b");
    check(&["- 1 a=E", "+ 0 a=P"], "strict: a | ");
    check(&["- 1 a=F b=F c=P", "+ 1 a=P b=F c=P"], "per-test: a | c");
    // The statuses tell another story than the reports.
    check(&["- 0 a=F", "+ 0 a=P"], "per-test: a | ");
    check(&["- 1 a=F b=F", "+ 0 a=P b=F"], "per-test: a | ");
    check(&["- 1 a=F", "- 1 a=F", "+ 0 a=P", "+ 0 a=P"], "strict: a | ");
    check(&["- 1 a=F s=S", "+ 0 a=P s=P n=P"], "strict: a | ");
    check(&["- 2 !t.py=own", "+ 0 t.py::a=P t.py::b=P"], "new-module: t.py::a t.py::b | ");
    check(&["- 4 !t/conftest.py=own", "+ 0 t/x.py::a=P"], "new-module: t/x.py::a | ");
    check(&["- 1 !t.py=own u.py::b=F", "+ 0 t.py::a=P u.py::b=P"], "strict: t.py::a u.py::b | ");
    check(&["- 1 !t.py=dep u.py::b=F", "+ 0 t.py::a=P u.py::b=P"], "strict: u.py::b | ");
    check(&["- 1 a=F !u.py=dep", "+ 1 a=P !u.py=dep"], "per-test: a | ");
    // What passed is gone with the fix.
    check(&["- 1 a=F b=P", "+ 0 a=P"], "per-test: a | ");
    check(&["- 1 a=F b=P c=P", "+ 0 a=P b=S c=P"], "per-test: a | c");
    check(&["- 1 a=F b=F", "+ 0 a=P b=S"], "per-test: a | ");
    check(&["- 1 a=F b=F c=P", "+ 0 a=P c=P"], "per-test: a | c");
    // Flaky, but not broken by the fix.
    check(&["- 1 a=F f=F", "- 1 a=F f=P", "+ 0 a=P f=P", "+ 0 a=P f=P"], "strict: a | ");
    check(&["- 1 a=F f=F", "- 1 a=F f=F", "+ 0 a=P f=P", "+ 1 a=P f=F"], "per-test: a | ");
}

#[test]
fn what_fails() {
    check(&["- 1 a=F b=P", "+ 0 b=P"], "no-fail-to-pass: do not run with it: a");
    check(&["- 1 a=F b=P", "+ 0 a=S b=P"], "no-fail-to-pass: do not run with it: a");
    for (end, expected) in [
        ("timeout", "timeout: without the fix was killed"),
        ("oom", "out-of-memory: memory limit"),
        ("patch", "patch: did not apply"),
        ("lost", "no-tests: without a word"),
    ] {
        check(&[&format!("- {end}"), "+ 0 a=P"], expected);
        check(
            &["- 1 a=F", "- 1 a=F", "+ 0 a=P", &format!("+ {end}")],
            &expected.replace("without the fix", "with the fix"),
        );
    }
    check(&[], "no-tests: never run");
    check(&["- 1 a=F"], "no-tests: the run with the fix was never run");
    check(&["- 5", "+ 5"], "no-tests: no test was collected (status 5)");
    check(&["- 0", "+ 0 a=P"], "no-tests: something ended the runner before its report");
    check(&["- 139", "+ 0 a=P"], "no-tests: signal 11");
    check(&["- 4", "+ 4"], "no-tests: did not understand");
    check(&["- 1 a=F", "+ 127"], "no-tests: cannot be run");
    check(&["- 0 a=S b=S", "+ 0 a=S b=S"], "no-tests: all 2 tests were skipped");
    check(&["- 2 !t.py=dep", "+ 2 !t.py=dep"], "no-tests: t.py cannot be imported: ModuleNotFoundError");
    check(&["- 2 !t.py=own", "+ 2 !t.py=own"], "no-tests: with the fix: t.py cannot be imported");
    check(&["- 2 !t.py=dep", "+ 0 t.py::a=P"], "no-tests: 'six', which is none of the project's");
    check(&["- 1 b=P !t.py=own", "+ 1 b=P !t.py=own"], "no-tests: even with the fix");
    check(&["- 0 a=P b=P", "+ 0 a=P b=P"], "no-fail-to-pass: all 2 targeted tests pass");
    check(&["- 0 a=P", "+ 0 a=P"], "no-fail-to-pass: the one targeted test");
    check(&["- 0 a=P", "+ 0 b=P"], "no-fail-to-pass: no test ran in both");
    check(&["- 0 a=P s=S", "+ 0 a=P s=P"], "no-fail-to-pass: the one");
    check(&["- 1 a=F b=P", "+ 1 a=F b=P"], "fix-fails: still fail with the fix: a");
    check(&["- 1 a=F b=F c=F d=F e=F", "+ 1 a=F b=F c=F d=F e=E"], "fix-fails: a, b, c and 2 more");
    check(&["- 1 a=F b=P", "+ 1 a=P b=F"], "pass-to-fail: the fix breaks b");
    check(&["- 1 t.py::b=P a=F", "+ 1 a=P !t.py=own"], "pass-to-fail: the fix breaks t.py::b");
    check(&["- 0 b=P", "+ 1 b=F"], "pass-to-fail: no test is mended");
    check(&["- 1 a=F", "- 1 a=F", "+ 0 a=P", "+ 1 a=F"], "flaky: in some: a");
    check(&["- 1 a=F b=P", "- 1 a=F b=P", "+ 0 a=P b=P", "+ 1 a=P b=F"], "flaky: not in every run: b");
    check(
        &["- 1 a=F b=P c=P", "- 1 a=F b=F c=P", "+ 1 a=P b=F c=F", "+ 1 a=P b=F c=F"],
        "flaky: not in every run: b",
    );
}

#[test]
fn a_runner_without_a_report_is_judged_by_its_status() {
    let judgement = judged(&["- 1 make-test=F", "+ 0 make-test=P"], ReportKind::ExitStatus);
    assert_eq!(judgement.verdict, Verdict::Accepted { class: AcceptanceClass::Command });
}

#[test]
fn a_class_that_is_not_wanted_is_a_failure_of_its_own() {
    let runs = [run("- 1 a=F b=F"), run("+ 1 a=P b=F")];
    let accept = [AcceptanceClass::Strict].into();
    let judgement = judge(&runs, &Grounds { accept, ..grounds(ReportKind::JUnit) });
    let Verdict::Failed { reason, detail, .. } = judgement.verdict else { panic!() };
    assert_eq!(reason.as_str(), "policy");
    assert!(detail.contains("per-test"));
}

#[test]
fn what_is_left_out_is_named() {
    let lines = ["- 1 a=F f=F gone=P", "- 1 a=F f=P gone=P", "+ 0 a=P f=P new=P", "+ 0 a=P f=P new=P"];
    let judgement = judged(&lines, ReportKind::JUnit);
    assert_eq!(judgement.transitions.flaky, BTreeSet::from(["f".to_owned()]));
    let ends = [": f", "do not run with it, in no list: gone", ": new"];
    assert_eq!(judgement.notes.len(), ends.len(), "{:?}", judgement.notes);
    for (note, end) in judgement.notes.iter().zip(ends) {
        assert!(note.ends_with(end), "{:?}", judgement.notes);
    }
}

prop_compose! {
    fn any_run()(
        with_fix in any::<bool>(),
        end in prop::sample::select(vec!["0", "1", "2", "5", "0", "1", "timeout", "lost"]),
        tests in prop::collection::btree_map("[a-d]", prop::sample::select(vec!["P", "F", "E", "S"]), 0..4),
        error in prop::sample::select(vec!["", "", " !a=own", " !b=dep"]),
    ) -> RunRecord {
        let tests: String = tests.iter().map(|(name, letter)| format!(" {name}={letter}")).collect();
        run(&format!("{} {end}{tests}{error}", if with_fix { "+" } else { "-" }))
    }
}

proptest! {
    /// Whatever was run: what is accepted deserves it.
    #[test]
    fn nothing_is_accepted_that_does_not_deserve_it(runs in prop::collection::vec(any_run(), 0..7)) {
        let judgement = judge(&runs, &grounds(ReportKind::JUnit));
        let lists = &judgement.transitions;
        let of = |condition| runs.iter().filter(move |run| run.condition == condition);
        for test in &lists.fail_to_pass {
            prop_assert!(of(Condition::TestOnly).all(|run| run.tests.get(test) != Some(&TestStatus::Passed)));
            prop_assert!(of(Condition::WithFix).all(|run| run.tests.get(test) == Some(&TestStatus::Passed)));
        }
        for test in &lists.pass_to_pass {
            prop_assert!(runs.iter().all(|run| run.tests.get(test) == Some(&TestStatus::Passed)));
        }
        prop_assert!(lists.error_to_pass.is_subset(&lists.fail_to_pass));
        prop_assert!(lists.flaky.is_disjoint(&lists.fail_to_pass) && lists.flaky.is_disjoint(&lists.pass_to_pass));
        if let Verdict::Accepted { class } = judgement.verdict {
            prop_assert!(runs.iter().all(|run| run.end == RunEnd::Exited));
            prop_assert!(!lists.fail_to_pass.is_empty() && lists.pass_to_fail.is_empty());
            prop_assert!(of(Condition::TestOnly).count() > 0 && of(Condition::WithFix).count() > 0);
            if class == AcceptanceClass::Strict {
                prop_assert!(of(Condition::WithFix).all(|run| run.exit_code == Some(0)));
            }
        }
    }

    /// The order in which runs ended does not matter.
    #[test]
    fn order_does_not_matter(mut runs in prop::collection::vec(any_run(), 0..6)) {
        let judge_all = |runs: &[RunRecord]| judge(runs, &grounds(ReportKind::JUnit));
        let forth = judge_all(&runs);
        runs.reverse();
        let back = judge_all(&runs);
        prop_assert_eq!(forth.transitions, back.transitions);
        prop_assert_eq!(matches!(forth.verdict, Verdict::Accepted { .. }), matches!(back.verdict, Verdict::Accepted { .. }));
    }
}
