//! What the protocol costs beside the bare file operations that it cannot do without, on the same disk in the same
//! run. Prints ratios, and writes them to target/bench/spool.md.
#![expect(clippy::disallowed_methods, reason = "the bare renames are what is measured against")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use queue_format::{Incarnation, Instance, Lease, Next, Owner, Spool, TaskSpec};
use uuid::Uuid;

const TASKS: usize = 2_000;
const ROUNDS: usize = 5;

fn main() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let scratch = tempfile::tempdir_in(&target).expect("a directory on the disk that is measured");
    let mut rows: Vec<(&str, f64, f64)> = vec![
        ("publish: write, sync and show a task", 0.0, 0.0),
        ("claim, read and hand back a task", 0.0, 0.0),
    ];
    for round in 0..ROUNDS {
        let dir = scratch.path().join(round.to_string());
        let (publish, claim) = bottega(&dir.join("spool"));
        let (write, rename) = bare(&dir.join("bare"));
        rows[0].1 += publish;
        rows[0].2 += write;
        rows[1].1 += claim;
        rows[1].2 += rename;
    }
    let mut table = String::from(
        "| operation | Bottega, tasks/s | bare file operations, tasks/s | ratio |\n|---|---|---|---|\n",
    );
    let done = (TASKS * ROUNDS) as f64;
    for (what, ours, floor) in rows {
        table += &format!("| {what} | {:.0} | {:.0} | {:.2} |\n", done / ours, done / floor, floor / ours);
    }
    print!("{table}");
    let out = target.join("bench");
    fs::create_dir_all(&out)
        .and_then(|()| fs::write(out.join("spool.md"), table))
        .expect("the table is written");
}

fn tasks() -> Vec<TaskSpec> {
    let row = |n: usize| {
        let instance: Instance = serde_json::from_value(serde_json::json!({
            "instance_id": format!("owner__name-{n}"), "repo": "owner/name", "base_commit": "0".repeat(40),
            "problem_statement": "it breaks", "patch": "diff ".repeat(400), "test_patch": "diff ".repeat(200),
        }))
        .expect("a row");
        TaskSpec::build(instance, "/mirrors/owner+name/repo".to_owned()).expect("a valid task")
    };
    (0..TASKS).map(row).collect()
}

/// Seconds to publish all tasks, and to claim and hand back each.
fn bottega(root: &Path) -> (f64, f64) {
    let spool = Spool::init(root, Uuid::now_v7()).expect("a spool");
    let owner = || Owner::new("bench", Incarnation::new(Uuid::now_v7()));
    let tasks = tasks();
    let started = Instant::now();
    spool.publish(&tasks, &owner(), Uuid::now_v7).expect("published");
    let publish = started.elapsed().as_secs_f64();
    let mut lease = Lease::open(&spool, owner()).expect("a lease");
    let started = Instant::now();
    for _ in 0..TASKS {
        let Next::Claimed(claim) = lease.claim_next(|_| true).expect("readable") else {
            panic!("a task is left")
        };
        claim.release().expect("ours");
    }
    (publish, started.elapsed().as_secs_f64())
}

/// The same files, written and synced one by one, then renamed there, read and renamed back.
fn bare(root: &Path) -> (f64, f64) {
    let (pending, claimed) = (root.join("pending"), root.join("claimed"));
    fs::create_dir_all(&pending).and_then(|()| fs::create_dir_all(&claimed)).expect("made");
    let tasks = tasks();
    let names: Vec<(PathBuf, PathBuf)> =
        (0..TASKS).map(|n| (pending.join(n.to_string()), claimed.join(n.to_string()))).collect();
    let started = Instant::now();
    for (task, (path, _)) in tasks.iter().zip(&names) {
        let mut file = fs::File::create_new(path).expect("created");
        file.write_all(&serde_json::to_vec_pretty(task).expect("JSON")).expect("written");
        file.sync_all().expect("synced");
    }
    let write = started.elapsed().as_secs_f64();
    let started = Instant::now();
    for (path, claimed) in &names {
        fs::rename(path, claimed).expect("renamed");
        fs::read(claimed).expect("read");
        fs::rename(claimed, path).expect("renamed");
    }
    (write, started.elapsed().as_secs_f64())
}
