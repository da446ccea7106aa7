//! status, show, retry, export: over a spool that holds one task of each kind.

mod common;

use std::fs;

use common::{House, accepted, claim, failed, owner, rows, work};
use queue_format::{AcceptanceClass, FailureReason, Lease, SlotActivity, SlotStatus, Verdict, WorkerStatus};
use serde_json::Value;

const NOW: &str = "2024-06-01T00:02:00Z";

/// done: good-1 (strict), good-2 (per-test); failed: bad-build, bad-spec; claimed: at-work; delayed: later; pending: waits.
fn furnished() -> (House, Lease) {
    let house = House::new();
    let spool = house.spool();
    assert_eq!(house.submit(&rows(&["good-1", "good-2", "bad-build", "bad-spec"])).status, 0);
    let spec =
        spool.all().expect("listed").into_iter().find(|t| t.name.id.as_str() == "bad-spec").expect("there");
    fs::write(&spec.path, "{}").expect("torn");
    work(&spool, |id| match id {
        "good-1" => accepted(),
        "good-2" => Verdict::Accepted { class: AcceptanceClass::PerTest },
        _ => failed(FailureReason::Build, "pip found no \u{1b}[1mfoo==9\u{1b}[0m"),
    });
    assert_eq!(house.submit(&rows(&["later"])).status, 0);
    let mut lease = Lease::open(&spool, owner("node-b")).expect("a lease");
    assert!(claim(&mut lease).delay(4_102_444_800, "the engine is down").expect("delayed"));
    assert_eq!(house.submit(&rows(&["at-work"])).status, 0);
    let at_work = claim(&mut lease);
    let since = NOW.parse().expect("a time");
    let activity = SlotActivity { task: at_work.name().id.clone(), stage: "build (2nd)".to_owned(), since };
    let slot = SlotStatus {
        slot: 0,
        cpuset: "0-3".to_owned(),
        memory_bytes: 24 << 30,
        group: None,
        out_of_service: None,
        activity: Some(activity),
    };
    let idle = SlotStatus { slot: 1, activity: None, ..slot.clone() };
    let notices = vec!["1 slot instead of 2: too little memory".to_owned()];
    let obstacle = Some("/state has less than 5 GiB free".to_owned());
    let slots = vec![slot, idle];
    let status =
        WorkerStatus { owner: lease.owner().clone(), at: since, notices, obstacle, kinds: Vec::new(), slots };
    spool.write_worker_status(&status).expect("written");
    assert_eq!(house.submit(&rows(&["waits"])).status, 0);
    (house, lease)
}

/// What differs between runs made the same: paths, UUIDs, ages.
fn settle(house: &House, text: &str) -> String {
    let text = house.stable(text);
    let mut settled = String::new();
    for line in text.lines() {
        let cut = [("  now ", " for "), ("worker ", " ago"), ("delayed ", " in "), ("pace ", " ")];
        let end = cut
            .iter()
            .find_map(|(start, cut)| if line.starts_with(start) { line.split_once(cut) } else { None });
        let line = end.map_or(line, |(before, _)| before);
        let line = line.split_once("  (heard ").map_or(line, |(before, _)| before);
        let line = line.split_once(" free)").map_or(line, |_| "spool    HOUSE/spool  (… free)");
        let line = line.split_once("build (2nd)  ").map_or(line, |(before, _)| before);
        settled.push_str(line);
        settled.push('\n');
    }
    let mut out = String::new();
    for part in settled.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        // A UUID without dashes, and the one character that ended it.
        out.push_str(&if part.len() == 33 { format!("UUID{}", &part[32..]) } else { part.to_owned() });
    }
    out
}

#[test]
fn status_counts_by_state_class_and_reason() {
    let (house, _lease) = furnished();
    let text = house.run(&["status"]);
    assert_eq!(text.status, 0, "{}", text.err);
    insta::assert_snapshot!(settle(&house, &text.out));

    let json: Value = serde_json::from_str(&house.run(&["status", "--json"]).out).expect("JSON");
    let expected =
        serde_json::json!({"pending": 1, "delayed": 1, "hold": 0, "claimed": 1, "done": 2, "failed": 2});
    assert_eq!(json["counts"], expected);
    assert_eq!(json["pending_by_class"], serde_json::json!({"5-build": 1}));
    assert_eq!(json["accepted_by_class"], serde_json::json!({"per-test": 1, "strict": 1}));
    assert_eq!(json["failed_by_reason"], serde_json::json!({"badspec": 1, "build": 1}));
    assert_eq!((json["open"].as_u64(), json["settled"].as_u64()), (Some(3), Some(4)));
    assert_eq!(json["workers"][0]["slots"][0]["activity"]["task"], "at-work");
}

