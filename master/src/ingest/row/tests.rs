use std::path::Path;

use serde_json::json;

use super::*;

const DIFF: &str = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn swe() -> Value {
    json!({
        "instance_id": "Pallets__click-12", "repo": "pallets/click", "base_commit": COMMIT,
        "problem_statement": "it breaks", "patch": DIFF, "test_patch": DIFF,
    })
}

fn multi() -> Value {
    json!({
        "org": "pallets", "repo": "click", "number": 12, "base": {"ref": "main", "sha": COMMIT},
        "fix_patch": DIFF, "test_patch": DIFF,
        "resolved_issues": [{"number": 3, "title": "It breaks", "body": "Badly."}, {"number": 4, "title": "Again"}],
    })
}

fn read(row: Value) -> Result<Instance, Refusal> {
    let template = Template::parse("/m/{owner}+{name}", Path::new("/")).expect("valid");
    task_of(row, Some(&template)).map(|task| {
        let Work::Build(build) = task.work else { panic!("a row is a build") };
        assert_eq!(build.repository, "/m/pallets+click");
        build.instance
    })
}

fn with(mut row: Value, field: &str, value: Value) -> Value {
    row[field] = value;
    row
}

#[test]
fn reads_every_dataset_that_is_promised() {
    let plain = read(swe()).expect("SWE-bench");
    assert_eq!((plain.pull_number, plain.version.as_str(), plain.language.as_str()), (12, "0.0", "python"));
    let rebench = [
        ("created_at", json!(1_714_564_800_000_u64)),
        ("version", json!(2.1)),
        ("hints_text", Value::Null),
        ("end_commit", Value::Null),
        ("FAIL_TO_PASS", json!(["t"])),
    ];
    let rebench = rebench.into_iter().fold(swe(), |row, (field, value)| with(row, field, value));
    let rebench = read(rebench).expect("SWE-rebench");
    assert_eq!((rebench.created_at.as_str(), rebench.version.as_str()), ("2024-05-01T12:00:00Z", "2.1"));
    assert_eq!(rebench.extra["FAIL_TO_PASS"], json!(["t"]));
    assert_eq!(
        read(with(swe(), "created_at", json!(1_714_564_800))).expect("s").created_at,
        "2024-05-01T12:00:00Z"
    );
    for since in [1_714_564_800_000_000_u64, 1_714_564_800_000_000_000] {
        let row = with(with(swe(), "created_at", json!(since)), "pull_number", json!(3.0));
        let row = read(row).expect("columns of pandas");
        assert_eq!((row.created_at.as_str(), row.pull_number), ("2024-05-01T12:00:00Z", 3), "{since}");
    }
    let multi = read(multi()).expect("Multi-SWE-bench");
    assert_eq!(multi.instance_id, "pallets__click-12");
    assert_eq!((multi.repo.as_str(), multi.base_commit.as_str()), ("pallets/click", COMMIT));
    assert_eq!(multi.problem_statement, "It breaks\n\nBadly.\n\nAgain");
}

#[test]
fn reads_a_task_file_as_it_lies_in_a_spool() {
    let template = Template::parse("/m/{repo}", Path::new("/")).expect("valid");
    let task = task_of(swe(), Some(&template)).expect("a task");
    let file = serde_json::to_value(&task).expect("JSON");
    assert_eq!(task_of(file.clone(), None), Ok(task));
    let refused = task_of(with(file, "id", json!("../x")), None).expect_err("hostile");
    assert_eq!(refused.field.as_deref(), Some("id"));
}

#[test]
fn a_command_may_be_dropped_as_a_task_file() {
    let file = json!({ "format": 1, "id": "x", "kind": "run", "image": "debian:12", "commands": [["true"]] });
    assert_eq!(task_of(file.clone(), None).expect("valid").class().to_string(), "5-run");
    let refused = task_of(with(file, "commands", json!([])), None).expect_err("empty").to_string();
    assert!(refused.contains("\"commands\": there is none"), "{refused}");
}

#[test]
fn a_row_may_name_its_repository() {
    let own = with(swe(), "repository_url", json!("https://forge.example/x.git"));
    let Work::Build(build) = task_of(own, None).expect("valid").work else { panic!("a row is a build") };
    assert_eq!(build.repository, "https://forge.example/x.git");
    let check = |row: Value, why: &str| {
        let refused = task_of(row, None).expect_err(why).to_string();
        assert!(refused.starts_with("field \"repository\": ") && refused.contains(why), "{refused}");
    };
    check(swe(), "--repositories");
    check(with(swe(), "repository", json!("ext::sh -c x")), "is no repository");
    check(with(swe(), "repository", json!("../../x")), "is no repository");
}

#[test]
fn a_refusal_names_the_field_and_what_is_expected() {
    let check = |row: Value, expected: &str| {
        let refused = read(row).expect_err(expected).to_string();
        assert!(refused.contains(expected), "{refused}");
    };
    check(json!([1]), "expected an object with the fields of a task, found a list");
    check(json!({}), "field \"instance_id\": it is missing");
    check(with(swe(), "instance_id", json!("../x")), "field \"instance_id\": \"../x\" is not a task id");
    check(with(swe(), "instance_id", json!("x".repeat(300))), "longer than 128 bytes");
    check(with(swe(), "instance_id", json!("a\u{1b}[2Jb")), r#""a\u{1b}[2jb" is not a task id"#);
    check(with(swe(), "patch", json!(7)), "field \"patch\": expected a string, found a number");
    check(with(swe(), "patch", Value::Null), "field \"patch\": it is missing");
    check(with(swe(), "patch", json!("")), "field \"patch\": it is empty");
    check(with(swe(), "test_patch", json!("fix it")), "field \"test_patch\": it is not a git diff");
    check(with(swe(), "base_commit", json!("main")), "field \"base_commit\": expected a full commit id");
    check(with(swe(), "repo", json!("../..")), "field \"repo\": expected owner/name");
    check(with(swe(), "pull_number", json!("twelve")), "field \"pull_number\": expected a whole number");
    check(with(swe(), "created_at", json!("yesterday")), "field \"created_at\": expected an ISO 8601 time");
    check(with(swe(), "language", json!("rust")), "field \"language\": only python");
    check(with(multi(), "base", json!({})), "field \"base.sha\": it is missing");
    check(with(multi(), "org", Value::Null), "field \"org\": it is missing");
    check(with(multi(), "resolved_issues", json!([])), "field \"resolved_issues\": none of them");
}
