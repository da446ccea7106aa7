//! From files of pull requests to rows that `bottega submit` takes: what comes out, what is told, what is kept.

mod common;

use std::fs;
use std::io::Write;
use std::sync::Arc;

use common::{DIFF, House, check};
use flate2::write::GzEncoder;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

const TEST: &str = "diff --git a/tests/test_x.py b/tests/test_x.py\n--- a/tests/test_x.py\n+++ b/tests/test_x.py\n@@ -1 +1 @@\n-a\n+b\n";

fn pull(number: u64) -> Value {
    json!({
        "instance_id": format!("pallets__click-{number}"), "repo": "pallets/click", "pull_number": number,
        "base_commit": format!("{number:040x}"), "problem_statement": "it breaks", "patch": format!("{TEST}{DIFF}"),
        "test_patch": "", "stars": 7, "language": "Python", "license": "MIT", "kept": [1, 2],
        "issues": [{"number": 1, "title": "it breaks", "body": "badly"}],
    })
}

fn with(number: u64, field: &str, value: Value) -> Value {
    let mut row = pull(number);
    row[field] = value;
    row
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn json_lines(house: &House, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(house.path(name)).expect("written");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn what_is_accepted_can_be_submitted_and_the_rest_is_explained() {
    let house = House::new();
    let rows =
        [pull(1), with(2, "stars", json!(1)), with(3, "patch", json!(TEST)), json!(7), pull(1), pull(5)];
    fs::write(house.path("pulls.jsonl"), lines(&rows)).expect("written");
    fs::write(house.path("evaluation.jsonl"), lines(&[pull(5)])).expect("written");
    let arguments =
        ["ingest", "jsonl", "--out", "out", "--evaluation-set", "evaluation.jsonl", "pulls.jsonl"];
    check(&house, &arguments, 0, &["enough stars", "1 row in out/rows.jsonl"]);

    let accepted = json_lines(&house, "out/rows.jsonl");
    assert_eq!(accepted.len(), 1);
    let (row, expected) = (&accepted[0], (Some(DIFF), Some(TEST)));
    assert_eq!((row["patch"].as_str(), row["test_patch"].as_str()), expected);
    assert_eq!(
        (&row["kept"], &row["stars"]),
        (&json!([1, 2]), &json!(7)),
        "unknown fields are carried through"
    );
    assert_eq!(row["quality"]["issue_quotes_patch"], json!(0.0));

    let rejected = json_lines(&house, "out/rejected.jsonl");
    let told: Vec<_> =
        rejected.iter().map(|row| [&row["place"], &row["stage"]].map(|v| v.as_str())).collect();
    let expected = [
        ("pulls.jsonl, line 2", "stars"),
        ("pulls.jsonl, line 3", "fix"),
        ("pulls.jsonl, line 4", "row"),
        ("pulls.jsonl, line 5", "duplicate"),
        ("pulls.jsonl, line 6", "evaluation"),
    ];
    assert_eq!(told, expected.map(|(place, stage)| [Some(place), Some(stage)]));
    assert_eq!(rejected[3]["reason"], json!("the id is that of pulls.jsonl, line 1"));

    let funnel: Value =
        serde_json::from_slice(&fs::read(house.path("out/funnel.json")).expect("kept")).expect("JSON");
    assert_eq!((&funnel["read"], &funnel["accepted"]), (&json!(6), &json!(1)));
    assert_eq!(funnel["thresholds"]["stars_min"], json!(5));
    assert!(fs::read_to_string(house.path("out/funnel.svg")).expect("drawn").starts_with("<svg "));
    let report = fs::read_to_string(house.path("out/report.md")).expect("written");
    assert!(report.contains("(funnel.svg)") && report.contains("stars_min = 5"), "{report}");

    check(
        &house,
        &["submit", "--repositories", "/m/{repo}", "out/rows.jsonl"],
        0,
        &["1 published, 0 already known"],
    );
    check(&house, &arguments, 0, &["1 row in out/rows.jsonl"]);
    check(
        &house,
        &["submit", "--repositories", "/m/{repo}", "out/rows.jsonl"],
        0,
        &["0 published, 1 already known"],
    );
}

#[test]
fn many_rows_are_judged_on_several_threads_and_stay_in_their_order() {
    let house = House::new();
    let row = |number: u64| match number % 3 {
        0 => with(number, "stars", json!(1)),
        1 => with(number, "issues", json!([])),
        _ => pull(number),
    };
    let rows: Vec<Value> = (0..2500).map(row).chain([pull(2)]).collect();
    fs::write(house.path("pulls.jsonl"), lines(&rows)).expect("written");
    check(&house, &["ingest", "jsonl", "--out", "out", "pulls.jsonl"], 0, &["833 rows in"]);
    let accepted = json_lines(&house, "out/rows.jsonl");
    let numbers: Vec<u64> = accepted.iter().map(|row| row["pull_number"].as_u64().expect("one")).collect();
    assert!(numbers.iter().copied().eq((2..2500).step_by(3)), "{numbers:?}");
    let rejected = json_lines(&house, "out/rejected.jsonl");
    assert_eq!(rejected.len(), 1668);
    for (row, number) in rejected.iter().zip((0..2500).filter(|number| number % 3 != 2)) {
        let stage = if number % 3 == 0 { "stars" } else { "issue" };
        let expected =
            (format!("pulls.jsonl, line {}", number + 1), format!("pallets__click-{number}"), stage);
        assert_eq!(
            (&row["place"], &row["id"], &row["stage"]),
            (&json!(expected.0), &json!(expected.1), &json!(expected.2))
        );
    }
    assert_eq!(rejected[1667]["reason"], json!("the id is that of pulls.jsonl, line 3"));
}

#[test]
fn packed_files_and_several_of_them_are_one_run() {
    let house = House::new();
    let mut packed =
        GzEncoder::new(fs::File::create(house.path("a.gz")).expect("made"), flate2::Compression::fast());
    packed.write_all(lines(&[pull(1), pull(2)]).as_bytes()).expect("written");
    packed.finish().expect("written");
    fs::write(house.path("b.json"), json!([pull(2), pull(3)]).to_string()).expect("written");
    check(&house, &["ingest", "jsonl", "--out", "out", "a.gz", "b.json"], 0, &["3 rows in"]);
    let rejected = json_lines(&house, "out/rejected.jsonl");
    assert_eq!(rejected[0]["place"], json!("b.json, row 1"));
    assert_eq!(rejected[0]["reason"], json!("the id is that of a.gz, line 2"));
}

/// A Parquet file of these rows, each column packed as it usually is.
fn parquet(rows: &[Value]) -> Vec<u8> {
    let schema = "message rows {
        required binary instance_id (STRING); required binary repo (STRING); required binary base_commit (STRING);
        required binary problem_statement (STRING); required binary patch (STRING);
        optional binary test_patch (STRING); required int64 stars; required int64 created_at (TIMESTAMP_MICROS);
    }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let packed = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(packed)).expect("a file");
    let mut group = writer.next_row_group().expect("a row group");
    for name in ["instance_id", "repo", "base_commit", "problem_statement", "patch"] {
        let texts: Vec<ByteArray> =
            rows.iter().map(|row| ByteArray::from(row[name].as_str().expect("text"))).collect();
        let mut column = group.next_column().expect("readable").expect("a column");
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).expect("written");
        column.close().expect("written");
    }
    let mut column = group.next_column().expect("readable").expect("a column");
    column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![0; rows.len()]), None).expect("written");
    column.close().expect("written");
    for value in [7, 1_714_564_800_000_000] {
        let mut column = group.next_column().expect("readable").expect("a column");
        column.typed::<Int64Type>().write_batch(&vec![value; rows.len()], None, None).expect("written");
        column.close().expect("written");
    }
    group.close().expect("written");
    writer.into_inner().expect("written")
}