#[test]
fn show_tells_where_why_cost_and_what_to_do() {
    let (house, _lease) = furnished();
    let show = |id: &str| {
        let shown = house.run(&["show", id]);
        assert_eq!(shown.status, 0, "{}", shown.err);
        assert!(!shown.out.contains('\u{1b}'), "an escape reached the terminal: {:?}", shown.out);
        settle(&house, &shown.out)
    };
    insta::assert_snapshot!("show_good", show("good-1"));
    insta::assert_snapshot!("show_bad_build", show("Bad-Build"));
    insta::assert_snapshot!("show_bad_spec", show("bad-spec"));
    insta::assert_snapshot!("show_at_work", show("at-work"));
    insta::assert_snapshot!("show_waits", show("waits"));
    let later = show("later");
    assert!(later.contains("delayed, due in") && later.contains("to try it at once: mv "), "{later}");

    let unknown = house.run(&["show", "bad-biuld"]);
    assert_eq!((unknown.status, unknown.out.as_str()), (1, ""));
    assert!(
        unknown.err.contains("there is no task \"bad-biuld\"")
            && unknown.err.contains("did you mean bad-build?")
    );
    let hostile = house.run(&["show", "\u{1b}[2J../../etc/passwd"]);
    assert!(hostile.status == 1 && !hostile.err.contains('\u{1b}'), "{:?}", hostile.err);

    let json: Value = serde_json::from_str(&house.run(&["show", "good-1", "--json"]).out).expect("JSON");
    assert_eq!((&json["official_token"], &json["places"][0]["state"]), (&"a001".into(), &"done".into()));
    assert_eq!(json["attempts"][0]["manifest"]["fail_to_pass"], 1);
    assert_eq!(json["attempts"][0]["transitions"]["fail_to_pass"][0], "tests/test_x.py::test_new");
}

#[test]
fn show_prints_logs_without_their_escapes() {
    let (house, _lease) = furnished();
    let log = |kind: &str| house.run(&["show", "good-1", "--log", kind]).out;
    assert_eq!(log("build"), "Step 1/3\ndone\n");
    assert_eq!(log("test-only"), "1 failed\n");
    assert_eq!(log("with-fix"), "3 passed\n");
    let none = house.run(&["show", "waits", "--log", "build"]);
    assert_eq!((none.status, none.out.as_str()), (1, ""));
    assert!(none.err.contains("no attempt has a build.log"), "{}", none.err);
    let wrong = house.run(&["show", "good-1", "--log", "build", "--attempt", "second"]);
    assert_eq!(wrong.status, 2, "{}", wrong.err);
}

#[test]
fn the_commands_that_show_advises_can_be_pasted() {
    let (house, _lease) = furnished();
    let paste = |id: &str, beginning: &str| {
        let shown = house.run(&["show", id]).out;
        let line =
            shown.lines().find_map(|line| line.trim_start_matches("  next").trim().strip_prefix(beginning));
        let line = line.unwrap_or_else(|| panic!("{beginning:?} is not in {shown}")).to_owned();
        let done = std::process::Command::new("sh").arg("-c").arg(&line).status().expect("a shell");
        assert!(done.success(), "{line}");
    };
    let state = |id: &str| {
        let json: Value = serde_json::from_str(&house.run(&["show", id, "--json"]).out).expect("JSON");
        json["places"][0]["state"].as_str().expect("a state").to_owned()
    };
    paste("waits", "to park it: ");
    assert_eq!(state("waits"), "hold");
    paste("waits", "to let it go on: ");
    assert_eq!(state("waits"), "pending");
    paste("waits", "to have it done first: ");
    assert_eq!(state("waits"), "pending");
    paste("later", "to try it at once: ");
    assert_eq!(state("later"), "pending");
    paste("at-work", "to give it to another worker: ");
    assert_eq!(state("at-work"), "pending");
}

#[test]
fn retry_makes_dead_letters_pending() {
    let (house, _lease) = furnished();
    let retried = house.run(&["retry", "bad-build"]);
    assert_eq!((retried.status, retried.out.as_str()), (0, "1 task pending again\n"));
    let not_failed = house.run(&["retry", "bad-build", "good-1"]);
    assert_eq!(not_failed.status, 1);
    assert!(
        not_failed.out.contains("good-1: not failed, it lies at ")
            && not_failed.out.ends_with("0 tasks pending again\n")
    );
    let unknown = house.run(&["retry", "good-3"]);
    assert!(unknown.status == 1 && unknown.err.contains("did you mean good-1 or good-2?"), "{}", unknown.err);
    let check = |args: &[&str], expected: &str| {
        let retried = house.run(args);
        assert_eq!((retried.status, retried.out.as_str()), (0, expected), "{}", retried.err);
    };
    check(&["retry", "--reason", "build"], "0 tasks pending again\n");
    check(&["retry", "--all-failed"], "1 task pending again\n");
    let reason = house.run(&["retry", "--reason", "bad-luck"]);
    assert!(reason.status == 2 && reason.err.contains("no-fail-to-pass"), "{}", reason.err);
    assert_eq!(house.run(&["retry"]).status, 2);
    // A fresh budget, the token kept.
    work(&house.spool(), |_| accepted());
    let json: Value = serde_json::from_str(&house.run(&["show", "bad-build", "--json"]).out).expect("JSON");
    assert_eq!(json["official_token"], "a002");
    assert_eq!(json["attempts"].as_array().expect("a list").len(), 2);
}

