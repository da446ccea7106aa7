use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use queue_format::{
    AcceptanceClass, BuildReport, CHUNK_TASKS_MAX, Claim, Disk, Entry, Filesystem, Heartbeat, Incarnation,
    Instance, Known, Lease, Manifest, NewFile, Next, OpenFile, Owner, Publisher, Spool, TaskSpec, Verdict,
    WorkReport,
};
use uuid::Uuid;

/// Between two beats, and between two looks into the lease directory.
const BEAT_SECONDS: f64 = 10.0;

/// Between two looks into pending, on average: 1 to 15 seconds.
const POLL_SECONDS: f64 = 8.0;

/// The disk, with its calls and its failed renames counted.
#[derive(Debug, Default)]
struct Counting {
    calls: AtomicU64,
    lost: AtomicU64,
}

pub(crate) fn tasks(count: usize) -> Vec<TaskSpec> {
    (0..count).map(task).collect()
}

/// Seconds to publish all tasks, and to claim and complete each.
pub(crate) fn publish_and_complete(root: &Path, tasks: &[TaskSpec]) -> [f64; 2] {
    let spool = Spool::init(root, Uuid::now_v7()).expect("a spool");
    let started = Instant::now();
    spool.publish(tasks, &owner(), Uuid::now_v7).expect("published");
    let publish = started.elapsed().as_secs_f64();
    let me = owner();
    let mut lease = Lease::open(&spool, me.clone()).expect("a lease");
    let started = Instant::now();
    for _ in tasks {
        let Next::Claimed(claim) = lease.claim_next(|_| true).expect("readable") else {
            panic!("a task is left")
        };
        claim.conclude(&manifest(&claim, &me), &[]).expect("concluded");
    }
    [publish, started.elapsed().as_secs_f64()]
}

/// A spool with so many tasks, published chunk by chunk.
pub(crate) fn published(root: &Path, count: usize) -> Spool {
    let spool = Spool::init(root, Uuid::now_v7()).expect("a spool");
    let mut known = Known::default();
    let mut publisher = Publisher::begin(&spool, owner(), Uuid::now_v7(), &mut known).expect("its turn");
    for (chunk, first) in (0..).zip((0..count).step_by(CHUNK_TASKS_MAX)) {
        let tasks: Vec<TaskSpec> = (first..(first + CHUNK_TASKS_MAX).min(count)).map(task).collect();
        publisher.publish(chunk, &tasks).expect("published");
    }
    drop(publisher);
    spool
}

/// Seconds that a new worker takes to claim so many.
pub(crate) fn claim(spool: &Spool, count: usize) -> f64 {
    let mut lease = Lease::open(spool, owner()).expect("a lease");
    let started = Instant::now();
    for _ in 0..count {
        assert!(matches!(lease.claim_next(|_| true).expect("readable"), Next::Claimed(_)), "a task is left");
    }
    started.elapsed().as_secs_f64()
}

/// Claims everything with so many claimers at once: claims, claims that somebody else was faster at, seconds.
pub(crate) fn race(spool: &Spool, claimers: usize) -> (usize, u64, f64) {
    let counting = Arc::new(Counting::default());
    let spool = Spool::open_on(counting.clone(), spool.layout().root()).expect("a spool");
    let claims = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..claimers {
            scope.spawn(|| {
                let mut lease = Lease::open(&spool, owner()).expect("a lease");
                while let Next::Claimed(_) = lease.claim_next(|_| true).expect("readable") {
                    claims.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    (claims.into_inner(), counting.lost.load(Ordering::Relaxed), started.elapsed().as_secs_f64())
}

/// File-system calls a second of a worker that finds nothing to do: its beats, and its looks at its lease, at control/
/// and into pending.
pub(crate) fn idle_calls(root: &Path) -> f64 {
    const TIMES: u64 = 100;
    Spool::init(root, Uuid::now_v7()).expect("a spool");
    let counting = Arc::new(Counting::default());
    let spool = Spool::open_on(counting.clone(), &root.canonicalize().expect("there")).expect("a spool");
    let me = owner();
    let mut heart = Heartbeat::begin(&spool, me.clone()).expect("a heartbeat");
    let mut lease = Lease::open(&spool, me).expect("a lease");
    let each = |what: &mut dyn FnMut()| {
        let before = counting.calls.load(Ordering::Relaxed);
        (0..TIMES).for_each(|_| what());
        (counting.calls.load(Ordering::Relaxed) - before) as f64 / TIMES as f64
    };
    let beat = each(&mut || heart.beat().expect("alive"));
    let look = each(&mut || drop(lease.look_after().expect("looked")));
    let control = each(&mut || drop(spool.control().expect("read")));
    let poll = each(&mut || assert!(matches!(lease.claim_next(|_| true), Ok(Next::Empty))));
    (beat + look + control) / BEAT_SECONDS + poll / POLL_SECONDS
}

fn owner() -> Owner {
    Owner::new("bench", Incarnation::new(Uuid::now_v7()))
}

fn task(n: usize) -> TaskSpec {
    let instance: Instance = serde_json::from_value(serde_json::json!({
        "instance_id": format!("owner__name-{n}"), "repo": "owner/name", "base_commit": "0".repeat(40),
        "problem_statement": "it breaks", "patch": "diff ".repeat(400), "test_patch": "diff ".repeat(200),
    }))
    .expect("a row");
    TaskSpec::build(instance, "/mirrors/owner+name/repo".to_owned()).expect("a valid task")
}

fn manifest(claim: &Claim, owner: &Owner) -> Manifest {
    let now = jiff::Timestamp::UNIX_EPOCH;
    Manifest {
        format: 1,
        id: claim.name().id.clone(),
        token: claim.name().token,
        owner: owner.clone(),
        verdict: Verdict::Accepted { class: AcceptanceClass::Strict },
        started_at: now,
        finished_at: now,
        stages: Vec::new(),
        work: WorkReport::Build(BuildReport {
            iterations: 1,
            fail_to_pass: 1,
            pass_to_pass: 2,
            ..BuildReport::default()
        }),
        peak_memory_bytes: None,
        notes: Vec::new(),
        files: std::collections::BTreeMap::new(),
    }
}

impl Counting {
    fn one<T>(&self, done: T) -> T {
        self.calls.fetch_add(1, Ordering::Relaxed);
        done
    }
}

impl Filesystem for Counting {
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let renamed = self.one(Disk.rename(from, to));
        self.lost.fetch_add(u64::from(renamed.is_err()), Ordering::Relaxed);
        renamed
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.one(Disk.create(path))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.one(Disk.append(path, bytes))
    }

    fn open(&self, path: &Path) -> io::Result<OpenFile> {
        self.one(Disk.open(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.one(Disk.list(dir))
    }

    fn look(&self, path: &Path) -> io::Result<Entry> {
        self.one(Disk.look(path))
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.one(Disk.make_dir(dir))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.one(Disk.remove_dir(dir))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.one(Disk.remove_file(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.one(Disk.sync_dir(dir))
    }

    fn take_turn(&self, dir: &Path) -> io::Result<Box<dyn Any + Send>> {
        self.one(Disk.take_turn(dir))
    }

    fn unique(&self) -> Uuid {
        Disk.unique()
    }
}
