//! What needs no engine: the spool's host side, copies of repositories, limits, and what people read of it.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::config;
use janitor::{AUDIT_FILE, Audit, Config, Janitor, METRICS_FILE, Place};
use queue_format::{
    DoneClass, Emergency, FailureReason, Incarnation, Ledger, LedgerEntry, LifeLock, LitterAges,
    MANIFEST_FILE, ObjectKind, Owner, Spool, TaskId, Token,
};
use uuid::Uuid;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Node {
    _dir: tempfile::TempDir,
    spool: Spool,
    place: Place,
}

fn node() -> Node {
    let dir = tempfile::tempdir().expect("dir");
    let spool = Spool::init(&dir.path().join("spool"), Uuid::now_v7()).expect("spool");
    let state = dir.path().join("state");
    fs::create_dir(&state).expect("made");
    let place = Place {
        spool: spool.layout().root().to_owned(),
        hostname: "here".to_owned(),
        engine: Some(format!("unix://{}", state.join("nobody.sock").display())),
        state,
    };
    Node { _dir: dir, spool, place }
}

impl Node {
    fn janitor(&self, config: Config) -> Janitor {
        Janitor::open(self.place.clone(), config, jiff::Timestamp::now, systemd::Notifier::default())
            .expect("one")
    }

    fn owner(&self, node: &str) -> Owner {
        Owner::new(node, Incarnation::new(Uuid::now_v7()))
    }

    /// A directory of a task that ended, made by a worker that lives.
    fn work_dir(&self, owner: &Owner, task: &str) -> PathBuf {
        let object = Uuid::now_v7();
        let path = self.place.state.join("work").join(object.to_string());
        let entry = LedgerEntry {
            object,
            kind: ObjectKind::WorkDir { path: path.clone() },
            spool: self.spool.id(),
            owner: owner.clone(),
            task: task.parse().expect("an id"),
            token: Token(1),
            created_at: jiff::Timestamp::now(),
            ended_at: None,
        };
        Ledger::open(&self.place.state).expect("a ledger").record(&entry).expect("recorded");
        fs::create_dir_all(&path).expect("made");
        fs::write(path.join("file"), [1; 5000]).expect("written");
        path
    }
}

/// Last written so long ago.
fn old(path: &Path, age: Duration) {
    File::open(path).expect("opened").set_modified(SystemTime::now() - age).expect("set");
}

fn write(path: &Path, age: Duration) -> PathBuf {
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(path, [1; 3000]).expect("written");
    old(path, age);
    path.to_owned()
}

fn empty(dir: &Path, age: Duration) -> PathBuf {
    fs::create_dir_all(dir).expect("made");
    old(dir, age);
    dir.to_owned()
}