#[test]
fn columns_are_rows_too() {
    let house = House::new();
    let file = parquet(&[pull(1), pull(2), pull(1)]);
    fs::write(house.path("train.parquet"), &file).expect("written");
    check(&house, &["ingest", "parquet", "--out", "out", "train.parquet"], 0, &["2 rows in"]);
    let accepted = json_lines(&house, "out/rows.jsonl");
    assert_eq!(accepted[1]["created_at"], json!("2024-05-01T12:00:00Z"));
    assert_eq!((&accepted[1]["patch"], &accepted[1]["stars"]), (&json!(DIFF), &json!(7)));
    assert_eq!(json_lines(&house, "out/rejected.jsonl")[0]["place"], json!("train.parquet, row 3"));
    fs::write(house.path("torn.parquet"), &file[..file.len() - 4]).expect("written");
    check(&house, &["ingest", "parquet", "--out", "out", "torn.parquet"], 1, &["no whole Parquet file"]);
}

#[test]
fn thresholds_are_in_the_configuration() {
    let house = House::new();
    fs::write(house.path("pulls.jsonl"), lines(&[pull(1)])).expect("written");
    let configured = |text: &str, status, expected: &str| {
        fs::write(house.path("bottega.toml"), text).expect("written");
        let arguments = ["ingest", "jsonl", "--out", "out", "--config", "bottega.toml", "pulls.jsonl"];
        check(&house, &arguments, status, &[expected]);
    };
    configured("[ingest]\nstars_min = 8\n", 1, "0 rows in");
    assert_eq!(json_lines(&house, "out/rejected.jsonl")[0]["reason"], json!("7, expected at least 8"));
    configured("[ingest]\nlicences = [\"mit\"]\n", 0, "1 row in");
    configured("[ingest]\nstar_min = 8\n", 1, "did you mean \"ingest.stars_min\"?");
    configured(
        "[ingest]\npatch_misses_issue_max = 2.0\n",
        1,
        "line 2: ingest.patch_misses_issue_max is 2, expected 0 to 1",
    );
}

