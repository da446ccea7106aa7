//! cancel, hold, pause, resume, drain, retry, explain: the real command over a spool of a test's own.
#![expect(clippy::disallowed_methods, reason = "people rename with mv")]

mod common;

use std::fs;

use common::{House, accepted, check, claim, failed, id, owner, path, rows, state, work};
use queue_format::{
    Counts, Event, EventLog, FailureReason, Heartbeat, Lease, SlotActivity, SlotStatus, State, Summary,
    Token, WorkerStatus,
};
use serde_json::Value;

#[test]
fn tasks_are_cancelled_held_and_resumed() {
    let house = House::new();
    assert_eq!(house.submit(&rows(&["a-1", "a-2", "a-3", "done-1"])).status, 0);
    let spool = house.spool();
    check(&house, &["hold", "a-1", "a-2", "a-3"], 0, &["a-1: on hold at "]);
    work(&spool, |_| accepted());
    check(&house, &["hold", "a-1"], 0, &["a-1: on hold already"]);
    check(&house, &["hold", "done-1"], 1, &["done-1: not put on hold, it is done"]);
    check(
        &house,
        &["cancel", "a-1", "done-1"],
        1,
        &["a-1: cancelled, it lies in failed/cancelled/", "done-1: not cancelled, it is done"],
    );
    check(&house, &["cancel", "A-1"], 0, &["a-1: cancelled already"]);
    assert_eq!(state(&house, "a-1"), State::Failed(FailureReason::Cancelled));
    check(&house, &["resume", "a-2"], 0, &["1 task pending again"]);
    check(&house, &["resume", "a-2"], 0, &["a-2: pending already", "0 tasks"]);
    check(&house, &["resume", "a-1"], 1, &["a-1: not on hold, it has failed (cancelled): bottega retry a-1"]);
    check(&house, &["retry", "a-1", "a-3"], 0, &["2 tasks pending again"]);
    for verb in ["cancel", "hold", "resume", "retry", "explain"] {
        check(&house, &[verb, "a-9"], 1, &["there is no task \"a-9\"", "did you mean a-1 or a-2 or a-3?"]);
    }
    assert!(!spool.layout().cancelled().exists(), "no wish is left");

    let mut lease = Lease::open(&spool, owner("node-b")).expect("a lease");
    let claims = [claim(&mut lease), claim(&mut lease)];
    let at_work = claims[0].name().id.to_string();
    check(
        &house,
        &["cancel", &at_work],
        0,
        &["node-b~", "has it, and sets it aside with its next heartbeat (every 10 s)"],
    );
    assert!(spool.control().expect("read").cancelled().contains(&claims[0].name().id));
    check(&house, &["retry", &at_work], 1, &["not failed, it lies at "]);
    assert!(spool.control().expect("read").cancelled().contains(&claims[0].name().id), "the wish stays");
    check(&house, &["explain", &at_work], 0, &["somebody asked to cancel it", "with its next heartbeat"]);
    check(&house, &["hold", claims[1].name().id.as_str()], 0, &["gives it up"]);
    lease.look_after().expect("looked");
    assert!(claims[0].is_held() && !claims[1].is_held());
    claims[0].cancel().expect("set aside");
    assert_eq!(state(&house, &at_work), State::Failed(FailureReason::Cancelled));
    // A wish that outlived its task, and a retry.
    spool.cancel(&claims[0].name().id).expect("asked for");
    check(&house, &["retry", "--reason", "cancelled", "--all"], 0, &["1 task pending again"]);
    assert!(spool.control().expect("read").cancelled().is_empty());
}

