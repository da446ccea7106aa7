//! Inputs of tasks in the spool: kept once, checked when read, looked after by fsck.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use queue_format::{
    Check, Depth, Digest, FailureReason, Finding, Incarnation, InputError, InputFile, Lease, Next, Owner,
    Resources, RunTask, Severity, Spool, TaskSpec, Verdict,
};
use uuid::Uuid;

fn spool() -> (tempfile::TempDir, Spool) {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = Spool::init(&dir.path().join("spool"), Uuid::now_v7()).expect("a spool");
    (dir, spool)
}

fn owner() -> Owner {
    Owner::new("node", Incarnation::new(Uuid::now_v7()))
}

fn findings(spool: &Spool) -> Vec<Finding> {
    let mut found = Vec::new();
    spool.fsck(Depth::Contents, &mut |finding| found.push(finding)).expect("checked");
    found.retain(|finding| finding.severity != Severity::Note);
    found
}

fn read(spool: &Spool, digest: &Digest) -> Result<Vec<u8>, String> {
    let mut copy = Vec::new();
    spool.read_input(digest, &mut copy).map(|_| copy).map_err(|error| {
        assert!(error.is_of_task());
        error.to_string()
    })
}

fn run_of(digest: &Digest) -> TaskSpec {
    let input = InputFile { path: "/in".to_owned(), digest: digest.clone(), bytes: 5, mode: 0o644 };
    let task = RunTask {
        image: Some("debian:12".to_owned()),
        commands: vec![vec!["true".to_owned()]],
        inputs: vec![input],
        ..RunTask::default()
    };
    let resources = Resources { cores: Some(8), ..Resources::default() };
    TaskSpec::run("x".parse().expect("an id"), 5, resources, task).expect("valid")
}

/// As a file on a disk that is broken.
struct Unreadable;

impl Read for Unreadable {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("broken"))
    }
}

#[test]
fn an_input_is_kept_once_and_checked_when_it_is_read() {
    let (_dir, spool) = spool();
    let error = spool.keep_input(&mut Unreadable).expect_err("its reader fails");
    assert!(matches!(error, InputError::Given(_)), "{error}");
    let (digest, bytes) = spool.keep_input(&mut b"hello".as_slice()).expect("kept");
    assert_eq!((bytes, &digest), (5, &Digest::of(b"hello")));
    let path = spool.layout().input(&digest);
    let modified = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).expect("there");
    let before = modified(&path);
    assert_eq!(spool.keep_input(&mut b"hello".as_slice()).expect("kept").0, digest);
    assert_eq!(modified(&path), before, "the one that is there stays");
    assert_eq!(read(&spool, &digest), Ok(b"hello".to_vec()));
    assert_eq!(fs::read_dir(spool.layout().inputs()).expect("listed").count(), 1, "nothing staged is left");

    fs::write(&path, "jello").expect("written");
    let why = read(&spool, &digest).expect_err("damaged");
    assert!(why.contains(digest.as_str()) && why.contains("publish the task again"), "{why}");
    fs::write(&path, "torn").expect("written");
    spool.keep_input(&mut b"hello".as_slice()).expect("kept");
    assert_eq!(read(&spool, &digest), Ok(b"hello".to_vec()), "one of another size is replaced");
    fs::remove_file(&path).expect("removed");
    assert!(read(&spool, &digest).expect_err("gone").contains("is missing"));
}

#[test]
fn fsck_finds_inputs_that_are_damaged_missing_or_none() {
    let (_dir, spool) = spool();
    let (digest, _) = spool.keep_input(&mut b"hello".as_slice()).expect("kept");
    spool.publish(&[run_of(&digest)], &owner(), Uuid::now_v7).expect("published");
    assert_eq!(findings(&spool), []);
    let path = spool.layout().input(&digest);
    let check = |expected: Check| {
        let found = findings(&spool);
        assert_eq!(found.iter().map(|finding| finding.check).collect::<Vec<_>>(), [expected], "{found:?}");
    };
    fs::write(&path, "jello").expect("written");
    check(Check::DamagedInput);
    fs::remove_file(&path).expect("removed");
    check(Check::DamagedInput);
    fs::write(&path, "hello").expect("written");
    fs::write(path.with_file_name("what"), "").expect("written");
    check(Check::UnknownName);
}

#[test]
fn a_task_that_does_not_fit_goes_back_to_where_it_belongs() {
    let (_dir, spool) = spool();
    let (digest, _) = spool.keep_input(&mut b"hello".as_slice()).expect("kept");
    spool.publish(&[run_of(&digest)], &owner(), Uuid::now_v7).expect("published");
    let task = spool.all().expect("listed").remove(0);
    let by_hand = spool.layout().root().join("pending/0-run");
    fs::create_dir_all(&by_hand).expect("mkdir");
    let name = task.path.file_name().expect("a name");
    #[expect(clippy::disallowed_methods, reason = "a person's mv")]
    fs::rename(&task.path, by_hand.join(name)).expect("mv");
    let mut lease = Lease::open(&spool, owner()).expect("a lease");
    let Next::Claimed(claim) = lease.claim_next(|class| class.shape().fits(4, 1 << 40)).expect("claimed")
    else {
        panic!("a class without a shape fits everybody");
    };
    claim.hand_over().expect("handed over");
    drop(claim);
    let path = spool.all().expect("listed").remove(0).path;
    assert_eq!(path, spool.layout().root().join("pending/0-run-8c/x.a001.r0.json"));
    lease.forget_candidates();
    assert!(matches!(lease.claim_next(|class| class.shape().fits(4, 1 << 40)), Ok(Next::Empty)));
    assert!(matches!(lease.claim_next(|class| class.shape().fits(8, 1 << 40)), Ok(Next::Claimed(_))));
}

#[test]
fn verdicts_that_end_a_task_well_are_told_from_others() {
    let failed = Verdict::Failed {
        reason: FailureReason::Exit,
        detail: String::new(),
        log: Vec::new(),
        remedy: String::new(),
    };
    assert!(Verdict::Completed.is_success() && !failed.is_success());
    let text = serde_json::to_string(&Verdict::Completed).expect("JSON");
    assert_eq!(text, r#"{"verdict":"completed"}"#);
}