#[tokio::test]
async fn the_spool_keeps_what_is_young_named_or_told_and_loses_what_nobody_needs() {
    let node = node();
    let layout = node.spool.layout().clone();
    let here = node.owner("here");
    let attempt = |task: &str, token: u32, with_manifest: bool, age: Duration| {
        let id: TaskId = task.parse().expect("an id");
        let dir = layout.attempt(&id, Token(token));
        write(&dir.join("run.log"), age);
        if with_manifest {
            write(&dir.join(MANIFEST_FILE), age);
        }
        old(&dir, age);
        dir
    };
    let claimed = layout.lease(&here).join("5-build/claimed.a001.r0.json");
    let done = layout.done_bucket(DoneClass::Completed, &"done".parse().expect("an id"));
    let dead_letter = layout.failed_for(FailureReason::BadSpec).join("void.a004.r0.json");
    let mounted = layout.tmp().join(".nfs0003");
    fs::create_dir_all(&mounted).expect("made");
    old(&mounted, 20 * DAY);
    let beating = node.owner("here");
    write(&layout.nodes().join(format!("{beating}.7")), Duration::ZERO);

    let kept = [
        write(&layout.pending().join("5-build/.nfs0001"), DAY),
        write(&layout.pending().join("5-build/.hidden"), 20 * DAY),
        write(&layout.tmp().join(".gone-fishing"), 20 * DAY),
        mounted.clone(),
        write(&claimed, 20 * DAY),
        attempt("told", 1, true, 20 * DAY),
        attempt("young", 1, false, DAY),
        attempt("claimed", 1, false, 20 * DAY),
        attempt("done", 2, false, 20 * DAY),
        // Of a task whose bucket is looked at in any case.
        attempt("void", 4, false, 20 * DAY),
        write(&dead_letter, DAY),
        write(&done.join(format!("done.a002@{here}.r0.json")), DAY),
        write(&layout.log(&node.owner("here")), 20 * DAY),
        write(&layout.log(&beating), 100 * DAY),
        write(&layout.log(&node.owner("elsewhere")), 100 * DAY),
        write(&layout.logs().join("notes.txt"), 100 * DAY),
        write(&layout.inputs().join(".new-0193a1c2d3e4f5061728394a5b6c7d8e"), DAY),
        write(&layout.hold().join(".new-ideas"), 20 * DAY),
        empty(&layout.staging(&beating), 20 * DAY),
        empty(&layout.staging(&node.owner("here")), DAY),
        write(&layout.staging(&node.owner("there")).join("incoming/rows.jsonl"), 20 * DAY),
        write(&layout.logs().join(format!("{}.jsonl.bak", node.owner("here"))), 100 * DAY),
    ];
    let gone = [
        write(&layout.pending().join("5-build/.nfs0002"), 8 * DAY),
        write(&layout.tmp().join(".gone-0193a1c2d3e4f5061728394a5b6c7d8e/file"), 8 * DAY)
            .parent()
            .expect("a parent")
            .to_owned(),
        attempt("void", 3, false, 8 * DAY),
        attempt("claimed", 9, false, 8 * DAY),
        write(&layout.log(&node.owner("here")), 100 * DAY),
        write(&layout.delayed().join("1700000000/5-build/.look-0193a1c2d3e4f5061728394a5b6c7d8e"), 8 * DAY),
        write(&layout.hold().join(".new-0193a1c2d3e4f5061728394a5b6c7d8e"), 8 * DAY),
        write(&layout.lease(&here).join("5-build/.new-0193a1c2d3e4f5061728394a5b6c7d8e"), 8 * DAY),
        write(&done.join(".nfs0004"), 8 * DAY),
        write(&layout.failed_for(FailureReason::BadSpec).join(".nfs0005"), 8 * DAY),
        write(&layout.inputs().join("00/.new-0193a1c2d3e4f5061728394a5b6c7d8e"), 8 * DAY),
        write(&layout.staging(&node.owner("here")).join(".new-0193a1c2d3e4f5061728394a5b6c7d8e"), 8 * DAY),
        empty(&layout.staging(&node.owner("there")), 8 * DAY),
    ];
    old(&gone[1], 8 * DAY);
    // Each look takes another of 256 buckets.
    let mut removed = 0;
    let mut planned = Vec::new();
    let mut janitor = node.janitor(config());
    let is_gone = |path: &PathBuf| path.symlink_metadata().is_err();
    for _ in 0..256 {
        janitor.look_further();
        planned.extend(janitor.plan().await.expect("a plan"));
        let report = janitor.once().await.expect("a pass");
        removed += report.removed;
        assert_eq!(report.failed, 0);
        if gone.iter().all(is_gone) {
            break;
        }
    }
    for path in &gone {
        assert!(is_gone(path), "{} is still there", path.display());
        let line = planned.iter().find(|line| line.contains(&path.display().to_string()));
        assert!(line.expect("a line").starts_with("remove "), "{planned:#?}");
    }
    for path in &kept {
        assert!(path.exists(), "{} is gone", path.display());
    }
    assert_eq!(removed, gone.len());
    let past = Audit::new(&node.place.state, config().audit_bytes_max).past();
    let history = janitor::history(&past, Some("void"), jiff::Timestamp::now());
    assert_eq!(history.len(), 1, "{history:#?}");
    // By the command, wherever the spool is.
    let mut command = assert_cmd::Command::cargo_bin("bottega-janitor").expect("built");
    command.args(["history", "void", "--spool", "/nonexistent", "--state"]).arg(&node.place.state);
    let told = command.assert().success().get_output().stdout.clone();
    assert_eq!(String::from_utf8_lossy(&told).trim_end(), history[0]);
    assert!(history[0].contains("removed void-result") && history[0].contains("its attempt never ended"));
}

