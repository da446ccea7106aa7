//! The moves of the spool on a real directory: whatever happens, each task lies in exactly one place.
#![expect(clippy::disallowed_methods, reason = "people rename with mv")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{accepted, claim, kept_aside, manifest, owner, publish, spool, task};
use queue_format::{
    AcceptanceClass, ClaimError, Counts, DoneClass, FailureReason, Heartbeat, Intake, Known, Lease, Next,
    Owner, Publisher, Reaped, Spool, SpoolError, State, Tally, TaskId, Token, Verdict, WorkerStatus,
};
use uuid::Uuid;

fn failed(reason: FailureReason) -> Verdict {
    Verdict::Failed { reason, detail: "it failed".to_owned(), log: Vec::new(), remedy: String::new() }
}

#[test]
fn a_task_goes_from_pending_to_done() {
    let (_dir, spool) = spool();
    publish(&spool, &["a"]);
    let me = owner("n1");
    let mut lease = Lease::open(&spool, me.clone()).expect("a lease");
    let held = claim(&mut lease);
    assert_eq!((held.name().token, held.spec()), (Token(1), &task("a")));
    let files = [("Dockerfile".to_owned(), b"FROM scratch\n".to_vec())];
    let results = held.conclude(&manifest(&held, accepted(), &me), &files).expect("concluded");
    assert_eq!(fs::read(results.join("Dockerfile")).expect("written"), b"FROM scratch\n");
    let found = spool.all().expect("listed");
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0].state, &found[0].name.owner),
        (&State::Done(DoneClass::Accepted(AcceptanceClass::Strict)), &Some(me))
    );
    assert!(lease.close().expect("closed"), "no claim is left in the lease directory");
    assert!(matches!(held.release(), Err(ClaimError::Lost(_))), "a concluded claim cannot be released");
}

#[test]
fn a_class_is_pending_only_where_a_task_of_it_is() {
    let (_dir, spool) = spool();
    publish(&spool, &["a", "b"]);
    let pending = || spool.pending_work(|_| true).expect("listed").len();
    let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
    assert_eq!(pending(), 1);
    let first = claim(&mut lease);
    assert_eq!(pending(), 1);
    claim(&mut lease);
    assert_eq!(pending(), 0, "what held them may still be there");
    first.release().expect("handed back");
    assert_eq!(pending(), 1);
}

#[test]
fn a_spool_is_said_to_be_missing_only_where_it_is() {
    let (dir, spool) = spool();
    let check = |path: &Path, expected: &str| {
        let why = Spool::open(path).expect_err("no spool").to_string();
        assert!(why.contains(expected), "{why}");
    };
    check(&dir.path().join("nowhere"), "is not a spool");
    check(&spool.layout().identity(), "is not a spool");
    let link = dir.path().join("loop");
    std::os::unix::fs::symlink(&link, &link).expect("linked");
    check(&link, "cannot find");
}

#[test]
fn publishing_again_changes_nothing() {
    let (_dir, spool) = spool();
    publish(&spool, &["a", "b"]);
    let report =
        spool.publish(&[task("a"), task("c"), task("c")], &owner("m"), Uuid::now_v7).expect("published");
    assert_eq!((report.published, report.known.len()), (1, 2));
    assert_eq!(spool.all().expect("listed").len(), 3);
}

#[test]
fn a_chunk_is_published_once_whoever_reads_its_source() {
    let (_dir, spool) = spool();
    let source = Uuid::now_v7();
    let rows = [task("a"), task("b")];
    let (mut mine, mut theirs) = (Known::default(), Known::default());
    // Both have looked before either has published, as masters on two nodes may.
    let first = Publisher::begin(&spool, owner("m1"), source, &mut mine).map(drop);
    first.expect("a turn");
    Publisher::begin(&spool, owner("m2"), source, &mut theirs).map(drop).expect("a turn");
    let publish = |owner: Owner, known: &mut Known, n: u64| {
        let mut publisher = Publisher::begin(&spool, owner, source, known).expect("a turn");
        publisher.publish(n, &rows).expect("published")
    };
    assert_eq!(publish(owner("m1"), &mut mine, 0).published, 2);
    // What the other knows is older than that: only the ledger keeps the chunk from being published twice.
    let late = publish(owner("m2"), &mut theirs, 0);
    assert_eq!((late.published, late.known.len()), (0, 2));
    assert_eq!(spool.all().expect("listed").len(), 2);
    let staged = fs::read_dir(spool.layout().root().join("tmp")).expect("listed").count();
    assert_eq!(staged, 0, "nothing is left in staging");
}

