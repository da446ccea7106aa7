//! What most tests of the spool begin with.
#![expect(dead_code, reason = "each test file uses a part of it")]

use queue_format::{
    AcceptanceClass, Claim, FailureReason, Incarnation, Instance, Lease, Manifest, Next, Owner, Spool,
    TaskSpec, Verdict,
};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) fn spool() -> (TempDir, Spool) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spool = Spool::init(&dir.path().join("spool"), Uuid::now_v7()).expect("a spool");
    (dir, spool)
}

pub(crate) fn owner(node: &str) -> Owner {
    Owner::new(node, Incarnation::new(Uuid::now_v7()))
}

pub(crate) fn task(id: &str) -> TaskSpec {
    let instance: Instance = serde_json::from_value(serde_json::json!({
        "instance_id": id, "repo": "owner/name", "base_commit": "0".repeat(40), "problem_statement": "it breaks",
        "patch": "diff --git a/x b/x", "test_patch": "diff --git a/test_x b/test_x",
    }))
    .expect("a row");
    TaskSpec::build(instance, "/mirrors/owner+name/repo".to_owned()).expect("a valid task")
}

pub(crate) fn publish(spool: &Spool, ids: &[&str]) {
    let tasks: Vec<TaskSpec> = ids.iter().map(|id| task(id)).collect();
    let report = spool.publish(&tasks, &owner("master"), Uuid::now_v7).expect("published");
    assert_eq!(report.published, ids.len());
}

pub(crate) fn claim(lease: &mut Lease) -> Claim {
    match lease.claim_next(|_| true).expect("a readable spool") {
        Next::Claimed(claim) => *claim,
        other => panic!("expected a claim, got {other:?}"),
    }
}

pub(crate) fn accepted() -> Verdict {
    Verdict::Accepted { class: AcceptanceClass::Strict }
}

pub(crate) fn failed(reason: FailureReason) -> Verdict {
    Verdict::Failed { reason, detail: "no".into(), log: Vec::new(), remedy: "try".into() }
}

pub(crate) fn manifest(claim: &Claim, verdict: Verdict, owner: &Owner) -> Manifest {
    serde_json::from_value(serde_json::json!({
        "format": 1, "id": claim.name().id, "token": claim.name().token, "owner": owner,
        "verdict": "failed", "reason": "build", "detail": "", "remedy": "",
        "started_at": "2024-01-01T00:00:00Z", "finished_at": "2024-01-01T00:01:00Z", "iterations": 1,
        "stages": [], "python": null, "image_name": null, "image_bytes": null, "fail_to_pass": 1,
        "pass_to_pass": 2, "peak_memory_bytes": null, "files": {},
    }))
    .map(|manifest| Manifest { verdict, ..manifest })
    .expect("a manifest")
}

/// What was kept aside, by name and without the number before it, with the reasons.
pub(crate) fn kept_aside(spool: &Spool) -> Vec<(String, String)> {
    let dir = spool.layout().rejected();
    let names = std::fs::read_dir(&dir).expect("listed").map(|entry| entry.expect("an entry").file_name());
    let names: Vec<String> = names.map(|name| name.into_string().expect("UTF-8")).collect();
    let mut kept: Vec<(String, String)> = names
        .iter()
        .filter(|name| names.contains(&format!("{name}.reason")))
        .map(|name| {
            let why = std::fs::read_to_string(dir.join(format!("{name}.reason"))).expect("a reason");
            (name.split_once('.').expect("a number").1.to_owned(), why)
        })
        .collect();
    kept.sort();
    kept
}
