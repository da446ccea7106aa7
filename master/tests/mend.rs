//! fsck and doctor: the real command over spools that are ruined in every way that can be made in a moment.
#![expect(clippy::disallowed_methods, reason = "people rename with mv")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{House, Mount, accepted, check, claim, failed, id, owner, path, rows, state, work};
use queue_format::{AcceptanceClass, DoneClass, FailureReason, Heartbeat, Lease, State, Token};
use serde_json::Value;

/// A spool with one of every flaw that can be made in a moment.
fn ruin(house: &House) {
    assert_eq!(house.submit(&rows(&["good", "lost-result", "changed", "nameless"])).status, 0);
    work(&house.spool(), |_| accepted());
    assert_eq!(house.submit(&rows(&["twice", "torn", "linked", "behind", "stray"])).status, 0);
    let (spool, root) = (house.spool(), house.spool_dir());
    let attempt = |text: &str, n| spool.layout().attempt(&id(text), Token(n));
    fs::remove_dir_all(attempt("lost-result", 1)).expect("removed");
    fs::write(attempt("changed", 1).join("Dockerfile"), "FROM elsewhere\n").expect("tampered");
    let nameless = path(house, "nameless");
    fs::rename(&nameless, nameless.with_file_name("nameless.a001.r0.json")).expect("mv");
    fs::copy(path(house, "twice"), root.join("hold/twice.a000.r0.json")).expect("cp");
    fs::write(path(house, "torn"), "{\"format\": 1, ").expect("torn");
    fs::hard_link(path(house, "linked"), root.join("status/outside")).expect("ln");
    fs::create_dir_all(attempt("behind", 3)).expect("made");
    fs::create_dir_all(root.join("failed/no-such-reason")).expect("made");
    fs::rename(path(house, "stray"), root.join("failed/no-such-reason/stray.a000.r0.json")).expect("mv");
    fs::write(root.join("pending/5-build/NOT A TASK.json"), "{}").expect("written");
    fs::create_dir_all(root.join("pending/5-build/used-up")).expect("made");
    fs::create_dir_all(root.join("delayed/1000/5-build")).expect("made");
    fs::write(root.join("strange"), "").expect("written");
    fs::write(root.join("control/puase"), "").expect("written");
    fs::create_dir_all(root.join("results/zz/x")).expect("made");
}