#[test]
fn a_publisher_that_dies_between_ledger_and_pending_loses_nothing() {
    let (_dir, spool) = spool();
    publish(&spool, &["a", "b"]);
    // As if it had died before the last rename.
    let pending = spool.layout().root().join("pending/5-build");
    let shard = fs::read_dir(&pending).expect("listed").next().expect("a shard").expect("readable").path();
    let source =
        fs::read_dir(spool.layout().ledger()).expect("listed").next().expect("one").expect("readable");
    fs::rename(&shard, source.path().join("0/5-build")).expect("mv");
    let counts = Counts::of(&spool.all().expect("listed"));
    assert_eq!(counts.pending["5-build"], 2, "they count as pending on the way");
    let again = spool.publish(&[task("a")], &owner("m"), Uuid::now_v7).expect("published");
    assert_eq!(again.published, 0, "and are known");
    spool.finish_chunks().expect("finished");
    assert!(shard.is_dir(), "its name follows from the source");
    let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
    assert!(matches!(lease.claim_next(|_| true).expect("readable"), Next::Claimed(_)));
}

#[test]
fn the_ledger_forgets_what_is_long_pending_and_nothing_else() {
    let (_dir, spool) = spool();
    publish(&spool, &["a"]);
    publish(&spool, &["b"]);
    let me = owner("m");
    assert_eq!(spool.forget_sources(Duration::from_hours(24)).expect("looked"), 0, "they are young");
    // One is not pending yet.
    let pending = spool.layout().root().join("pending/5-build");
    let shard = fs::read_dir(&pending).expect("listed").next().expect("a shard").expect("readable").path();
    let (source, n) = shard.file_name().and_then(|name| name.to_str()?.rsplit_once('-')).expect("a name");
    let chunk = spool.layout().ledger_of(source.parse().expect("a source")).join(n);
    fs::rename(&shard, chunk.join("5-build")).expect("mv");
    assert_eq!(spool.forget_sources(Duration::ZERO).expect("forgotten"), 1);
    assert_eq!(spool.all().expect("listed").len(), 2);
    spool.finish_chunks().expect("finished");
    assert!(shard.is_dir());
    assert_eq!(spool.forget_sources(Duration::ZERO).expect("forgotten"), 1);
    assert_eq!(fs::read_dir(spool.layout().ledger()).expect("listed").count(), 0);
    let again = spool.publish(&[task("a"), task("b")], &me, Uuid::now_v7).expect("published");
    assert_eq!(again.published, 0, "the tasks themselves are known");
}

#[test]
fn what_a_dead_publisher_had_staged_is_thrown_away_but_not_what_it_had_taken() {
    let (_dir, spool) = spool();
    let dead = owner("m1");
    let staged = spool.layout().staging(&dead).join("half");
    fs::create_dir_all(staged.join("5-build")).expect("made");
    fs::write(staged.join("5-build/a.a000.r0.json"), b"{").expect("written");
    let intake = Intake::open(&spool, dead.clone()).expect("an intake");
    fs::write(spool.layout().incoming().join("rows.jsonl"), b"{}").expect("written");
    intake.take(&spool.dropped().expect("listed")[0]).expect("looked").expect("taken");
    spool.discard_staged(&dead).expect("discarded");
    assert!(!staged.exists());
    assert_eq!(intake.taken().expect("listed").len(), 1);
    assert_eq!(spool.all().expect("listed"), []);
}