#[tokio::test]
async fn what_cannot_be_looked_at_in_the_spool_stops_nothing_else() {
    let node = node();
    let owner = node.owner("here");
    let _alive = LifeLock::hold(&node.place.state, &owner).expect("a lock");
    let dir = node.work_dir(&owner, "ended");
    // Who lists one of these goes in circles, root too.
    let results = node.spool.layout().results();
    let buckets: Vec<PathBuf> = (0..=u8::MAX).map(|bucket| results.join(format!("{bucket:02x}"))).collect();
    for bucket in &buckets {
        std::os::unix::fs::symlink(bucket, bucket).expect("linked");
    }
    let copy = node.place.state.join("repositories/old.git");
    write(&copy.join("HEAD"), 3 * DAY);
    write(&copy.with_extension("lock"), 3 * DAY);
    let mut janitor = node.janitor(Config { repositories_bytes_max: 1, ..config() });
    assert_eq!(janitor.once().await.expect("a pass").removed, 2);
    assert!(!dir.exists() && !copy.exists());
    let troubles = janitor.troubles();
    assert!(troubles.iter().any(|told| told.contains(&results.display().to_string())), "{troubles:#?}");
    buckets.iter().for_each(|bucket| fs::remove_file(bucket).expect("mended"));
    let log = write(&node.spool.layout().log(&node.owner("here")), 100 * DAY);
    janitor.look_further();
    janitor.once().await.expect("a pass");
    assert!(!log.exists() && janitor.troubles().is_empty(), "{:#?}", janitor.troubles());
}

#[tokio::test]
async fn a_plan_looks_where_the_next_run_looks() {
    let node = node();
    let layout = node.spool.layout().clone();
    let ids = ["one", "two", "three"].map(|id| id.parse::<TaskId>().expect("an id"));
    let void = ids.map(|id| layout.attempt(&id, Token(1)));
    for dir in &void {
        write(&dir.join("run.log"), 8 * DAY);
        old(dir, 8 * DAY);
    }
    let mut removed = 0;
    // Each of these is a process of its own, and each run takes another of 256 buckets.
    for _ in 0..256 {
        let planned = node.janitor(config()).plan().await.expect("a plan");
        assert_eq!(node.janitor(config()).plan().await.expect("a plan"), planned, "a plan moves nothing on");
        let mut janitor = node.janitor(config());
        let done = janitor.once().await.expect("a pass").removed;
        assert_eq!(planned.len(), done, "{planned:#?}");
        removed += done;
    }
    assert_eq!(removed, void.len());
    assert!(!void.iter().any(|dir| dir.exists()));
}

#[tokio::test]
async fn what_is_waited_for_long_goes_in_a_later_run() {
    let node = node();
    let owner = node.owner("here");
    let _alive = LifeLock::hold(&node.place.state, &owner).expect("a lock");
    // Its worker lives, and may be about to make it.
    let dir = node.work_dir(&owner, "ended");
    fs::remove_dir_all(&dir).expect("removed");
    let janitor = || node.janitor(Config { grace_seconds: 1, ..config() });
    assert_eq!(janitor().once().await.expect("a pass").removed, 0);
    assert_eq!(janitor().plan().await.expect("a plan"), [""; 0]);
    // As if the machine had run on for as long as that takes.
    let path = node.place.state.join("janitor-memory.json");
    let text = fs::read_to_string(&path).expect("a memory");
    let mut memory: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let seconds = memory["at"]["since_boot"]["secs"].as_u64().expect("seconds");
    memory["at"]["since_boot"]["secs"] = seconds.saturating_sub(30).into();
    fs::write(&path, memory.to_string()).expect("written");
    let planned = janitor().plan().await.expect("a plan");
    assert!(planned.len() == 1 && planned[0].starts_with("forget ledger-entry"), "{planned:#?}");
    assert_eq!(janitor().once().await.expect("a pass").removed, 1);
    assert_eq!(Ledger::open(&node.place.state).expect("a ledger").entries().expect("entries"), []);
}

