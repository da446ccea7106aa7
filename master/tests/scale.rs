//! Many tasks through the real master and eight processes that claim: each done once, every directory small, and nobody
//! large. 20,000 in every run, in memory, where waiting for a disk takes no time. More:
//! `BOTTEGA_SCALE_TASKS=1000000 BOTTEGA_SCALE_DIR=/srv cargo test -p master --test scale -- --nocapture`. That makes four
//! million files and directories, 16 GB on a disk; a tmpfs for it needs `nr_inodes=0`.

mod common;

use std::collections::{BTreeMap, HashSet};
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{House, manifest, owner, row};
use queue_format::{AcceptanceClass, FailureReason, Heartbeat, Lease, Next, Spool, State, Token, Verdict};
use serde_json::Value;

/// Tasks of one run of the tests.
const TASKS: usize = 20_000;

/// Processes that claim.
const CLAIMERS: usize = 8;

/// Names in one directory: 4096 is where a second begins, and each process looks only now and then.
const NAMES_MAX: usize = 4096 + 1024;

/// Resident, at the highest.
const CLAIMER_BYTES_MAX: u64 = 30 << 20;
const MASTER_BYTES_MAX: u64 = 100 << 20;
const STATUS_BYTES_MAX: u64 = 30 << 20;

/// For each task: longer than anything here takes on a slow machine.
const BOUND: Duration = Duration::from_millis(20);

/// Looks that must find nothing pending before a claimer ends.
const EMPTY_LOOKS: u32 = 3;

const SPOOL: &str = "BOTTEGA_SCALE_SPOOL";

/// Ended with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn each_of_many_tasks_is_done_once_and_nothing_grows_large() {
    let tasks: usize = env::var("BOTTEGA_SCALE_TASKS").map_or(TASKS, |n| n.parse().expect("a number"));
    let bound = BOUND * u32::try_from(tasks).expect("not as many") + Duration::from_secs(60);
    let memory = Path::new("/dev/shm");
    let place = env::var_os("BOTTEGA_SCALE_DIR").map(PathBuf::from);
    let place = place.unwrap_or_else(|| if memory.is_dir() { memory.to_owned() } else { env::temp_dir() });
    let house = House::at(&place);
    let (spool, begun) = (house.spool(), Instant::now());
    let say = |what: &str| println!("{:8.1} s  {what}", begun.elapsed().as_secs_f64());
    let master = master(&house);
    drop_rows(&house, tasks);
    say("rows dropped");
    wait_for(bound, || counted(&spool) == tasks);
    say(&format!("{tasks} tasks published"));
    let (status, bytes) = status(&house);
    say(&format!("status counted them, with {} MiB", bytes >> 20));
    assert_eq!(status["counts"]["pending"], tasks);
    assert!(bytes <= STATUS_BYTES_MAX, "status: {bytes} bytes");
    small_directories(spool.layout().root());

    let claimers: Vec<Process> = (0..CLAIMERS).map(|_| claimer(&house)).collect();
    for mut claimer in claimers {
        let mut said = String::new();
        claimer.0.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
        let highest =
            said.lines().find_map(|line| line.strip_prefix("peak ")?.parse::<u64>().ok()).expect(&said);
        println!("            a claimer had {} MiB at most", highest >> 20);
        assert!(highest <= CLAIMER_BYTES_MAX, "a claimer: {highest} bytes");
        assert!(claimer.0.wait().expect("a child").success());
    }
    say("all claimed and concluded");
    done_once(&spool, tasks);
    say("each was done once");
    small_directories(spool.layout().root());
    say("every directory is small");
    wait_for(bound, || spool.summary().is_some_and(|summary| summary.counts.settled() == tasks));
    let (status, bytes) = self::status(&house);
    say(&format!("status counted them, with {} MiB", bytes >> 20));
    let failed = (0..tasks).filter(|n| fails(*n)).count();
    assert_eq!(
        (&status["counts"]["done"], &status["counts"]["failed"]),
        (&(tasks - failed).into(), &failed.into())
    );
    let highest = peak_bytes(master.0.id()).expect("it lives");
    println!("            the master had {} MiB at most", highest >> 20);
    assert!(highest <= MASTER_BYTES_MAX, "the master: {highest} bytes");
    if failed > NAMES_MAX {
        let by_hand =
            fs::read_dir(spool.layout().failed_for(FailureReason::Timeout)).expect("listed").count();
        println!("            {failed} failed tasks: ls shows {by_hand} names");
    }
}