#[test]
fn a_pause_and_a_drain_are_said_everywhere() {
    let house = House::new();
    assert_eq!(house.submit(&rows(&["a"])).status, 0);
    check(&house, &["resume"], 0, &["there is no pause"]);
    check(
        &house,
        &["pause", "--reason", "moving\u{1b}[2J the server"],
        0,
        &["paused: workers see it", "and then nobody claims"],
    );
    assert_eq!(
        fs::read_to_string(house.spool_dir().join("control/pause")).expect("there"),
        "moving the server"
    );
    check(&house, &["status"], 0, &["paused   nobody claims: moving the server; to go on: bottega resume"]);
    check(
        &house,
        &["explain", "a"],
        0,
        &["the spool is paused (moving the server)", "no worker has been heard"],
    );

    let node = owner("node07");
    let _beat = Heartbeat::begin(&house.spool(), node.clone()).expect("a heartbeat");
    let (notices, slots) = (Vec::new(), Vec::new());
    let obstacle = house.spool().control().expect("read").obstacle("node07");
    let mut status =
        WorkerStatus { owner: node, at: jiff::Timestamp::now(), notices, obstacle, kinds: Vec::new(), slots };
    house.spool().write_worker_status(&status).expect("said");
    let text = check(&house, &["explain", "a"], 0, &["the spool is paused"]);
    assert_eq!(text.matches("is paused").count(), 1, "{text}");
    check(&house, &["resume"], 0, &["the pause is over"]);
    status.obstacle = None;
    house.spool().write_worker_status(&status).expect("said");
    let limits = house.spool_dir().join("control/limits.toml");
    fs::write(&limits, "claims_per_node = 0").expect("written");
    check(&house, &["explain", "a"], 0, &["node07 claims no more just now", "allows 0 a node"]);
    fs::remove_file(limits).expect("removed");
    check(
        &house,
        &["drain", "node7"],
        0,
        &["node7: claims no more from", "0 claims left", "did you mean node07?"],
    );
    check(&house, &["drain", "--undo", "node7"], 0, &["node7: claims again"]);
    let drained = check(
        &house,
        &["drain", "node07"],
        0,
        &["node07: claims no more from its next heartbeat on (every 10 s)"],
    );
    assert!(!drained.contains("did you mean"), "{drained}");
    check(&house, &["status"], 0, &["drained  node07"]);
    check(&house, &["drain", "--undo", "Node07"], 0, &["node07: claims again"]);
    let mut lease = Lease::open(&house.spool(), owner("node07")).expect("a lease");
    let held = claim(&mut lease);
    let drained = check(&house, &["drain", "Node07.cluster"], 0, &["1 claim left to finish"]);
    assert!(!drained.contains("no daemon"), "{drained}");
    held.release().expect("released");
    check(&house, &["drain", "../x"], 2, &["is not a node's name"]);
    fs::write(house.spool_dir().join("control/limits.toml"), "claims_per_nod = 3").expect("written");
    check(&house, &["status"], 0, &["note     control/limits.toml: ", "claims_per_nod"]);
    let json: Value = serde_json::from_str(&house.run(&["status", "--json"]).out).expect("JSON");
    assert_eq!(
        (&json["control"]["paused"], &json["control"]["drained"][0]),
        (&Value::Null, &"node07".into())
    );
}

#[test]
fn every_help_says_what_it_is_by_hand() {
    let house = House::new();
    for verb in ["cancel", "hold", "pause", "resume", "drain", "retry", "explain", "doctor", "run"] {
        check(&house, &[verb, "--help"], 0, &["By hand"]);
    }
    check(&house, &["fsck", "--help"], 0, &["can be done by hand instead"]);
}

#[test]
fn explain_tells_what_fits_a_slot() {
    let house = House::new();
    let spool = house.spool();
    assert_eq!(house.submit(&rows(&["large-build"])).status, 0);
    let file = path(&house, "large-build");
    let mut large: Value = serde_json::from_slice(&fs::read(&file).expect("read")).expect("JSON");
    large["resources"] = serde_json::json!({"cores": 64, "memory_bytes": 1_u64 << 40});
    fs::write(&file, large.to_string()).expect("written");
    let publish = |name: &str, cores: &str, memory: &str| {
        let args = ["run", "--name", name, "--cores", cores, "--memory", memory, "a", "--", "true"];
        check(&house, &args, 0, &["1 task published"]);
    };
    publish("wide", "3", "12GiB");
    publish("cores", "3", "1GiB");
    publish("memory", "1", "12GiB");

    let worker = owner("node07");
    let _beat = Heartbeat::begin(&spool, worker.clone()).expect("a heartbeat");
    let activity = SlotActivity { task: id("other"), stage: "run".to_owned(), since: jiff::Timestamp::now() };
    let slot = |slot, cpuset: &str, gib: u64, activity| SlotStatus {
        slot,
        cpuset: cpuset.to_owned(),
        memory_bytes: gib << 30,
        group: None,
        out_of_service: None,
        activity,
    };
    let slots = vec![slot(0, "0-3", 8, Some(activity)), slot(1, "4-5", 16, None)];
    let (notices, obstacle) = (Vec::new(), None);
    let mut status = WorkerStatus {
        owner: worker,
        at: jiff::Timestamp::now(),
        notices,
        obstacle,
        kinds: Vec::new(),
        slots,
    };
    spool.write_worker_status(&status).expect("said");
    let explain = |name: &str, expected: &str| check(&house, &["explain", name], 0, &[expected]);
    explain("large-build", "it waits its turn: 1 slot idle, one will take it within seconds");
    explain("wide", "it asks for 3 cores and 12.0 GiB of memory, and no slot has as much");
    explain("cores", "it waits its turn: 1 slot at work, none idle");
    explain("memory", "it waits its turn: 1 slot idle");

    status.slots[1].out_of_service = Some("CPUs 4-5 are offline".to_owned());
    spool.write_worker_status(&status).expect("said");
    explain("memory", "every slot that is large enough is out of service: CPUs 4-5 are offline");
    status.kinds = vec!["native".to_owned()];
    spool.write_worker_status(&status).expect("said");
    explain("cores", "no worker that was heard does work of kind run");
}