#[tokio::test]
async fn what_cannot_be_removed_is_not_told_as_removed() {
    let node = node();
    // Nothing can be taken out of the directory of a mount.
    let dir = node.spool.layout().tmp().join(".gone-0193a1c2d3e4f5061728394a5b6c7d8e");
    fs::create_dir_all(dir.join("mounted")).expect("made");
    let mount = |arguments: &[&str]| std::process::Command::new(arguments[0]).args(&arguments[1..]).status();
    let point = dir.join("mounted").display().to_string();
    let is_mounted = mount(&["mount", "-t", "tmpfs", "tmpfs", &point]).is_ok_and(|done| done.success());
    if !is_mounted {
        // Who is not root has no such directory.
        return;
    }
    old(&dir, 8 * DAY);
    let report = node.janitor(config()).once().await.expect("a pass");
    for name in fs::read_dir(node.spool.layout().tmp()).expect("listed").flatten() {
        let point = name.path().join("mounted").display().to_string();
        let _ = mount(&["umount", &point]);
    }
    assert_eq!((report.removed, report.failed), (0, 1));
}

#[tokio::test]
async fn a_copy_of_a_repository_goes_only_while_nobody_uses_it() {
    let node = node();
    let mirror = |name: &str, age: Duration| {
        let dir = node.place.state.join("repositories").join(format!("{name}.git"));
        write(&dir.join("HEAD"), age);
        write(&dir.with_extension("lock"), age);
        dir
    };
    let (old, locked, young) =
        (mirror("old", 3 * DAY), mirror("locked", 2 * DAY), mirror("young", Duration::from_mins(5)));
    let read = mirror("read", 4 * DAY);
    let unlocked = mirror("unlocked", DAY);
    fs::remove_file(unlocked.with_extension("lock")).expect("removed");
    File::open(&unlocked).expect("opened").set_modified(SystemTime::now() - DAY).expect("old");
    // Whoever removed it was killed.
    let half_gone = node.place.state.join("repositories/.gone-0193a1c2d3e4f5061728394a5b6c7d8e");
    write(&half_gone.join("objects/x"), Duration::ZERO);
    let elsewhere = write(&node.place.state.join("repositories/notes"), 9 * DAY);
    let lock = File::open(locked.with_extension("lock")).expect("opened");
    lock.lock_shared().expect("locked");
    let reader = File::open(&read).expect("opened");
    reader.lock_shared().expect("locked");
    let mut janitor = node.janitor(Config { repositories_bytes_max: 1, ..config() });
    let report = janitor.once().await.expect("a pass");
    assert_eq!((report.removed, report.kept, report.failed), (3, 2, 0));
    assert!(
        !old.exists()
            && !unlocked.exists()
            && locked.exists()
            && read.exists()
            && young.exists()
            && elsewhere.exists()
    );
    assert!(!half_gone.exists());
    // Long before the house is looked at again.
    drop((lock, reader));
    let report = janitor.pass().await.expect("a pass");
    assert_eq!((report.removed, report.bytes), (0, 0), "what is gone does not go again");
}

#[tokio::test]
async fn too_many_removals_of_an_hour_stop_all_even_over_a_restart() {
    let node = node();
    let owner = node.owner("here");
    let _alive = LifeLock::hold(&node.place.state, &owner).expect("a lock");
    let config = Config { deletions_per_hour_max: 5, ..config() };
    // What is only forgotten does not count.
    let dead = node.owner("here");
    drop(LifeLock::hold(&node.place.state, &dead).expect("a lock"));
    for _ in 0..9 {
        fs::remove_dir_all(node.work_dir(&dead, "gone")).expect("removed");
    }
    for _ in 0..3 {
        node.janitor(config.clone()).once().await.expect("a pass");
    }
    assert_eq!(Ledger::open(&node.place.state).expect("a ledger").entries().expect("entries"), []);
    for _ in 0..7 {
        node.work_dir(&owner, "ended");
    }
    let left = || fs::read_dir(node.place.state.join("work")).expect("work").count();
    let mut janitor = node.janitor(config.clone());
    janitor.once().await.expect("a pass");
    assert_eq!(left(), 2);
    assert_eq!(janitor.once().await.expect("a pass").removed, 0);
    assert!(janitor.troubles()[0].contains("5 removals in one hour are too many"));
    let mut janitor = node.janitor(config);
    assert_eq!(janitor.once().await.expect("a pass").removed, 0);
    let metrics = fs::read_to_string(node.place.state.join(METRICS_FILE)).expect("metrics");
    assert!(metrics.contains("\nbottega_janitor_breaker_open 1\n"), "{metrics}");
    assert!(metrics.contains("# TYPE bottega_janitor_removed_total counter\n"));
    let mode = fs::metadata(node.place.state.join(METRICS_FILE)).expect("metrics").permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "another user collects them");
    let mut janitor = node.janitor(common::config());
    janitor.once().await.expect("a pass");
    assert_eq!(left(), 0);
}