#[test]
fn a_failed_task_lies_under_its_reason_until_somebody_retries_it() {
    let (_dir, spool) = spool();
    publish(&spool, &["a"]);
    let me = owner("n1");
    let mut lease = Lease::open(&spool, me.clone()).expect("a lease");
    let first = claim(&mut lease);
    first.conclude(&manifest(&first, failed(FailureReason::Flaky), &me), &[]).expect("concluded");
    let letters = spool.find(&"a".parse::<TaskId>().expect("an id")).expect("found");
    assert_eq!(letters[0].state, State::Failed(FailureReason::Flaky));
    spool.retry(&letters[0]).expect("retried");
    let second = claim(&mut lease);
    assert_eq!(second.name().token, Token(2), "a token is never lowered");
    // What `mv failed/flaky/* pending/5-build/` does, with the file as a person sees it.
    second.conclude(&manifest(&second, failed(FailureReason::Flaky), &me), &[]).expect("concluded");
    let path = &spool.all().expect("listed")[0].path;
    fs::rename(path, spool.layout().root().join("pending/5-build").join(path.file_name().expect("a name")))
        .expect("mv");
    assert_eq!(claim(&mut lease).name().token, Token(3));
}

#[test]
fn a_claim_that_a_person_removed_publishes_nothing() {
    let (_dir, spool) = spool();
    publish(&spool, &["a"]);
    let me = owner("n1");
    let mut lease = Lease::open(&spool, me.clone()).expect("a lease");
    let held = claim(&mut lease);
    assert_eq!(lease.look_after().expect("looked"), []);
    assert!(held.is_held());
    fs::rename(&spool.all().expect("listed")[0].path, spool.layout().hold().join("a.a001.r0.json"))
        .expect("mv");
    assert_eq!(lease.look_after().expect("looked"), []);
    assert!(!held.is_held());
    let lost = held.conclude(&manifest(&held, accepted(), &me), &[("x".to_owned(), vec![])]);
    assert!(matches!(lost, Err(ClaimError::Lost(_))));
    let counts = Counts::of(&spool.all().expect("listed"));
    assert_eq!((counts.done.len(), counts.hold), (0, 1));
}

#[test]
fn a_dead_workers_tasks_are_pending_again_and_poison_at_last() {
    let (_dir, spool) = spool();
    publish(&spool, &["a"]);
    for lost in 1..=6 {
        let dead = owner("n1");
        let held = claim(&mut Lease::open(&spool, dead.clone()).expect("a lease"));
        assert_eq!(spool.reap(&dead).expect("reaped"), Reaped::Closed(vec![held.name().clone()]));
        assert!(matches!(held.release(), Err(ClaimError::Lost(_))), "a zombie finds nothing to move");
        let state = spool.all().expect("listed").remove(0).state;
        let poisoned = state == State::Failed(FailureReason::Poison);
        assert_eq!(poisoned, lost == 6, "after {lost} losses: {state:?}");
    }
}

#[test]
fn a_zombie_claims_nothing_and_beats_no_more() {
    let (_dir, spool) = spool();
    publish(&spool, &["a", "b"]);
    let zombie = owner("n1");
    let mut lease = Lease::open(&spool, zombie.clone()).expect("a lease");
    let mut heartbeat = Heartbeat::begin(&spool, zombie.clone()).expect("a heartbeat");
    let held = claim(&mut lease);
    heartbeat.beat().expect("alive");
    assert_eq!(spool.incarnations().expect("listed")[&zombie], Some(1));
    assert!(matches!(spool.reap(&zombie).expect("reaped"), Reaped::Closed(tasks) if tasks.len() == 1));
    assert_eq!(spool.reap(&zombie).expect("reaped"), Reaped::Closed(vec![]), "twice is as good as once");
    assert!(matches!(heartbeat.beat(), Err(SpoolError::LeaseClosed(owner)) if owner == zombie));
    assert!(matches!(lease.claim_next(|_| true), Err(SpoolError::LeaseClosed(_))));
    assert!(matches!(lease.look_after(), Err(SpoolError::LeaseClosed(_))));
    assert!(!held.is_held());
    assert!(matches!(held.conclude(&manifest(&held, accepted(), &zombie), &[]), Err(ClaimError::Lost(_))));
    let counts = Counts::of(&spool.all().expect("listed"));
    assert_eq!((counts.open(), counts.done.len()), (2, 0), "both are pending");
    assert!(!spool.layout().lease(&zombie).exists(), "nobody made the directory again");
    assert_eq!(spool.incarnations().expect("listed"), BTreeMap::new());
}

