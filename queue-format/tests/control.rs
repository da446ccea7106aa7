//! What people ask for by `touch` and `mv`, and what daemons read of it.
#![expect(clippy::disallowed_methods, reason = "people rename with mv")]

mod common;

use std::collections::BTreeSet;
use std::fs;

use common::{claim, kept_aside, owner, publish};
use queue_format::{
    Cancelled, Claim, ClaimError, Class, Control, FailureReason, Lease, Limits, Next, Spool, State, TaskId,
};
use tempfile::TempDir;

fn spool(ids: &[&str]) -> (TempDir, Spool) {
    let (dir, spool) = common::spool();
    publish(&spool, ids);
    (dir, spool)
}

fn id(text: &str) -> TaskId {
    text.parse().expect("an id")
}

fn state(spool: &Spool, text: &str) -> State {
    let found = spool.find(&id(text)).expect("listed");
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].state.clone()
}

fn control(spool: &Spool) -> Control {
    spool.control().expect("read")
}

#[test]
fn nothing_asked_for_is_nothing_read() {
    let (_dir, spool) = spool(&[]);
    assert_eq!(control(&spool), Control::default());
    assert_eq!(fs::read_dir(spool.layout().control()).expect("there").count(), 0, "one listing tells all");
    assert_eq!(control(&spool).obstacle("n1"), None);
}

#[test]
fn a_file_in_the_place_of_a_directory_is_said() {
    let (_dir, spool) = spool(&["a"]);
    fs::write(spool.layout().drained(), "").expect("touched");
    fs::write(spool.layout().cancelled(), "").expect("touched");
    let control = control(&spool);
    assert!(control.drained().is_empty() && control.cancelled().is_empty());
    let notices = control.notices();
    assert!(
        notices[0]
            .starts_with("control/cancel: it is a file, expected a directory with a file for each task")
    );
    assert!(notices[1].ends_with("for each node; remove it, and use bottega drain"), "{notices:?}");
}

#[test]
fn a_pause_and_a_drain_are_files_that_anybody_can_touch() {
    let (_dir, spool) = spool(&[]);
    fs::write(spool.layout().pause(), "").expect("touched");
    assert_eq!(control(&spool).paused(), Some(""));
    spool.pause("moving the\n file server").expect("paused");
    assert_eq!(control(&spool).paused(), Some("moving the file server"));
    let said = control(&spool).obstacle("n1").expect("an obstacle");
    assert!(said.contains("moving the file server") && said.contains("bottega resume"), "{said}");
    for _ in 0..2 {
        spool.resume().expect("resumed");
        assert_eq!(control(&spool), Control::default());
    }
    fs::create_dir(spool.layout().pause()).expect("made");
    assert_eq!(control(&spool).paused(), Some(""), "whatever it is, it is there");
    fs::remove_dir(spool.layout().pause()).expect("removed");

    for _ in 0..2 {
        spool.drain("n1").expect("drained");
    }
    fs::write(spool.layout().drained().join("Node02.cluster"), "").expect("touched");
    let read = control(&spool);
    assert!(read.is_drained("n1") && read.is_drained("node02") && !read.is_drained("n2"));
    assert!(read.obstacle("n1").expect("an obstacle").contains("bottega drain --undo n1"));
    spool.undrain("node02").expect("undone");
    for _ in 0..2 {
        spool.undrain("n1").expect("undone");
    }
    assert_eq!(control(&spool), Control::default());
    assert!(!spool.layout().drained().exists(), "the next look is one listing again");
}