#[test]
fn an_evaluation_set_that_is_not_understood_lets_nothing_pass() {
    let house = House::new();
    fs::write(house.path("pulls.jsonl"), lines(&[pull(1)])).expect("written");
    let arguments =
        ["ingest", "jsonl", "--out", "out", "--evaluation-set", "predictions.jsonl", "pulls.jsonl"];
    for (text, why) in
        [("{\"model_patch\": \"\"}\n", "line 1: it names no repository"), ("x\n", "malformed JSON")]
    {
        fs::write(house.path("predictions.jsonl"), format!("{}{text}", lines(&[]))).expect("written");
        check(&house, &arguments, 1, &["cannot read predictions.jsonl", why]);
    }
    assert!(!house.path("out").exists());
}

#[test]
fn events_tell_which_repositories_to_collect() {
    let house = House::new();
    let event = |repo: &str, stars: u64, merged: bool| {
        let pull = json!({
            "merged": merged, "title": "t", "body": "b", "created_at": "2024-05-01T12:00:00Z", "head": {"sha": "2"},
            "base": {"sha": "1", "repo": {"stargazers_count": stars, "language": "Python"}},
        });
        let payload = json!({ "action": "closed", "number": 3, "pull_request": pull });
        json!({ "type": "PullRequestEvent", "repo": {"name": repo}, "payload": payload })
    };
    let other = json!({ "type": "PushEvent", "repo": {"name": "o/pushed"}, "payload": {} });
    let events =
        [event("b/b", 9, true), event("a/a", 9, true), other, event("c/c", 1, true), event("d/d", 9, false)];
    let packed = zstd::encode_all(lines(&events).as_bytes(), 1).expect("packed");
    fs::write(house.path("hour.json.zst"), packed).expect("written");
    let arguments = ["ingest", "jsonl", "--out", "out", "hour.json.zst"];
    check(&house, &arguments, 0, &["0 rows in", "2 repositories worth collecting in out/repositories.txt"]);
    assert_eq!(fs::read_to_string(house.path("out/repositories.txt")).expect("written"), "a/a\nb/b\n");
    let stages: Vec<Value> =
        json_lines(&house, "out/rejected.jsonl").iter().map(|row| row["stage"].clone()).collect();
    assert_eq!(stages, [json!("fix"), json!("fix"), json!("stars")]);
    let packed = zstd::encode_all(lines(&[event("c/c", 1, true)]).as_bytes(), 1).expect("packed");
    fs::write(house.path("hour.json.zst"), packed).expect("written");
    check(&house, &arguments, 1, &["0 rows in"]);
}