#[tokio::test]
async fn more_of_the_spools_leftovers_than_go_in_an_hour_stop_nothing() {
    let node = node();
    let owner = node.owner("here");
    let _alive = LifeLock::hold(&node.place.state, &owner).expect("a lock");
    let litter = || fs::read_dir(node.spool.layout().tmp()).expect("listed").count();
    for number in 0..7 {
        write(&node.spool.layout().tmp().join(format!(".nfs{number:08}")), 8 * DAY);
    }
    let config = Config { deletions_per_hour_max: 5, deletions_max: 20, ..config() };
    node.janitor(config.clone()).once().await.expect("a pass");
    assert_eq!(litter(), 2, "five of an hour");
    let dir = node.work_dir(&owner, "ended");
    let mut janitor = node.janitor(config);
    janitor.once().await.expect("a pass");
    assert!(!dir.exists() && litter() == 2, "also after a restart");
    assert_eq!(janitor.troubles(), Vec::<String>::new());
}

#[test]
fn leftovers_without_number_hide_nothing_else() {
    let node = node();
    let tmp = node.spool.layout().tmp();
    for number in 0..1500 {
        write(&tmp.join(format!(".nfs{number:08}")), 8 * DAY);
    }
    let log = write(&node.spool.layout().log(&node.owner("here")), 100 * DAY);
    let ages = LitterAges { leftovers: DAY, logs: DAY, logs_bytes_max: u64::MAX };
    let found = node.spool.litter("here", 0, &ages, SystemTime::now()).expect("a look");
    assert!(found.len() == 1001 && found.iter().any(|litter| litter.path == log), "{}", found.len());
}

#[tokio::test]
async fn metrics_go_on_from_process_to_process_and_tell_of_passes_that_failed() {
    let node = node();
    let text = || fs::read_to_string(node.place.state.join(METRICS_FILE)).expect("metrics");
    let value = |name: &str| -> u64 {
        let text = text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("bottega_janitor_{name} ")));
        line.expect(name).parse().expect("a number")
    };
    let mut daemon = node.janitor(config());
    daemon.pass().await.expect("a pass");
    daemon.pass().await.expect("a pass");
    node.janitor(config()).once().await.expect("a pass");
    assert_eq!(value("passes_total"), 3, "nothing begins anew beside a daemon");
    daemon.pass().await.expect("a pass");
    assert_eq!((value("passes_total"), value("passes_failed_total")), (4, 0));
    let last = value("last_pass_timestamp_seconds");
    assert!(last.abs_diff(jiff::Timestamp::now().as_second().unsigned_abs()) < 60);
    fs::remove_file(node.spool.layout().root().join("spool.toml")).expect("unmounted");
    daemon.pass().await.expect_err("no spool");
    assert_eq!((value("passes_total"), value("passes_failed_total")), (4, 1));
    assert_eq!(value("last_pass_timestamp_seconds"), last);
}

