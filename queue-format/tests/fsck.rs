//! A check of a spool that daemons work on: what they move meanwhile is no finding.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{accepted, manifest, owner, task};
use queue_format::{Depth, Finding, Lease, Next, Severity, Spool, State, TaskSpec};
use uuid::Uuid;

const TASKS: usize = 200;

fn check(spool: &Spool) -> Vec<Finding> {
    let mut found = Vec::new();
    let checked = spool.fsck(Depth::Contents, &mut |finding| found.push(finding)).expect("checked");
    assert!(checked.pending + checked.claimed + checked.done + checked.hold > 0);
    found.retain(|finding| finding.severity > Severity::Note);
    found
}

/// Claims and concludes until nothing is pending; every third claim is handed back once.
fn work(spool: &Spool) {
    let mut lease = Lease::open(spool, owner("n1")).expect("a lease");
    while let Next::Claimed(claim) = lease.claim_next(|_| true).expect("a readable spool") {
        let name = claim.name();
        if name.token.0 == 1 && name.id.as_str().ends_with(['0', '3', '6', '9']) {
            claim.release().expect("handed back");
            continue;
        }
        let manifest = manifest(&claim, accepted(), lease.owner());
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
    spool.publish(&tasks, &owner("n1"), Uuid::now_v7).expect("published");
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