#[test]
fn explain_tells_a_timeline_and_what_keeps_a_task() {
    let house = House::new();
    assert_eq!(house.submit(&rows(&["a", "b"])).status, 0);
    let spool = house.spool();
    let mut lease = Lease::open(&spool, owner("node-b")).expect("a lease");
    let held = claim(&mut lease);
    let name = held.name().id.to_string();
    let log = EventLog::new(&spool, lease.owner());
    let at = "2099-01-01T00:00:00Z".parse().expect("a time");
    log.note(
        at,
        Event::Claimed { task: held.name().id.clone(), token: Token(1), class: "5-build".to_owned() },
    );
    let (reason, to) = ("EIO".to_owned(), Some(FailureReason::Poison));
    log.note(at, Event::Rejected { task: held.name().id.clone(), token: Token(1), reason, to });
    log.note(at, Event::Resumed);
    log.flush(at).expect("written");
    let text = check(
        &house,
        &["explain", &name],
        0,
        &[
            "has claimed it, and has not said yet that it works on it",
            "that worker has no heartbeat: any daemon takes the task back once it has seen so for 180 s",
            "1 claim so far (a001), 0 of 5 automatic retries used",
            "2099-01-01 00:00:00  node-b        claimed as a001 from 5-build",
            "a001 moved to failed/poison: EIO",
        ],
    );
    let (first, second) = (text.find("its file was written"), text.find("claimed as a001"));
    assert!(first.is_some() && first < second, "{text}");
    assert!(held.delay(4_102_444_800, "the engine \u{1b}[31mis down").expect("delayed"));
    let text = check(
        &house,
        &["explain", &name],
        0,
        &[
            "its node failed it, and it is tried again in ",
            "no master has been heard that would release it",
            "its last attempt left no verdict: the engine is down",
            "1 of 5 automatic retries used",
        ],
    );
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let minutes = |ago: i64| jiff::Timestamp::now() - jiff::SignedDuration::from_mins(ago);
    let count = |ago, every_seconds| {
        let counts = Counts::of(&spool.all().expect("listed"));
        let summary = Summary { at: minutes(ago), counts, pace: None, every_seconds };
        spool.write_summary(&summary, "").expect("written");
        house.run(&["explain", &name]).out
    };
    assert!(count(10, 10.0).contains("no master has been heard for 10 min"));
    assert!(!count(10, 3600.0).contains("no master"), "it counts once an hour");
    check(&house, &["retry", &name], 0, &["1 task pending again"]);
    work(&spool, |text| if text == "a" { accepted() } else { failed(FailureReason::Build, "no foo") });
    check(&house, &["explain", "a"], 0, &["it is done: attempt a00", "ended: accepted (strict)"]);
    check(&house, &["explain", "b"], 0, &["it failed: build: ", "ended: failed (build)", "bottega retry b"]);
    fs::rename(path(&house, "b"), house.spool_dir().join("pending/5-build/b.a001.r0.json")).expect("mv");
    fs::create_dir(house.spool_dir().join("pending/5-roll")).expect("mkdir");
    fs::rename(path(&house, "b"), house.spool_dir().join("pending/5-roll/b.a001.r0.json")).expect("mv");
    check(&house, &["explain", "b"], 0, &["no worker takes tasks of kind roll"]);
}
