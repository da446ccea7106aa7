//! Real processes on a real directory: publishers and workers that are killed, or stopped for longer than their lease,
//! at any instruction, and a person who moves what failed. In the end every task must have come to exactly one result.
//!
//! `BOTTEGA_KILL_TASKS=20000 BOTTEGA_KILL_SECONDS=300 cargo test -p queue-format --test processes` goes on for longer.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{accepted, failed, manifest, task};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queue_format::{
    ClaimError, Deceased, Depth, FailureReason, Incarnation, Intake, Known, Lease, Manifest, Next, Owner,
    Presence, Publisher, Severity, Spool, SpoolError, State, TaskSpec,
};
use uuid::Uuid;

/// In a child: what it is.
const ROLE: &str = "BOTTEGA_KILL_ROLE";
/// In a child: where.
const DIR: &str = "BOTTEGA_KILL_DIR";
const TASKS: usize = 3_000;
/// How long processes are killed and stopped; then they may finish.
const CHAOS_SECONDS: u64 = 25;
/// How long they may take to finish, on a slow machine.
const FINISH_MAX: Duration = Duration::from_mins(10);
const CHUNK: usize = 250;
const WORKERS: usize = 5;
const PUBLISHERS: usize = 2;
/// Whoever reads this source reads the same rows.
const SOURCE: Uuid = Uuid::from_u128(0x0b07_7e6a);
const TIMING: &str = "\n[timing]\nbeat_seconds = 1\nfence_seconds = 3\nsilence_seconds = 5\n";
/// Longer than the silence after which others take a stopped process for dead.
const FREEZE: Duration = Duration::from_secs(8);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// From 0 to `below`, of no particular kind.
fn random(below: u64) -> u64 {
    (Uuid::now_v7().as_u128() as u64) % below
}

fn now() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).expect("a clock")
}

/// A heart in a thread of its own; the process ends as soon as others have taken it for dead. It has no fence, so that
/// one that was stopped goes on working for a moment with a lease that is no longer its own.
fn beat(
    spool: &Spool,
    owner: &Owner,
    lease: Option<Arc<Mutex<Lease>>>,
    mut on_dead: impl FnMut(&Owner) + Send + 'static,
) {
    let mut presence = Presence::begin(spool, owner.clone(), Duration::from_secs(1)).expect("a heartbeat");
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let beaten = presence.beat();
            let looked =
                lease.as_ref().map_or(Ok(Vec::new()), |lease| lease.lock().expect("no panic").look_after());
            if [beaten.err(), looked.err()].iter().any(|e| matches!(e, Some(SpoolError::LeaseClosed(_)))) {
                std::process::exit(75);
            }
            for Deceased { owner: dead, .. } in presence.look(now).unwrap_or_default() {
                on_dead(&dead);
            }
        }
    });
}