fn findings(house: &House, args: &[&str]) -> (i32, Vec<Value>) {
    let said = house.run(&[&["fsck", "--json"], args].concat());
    (said.status, said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

fn kinds(lines: &[Value], severity: &str) -> Vec<String> {
    let of = |line: &Value| {
        let finding = &line["finding"];
        (finding["severity"] == severity).then(|| finding["check"].as_str().expect("text").to_owned())
    };
    let mut kinds: Vec<String> = lines.iter().filter_map(of).collect();
    kinds.sort();
    kinds
}

#[test]
fn a_sound_spool_has_no_findings() {
    let house = House::new();
    assert_eq!(house.submit(&rows(&["a", "b", "c", "d"])).status, 0);
    let spool = house.spool();
    work(&spool, |text| if text == "a" { failed(FailureReason::Build, "no foo") } else { accepted() });
    assert_eq!(house.submit(&rows(&["e", "f"])).status, 0);
    let mut lease = Lease::open(&spool, owner("node-b")).expect("a lease");
    let _held = claim(&mut lease);
    let _beat = Heartbeat::begin(&spool, lease.owner().clone()).expect("a heartbeat");
    spool.pause("a while").expect("paused");
    spool.drain("node-b").expect("drained");
    let (status, lines) = findings(&house, &[]);
    assert_eq!((status, kinds(&lines, "error"), kinds(&lines, "warning")), (0, vec![], vec![]), "{lines:#?}");
    let checked = &lines.last().expect("a line")["checked"];
    assert_eq!(
        (&checked["done"], &checked["failed"], &checked["claimed"]),
        (&3.into(), &1.into(), &1.into())
    );
    assert!(checked["files_read"].as_u64() > Some(20), "{checked}");
    check(&house, &["fsck", "--names-only"], 0, &["6 tasks: ", "0 files read", "0 errors, 0 warnings"]);
    assert_eq!(
        fs::read_dir(house.spool_dir().join("tmp")).expect("there").count(),
        0,
        "nothing is left behind"
    );
}

#[test]
fn fsck_finds_every_flaw_and_mends_what_moves_can_mend() {
    let house = House::new();
    ruin(&house);
    let before = house.spool().all().expect("listed").len();
    let (status, lines) = findings(&house, &[]);
    assert_eq!(status, 1);
    assert_eq!(
        kinds(&lines, "error"),
        [
            "damaged-task",
            "done-without-owner",
            "done-without-result",
            "done-without-result",
            "hard-links",
            "out-of-sight",
            "token-behind",
            "two-places"
        ],
        "{lines:#?}"
    );
    let warnings = ["bad-name", "control", "unknown-name", "unknown-name"];
    assert_eq!(kinds(&lines, "warning"), warnings, "{lines:#?}");
    assert!(kinds(&lines, "note").contains(&"empty-shard".to_owned()), "{lines:#?}");
    assert_eq!(house.spool().all().expect("listed").len(), before, "a check changes nothing");

    let text =
        check(&house, &["fsck", "--repair"], 1, &["ERROR", "$ mv ", "&& mv ", " repaired", "1 error left"]);
    assert!(text.lines().any(|line| line.starts_with("mv ") && line.contains("/done/")), "{text}");
    assert_eq!(state(&house, "torn"), State::Failed(FailureReason::BadSpec));
    for text in ["lost-result", "changed", "behind", "twice"] {
        assert!(matches!(state(&house, text), State::Pending(_)), "{text}");
    }
    assert_eq!(house.spool().find(&id("behind")).expect("listed")[0].name.token, Token(3));
    assert_eq!(house.spool().find(&id("changed")).expect("listed")[0].name.token, Token(1));
    assert_eq!(
        (state(&house, "nameless"), state(&house, "stray")),
        (State::Done(DoneClass::Accepted(AcceptanceClass::Strict)), State::Hold)
    );
    let kept = house.spool_dir().join("incoming/rejected");
    for name in ["twice.a000.r0.json", "NOT A TASK.json"] {
        assert!(kept.join(name).exists() && kept.join(format!("{name}.reason")).exists(), "{name}");
    }
    let (status, lines) = findings(&house, &["--repair"]);
    assert_eq!((status, kinds(&lines, "error")), (1, vec!["hard-links".to_owned()]), "{lines:#?}");
    fs::remove_file(house.spool_dir().join("status/outside")).expect("removed");
    let (status, lines) = findings(&house, &[]);
    assert_eq!((status, kinds(&lines, "error")), (0, vec![]), "{lines:#?}");
    // Everything that was mended can be worked on.
    house.spool().release(&house.spool().find(&id("stray")).expect("listed")[0]).expect("released");
    work(&house.spool(), |_| accepted());
    assert_eq!(findings(&house, &[]).0, 0);
    let json: Value = serde_json::from_str(&house.run(&["show", "behind", "--json"]).out).expect("JSON");
    assert_eq!(json["official_token"], "a004");
}

#[test]
fn the_commands_that_fsck_shows_can_be_pasted() {
    let house = House::new();
    ruin(&house);
    let text = house.run(&["fsck"]).out;
    for line in text.lines().filter_map(|line| line.trim().strip_prefix("$ ")) {
        let done = std::process::Command::new("sh").arg("-c").arg(line).status().expect("a shell");
        assert!(done.success(), "{line}");
    }
    let (_, lines) = findings(&house, &[]);
    assert_eq!(kinds(&lines, "error"), ["hard-links"], "{lines:#?}");
}

#[test]
fn two_done_names_keep_the_one_with_a_result() {
    let house = House::new();
    assert_eq!(house.submit(&rows(&["a"])).status, 0);
    work(&house.spool(), |_| accepted());
    let done = path(&house, "a");
    let other = done.with_file_name(format!("a.a002@{}.r0.json", owner("node-z")));
    fs::copy(&done, &other).expect("cp");
    let (_, lines) = findings(&house, &["--repair"]);
    assert_eq!(findings(&house, &[]).0, 0, "{lines:#?}");
    assert!(done.exists() && !other.exists());
    assert!(kinds(&lines, "error").contains(&"two-places".to_owned()), "{lines:#?}");
}

#[test]
fn leftovers_and_the_silent_are_found_by_the_servers_clock() {
    let house = House::new();
    assert_eq!(house.submit(&rows(&["a"])).status, 0);
    let spool = house.spool();
    let (root, gone) = (house.spool_dir(), owner("node-c"));
    let mut lease = Lease::open(&spool, gone.clone()).expect("a lease");
    let held = claim(&mut lease);
    // A spool whose silence is short: the shortest that there is.
    let identity = fs::read_to_string(root.join("spool.toml")).expect("there");
    let timing = "[timing]\nbeat_seconds = 1\nfence_seconds = 3\nsilence_seconds = 4\n";
    fs::write(root.join("spool.toml"), format!("{identity}{timing}")).expect("written");
    let old = |path: &Path| {
        let touched = std::process::Command::new("touch").args(["-d", "2 hours ago"]).arg(path).status();
        assert!(touched.expect("touch").success());
    };
    for name in ["pending/5-build/.new-0123", "done/.look-4567", "hold/.new-fresh"] {
        fs::write(root.join(name), "").expect("written");
    }
    old(&root.join("pending/5-build/.new-0123"));
    old(&root.join("done/.look-4567"));
    let (_, lines) = findings(&house, &[]);
    assert_eq!(kinds(&lines, "note").iter().filter(|kind| *kind == "leftover").count(), 2, "{lines:#?}");
    // A change of the directory's own time cannot be made: it is waited for.
    let began = std::time::Instant::now();
    let lines = loop {
        let (_, lines) = findings(&house, &["--repair"]);
        if kinds(&lines, "warning").contains(&"silent".to_owned()) {
            break lines;
        }
        assert!(began.elapsed().as_secs() < 60, "{lines:#?}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    assert!(lines.iter().any(|line| line["done"] == true), "{lines:#?}");
    assert!(matches!(state(&house, "a"), State::Pending(_)));
    assert!(!spool.layout().lease(&gone).exists() && !root.join("done/.look-4567").exists());
    assert!(root.join("hold/.new-fresh").exists(), "it may still be somebody's");
    drop(held);
}

#[test]
fn doctor_measures_and_leaves_nothing_behind() {
    let house = House::new();
    assert_eq!(house.submit(&rows(&["a"])).status, 0);
    let all = |house: &House| -> Vec<String> {
        let listed = std::process::Command::new("find").arg(house.spool_dir()).output().expect("find");
        let mut names: Vec<String> =
            String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    let before = all(&house);
    check(
        &house,
        &["doctor", "--renames", "10"],
        0,
        &["mount ", "rename ", "tasks a second", "clock ", "0 errors"],
    );
    let json: Value =
        serde_json::from_str(&house.run(&["doctor", "--json", "--renames", "20"]).out).expect("JSON");
    let measured = &json["measured"];
    assert_eq!(measured["rename_across"]["count"], 20);
    let number = |value: &Value| value.as_f64().expect("a number");
    let (median, p99) =
        (number(&measured["rename"]["median_seconds"]), number(&measured["rename"]["p99_seconds"]));
    assert!(0.0 < median && median <= p99, "{measured}");
    assert!(
        number(&measured["tasks_per_second"][0]) < number(&measured["tasks_per_second"][1]),
        "{measured}"
    );
    assert!(
        json["space"]["total_bytes"].as_u64() > Some(0) && json["mount"]["mount_point"].is_string(),
        "{json:#}"
    );
    assert_eq!(all(&house), before);
}

#[test]
fn doctor_tells_of_a_mount_within_the_spool_and_of_one_that_is_full() {
    let house = House::new();
    fs::create_dir_all(house.spool_dir().join("done")).expect("made");
    let _mount = Mount::tmpfs(&house.spool_dir().join("done"), "size=1m");
    check(
        &house,
        &["doctor", "--renames", "10"],
        1,
        &[
            "ERROR        ",
            "/done lie on another file system than the spool",
            "nothing can be moved to ",
            "one spool is one mount",
        ],
    );
    let other = House::new();
    let _small = Mount::tmpfs(&other.path("small"), "size=4m");
    let dir = other.path("small/spool");
    let dir = dir.to_str().expect("text");
    check(&other, &["init", "--spool", dir], 0, &[]);
    fs::write(other.path("small/ballast"), vec![0; 5_000_000]).expect_err("full at the end");
    check(
        &other,
        &["doctor", "--spool", dir, "--renames", "10"],
        1,
        &["tmpfs keeps nothing", "less than 5 %", "free space there"],
    );
}

#[test]
fn fsck_warns_of_directories_that_anybody_may_write() {
    let house = House::new();
    let done = house.spool_dir().join("done");
    fs::set_permissions(&done, fs::Permissions::from_mode(0o777)).expect("chmod");
    check(&house, &["fsck"], 0, &["anybody on the machine may write here (mode 0777)", "chmod 2770"]);
    fs::set_permissions(&done, fs::Permissions::from_mode(0o2770)).expect("chmod");
    check(&house, &["fsck"], 0, &["others of the group cannot write here"]);
}
