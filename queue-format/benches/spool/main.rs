//! What the queue costs, beside the bare file operations that it cannot do without and beside other queues: on one
//! disk, in one run, in turns. Prints a table and writes it to target/bench/spool.md. `BOTTEGA_BENCH_FULL=1` takes
//! 1,000,000 tasks where it otherwise takes 40,960. `BOTTEGA_BENCH_DIR=DIR` measures the disk of that directory instead,
//! such as an NFS mount: durable tasks beside the floor alone, and what each asks of the server. Peers that are not installed are said to be left out.
#![expect(
    clippy::disallowed_methods,
    reason = "bare renames, and programs that are run, are what is measured against"
)]
#![expect(clippy::cast_precision_loss, reason = "numbers of tasks are far below 2^52")]

mod floor;
mod memory;
mod mountstats;
mod peers;
mod redis;
mod report;
mod spools;

use std::path::Path;
use std::time::Instant;

use report::Report;

/// Tasks of one turn where each waits for the disk several times.
const DURABLE_TASKS: usize = 400;

/// Turns: what one is measured against is measured in the same, and the order alternates.
const TURNS: usize = 4;

/// Turns of claims out of a small spool and out of a large one.
const CLAIM_TURNS: usize = 8;

/// Claimers at once.
const CLAIMERS: usize = 64;

fn main() {
    if let Some(dir) = std::env::var_os("BOTTEGA_BENCH_DIR") {
        let scratch = tempfile::tempdir_in(dir).expect("a directory on the disk that is measured");
        let mut report = Report::default();
        durable(scratch.path(), &mut report);
        report.print();
        return;
    }
    let full = std::env::var_os("BOTTEGA_BENCH_FULL").is_some();
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), Into::into);
    std::fs::create_dir_all(&target).expect("a directory for the table");
    let scratch = tempfile::tempdir_in(&target).expect("a directory on the disk that is measured");
    let mut report = Report::default();
    idle(scratch.path(), &mut report);
    durable(scratch.path(), &mut report);
    large(scratch.path(), if full { 1_000_000 } else { 40_960 }, &mut report);
    others(scratch.path(), &mut report);
    report.write(&target.join("bench"));
}

/// Publishes, then claims, reads and completes; ours and the floor in turns.
fn durable(scratch: &Path, report: &mut Report) {
    let tasks = spools::tasks(DURABLE_TASKS);
    let mut ours = [0.0, 0.0];
    let mut floor = [0.0, 0.0];
    let mut asked = [0, 0];
    for turn in 0..TURNS {
        let (a, b) = (scratch.join(format!("ours-{turn}")), scratch.join(format!("floor-{turn}")));
        let mut measure = |is_ours: bool| {
            let before = mountstats::requests(scratch);
            if is_ours {
                add(&mut ours, spools::publish_and_complete(&a, &tasks));
            } else {
                add(&mut floor, floor::publish_and_complete(&b, &tasks));
            }
            asked[usize::from(!is_ours)] += mountstats::requests(scratch) - before;
        };
        measure(turn % 2 == 0);
        measure(turn % 2 == 1);
        remove(&a);
        remove(&b);
    }
    let done = (DURABLE_TASKS * TURNS) as f64;
    for (n, (what, least)) in
        [("durable publish, one task a file", 0.80), ("claim, read and complete, 1 process", 0.85)]
            .into_iter()
            .enumerate()
    {
        let ratio = floor[n] / ours[n];
        let figure =
            format!("{ratio:.2} of the floor ({:.0} against {:.0} tasks/s)", done / ours[n], done / floor[n]);
        report.goal(what, &format!("≥ {least:.2} of the floor"), &figure, ratio >= least);
    }
    if asked != [0, 0] {
        let [ours, floor] = asked.map(|requests| requests as f64 / done);
        let figure = format!("{ours:.1} against {floor:.1} of the floor");
        report.goal(
            "requests to the server for a task, publication and all",
            "as the floor",
            &figure,
            ours <= floor,
        );
    }
    report.rates(
        "Bottega",
        done / ours[0],
        done / ours[1],
        "every task and every result is on disk before it counts",
    );
    report.rates(
        "the floor",
        done / floor[0],
        done / floor[1],
        "the same renames, reads and waits for the disk, no logic",
    );
}

/// One large spool: published, then claimed from in turns with small ones, then fought for.
fn large(scratch: &Path, tasks: usize, report: &mut Report) {
    const SMALL: usize = 1_000;
    let started = Instant::now();
    let large = spools::published(&scratch.join("large"), tasks);
    let seconds = started.elapsed().as_secs_f64() * 572_000.0 / tasks as f64;
    let figure = format!("{seconds:.0} s for 572,000 ({tasks} published)");
    report.goal("durable publish by shards", "≤ 60 s for 572,000 tasks", &figure, seconds <= 60.0);

    memory::measure(&large, &scratch.join("daemons"), tasks, report);

    let (mut in_small, mut in_large) = (0.0, 0.0);
    for turn in 0..CLAIM_TURNS {
        let dir = scratch.join(format!("small-{turn}"));
        in_small += spools::claim(&spools::published(&dir, SMALL), SMALL);
        in_large += spools::claim(&large, SMALL);
        remove(&dir);
    }
    let ratio = in_large / in_small;
    let micros = 1e6 / (SMALL * CLAIM_TURNS) as f64;
    let figure = format!("{ratio:.2} ({:.1} against {:.1} µs)", in_large * micros, in_small * micros);
    report.goal(&format!("cost of a claim, {tasks} tasks against {SMALL}"), "≤ 1.2", &figure, ratio <= 1.2);

    let (claims, lost, seconds) = spools::race(&large, CLAIMERS);
    assert_eq!(claims, tasks - SMALL * CLAIM_TURNS, "each is claimed once");
    let share = lost as f64 / claims as f64;
    let figure =
        format!("{:.2} % of {claims} claims, {:.0} claims/s", share * 100.0, claims as f64 / seconds);
    report.goal(&format!("lost races, {CLAIMERS} claimers"), "< 1 %", &figure, share < 0.01);
    remove(&scratch.join("large"));
}

fn idle(scratch: &Path, report: &mut Report) {
    let dir = scratch.join("idle");
    let calls = spools::idle_calls(&dir);
    let figure = format!("{calls:.2} a second");
    report.goal("file-system calls of an idle worker", "≤ 0.5 a second", &figure, calls <= 0.5);
    remove(&dir);
}

fn others(scratch: &Path, report: &mut Report) {
    let tasks = spools::tasks(DURABLE_TASKS);
    for always in [false, true] {
        peers::say(report, &redis::measure(&scratch.join("redis"), &tasks, always));
        remove(&scratch.join("redis"));
    }
    peers::say(report, &peers::dirq(&scratch.join("dirq"), &tasks));
    peers::say(report, &peers::hyperqueue(&scratch.join("hq"), DURABLE_TASKS));
}

fn add(sum: &mut [f64; 2], more: [f64; 2]) {
    sum[0] += more[0];
    sum[1] += more[1];
}

fn remove(dir: &Path) {
    if dir.exists() {
        std::fs::remove_dir_all(dir).expect("removed");
    }
}