/// A process of the test above: it works until nothing is left.
#[test]
#[ignore = "the test above starts it"]
fn claimer_process() {
    let spool =
        Spool::open(Path::new(&env::var(SPOOL).expect("started by the other test"))).expect("a spool");
    let me = owner("node-a");
    let mut heart = Heartbeat::begin(&spool, me.clone()).expect("a heartbeat");
    let mut lease = Lease::open(&spool, me.clone()).expect("a lease");
    let (mut empty, mut beaten) = (0, Instant::now());
    while empty < EMPTY_LOOKS {
        if beaten.elapsed() > Duration::from_secs(spool.timing().beat_seconds) {
            heart.beat().expect("alive");
            beaten = Instant::now();
        }
        match lease.claim_next(|_| true).expect("a readable spool") {
            Next::Claimed(claim) => {
                empty = 0;
                let n = number(claim.name().id.as_str());
                claim.conclude(&manifest(&claim, verdict(n), &me), &[]).expect("concluded");
            }
            other => {
                assert!(matches!(other, Next::Empty), "{other:?}");
                empty += 1;
            }
        }
    }
    assert!(lease.close().expect("closed"));
    heart.end().expect("ended");
    println!("\npeak {}", peak_bytes(std::process::id()).expect("a process"));
}

fn number(id: &str) -> usize {
    id.strip_prefix("task-").and_then(|n| n.parse().ok()).expect(id)
}

fn fails(n: usize) -> bool {
    n.is_multiple_of(16)
}

fn verdict(n: usize) -> Verdict {
    if fails(n) {
        let (detail, remedy) = ("it took too long".to_owned(), "wait longer".to_owned());
        return Verdict::Failed { reason: FailureReason::Timeout, detail, log: Vec::new(), remedy };
    }
    Verdict::Accepted { class: AcceptanceClass::ALL[n % AcceptanceClass::ALL.len()] }
}

fn master(house: &House) -> Process {
    let config = house.path("bottega.toml");
    fs::write(
        &config,
        "[master]\nrepositories = '/mirrors/{repo}'\nsummary_seconds = 1.0\nsettle_seconds = 1.0\n",
    )
    .expect("written");
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("bottega-master"));
    command.arg("--spool").arg(house.spool_dir()).arg("--state").arg(house.path("state"));
    command.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Process(command.spawn().expect("it starts"))
}

fn claimer(house: &House) -> Process {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", "claimer_process", "--ignored", "--nocapture"]).env(SPOOL, house.spool_dir());
    Process(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts"))
}

fn drop_rows(house: &House, tasks: usize) {
    let path = house.path("rows.jsonl");
    let mut file = BufWriter::new(File::create(&path).expect("created"));
    for n in 0..tasks {
        writeln!(file, "{}", row(&format!("task-{n}"))).expect("written");
    }
    file.into_inner().expect("written");
    let dropped = house.spool_dir().join("incoming/rows.jsonl");
    assert!(Command::new("mv").arg(path).arg(dropped).status().expect("mv runs").success());
}

fn counted(spool: &Spool) -> usize {
    std::thread::sleep(Duration::from_millis(200));
    let summary = spool.summary();
    summary.map_or(0, |summary| summary.counts.open())
}

fn wait_for(bound: Duration, mut met: impl FnMut() -> bool) {
    let started = Instant::now();
    while !met() {
        assert!(started.elapsed() < bound, "waited too long");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What `bottega status` says when it has to count itself, and how large it was.
fn status(house: &House) -> (Value, u64) {
    fs::remove_file(house.spool_dir().join("status/summary.json")).expect("removed");
    let mut command = house.command(&["status", "--json", "--watch"]);
    let mut status = Process(command.stdout(Stdio::piped()).spawn().expect("it starts"));
    let mut line = String::new();
    BufReader::new(status.0.stdout.take().expect("piped")).read_line(&mut line).expect("it says so");
    (
        serde_json::from_str(&line).expect("JSON"),
        peak_bytes(status.0.id()).expect("it waits for its next look"),
    )
}

fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// Every task is settled, after one claim, in the place that its verdict says.
fn done_once(spool: &Spool, tasks: usize) {
    let mut seen = HashSet::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    spool
        .visit(|task| {
            let n = number(task.name.id.as_str());
            assert!(seen.insert(n), "{} lies in two places", task.path.display());
            assert_eq!(task.name.token, Token(1), "{}", task.path.display());
            let expected = match verdict(n) {
                Verdict::Failed { reason, .. } => State::Failed(reason),
                success => State::Done(success.done_class().expect("no failure")),
            };
            assert_eq!(task.state, expected, "{}", task.path.display());
            *places.entry(format!("{expected:?}")).or_default() += 1;
        })
        .expect("listed");
    assert_eq!(seen.len(), tasks, "{places:?}");
}

/// No directory that a person lists is a large one; attempts are left out, for there is nothing to see but them.
fn small_directories(dir: &Path) {
    let entries: Vec<_> = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("an entry")).collect();
    assert!(entries.len() <= NAMES_MAX, "{} holds {} names", dir.display(), entries.len());
    let is_results = dir.parent().is_some_and(|dir| dir.ends_with("results"));
    for entry in entries {
        if !is_results && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            small_directories(&entry.path());
        }
    }
}
