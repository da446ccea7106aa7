//! Rows in: what is published, what is refused and in which words, and what a full disk leaves.

mod common;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use common::{DIFF, House, Mount, git, row, rows, said};
use queue_format::Counts;
use serde_json::{Value, json};

fn with(id: &str, field: &str, value: Value) -> String {
    let mut row = row(id);
    row[field] = value;
    row.to_string()
}

/// The refused rows and their reasons, as they were kept.
fn kept(house: &House) -> (String, String) {
    let rejected = house.spool_dir().join("incoming/rejected");
    let mut texts = [String::new(), String::new()];
    for entry in fs::read_dir(rejected).expect("listed").flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        texts[usize::from(name.ends_with(".reasons"))] = fs::read_to_string(entry.path()).expect("text");
    }
    texts.into()
}

fn pending(house: &House) -> usize {
    Counts::of(&house.spool().all().expect("listed")).pending.values().sum()
}

#[test]
fn bad_rows_are_refused_by_line_and_field_and_the_rest_goes_on() {
    let house = House::new();
    let input = vec![
        row("good-1").to_string(),
        "{broken".to_owned(),
        String::new(),
        "[1, 2]".to_owned(),
        with("../x", "stars", json!(1)),
        with(&"x".repeat(300), "stars", json!(1)),
        with("bell\u{7}\u{1b}[2J", "stars", json!(1)),
        with("no-patch", "patch", json!("")),
        with("no-tests", "test_patch", Value::Null),
        with("no-diff", "patch", json!("please fix it")),
        with("cut-diff", "test_patch", json!(DIFF.replace("@@ -1 +1 @@", "@@ -1,9 +1,9 @@"))),
        with("a-branch", "base_commit", json!("main")),
        with("a-number", "problem_statement", json!(7)),
        with("good-1", "problem_statement", json!("another")),
        row("good-1").to_string(),
        row("GOOD-2").to_string(),
    ];
    let submitted = house.submit(&input);
    assert_eq!(submitted.status, 0, "{}{}", submitted.out, submitted.err);
    assert!(
        submitted.out.starts_with("rows.jsonl: 2 published, 1 already known, 12 rejected\n"),
        "{}",
        submitted.out
    );
    assert!(submitted.out.contains("\n  and 2 more rows\n"), "{}", submitted.out);
    assert!(!submitted.out.contains(['\u{7}', '\u{1b}']), "{:?}", submitted.out);
    let (rows, reasons) = kept(&house);
    insta::assert_snapshot!(reasons);
    assert_eq!(rows.lines().count(), 12);
    assert_eq!(rows.lines().next(), Some("{broken"), "rows are kept as they were");
    assert_eq!(pending(&house), 2);
}

#[test]
fn submitting_again_changes_nothing() {
    let house = House::new();
    assert_eq!(house.submit(&rows(&["a", "b"])).status, 0);
    let again = house.submit(&rows(&["a", "b", "c"]));
    assert!(again.out.starts_with("rows.jsonl: 1 published, 2 already known, 0 rejected\n"), "{}", again.out);
    assert_eq!((again.status, pending(&house)), (0, 3));
}

#[test]
fn a_dry_run_tells_what_would_be_done_and_does_nothing() {
    let house = House::new();
    assert_eq!(house.submit(&rows(&["a"])).status, 0);
    fs::write(house.path("rows.jsonl"), [rows(&["a", "b", "c"]), vec!["{}".to_owned()]].concat().join("\n"))
        .expect("written");
    let dry =
        house.run(&["submit", "--repositories", "/m/{repo}", "--shard", "1", "--dry-run", "rows.jsonl"]);
    let expected = "rows.jsonl: 2 published, 1 already known, 1 rejected (nothing was done: a dry run)\n";
    assert!(dry.out.starts_with(expected), "{}{}", dry.out, dry.err);
    assert_eq!((dry.status, pending(&house)), (0, 1));
    assert_eq!(fs::read_dir(house.spool_dir().join("incoming/rejected")).expect("listed").count(), 0);
}

#[test]
fn shards_and_priorities_are_as_asked_for() {
    let house = House::new();
    fs::write(house.path("rows.jsonl"), rows(&["a", "b", "c", "d", "e"]).join("\n")).expect("written");
    let arguments =
        ["submit", "--repositories", "/m/{repo}", "--shard", "2", "--priority", "3", "rows.jsonl"];
    assert_eq!(house.run(&arguments).status, 0);
    let class = house.spool_dir().join("pending/3-build");
    let mut tasks: Vec<usize> = fs::read_dir(&class)
        .expect("listed")
        .flatten()
        .map(|shard| fs::read_dir(shard.path()).expect("a shard").count())
        .collect();
    tasks.sort_unstable();
    assert_eq!(tasks, [1, 2, 2]);
    for wrong in [["--shard", "0"], ["--shard", "4097"], ["--priority", "10"]] {
        assert_eq!(house.run(&[&["submit"], &wrong[..], &["rows.jsonl"]].concat()).status, 2, "{wrong:?}");
    }
}