#[test]
fn a_spool_that_is_away_for_a_moment_ends_no_lease() {
    let (dir, spool) = spool();
    publish(&spool, &["a", "b"]);
    let me = owner("n1");
    let mut lease = Lease::open(&spool, me.clone()).expect("a lease");
    let mut heartbeat = Heartbeat::begin(&spool, me.clone()).expect("a heartbeat");
    let held = claim(&mut lease);
    heartbeat.beat().expect("alive");
    let (root, away) = (spool.layout().root().to_owned(), dir.path().join("away"));
    let mut check_kept = |is_expected: fn(&SpoolError) -> bool| {
        for error in [heartbeat.beat().err(), lease.look_after().err(), lease.claim_next(|_| true).err()] {
            assert!(error.as_ref().is_none_or(is_expected), "{error:?}");
        }
        assert!(heartbeat.beat().is_err() && lease.look_after().is_err() && held.is_held());
    };
    fs::rename(&root, &away).expect("moved");
    check_kept(|error| matches!(error, SpoolError::NotASpool(_) | SpoolError::Path(_)));
    Spool::init(&root, Uuid::now_v7()).expect("another spool");
    check_kept(|error| matches!(error, SpoolError::OtherSpool { .. }));
    fs::remove_dir_all(&root).expect("removed");
    fs::rename(&away, &root).expect("moved back");
    heartbeat.beat().expect("alive");
    assert_eq!(lease.look_after().expect("looked"), []);
    held.conclude(&manifest(&held, accepted(), &me), &[]).expect("accepted");
    assert_eq!(spool.incarnations().expect("listed")[&me], Some(2));
}

#[test]
fn a_revoked_lease_ends_no_claim_any_more() {
    let (_dir, spool) = spool();
    publish(&spool, &["a"]);
    let me = owner("n1");
    let mut lease = Lease::open(&spool, me.clone()).expect("a lease");
    let held = claim(&mut lease);
    lease.revocation().revoke();
    assert!(!held.is_held());
    let concluded = held.conclude(&manifest(&held, accepted(), &me), &[]);
    assert!(matches!(concluded, Err(ClaimError::Lost(_))), "{concluded:?}");
    assert!(matches!(held.release(), Err(ClaimError::Lost(_))));
    assert!(matches!(held.delay(1, "late"), Err(ClaimError::Lost(_))));
    assert_eq!(Counts::of(&spool.all().expect("listed")).claimed.len(), 1, "it waits to be reaped");
}

#[test]
fn a_task_that_came_unnoticed_is_handed_back() {
    let (_dir, spool) = spool();
    publish(&spool, &["a", "b"]);
    let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
    let held = claim(&mut lease);
    // What a rename leaves that was done although it failed for us.
    let pending = spool.all().expect("listed").into_iter().find(|t| matches!(t.state, State::Pending(_)));
    let pending = pending.expect("one is pending");
    let dir = spool.layout().lease(lease.owner()).join("5-build");
    fs::rename(&pending.path, dir.join(pending.name.claimed().to_string())).expect("mv");
    assert_eq!(lease.look_after().expect("looked"), [], "seen once it may be a claim in progress");
    assert_eq!(lease.look_after().expect("looked"), [pending.name.claimed()]);
    assert_eq!(lease.look_after().expect("looked"), []);
    assert!(held.is_held());
    drop(held);
    lease.look_after().expect("looked");
    assert_eq!(lease.look_after().expect("looked").len(), 1, "and so is one that nobody works on any more");
    assert!(lease.close().expect("closed"));
}