#[tokio::test]
async fn what_root_leaves_in_the_state_directory_belongs_to_the_daemons() {
    let node = node();
    let owner = node.owner("here");
    let _alive = LifeLock::hold(&node.place.state, &owner).expect("a lock");
    node.work_dir(&owner, "ended");
    // Who is not root is the daemons' user here.
    let _ = std::os::unix::fs::chown(&node.place.state, Some(12345), Some(12346));
    let uid = fs::metadata(&node.place.state).expect("a directory").uid();
    assert_eq!(node.janitor(config()).once().await.expect("a pass").removed, 1);
    for name in [AUDIT_FILE, METRICS_FILE, "janitor-uses.json", "janitor-memory.json"] {
        let found = fs::metadata(node.place.state.join(name)).expect(name);
        assert_eq!(found.uid(), uid, "{name}");
    }
}

#[tokio::test]
async fn what_roots_first_call_makes_belongs_to_the_daemons() {
    let node = node();
    let _ = std::os::unix::fs::chown(&node.place.state, Some(12345), Some(12346));
    let owner =
        |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid())).expect("a directory");
    node.janitor(config()).once().await.expect("a pass");
    for name in ["ledger", "builds"] {
        assert_eq!(owner(&node.place.state.join(name)), owner(&node.place.state), "{name}");
    }
}

#[tokio::test]
async fn in_an_emergency_workers_stop_before_anything_goes() {
    let node = node();
    let owner = node.owner("here");
    let _alive = LifeLock::hold(&node.place.state, &owner).expect("a lock");
    let dir = node.work_dir(&owner, "ended");
    // A disk is always so full.
    let full = Config { disk_low_percent: 1, disk_high_percent: 2, disk_emergency_percent: 2, ..config() };
    let mut janitor = node.janitor(full);
    for name in ["emergency", "builds/door", "builds/lock"] {
        assert!(
            node.place.state.join(name).exists(),
            "{name} cannot be made once the disk has no inode left"
        );
    }
    let planned = janitor.plan().await.expect("a plan");
    assert!(planned.iter().any(|line| line.contains("% full")), "{planned:#?}");
    assert_eq!(Emergency::raised(&node.place.state), None, "a plan changes nothing");
    // The first look marks, and would remove in the same breath without a grace period.
    let report = janitor.pass().await.expect("a pass");
    assert_eq!(report.removed, 0);
    let why = Emergency::raised(&node.place.state).expect("workers are told");
    assert!(why.contains("% full"), "{why}");
    assert!(dir.exists());
    janitor.pass().await.expect("a pass");
    assert!(!dir.exists());
    drop(janitor);
    assert_eq!(Emergency::raised(&node.place.state), None, "nobody is told so by the dead");
}

#[tokio::test]
async fn it_is_explained_why_something_stays_or_goes() {
    let node = node();
    let owner = node.owner("here");
    let _alive = LifeLock::hold(&node.place.state, &owner).expect("a lock");
    let dir = node.work_dir(&owner, "ended");
    let mut janitor = node.janitor(config());
    let lines = janitor.explain("ended").await.expect("explained");
    assert_eq!(lines.len(), 1);
    for part in [
        "work directory",
        &dir.display().to_string(),
        "of ended a001",
        "its claim is gone",
        "its worker lives",
        "it goes: its claim is gone",
    ] {
        assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
    }
    let lease = node.spool.layout().lease(&owner).join("5-build/ended.a001.r0.json");
    write(&lease, Duration::ZERO);
    let lines = janitor.explain("ended").await.expect("explained");
    assert!(lines[0].contains("its claim stands") && lines[0].ends_with("; it stays"), "{lines:?}");
    assert_eq!(janitor.explain("nothing").await.expect("explained"), [""; 0]);
    // A lease, the lock of its worker, and a copy of a repository that stay.
    let copy = node.place.state.join("repositories/kept.git");
    write(&copy.join("HEAD"), Duration::ZERO);
    let about = async |wanted: &str| node.janitor(config()).explain(wanted).await.expect("explained");
    let lines = about(&owner.to_string()).await;
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let lives = "it stays: its worker lives";
    assert!(lines[0].starts_with("lease ") && lines[0].ends_with(lives), "{lines:#?}");
    assert!(lines[1].starts_with("lock ") && lines[1].ends_with(lives), "{lines:#?}");
    let lines = about("kept.git").await;
    assert!(lines.len() == 1 && lines[0].contains("kB, last asked for "), "{lines:#?}");
    assert!(!node.place.state.join(AUDIT_FILE).exists());
}