fn work(dir: &Path, node: &str) {
    let spool = Spool::open(dir).expect("a spool");
    let owner = Owner::new(node, Incarnation::new(Uuid::now_v7()));
    let lease = Arc::new(Mutex::new(Lease::open(&spool, owner.clone()).expect("a lease")));
    beat(&spool, &owner, Some(lease.clone()), |_| ());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = lease.lock().expect("no panic").claim_next(|_| true);
                    match next {
                        Ok(Next::Claimed(claim)) => {
                            std::thread::sleep(Duration::from_millis(random(12)));
                            let ended = match random(100) {
                                0..6 => claim
                                    .conclude(
                                        &manifest(&claim, failed(FailureReason::Build), &owner),
                                        &said(&claim, &owner),
                                    )
                                    .map(drop),
                                6..12 => claim.release(),
                                12..16 => claim.delay(0, "the node failed it").map(drop),
                                // It forgets what it has, as a thread does that panics.
                                16 => Ok(()),
                                _ => claim
                                    .conclude(&manifest(&claim, accepted(), &owner), &said(&claim, &owner))
                                    .map(drop),
                            };
                            if let Err(ClaimError::Spool(error)) = ended {
                                panic!("{error}");
                            }
                        }
                        Ok(Next::Rejected { name, why, .. }) => panic!("{name}: {why}"),
                        Ok(Next::Empty) => std::thread::sleep(Duration::from_millis(50)),
                        Err(SpoolError::LeaseClosed(_)) => std::process::exit(75),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
}

fn said(claim: &queue_format::Claim, owner: &Owner) -> [(String, Vec<u8>); 1] {
    [("build.log".to_owned(), format!("what {owner} saw of {}", claim.name()).into_bytes())]
}

fn publish(dir: &Path, node: &str, tasks: usize) {
    let spool = Spool::open(dir).expect("a spool");
    let owner = Owner::new(node, Incarnation::new(Uuid::now_v7()));
    let intake = Intake::open(&spool, owner.clone()).expect("an intake");
    beat(&spool, &owner, None, move |dead| drop(intake.adopt(dead)));
    let mut known = Known::default();
    loop {
        let mut publisher = Publisher::begin(&spool, owner.clone(), SOURCE, &mut known).expect("a turn");
        for n in 0..tasks.div_ceil(CHUNK) {
            let rows: Vec<TaskSpec> =
                (n * CHUNK..tasks.min((n + 1) * CHUNK)).map(|n| task(&format!("t{n:06}"))).collect();
            publisher.publish(n as u64, &rows).expect("published");
        }
        drop(publisher);
        std::thread::sleep(Duration::from_millis(500));
        spool.finish_chunks().expect("finished");
        spool.release_due().expect("released");
    }
}

/// Runs as a child only.
#[test]
#[ignore = "it is what the other test begins as a process"]
fn lives_as_a_process() {
    let (Ok(role), Ok(dir)) = (std::env::var(ROLE), std::env::var(DIR)) else { return };
    let dir = PathBuf::from(dir);
    let (kind, node) = role.split_once('-').expect("a role");
    match kind {
        "worker" => work(&dir, node),
        _ => publish(
            &dir,
            node,
            usize::try_from(number("BOTTEGA_KILL_TASKS", TASKS as u64)).expect("a number"),
        ),
    }
}

/// A process that is begun again whenever it has ended.
struct Actor {
    role: String,
    dir: PathBuf,
    child: Child,
    frozen: Option<Instant>,
}

impl Actor {
    fn begin(role: String, dir: &Path) -> Self {
        let child = Self::spawn(&role, dir);
        Self { role, dir: dir.to_owned(), child, frozen: None }
    }

    fn spawn(role: &str, dir: &Path) -> Child {
        Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "lives_as_a_process", "--ignored", "--nocapture"])
            .env(ROLE, role)
            .env(DIR, dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), signal).expect("signalled");
    }

    /// Lets a stopped one go on when it is time, and begins one again that has ended. Gives how it ended.
    fn attend(&mut self) -> Option<i32> {
        if self.frozen.is_some_and(|since| since.elapsed() > FREEZE) {
            self.frozen = None;
            self.signal(Signal::SIGCONT);
        }
        let status = self.child.try_wait().expect("a child")?;
        self.child = Self::spawn(&self.role, &self.dir);
        Some(status.code().unwrap_or(-1))
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn no_process_that_is_killed_or_frozen_loses_or_doubles_a_task() {
    let tasks = usize::try_from(number("BOTTEGA_KILL_TASKS", TASKS as u64)).expect("a number");
    let chaos = Duration::from_secs(number("BOTTEGA_KILL_SECONDS", CHAOS_SECONDS));
    let house = tempfile::tempdir().expect("a directory");
    let dir = house.path().join("spool");
    Spool::init(&dir, Uuid::now_v7()).expect("a spool");
    let identity = dir.join("spool.toml");
    let text = std::fs::read_to_string(&identity).expect("read");
    std::fs::write(&identity, text + TIMING).expect("written");
    let spool = Spool::open(&dir).expect("a spool");

    let workers = (0..WORKERS).map(|n| format!("worker-n{n}"));
    let publishers = (0..PUBLISHERS).map(|n| format!("publisher-m{n}"));
    let mut actors: Vec<Actor> = workers.chain(publishers).map(|role| Actor::begin(role, &dir)).collect();
    let (began, mut killed, mut frozen, mut fenced, mut moved) = (Instant::now(), 0, 0, 0, 0);
    loop {
        for actor in &mut actors {
            match actor.attend() {
                Some(75) => fenced += 1,
                // Killed.
                Some(-1) | None => {}
                Some(other) => panic!("{} ended with {other}", actor.role),
            }
        }
        let is_over = began.elapsed() > chaos;
        if !is_over {
            let count = actors.len() as u64;
            let actor = &mut actors[usize::try_from(random(count)).expect("an index")];
            match (actor.frozen, random(4)) {
                (Some(_), _) => {}
                (None, 0) => {
                    actor.signal(Signal::SIGSTOP);
                    actor.frozen = Some(Instant::now());
                    frozen += 1;
                }
                (None, _) => {
                    actor.signal(Signal::SIGKILL);
                    killed += 1;
                }
            }
        }
        let mut open = 0;
        let mut settled = 0;
        spool
            .visit(|task| match task.state {
                State::Done(_) => settled += 1,
                State::Failed(_) => {
                    settled += 1;
                    moved += usize::from(spool.retry(&task).is_ok());
                    open += 1;
                }
                _ => open += 1,
            })
            .expect("listed");
        if is_over && open == 0 && settled == tasks && actors.iter().all(|actor| actor.frozen.is_none()) {
            break;
        }
        assert!(began.elapsed() < chaos + FINISH_MAX, "{open} open and {settled} settled of {tasks}");
        std::thread::sleep(Duration::from_millis(300));
    }
    drop(actors);
    println!(
        "{tasks} tasks: {killed} killed, {frozen} frozen, {fenced} of those gave up, {moved} moved by hand"
    );
    assert!(killed > 0 && frozen > 0);

    let all = spool.all().expect("listed");
    let ids: BTreeSet<_> = all.iter().map(|task| task.name.id.clone()).collect();
    assert_eq!((all.len(), ids.len()), (tasks, tasks), "each task lies in one place");
    let layout = spool.layout();
    for task in &all {
        assert!(matches!(task.state, State::Done(_)), "{}", task.path.display());
        let owner = task.name.owner.as_ref().expect("whose");
        let dir = layout.attempt(&task.name.id, task.name.token);
        let manifest: Manifest =
            serde_json::from_slice(&std::fs::read(dir.join("manifest.json")).expect("a manifest"))
                .expect("JSON");
        assert_eq!((&manifest.owner, manifest.token), (owner, task.name.token));
        let said = std::fs::read_to_string(dir.join("build.log")).expect("a log");
        assert!(
            said.starts_with(&format!("what {owner} saw of {}.{}", task.name.id, task.name.token)),
            "{said}"
        );
    }
    let mut wrong = Vec::new();
    spool.fsck(Depth::Contents, &mut |finding| wrong.push(finding)).expect("checked");
    wrong.retain(|finding| finding.severity == Severity::Error);
    assert_eq!(wrong, []);
}