#[test]
fn what_is_not_understood_is_said_and_the_last_valid_limits_stay() {
    let (_dir, spool) = spool(&[]);
    let write =
        |name: &str, text: &str| fs::write(spool.layout().control().join(name), text).expect("written");
    write("limits.toml", "claims_per_node = 2\n");
    let valid = control(&spool);
    assert_eq!((valid.limits().claims_per_node, valid.notices()), (Some(2), &[][..]));
    write("limits.toml", "claims_per_nod = 3\n");
    write("puase", "");
    fs::create_dir(spool.layout().cancelled()).expect("made");
    write("cancel/NOT AN ID", "");
    let wrong = control(&spool);
    assert_eq!(wrong.limits(), &Limits::default(), "nothing valid was ever seen");
    let notices = wrong.notices().join("\n");
    for part in
        ["claims_per_nod", "control/puase: not known, expected pause", "\"NOT AN ID\" is not a task id"]
    {
        assert!(notices.contains(part), "{notices}");
    }
    assert_eq!(wrong.after(&valid).limits().claims_per_node, Some(2));
    fs::write(spool.layout().limits(), [0xff]).expect("written");
    assert_eq!(control(&spool).notices().len(), 3);
}

#[test]
fn limits_count_claims_of_a_node_and_of_a_class() {
    let (_dir, spool) = spool(&["a", "b", "c"]);
    let build: Class = "5-build".parse().expect("a class");
    let mut leases =
        [Lease::open(&spool, owner("n1")), Lease::open(&spool, owner("n1"))].map(|l| l.expect("a lease"));
    let _claims = [claim(&mut leases[0]), claim(&mut leases[1])];
    let check = |text: &str, node: &str, is_admitted: bool| {
        let room = spool.room(&Limits::parse(text).expect(text), node).expect("counted");
        assert_eq!(room.admits(&build), is_admitted, "{text} {node} {room:?}");
    };
    check("", "n1", true);
    check("claims_per_node = 3", "n1", true);
    check("claims_per_node = 2", "n1", false);
    check("claims_per_node = 2", "n2", true);
    check("[claims_per_class]\n5-build = 3", "n2", true);
    check("[claims_per_class]\n5-build = 2", "n2", false);
    check("[claims_per_class]\n5-build = 0", "n2", false);
    check("[claims_per_class]\n0-build = 0", "n2", true);
}

#[test]
fn a_limit_counts_at_once_whatever_was_listed_before() {
    let (_dir, spool) = spool(&["a", "b", "c"]);
    let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
    let _held = claim(&mut lease);
    let next = lease.claim_next(|_| false).expect("a readable spool");
    assert!(matches!(next, Next::Empty), "{next:?}");
    let _other = claim(&mut lease);
}

#[test]
fn a_cancelled_task_is_set_aside_wherever_it_is() {
    let (_dir, spool) = spool(&["claimed", "delayed", "held", "kept", "pending"]);
    let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
    let mut claims: Vec<Claim> = (0..5).map(|_| claim(&mut lease)).collect();
    claims.sort_by(|a, b| a.name().id.cmp(&b.name().id));
    assert!(claims[1].delay(4_102_444_800, "later").expect("delayed"));
    for claim in &claims[2..] {
        claim.release().expect("handed back");
    }
    let held = spool.find(&id("held")).expect("listed").remove(0);
    let place = spool.hold(&held).expect("held").expect("it was pending");
    assert!(place.starts_with(spool.layout().hold().join("5-build")));
    assert_eq!(spool.hold(&held).expect("looked"), Some(place), "twice is as good as once");

    for text in ["claimed", "delayed", "held", "pending", "unheard-of"] {
        spool.cancel(&id(text)).expect("asked for");
        spool.cancel(&id(text)).expect("asked for");
    }
    let wishes = control(&spool).cancelled().clone();
    let became = spool.carry_out(&wishes).expect("carried out");
    assert_eq!(became[&id("claimed")], Cancelled::AtWork(lease.owner().clone()));
    assert_eq!(became[&id("unheard-of")], Cancelled::NotSeen);
    for text in ["delayed", "held", "pending"] {
        assert_eq!(became[&id(text)], Cancelled::SetAside);
        assert_eq!(state(&spool, text), State::Failed(FailureReason::Cancelled));
    }
    assert!(matches!(state(&spool, "kept"), State::Pending(_)));
    let left: BTreeSet<TaskId> = [id("claimed"), id("unheard-of")].into();
    assert_eq!(control(&spool).cancelled(), &left);

    // The worker's part.
    claims[0].cancel().expect("set aside");
    assert_eq!(state(&spool, "claimed"), State::Failed(FailureReason::Cancelled));
    assert!(matches!(claims[0].cancel(), Err(ClaimError::Lost(_))), "a settled claim is nobody's any more");
    spool.cancel(&id("claimed")).expect("asked for again");
    let became = spool.carry_out(&[id("claimed")].into()).expect("looked");
    assert_eq!(became[&id("claimed")], Cancelled::Settled(State::Failed(FailureReason::Cancelled)));
    assert_eq!(control(&spool).cancelled(), &[id("unheard-of")].into());
}