#[test]
fn a_delayed_task_waits_for_its_time() {
    let (_dir, spool) = spool();
    publish(&spool, &["a"]);
    let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
    let held = claim(&mut lease);
    assert!(held.delay(1000, "the engine is down").expect("delayed"));
    let report = spool.layout().attempt(&held.name().id, held.name().token).join("error.txt");
    assert_eq!(fs::read_to_string(report).expect("written"), "the engine is down\n");
    assert!(matches!(lease.claim_next(|_| true).expect("readable"), Next::Empty));
    assert_eq!(spool.release_until(999).expect("looked"), 0);
    assert_eq!(spool.release_until(1000).expect("looked"), 1);
    assert_eq!(claim(&mut lease).name().to_string(), "a.a002.r1.json");
}

#[test]
fn bad_files_are_kept_aside_and_the_rest_goes_on() {
    let (_dir, spool) = spool();
    publish(&spool, &["good"]);
    let pending = spool.layout().root().join("pending/5-build");
    fs::write(pending.join("torn.a000.r0.json"), b"{\"format\": 1, \"id\": \"to").expect("written");
    fs::write(pending.join("empty.json"), b"").expect("written");
    fs::write(pending.join("other.json"), serde_json::to_vec(&task("inside")).expect("JSON"))
        .expect("written");
    fs::write(pending.join("NOT A TASK.json"), b"{}").expect("written");
    std::os::unix::fs::symlink("/etc/passwd", pending.join("link.json")).expect("linked");
    let outside = spool.layout().root().join("status/outside");
    fs::write(&outside, serde_json::to_vec(&task("hard")).expect("JSON")).expect("written");
    fs::hard_link(&outside, pending.join("hard.json")).expect("linked");
    let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
    let (mut claimed, mut rejected) = (Vec::new(), BTreeSet::new());
    loop {
        match lease.claim_next(|_| true).expect("readable") {
            Next::Claimed(claim) => claimed.push(claim.name().id.to_string()),
            Next::Rejected { name, reason, why } => {
                assert!(!why.is_empty() && reason == FailureReason::BadSpec);
                rejected.insert(name.id.to_string());
            }
            Next::Empty => break,
        }
    }
    assert_eq!(claimed, ["good"]);
    assert_eq!(rejected.into_iter().collect::<Vec<_>>(), ["empty", "hard", "link", "other", "torn"]);
    let counts = Counts::of(&spool.all().expect("listed"));
    assert_eq!(counts.failed["badspec"], 5);
    let kept: Vec<_> = kept_aside(&spool).into_iter().map(|(name, _)| name).collect();
    assert_eq!(kept, ["NOT A TASK.json"]);
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn what_people_put_into_a_dead_workers_lease_does_not_keep_it_open() {
    let (_dir, spool) = spool();
    publish(&spool, &["a"]);
    let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
    let held = claim(&mut lease);
    let dir = spool.layout().lease(lease.owner());
    fs::write(dir.join("notes.txt"), "see below").expect("written");
    fs::write(dir.join("5-build/notes.txt"), "see above").expect("written");
    fs::create_dir_all(dir.join("old/older")).expect("made");
    fs::write(dir.join("3-build"), "no directory").expect("written");
    let reaped = spool.reap(lease.owner()).expect("reaped");
    assert_eq!(reaped, Reaped::Closed(vec![held.name().clone()]));
    assert!(!dir.exists());
    let (kept, why): (Vec<_>, Vec<_>) = kept_aside(&spool).into_iter().unzip();
    assert_eq!(kept, ["3-build", "notes.txt", "notes.txt", "old"]);
    assert!(why.iter().all(|why| why.contains("it lay in the lease of a worker that died")), "{why:?}");
}

#[test]
fn many_claimers_share_the_tasks_without_a_loss_or_a_double() {
    const TASKS: usize = 600;
    const CLAIMERS: usize = 8;
    let (_dir, spool) = spool();
    let ids: Vec<String> = (0..TASKS).map(|n| format!("t{n}")).collect();
    publish(&spool, &ids.iter().map(String::as_str).collect::<Vec<_>>());
    let work = |_| {
        let spool = spool.clone();
        move || {
            let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
            let mut mine = Vec::new();
            while let Next::Claimed(claim) = lease.claim_next(|_| true).expect("readable") {
                let me = lease.owner().clone();
                claim.conclude(&manifest(&claim, accepted(), &me), &[]).expect("concluded");
                mine.push(claim.name().id.to_string());
            }
            mine
        }
    };
    let threads: Vec<_> = (0..CLAIMERS).map(|n| std::thread::spawn(work(n))).collect();
    let mut all: Vec<String> = threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect();
    all.sort();
    let mut expected = ids;
    expected.sort();
    assert_eq!(all, expected);
    assert_eq!(Counts::of(&spool.all().expect("listed")).done["strict"], TASKS);
}

#[test]
fn ls_and_mv_work_on_dead_letters_however_many_there_are() {
    const BEFORE: usize = 4096;
    const MORE: usize = 400;
    let (_dir, spool) = spool();
    let failed = spool.layout().failed_for(FailureReason::Cancelled);
    for n in 0..BEFORE {
        fs::write(failed.join(format!("old-{n}.a001.r0.json")), b"").expect("written");
    }
    let ids: BTreeSet<TaskId> = (0..MORE).map(|n| format!("new-{n}").parse().expect("an id")).collect();
    publish(&spool, &ids.iter().map(TaskId::as_str).collect::<Vec<_>>());
    spool.carry_out(&ids).expect("cancelled");
    let listed = || fs::read_dir(&failed).expect("listed").count();
    assert!((BEFORE..BEFORE + MORE).contains(&listed()), "{} names", listed());
    let count = || spool.count(&mut Tally::default(), Instant::now()).expect("counted");
    assert_eq!((count().failed["cancelled"], count().open()), (BEFORE + MORE, 0));
    // What `mv failed/cancelled/* pending/5-build/` does.
    let pending = spool.layout().pending().join("5-build");
    for entry in fs::read_dir(&failed).expect("listed").map(|entry| entry.expect("an entry")) {
        fs::rename(entry.path(), pending.join(entry.file_name())).expect("moved");
    }
    assert_eq!(count().pending["5-build"], BEFORE + MORE);
    assert_eq!(listed(), 0);
}

#[test]
fn a_spool_is_recognised_and_never_made_over_something_else() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("precious"), b"").expect("written");
    assert!(
        Spool::init(dir.path(), Uuid::now_v7()).expect_err("not empty").to_string().contains("not empty")
    );
    assert!(Spool::open(dir.path()).expect_err("no spool").to_string().contains("bottega init"));
    let root = dir.path().join("spool");
    let first = Spool::init(&root, Uuid::now_v7()).expect("made");
    assert_eq!(Spool::init(&root, Uuid::now_v7()).expect("opened").id(), first.id(), "init is idempotent");
    fs::write(root.join("spool.toml"), format!("uuid = \"{}\"\nformat = 99\n", first.id())).expect("written");
    assert!(Spool::open(&root).expect_err("newer").to_string().contains("upgrade"));
    fs::write(root.join("spool.toml"), "uuid = 3").expect("written");
    assert!(Spool::open(&root).is_err());
}

#[test]
fn what_the_gone_said_of_themselves_is_not_told() {
    let (_dir, spool) = spool();
    let (gone, here) = (owner("n1"), owner("n2"));
    let _lease = Lease::open(&spool, here.clone()).expect("a lease");
    for owner in [&gone, &here] {
        let status = WorkerStatus {
            owner: owner.clone(),
            at: "2024-01-01T00:00:00Z".parse().expect("a time"),
            notices: Vec::new(),
            obstacle: None,
            kinds: Vec::new(),
            slots: Vec::new(),
        };
        spool.write_worker_status(&status).expect("written");
    }
    let told: Vec<Owner> = spool.worker_statuses().expect("listed").into_iter().map(|s| s.owner).collect();
    assert_eq!(told, std::slice::from_ref(&here));
    spool.forget_worker_statuses().expect("forgotten");
    let left = fs::read_dir(spool.layout().worker_status()).expect("listed").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert_eq!(left, [format!("{here}.json").as_str()]);
}