#[test]
fn nothing_but_bad_rows_is_a_failure() {
    let house = House::new();
    let refused = house.submit(&["{}".to_owned(), "7".to_owned()]);
    assert_eq!((refused.status, pending(&house)), (1, 0), "{}", refused.out);
}

#[test]
fn reads_standard_input_documents_and_windows_files() {
    let house = House::new();
    let document = json!([row("in-a-list"), {"instance_id": "bad"}]).to_string();
    let pretty = format!("{:#}", row("pretty"));
    fs::write(house.path("list.json"), document).expect("written");
    fs::write(house.path("pretty.json"), pretty).expect("written");
    fs::write(house.path("windows.jsonl"), format!("\u{feff}{}\r\n\r\n", row("windows"))).expect("written");
    let arguments =
        ["submit", "--repositories", "/m/{repo}", "list.json", "pretty.json", "windows.jsonl", "-"];
    let mut command = house.command(&arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    write!(stdin, "{}", row("piped")).expect("written");
    drop(stdin);
    let submitted = said(&child.wait_with_output().expect("it ends"));
    assert!(submitted.out.contains("row 2: field \"repo\": it is missing"), "{}", submitted.out);
    assert!(submitted.out.contains("standard input: 1 published"), "{}", submitted.out);
    assert_eq!((submitted.status, pending(&house)), (0, 4));
}

#[test]
fn says_how_repositories_are_named() {
    let house = House::new();
    fs::write(house.path("rows.jsonl"), row("a").to_string()).expect("written");
    let missing = house.run(&["submit", "rows.jsonl"]);
    assert_eq!(missing.status, 1);
    assert!(
        missing.out.contains("field \"repository\": it is missing") && missing.out.contains("--repositories")
    );
    let check = |template: &str, expected: &str| {
        let refused = house.run(&["submit", "--repositories", template, "rows.jsonl"]);
        assert_eq!(refused.status, 2, "{template}");
        assert!(
            refused.err.starts_with("bottega: --repositories: ") && refused.err.contains(expected),
            "{}",
            refused.err
        );
    };
    check("/m/{user}/x", "{owner}, {name} or {repo}");
    check("ext::sh -c x", "expected an absolute path");
    fs::write(house.path("rows.jsonl"), with("a", "repository", json!("https://forge.example/x.git")))
        .expect("written");
    assert_eq!(house.run(&["submit", "rows.jsonl"]).status, 0);
}

#[test]
fn what_is_missing_is_named_before_anything_is_done() {
    let house = House::new();
    fs::write(house.path("rows.jsonl"), row("a").to_string()).expect("written");
    let missing = house.run(&["submit", "--repositories", "/m/{repo}", "rows.jsonl", "nowhere.jsonl"]);
    assert_eq!(
        (missing.status, missing.err.as_str(), pending(&house)),
        (
            1,
            "bottega: cannot open nowhere.jsonl: No such file or directory (os error 2); check the path\n",
            0
        )
    );
    let no_spool = house.run(&["status", "--spool", "elsewhere"]);
    assert_eq!(no_spool.status, 1);
    assert!(
        no_spool.err.contains("is not a spool") && no_spool.err.contains("bottega init --spool"),
        "{}",
        no_spool.err
    );
    let usage = house.run(&["submit"]);
    assert_eq!(usage.status, 2, "{}", usage.err);
}

#[test]
fn a_full_disk_leaves_whole_tasks_only() {
    let house = House::new();
    let disk = house.path("disk");
    let _mount = Mount::tmpfs(&disk, "size=1m");
    let spool = disk.join("spool");
    let spool_name = spool.display().to_string();
    assert_eq!(house.run(&["init", "--spool", &spool_name]).status, 0);
    let filler = disk.join("filler");
    // Fails half way: the disk is full then.
    let _ = fs::write(&filler, vec![0; 2 << 20]);
    let bad = [row("a").to_string(), "{}".to_owned()];
    fs::write(house.path("rows.jsonl"), bad.join("\n")).expect("written");
    let submit = ["submit", "--spool", &spool_name, "--repositories", "/m/{repo}", "rows.jsonl"];
    let refused = house.run(&submit);
    assert_eq!(refused.status, 1, "{}", refused.out);
    assert!(
        refused.err.contains("No space left") && refused.err.contains("free space there"),
        "{}",
        refused.err
    );
    assert!(refused.err.contains(&spool_name), "{}", refused.err);
    let left = |dir: &str| {
        fs::read_dir(spool.join(dir)).expect("listed").flatten().map(|e| e.file_name()).collect::<Vec<_>>()
    };
    assert_eq!(
        (left("tmp").len(), left("pending/5-build").len(), left("incoming/rejected").len()),
        (0, 0, 0)
    );
    fs::remove_file(&filler).expect("removed");
    let again = house.run(&submit);
    assert!(
        again.out.starts_with("rows.jsonl: 1 published, 0 already known, 1 rejected\n"),
        "{}{}",
        again.out,
        again.err
    );
}

#[test]
fn an_unwritable_spool_is_said_with_its_remedy() {
    let house = House::new();
    let disk = house.path("disk");
    let mount = Mount::tmpfs(&disk, "size=8m");
    let spool_name = disk.join("spool").display().to_string();
    assert_eq!(house.run(&["init", "--spool", &spool_name]).status, 0);
    fs::write(house.path("rows.jsonl"), row("a").to_string()).expect("written");
    mount.options("remount,ro");
    let refused = house.run(&["submit", "--spool", &spool_name, "--repositories", "/m/{repo}", "rows.jsonl"]);
    assert_eq!(refused.status, 1);
    assert!(refused.err.contains("remount it read-write"), "{}", refused.err);
    assert_eq!(house.run(&["status", "--spool", &spool_name]).status, 0, "what is there can be looked at");
}

#[test]
fn a_base_commit_that_a_mirror_here_lacks_is_refused_before_anybody_waits_for_it() {
    let house = House::new();
    let git =
        |args: &[&str]| String::from_utf8(git(&house.path("mirror"), args)).expect("UTF-8").trim().to_owned();
    fs::create_dir(house.path("mirror")).expect("made");
    git(&["init", "--quiet", "--bare"]);
    let tree = git(&["hash-object", "-w", "-t", "tree", "/dev/null"]);
    let commit = git(&["commit-tree", &tree, "-m", "x"]);
    let text: String = [("a-1", &commit), ("a-2", &"1".repeat(40)), ("a-3", &tree), ("a-4", &commit)]
        .map(|(id, commit)| {
            let mut row = row(id);
            row["base_commit"] = (*commit).clone().into();
            format!("{row}\n")
        })
        .concat();
    fs::write(house.path("rows.jsonl"), text).expect("written");
    let said = house.run(&["submit", "--repositories", "mirror", "rows.jsonl"]);
    assert!(said.out.contains("2 published, 0 already known, 2 rejected"), "{}{}", said.out, said.err);
    assert!(
        said.out.contains("is not in ") && said.out.contains("line 2: field \"base_commit\""),
        "{}",
        said.out
    );
    assert!(!said.out.contains("not checked"), "{}", said.out);
    let mut ended = row("a-5");
    (ended["base_commit"], ended["end_commit"]) = (commit.clone().into(), "1".repeat(40).into());
    fs::write(house.path("rows.jsonl"), ended.to_string()).expect("written");
    let said = house.run(&["submit", "--repositories", "mirror", "rows.jsonl"]);
    assert!(said.out.contains("1 row: repository without the end commit"), "{}{}", said.out, said.err);
}

#[test]
fn rows_whose_repositories_are_elsewhere_are_counted() {
    let house = House::new();
    fs::write(house.path("rows.jsonl"), rows(&["a", "b"]).join("\n")).expect("written");
    let check = |repositories: &str, arguments: &[&str], expected: Option<&str>| {
        let submit = ["submit", "--dry-run", "--repositories", repositories, "rows.jsonl"];
        let said = house.run(&[&submit[..], arguments].concat());
        let told = said.out.lines().find(|line| line.contains("not checked")).map(str::trim);
        assert_eq!((said.status, told), (0, expected), "{arguments:?}: {}{}", said.out, said.err);
    };
    check("/m/{repo}", &[], Some("2 rows: repository not here, not checked"));
    check("/m/{repo}", &["--check", "none"], None);
    let nobody = "http://127.0.0.1:9/{repo}";
    check(nobody, &["--check", "here"], Some("2 rows: repository not here, not checked"));
    check(nobody, &["--check", "all"], Some("2 rows: repository cannot be asked, not checked"));
}
