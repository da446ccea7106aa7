//! `bottega-master` alone: what is dropped into incoming/ by hand, what is due, what it tells.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{House, Mount, claim, owner, row, rows, said};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queue_format::{Event, FailureReason, Lease, LifeLock, Spool, State};

/// Longer than anything here takes on a slow machine.
const BOUND: Duration = Duration::from_secs(60);

/// A master that is ended with the test.
struct Master(Child);

impl Master {
    fn start(house: &House, config: &str) -> Self {
        let file = house.path("bottega.toml");
        fs::write(&file, config).expect("written");
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("bottega-master"));
        command.arg("--spool").arg(house.spool_dir()).arg("--state").arg(house.path("state"));
        command.arg("--config").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("it starts"))
    }

    fn stop(mut self) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).expect("a pid")), Signal::SIGTERM).expect("signalled");
        let status = wait_for("the end of the master", || self.0.try_wait().expect("a child"));
        assert!(status.success(), "{status}");
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for<T>(what: &str, mut met: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = met() {
            return value;
        }
        assert!(started.elapsed() < BOUND, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ids(spool: &Spool) -> Vec<String> {
    let mut ids: Vec<String> =
        spool.all().expect("listed").into_iter().map(|task| task.name.id.to_string()).collect();
    ids.sort();
    ids
}

fn rejected(house: &House) -> Vec<PathBuf> {
    let found = fs::read_dir(house.spool_dir().join("incoming/rejected")).expect("listed").flatten();
    found
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "reasons"))
        .collect()
}

#[test]
fn what_is_dropped_is_published_and_what_is_bad_kept_aside() {
    let house = House::new();
    let master = Master::start(&house, "[master]\nrepositories = '/mirrors/{repo}'\nsettle_seconds = 1.0\n");
    let incoming = house.spool_dir().join("incoming");
    fs::write(incoming.join("rows.jsonl"), format!("{}\n{{broken\n", row("a"))).expect("dropped");
    fs::write(house.path("one.json"), format!("{:#}", row("b"))).expect("written");
    assert!(
        Command::new("mv").arg(house.path("one.json")).arg(&incoming).status().expect("mv runs").success()
    );
    fs::write(incoming.join("notes.txt"), "not rows").expect("dropped");
    let spool = house.spool();
    wait_for("both tasks", || (ids(&spool) == ["a", "b"]).then_some(()));
    let reasons = wait_for("the refused row", || rejected(&house).pop());
    assert_eq!(
        fs::read_to_string(reasons).expect("text"),
        "line 2: malformed JSON: key must be a string at column 2\n"
    );
    let summary = wait_for("a summary with both", || {
        spool.summary().filter(|summary| summary.counts.pending.values().sum::<usize>() == 2)
    });
    let unread = spool.unread().expect("counted");
    assert_eq!((summary.counts.open(), unread.files, unread.ignored), (2, 0, vec!["notes.txt".to_owned()]));
    // The two files are written one after the other.
    wait_for("the same in words", || {
        let text = fs::read_to_string(spool.layout().status().join("summary.txt")).expect("text");
        (text.contains("pending       2  5-build 2")
            && text.contains("no master reads incoming/notes.txt: only files called *.json or *.jsonl"))
        .then_some(())
    });
    assert!(incoming.join("notes.txt").exists(), "what is no rows is left alone");
    master.stop();
    assert_eq!(LifeLock::known(&house.path("state")).expect("listed"), [], "it leaves nothing behind");
}

#[test]
fn a_file_that_cannot_be_taken_or_read_keeps_no_other_waiting() {
    let house = House::new();
    let spool = house.spool();
    let incoming = spool.layout().incoming();
    // First in every order: one is a mount point, the other was taken by a master that is dead, and is a directory.
    fs::write(incoming.join("0.jsonl"), row("stays").to_string()).expect("dropped");
    let _mount = Mount::over(&incoming.join("0.jsonl"));
    let dead = owner(&systemd::hostname());
    drop(LifeLock::hold(&house.path("state"), &dead).expect("held"));
    let taken = spool.layout().intake(&dead).join(format!("{}.5.a.jsonl", "0".repeat(32)));
    fs::create_dir_all(taken).expect("made");
    let master = Master::start(&house, "[master]\nrepositories = '/mirrors/{repo}'\nsettle_seconds = 1.0\n");
    fs::write(incoming.join("rows.jsonl"), row("a").to_string()).expect("dropped");
    wait_for("the task", || (ids(&spool) == ["a"]).then_some(()));
    master.stop();
}

