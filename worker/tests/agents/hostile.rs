//! What is said to gain an environment that it does not deserve.

use queue_format::FailureReason;
use serde_json::{Value, json};

use super::attempts::Run;
use super::calc::{DOCKERFILE, dockerfile, found, judged, unittest};
use super::house::House;
use super::model::{Model, Say};

#[test]
fn a_dockerfile_changes_no_tracked_file_whatever_it_tells_git() {
    let fixes = "cd /testbed && sed -i s/-/+/ calc.py";
    let git = "git -c user.name=x -c user.email=x@x";
    let dockerfiles = [
        format!("{fixes} && {git} add -A"),
        format!("{fixes} && {git} commit -qam fixed"),
        format!("{fixes} && {git} update-index --assume-unchanged calc.py"),
        format!(
            "mkdir -p /testbed/.git/hooks && printf \"#!/bin/sh\\n{fixes}\\n\" > /testbed/.git/hooks/post-checkout && chmod +x /testbed/.git/hooks/*"
        ),
    ];
    // Were the tree fixed already, the fix would not apply.
    let steps: String = dockerfiles.iter().map(|step| format!("\nRUN bash -lc '{step}'")).collect();
    let run = Run::with(
        &[
            ("explore", found()),
            ("dockerfile", dockerfile(&format!("{DOCKERFILE}{steps}"))),
            ("script", unittest("tests.test_calc")),
            ("analysis", judged("genuine", None, "")),
        ],
        "",
    );
    run.accepted_after(1);
    assert!(run.read("Dockerfile").ends_with("\nCOPY --chown=1000:1000 repo /testbed\n"));
}

/// Tests of which the fix breaks one.
const BROKEN_BY_FIX: &str = "import unittest\n\nimport calc\n\n\nclass Old(unittest.TestCase):\n    def test_old(self):\n        self.assertEqual(calc.add(5, 3), 2)\n\n\nclass Calc(unittest.TestCase):\n    def test_is_there(self):\n        self.assertTrue(callable(calc.add))\n";

#[test]
fn a_script_that_leaves_out_what_the_fix_breaks_is_caught_by_the_analyst() {
    let narrow = json!({
        "command": ["python", "-m", "unittest", "tests.test_calc.Calc.test_adds"], "targets": ["tests/test_calc.py"],
        "report": "exit-status",
    });
    let caught = "it runs one test, and leaves out what the fix breaks";
    let model = Model::scripted(&[
        ("explore", found()),
        ("dockerfile", dockerfile(DOCKERFILE)),
        ("script", Say::Text(narrow.to_string())),
        ("analysis", judged("not-genuine", Some("script"), caught)),
        ("script", unittest("tests.test_calc")),
        ("analysis", judged("unsolvable", None, "the fix breaks test_old")),
    ]);
    let run = Run::of(House::with_tests(BROKEN_BY_FIX), model.expect("a port"), "agents", "");
    run.failed(FailureReason::Unsolvable, "the fix breaks test_old");
    let judge = run.model.asked()[3].body["messages"][1]["content"].as_str().expect("text").to_owned();
    assert!(judge.contains("accepted (command)"), "the runs alone would have accepted it: {judge}");
    assert!(judge.contains("tests.test_calc.Calc.test_adds"), "the analyst is shown what was run: {judge}");
    assert_eq!(run.manifest["image_name"], Value::Null);
}

#[test]
fn a_dockerfile_that_cheats_is_shown_to_the_analyst_whole() {
    // At the end of a line that is longer than any that is shown of a log, amidst more than is shown of a text.
    let cheat = "cp calc.py /usr/lib/python3/calc_fixed.py";
    let filler = "RUN bash -lc 'true # ".to_owned() + &"x".repeat(1500) + "'\n";
    let cheating = format!(
        "{DOCKERFILE}\n{}RUN bash -lc 'true {} ; true || {cheat}'\n{}",
        filler.repeat(3),
        "y".repeat(3000),
        filler.repeat(3)
    );
    let run = Run::with(
        &[
            ("explore", found()),
            ("dockerfile", dockerfile(&cheating)),
            ("script", unittest("tests.test_calc")),
            ("analysis", Say::Status(400, None, "maximum context length is 8192 tokens".to_owned())),
            ("analysis", judged("not-genuine", Some("dockerfile"), "it brings a fixed file")),
            ("dockerfile", dockerfile(DOCKERFILE)),
            ("analysis", judged("genuine", None, "")),
        ],
        "shown_bytes_max = 1000",
    );
    run.accepted_after(2);
    for judge in &run.model.asked()[3..=4] {
        let shown = judge.body["messages"][1]["content"].as_str().expect("text");
        assert!(shown.contains(cheating.trim_end()), "however little else there is room for: {shown}");
    }
}
