//! A check of a spool that daemons work on: what they move meanwhile is no finding.

use std::sync::atomic::{AtomicBool, Ordering};

use queue_format::{
    Depth, Finding, Incarnation, Instance, Lease, Manifest, Next, Owner, Severity, Spool, State, TaskSpec,
};
use uuid::Uuid;

const TASKS: usize = 200;

fn owner() -> Owner {
    Owner::new("n1", Incarnation::new(Uuid::now_v7()))
}

fn task(id: &str) -> TaskSpec {
    let instance: Instance = serde_json::from_value(serde_json::json!({
        "instance_id": id, "repo": "owner/name", "base_commit": "0".repeat(40), "problem_statement": "it breaks",
        "patch": "diff --git a/x b/x", "test_patch": "diff --git a/test_x b/test_x",
    }))
    .expect("a row");
    TaskSpec::build(instance, "/mirrors/owner+name/repo".to_owned()).expect("a valid task")
}

fn check(spool: &Spool) -> Vec<Finding> {
    let mut found = Vec::new();
    let checked = spool.fsck(Depth::Contents, &owner(), &mut |finding| found.push(finding)).expect("checked");
    assert!(checked.pending + checked.claimed + checked.done + checked.hold > 0);
    found.retain(|finding| finding.severity > Severity::Note);
    found
}

/// Claims and concludes until nothing is pending; every third claim is handed back once.
fn work(spool: &Spool) {
    let mut lease = Lease::open(spool, owner()).expect("a lease");
    while let Next::Claimed(claim) = lease.claim_next(|_| true).expect("a readable spool") {
        let name = claim.name();
        if name.token.0 == 1 && name.id.as_str().ends_with(['0', '3', '6', '9']) {
            claim.release().expect("handed back");
            continue;
        }
        let manifest: Manifest = serde_json::from_value(serde_json::json!({
            "format": 1, "id": name.id, "token": name.token, "owner": lease.owner(),
            "verdict": "accepted", "class": "strict",
            "started_at": "2024-01-01T00:00:00Z", "finished_at": "2024-01-01T00:01:00Z", "iterations": 1,
            "stages": [], "python": null, "image_name": null, "image_bytes": null, "fail_to_pass": 1,
            "pass_to_pass": 2, "peak_memory_bytes": null, "files": {},
        }))
        .expect("a manifest");
        claim
            .conclude(&manifest, &[("Dockerfile".to_owned(), b"FROM scratch\n".to_vec())])
            .expect("concluded");
    }
}

#[test]
fn what_daemons_move_during_a_check_is_no_finding() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = Spool::init(&dir.path().join("spool"), Uuid::now_v7()).expect("a spool");
    let tasks: Vec<TaskSpec> = (0..TASKS).map(|n| task(&format!("t{n}"))).collect();
    spool.publish(&tasks, &owner(), Uuid::now_v7).expect("published");
    let is_over = AtomicBool::new(false);
    let (checks, found) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(|| work(&spool))).collect();
        let person = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for parked in spool.all().expect("listed").into_iter().step_by(7) {
                    if matches!(parked.state, State::Pending(_)) {
                        spool.hold(&parked).expect("held");
                    }
                }
                for parked in spool.all().expect("listed") {
                    spool.release(&parked).expect("released");
                }
            }
        });
        let (mut checks, mut found) = (0, Vec::new());
        while workers.iter().any(|worker| !worker.is_finished()) {
            found.extend(check(&spool));
            checks += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        person.join().expect("no panic");
        (checks, found)
    });
    assert_eq!(found, []);
    assert!(checks > 0, "none was made while they worked");
    work(&spool);
    assert_eq!(check(&spool), []);
    assert_eq!(
        spool.all().expect("listed").iter().filter(|task| matches!(task.state, State::Done(_))).count(),
        TASKS
    );
}