#[test]
fn two_masters_publish_each_row_once() {
    let house = House::new();
    let config = "[master]\nrepositories = '/mirrors/{repo}'\nsettle_seconds = 1.0\n";
    let masters = [Master::start(&house, config), Master::start(&house, config)];
    let incoming = house.spool_dir().join("incoming");
    let mut expected = Vec::new();
    for file in 0..12 {
        // Neighbouring files share half of their ids.
        let names: Vec<String> = (0..8).map(|n| format!("t-{:03}", file * 4 + n)).collect();
        expected.extend(names.iter().cloned());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        fs::write(incoming.join(format!("{file}.jsonl")), rows(&names).join("\n")).expect("dropped");
    }
    expected.sort();
    expected.dedup();
    let spool = house.spool();
    wait_for("all files", || (spool.unread().expect("counted").files == 0).then_some(()));
    assert_eq!(ids(&spool), expected);
    assert_eq!(rejected(&house), Vec::<PathBuf>::new());
    masters.into_iter().for_each(Master::stop);
}

#[test]
fn what_is_due_or_orphaned_is_pending_again() {
    let house = House::new();
    let spool = house.spool();
    assert_eq!(house.submit(&rows(&["due", "later", "orphan"])).status, 0);
    let dead = owner(&systemd::hostname());
    let mut lease = Lease::open(&spool, dead.clone()).expect("a lease");
    let mut claims = [claim(&mut lease), claim(&mut lease), claim(&mut lease)];
    claims.sort_by(|a, b| a.name().cmp(b.name()));
    assert!(claims[0].delay(1, "the engine is down").expect("delayed"));
    assert!(claims[1].delay(4_102_444_800, "the engine is down").expect("delayed"));
    // Its process is gone: nobody holds the lock any more.
    drop(LifeLock::hold(&house.path("state"), &dead).expect("held"));
    let master = Master::start(&house, "");
    wait_for("both to be pending", || {
        let counts = queue_format::Counts::of(&spool.all().expect("listed"));
        (counts.pending.values().sum::<usize>() == 2 && counts.delayed == 1 && counts.claimed.is_empty())
            .then_some(())
    });
    let orphan = claims[2].name();
    let taken_back = Event::Reaped { task: orphan.id.clone(), token: orphan.token, owner: dead };
    wait_for("the event", || {
        let events = spool.events_of(&orphan.id).expect("read");
        events.iter().any(|(_, logged)| logged.event == taken_back).then_some(())
    });
    assert!(house.run(&["explain", orphan.id.as_str()]).out.contains("a001 taken back from "));
    master.stop();
}

#[test]
fn what_a_person_touches_in_control_is_done_and_logged() {
    let house = House::new();
    let spool = house.spool();
    assert_eq!(house.submit(&rows(&["stays", "goes"])).status, 0);
    let control = spool.layout().control();
    fs::write(control.join("pause"), "a while").expect("written");
    fs::create_dir(control.join("cancel")).expect("made");
    for name in ["goes", "unheard-of"] {
        fs::write(control.join("cancel").join(name), "").expect("touched");
    }
    let master = Master::start(&house, "");
    let goes = "goes".parse().expect("an id");
    let events = wait_for("the event", || {
        let events = spool.events_of(&goes).expect("read");
        (!events.is_empty()).then_some(events)
    });
    assert_eq!(events[0].1.event, Event::Cancelled { task: goes.clone(), token: None });
    let place = spool.find(&goes).expect("listed").remove(0);
    assert_eq!(place.state, State::Failed(FailureReason::Cancelled));
    assert!(!control.join("cancel/goes").exists() && control.join("cancel/unheard-of").exists());
    fs::remove_file(control.join("pause")).expect("removed");
    wait_for("the end of the pause in the log", || {
        let logs = fs::read_dir(spool.layout().logs()).expect("listed");
        let text: String =
            logs.map(|log| fs::read_to_string(log.expect("a log").path()).expect("text")).collect();
        (text.contains("\"paused\",\"reason\":\"a while\"") && text.contains("\"resumed\"")).then_some(())
    });
    assert_eq!(queue_format::Counts::of(&spool.all().expect("listed")).pending["5-build"], 1);
    master.stop();
}

#[test]
fn a_configuration_that_means_nothing_is_refused() {
    let house = House::new();
    let check = |config: &str, expected: &str| {
        fs::write(house.path("bottega.toml"), config).expect("written");
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("bottega-master"));
        command.arg("--print-config").arg("--config").arg(house.path("bottega.toml"));
        let said = said(&command.output().expect("it runs"));
        assert_eq!((said.status, said.err.contains(expected)), (1, true), "{}", said.err);
    };
    check("[master]\npoll_second_min = 1\n", "did you mean \"master.poll_seconds_min\"?");
    check("[master]\npoll_seconds_min = 0.5\n", "master.poll_seconds_min is 0.5, expected 1 to 3600");
    check("[master]\nrepositories = '/m/{user}'\n", "master.repositories: ");
    check("[masters]\n", "did you mean \"master\"?");
}