#[test]
fn a_held_task_goes_on_with_its_token() {
    let (_dir, spool) = spool(&["a", "b"]);
    let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
    let held = claim(&mut lease);
    let located = spool.find(&held.name().id).expect("listed").remove(0);
    spool.hold(&located).expect("held").expect("it was claimed");
    lease.look_after().expect("looked");
    assert!(!held.is_held(), "its worker gives it up");
    // As a person does it, without the directory of a class.
    let other =
        spool.all().expect("listed").into_iter().find(|t| matches!(t.state, State::Pending(_))).expect("one");
    fs::rename(&other.path, spool.layout().hold().join(other.name.to_string())).expect("mv");
    assert!(matches!(lease.claim_next(|_| true).expect("readable"), Next::Empty));
    for parked in spool.all().expect("listed") {
        assert_eq!(parked.state, State::Hold);
        assert_eq!(spool.hold(&parked).expect("looked"), None);
        spool.release(&parked).expect("released").expect("it was parked");
        assert_eq!(spool.find(&parked.name.id).expect("listed")[0].name, parked.name, "its token is kept");
    }
    assert_eq!(spool.owners_on("n1").expect("listed").len(), 1);
    assert_eq!(state(&spool, "a"), State::Pending("5-build".parse().expect("a class")));
}

#[test]
fn what_people_make_in_control_stops_nobody() {
    let (_dir, spool) = spool(&["a"]);
    let control = spool.layout().root().join("control");
    std::os::unix::fs::symlink("nowhere", control.join("limits.toml")).expect("a link");
    let read = spool.control().expect("readable all the same");
    assert!(read.notices().iter().any(|notice| notice.contains("limits.toml: it cannot be read")));
    fs::remove_file(control.join("limits.toml")).expect("removed");
    fs::create_dir(control.join("limits.toml")).expect("made");
    assert_eq!(spool.control().expect("readable all the same").notices().len(), 1);
    fs::create_dir(control.join("pause")).expect("made");
    assert!(spool.control().expect("readable").paused().is_some());
    spool.resume().expect("resumed");
    assert!(spool.control().expect("readable").paused().is_none());
}

#[test]
fn what_is_no_task_keeps_nobody_from_claiming() {
    let (_dir, spool) = spool(&["low"]);
    let high = spool.layout().root().join("pending/0-build");
    fs::create_dir_all(high.join("a/b")).expect("made");
    fs::create_dir_all(high.join("Old Tasks.json")).expect("made");
    fs::write(high.join("a/notes.txt"), "see b").expect("written");
    fs::write(high.join("Not A Name.json"), "{}").expect("written");
    std::os::unix::fs::symlink("/etc/passwd", high.join("My Link.json")).expect("a link");
    fs::create_dir(high.join("c")).expect("made");
    fs::write(high.join("c/Not Here Either.json"), "{}").expect("written");
    let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
    assert_eq!(claim(&mut lease).name().id.as_str(), "low");
    let kept: Vec<_> = kept_aside(&spool).into_iter().map(|(name, _)| name).collect();
    assert_eq!(kept, ["Not A Name.json", "Not Here Either.json"]);
    assert!(high.join("a/b").is_dir() && high.join("Old Tasks.json").is_dir());
}