#[test]
fn export_writes_official_results_only() {
    let (house, _lease) = furnished();
    let export = |args: &[&str]| house.run(&[&["export"], args].concat());
    let read = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(house.path(name)).expect("written");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let all = export(&["--out", "all.jsonl"]);
    assert_eq!(
        (all.status, all.out.as_str()),
        (0, "all.jsonl: 2 rows (per-test 1, strict 1)\n"),
        "{}",
        all.err
    );
    let rows = read("all.jsonl");
    assert_eq!(
        rows.iter().map(|row| row["instance_id"].as_str().expect("text")).collect::<Vec<_>>(),
        ["good-1", "good-2"]
    );
    insta::assert_snapshot!("openswe", format!("{:#}", rows[0]));

    let strict = export(&["--format", "swebench", "--class", "strict", "--out", "strict.jsonl"]);
    assert_eq!(strict.out, "strict.jsonl: 1 row (strict 1)\nleft out by --class: 1 (per-test 1)\n");
    insta::assert_snapshot!("swebench", format!("{:#}", read("strict.jsonl")[0]));

    let piped = export(&["--out", "-"]);
    assert_eq!(piped.out, fs::read_to_string(house.path("all.jsonl")).expect("written"));
    // A link is followed, and what is no file is written to: neither is replaced.
    std::os::unix::fs::symlink(house.path("all.jsonl"), house.path("link.jsonl")).expect("a link");
    assert_eq!(export(&["--class", "strict", "--out", "link.jsonl"]).status, 0);
    assert!(fs::symlink_metadata(house.path("link.jsonl")).expect("there").is_symlink());
    assert_eq!(read("all.jsonl").len(), 1);
    nix::unistd::mkfifo(&house.path("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let reader = std::thread::spawn({
        let pipe = house.path("pipe");
        move || fs::read_to_string(pipe).expect("read")
    });
    assert_eq!(export(&["--out", "pipe"]).status, 0);
    assert_eq!(reader.join().expect("no panic"), piped.out);
    assert_eq!(export(&["--class", "best", "--out", "x"]).status, 2);
    let nowhere = export(&["--out", "no/such/dir/x.jsonl"]);
    assert!(nowhere.status == 1 && nowhere.err.contains("no/such/dir/x.jsonl"), "{}", nowhere.err);
}

#[test]
fn export_refuses_results_that_were_changed() {
    let (house, _lease) = furnished();
    let spool = house.spool();
    let id = "good-1".parse().expect("an id");
    let dir = spool.layout().attempt(&id, queue_format::Token(1));
    fs::write(dir.join("Dockerfile"), "FROM elsewhere\n").expect("tampered");
    let id = "good-2".parse().expect("an id");
    fs::remove_dir_all(spool.layout().attempts(&id)).expect("removed");
    let exported = house.run(&["export", "--out", "rows.jsonl"]);
    assert_eq!(exported.status, 1);
    assert!(
        exported.out.contains("good-1: ") && exported.out.contains("not what its manifest says"),
        "{}",
        exported.out
    );
    assert!(
        exported.out.contains("good-2: ") && exported.out.contains("has no manifest.json"),
        "{}",
        exported.out
    );
    assert_eq!(fs::read_to_string(house.path("rows.jsonl")).expect("written"), "");
    // The directory says that it is not asked for: its results are not looked at.
    let strict = house.run(&["export", "--class", "strict", "--out", "rows.jsonl"]);
    assert!(!strict.out.contains("good-2"), "{}", strict.out);
    assert!(strict.out.contains("left out by --class: 1 (per-test 1)"), "{}", strict.out);

    let ids: Vec<String> = (0..23).map(|n| format!("many-{n:02}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(house.submit(&rows(&ids)).status, 0);
    work(&spool, |_| accepted());
    for id in ids {
        fs::remove_dir_all(spool.layout().attempts(&id.parse().expect("an id"))).expect("removed");
    }
    let exported = house.run(&["export", "--out", "rows.jsonl"]);
    assert!(exported.out.contains("25 tasks in done/ could not be exported"), "{}", exported.out);
    assert!(exported.out.contains("many-17: ") && !exported.out.contains("many-18: "), "{}", exported.out);
    assert!(exported.out.contains("and 5 more"), "{}", exported.out);
}

#[test]
fn output_into_a_closed_pipe_is_no_failure() {
    let (house, _lease) = furnished();
    let mut child = house
        .command(&["export", "--out", "-"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
}