fn files_of(house: &House, dir: &str) -> Vec<std::ffi::OsString> {
    let mut left: Vec<_> =
        fs::read_dir(house.path(dir)).expect("listed").flatten().map(|entry| entry.file_name()).collect();
    left.sort();
    left
}

const ALL: [&str; 5] = ["funnel.json", "funnel.svg", "rejected.jsonl", "report.md", "rows.jsonl"];

/// A run that may write so many kilobytes into a file.
fn bounded(house: &House, kilobytes: u32) -> common::Said {
    let bottega = house.command(&[]);
    let script = format!(
        "trap '' XFSZ; ulimit -f {kilobytes}; exec {} ingest jsonl --out out pulls.jsonl",
        bottega.get_program().display()
    );
    common::said(
        &std::process::Command::new("bash")
            .args(["-c", &script])
            .current_dir(house.path(""))
            .output()
            .expect("it runs"),
    )
}

#[test]
fn a_disk_that_fills_up_at_the_end_leaves_what_was_there() {
    let house = House::new();
    let run = ["ingest", "jsonl", "--out", "out", "pulls.jsonl"];
    fs::write(house.path("pulls.jsonl"), lines(&[pull(1)])).expect("written");
    check(&house, &run, 0, &["1 row in"]);
    let kept = ALL.map(|name| fs::read(house.path("out").join(name)).expect("there"));
    // All that is written about these rows is in memory until the end, and more than the funnel's files have.
    let rows: Vec<Value> = (2..10).map(|n| with(n, "hints_text", json!("x".repeat(400)))).collect();
    fs::write(house.path("pulls.jsonl"), lines(&rows)).expect("written");
    let rows_bytes = 8 * (lines(&rows[..1]).len() as u32 + 60);
    let largest = kept.iter().map(|bytes| bytes.len() as u32).max().expect("files") + 1024;
    assert!(largest < rows_bytes - 1024 && rows_bytes < 8192, "{largest} {rows_bytes}");
    let failed = bounded(&house, largest.div_ceil(1024));
    assert!(failed.status == 1 && failed.err.contains("cannot write out"), "{}{}", failed.out, failed.err);
    assert_eq!(ALL.map(|name| fs::read(house.path("out").join(name)).expect("there")), kept);
    assert_eq!(files_of(&house, "out"), ALL);
    assert_eq!(bounded(&house, 100).status, 0);
}

#[test]
fn what_was_killed_leaves_nothing_that_grows_and_two_runs_do_not_mix() {
    let house = House::new();
    let run = ["ingest", "jsonl", "--out", "out", "pulls.jsonl"];
    fs::write(house.path("pulls.jsonl"), lines(&[pull(1)])).expect("written");
    fs::create_dir(house.path("out")).expect("made");
    let part = fs::File::create(house.path("out/rows.jsonl.part")).expect("made");
    part.lock().expect("locked");
    check(&house, &run, 1, &["another command writes into it"]);
    drop(part);
    fs::write(house.path("out/rows.jsonl.part"), "{}\n").expect("a run that was killed");
    check(&house, &run, 0, &["1 row in"]);
    assert_eq!(
        (json_lines(&house, "out/rows.jsonl").len(), files_of(&house, "out")),
        (1, ALL.map(Into::into).into())
    );
}

#[test]
fn a_run_that_fails_leaves_what_was_there() {
    let house = House::new();
    fs::write(house.path("pulls.jsonl"), lines(&[pull(1)])).expect("written");
    check(&house, &["ingest", "jsonl", "--out", "out", "pulls.jsonl"], 0, &["1 row in"]);
    let mut torn = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    torn.write_all(lines(&[pull(2)]).repeat(50).as_bytes()).expect("packed");
    let torn = torn.finish().expect("packed");
    fs::write(house.path("torn.gz"), &torn[..torn.len() - 10]).expect("written");
    check(&house, &["ingest", "jsonl", "--out", "out", "torn.gz"], 1, &["cannot read torn.gz"]);
    assert_eq!(json_lines(&house, "out/rows.jsonl")[0]["pull_number"], json!(1));
    assert_eq!(files_of(&house, "out"), ALL);
    check(&house, &["ingest", "jsonl", "--out", "out", "nowhere.jsonl"], 1, &["cannot open nowhere.jsonl"]);
}
