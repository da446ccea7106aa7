//! Native commands, by the real supervisor: what they see, what they leave, and that nothing of them stays.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests"))]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use queue_format::{
    CommandRecord, Digest, Incarnation, InputFile, Labels, LifeLock, Owner, Resources, RunTask, Spool, Token,
    Verdict,
};
use uuid::Uuid;
use worker::attempt::Attempt;
use worker::config::WorkerConfig;
use worker::engine::{BuildOutcome, BuildRequest, Engine, EngineError, Limits, RunOutcome, RunRequest};
use worker::run::{
    Job, RunError, end_native_commands_of, end_native_commands_of_the_dead, native_processes_in, run,
};
use worker::slots::Slot;
use worker::topology::CpuSet;

/// No test here waits longer.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A node without an engine.
struct NoEngine;

fn away<T>() -> Result<T, EngineError> {
    Err(EngineError::Failed { action: "be there", detail: "this node has none".to_owned() })
}

impl Engine for NoEngine {
    async fn adopt(&self, _: &RunRequest) -> Result<Option<RunOutcome>, EngineError> {
        unreachable!("native commands need no engine")
    }
    async fn ping(&self) -> Result<(), EngineError> {
        away()
    }
    async fn build(&self, _: &BuildRequest) -> Result<BuildOutcome, EngineError> {
        away()
    }
    async fn run(&self, _: &RunRequest) -> Result<RunOutcome, EngineError> {
        away()
    }
    async fn images(&self, _: &str) -> Result<BTreeMap<String, String>, EngineError> {
        away()
    }
    async fn tag_image(&self, _: &str, _: &str) -> Result<(), EngineError> {
        away()
    }
    async fn pull_image(&self, _: &str) -> Result<(), EngineError> {
        away()
    }
    async fn remove_image(&self, _: &str) -> Result<(), EngineError> {
        away()
    }
}

struct Node {
    dir: tempfile::TempDir,
    spool: Spool,
    slot: Slot,
    labels: Labels,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::init(&dir.path().join("spool"), Uuid::now_v7()).unwrap();
        let limits = Limits {
            cpuset_cpus: "0".to_owned(),
            cpuset_mems: None,
            memory_bytes: 1 << 30,
            pids_max: 4096,
            nofile_max: 1024,
            shm_bytes: 1 << 28,
            disk_bytes: 1 << 30,
            cgroup_parent: None,
        };
        let labels = Labels {
            spool: spool.id(),
            owner: Owner::new("node", Incarnation::new(Uuid::now_v7())),
            task: "x".parse().unwrap(),
            token: Token(1),
            object: Uuid::now_v7(),
        };
        Self {
            slot: Slot { number: 0, group: 0, cpus: vec![0], siblings: CpuSet::from_iter([0]), limits },
            dir,
            spool,
            labels,
        }
    }

    async fn run(&self, task: &RunTask, resources: &Resources) -> Result<Attempt, RunError> {
        let work = self.dir.path().join(Uuid::now_v7().to_string());
        std::fs::create_dir(&work).unwrap();
        let job = Job {
            engine: &NoEngine,
            config: &WorkerConfig { output_bytes_max: 1 << 20, ..WorkerConfig::default() },
            spool: &self.spool,
            task,
            resources,
            slot: &self.slot,
            dir: &work,
            program: Path::new(env!("CARGO_BIN_EXE_bottega-worker")),
            labels: &self.labels,
            unique: &Uuid::now_v7,
            say: &|_| (),
        };
        run(&job).await
    }
}

fn shell(script: &str) -> RunTask {
    let command = ["sh", "-c", script].map(str::to_owned);
    RunTask { commands: vec![command.into()], ..RunTask::default() }
}

fn within(timeout_seconds: u64) -> Resources {
    Resources { timeout_seconds: Some(timeout_seconds), ..Resources::default() }
}

fn file(attempt: &Attempt, name: &str) -> String {
    let found = attempt.files.iter().find(|(known, _)| known == name);
    found.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

fn reason(attempt: &Attempt) -> String {
    match &attempt.verdict {
        Verdict::Failed { reason, detail, .. } => format!("{reason}: {detail}"),
        other => format!("{other:?}"),
    }
}

/// Whether a process with this argument is there: a number of seconds that nobody else sleeps.
fn is_asleep(seconds: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .into_iter()
        .any(|line| line.starts_with(b"sleep\0") && line.ends_with(format!("{seconds}\0").as_bytes()))
}

async fn until(what: &str, met: impl Fn() -> bool) {
    let started = Instant::now();
    while !met() {
        assert!(started.elapsed() < WAIT_MAX, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_command_finds_its_inputs_and_leaves_its_outputs() {
    let node = Node::new();
    let (digest, bytes) = node.spool.keep_input(&mut b"hello\n".as_slice()).unwrap();
    let script =
        "cat in/a; mkdir out/d; echo x >out/d/x; cp in/a out/b; pwd; cat /dev/stdin; env | sort; nproc";
    let task = RunTask {
        env: BTreeMap::from([("COLOUR".to_owned(), "blue".to_owned())]),
        array_index: Some(7),
        inputs: vec![InputFile { path: "in/a".to_owned(), digest, bytes, mode: 0o400 }],
        outputs: vec!["out/d".to_owned(), "out/b".to_owned()],
        ..shell(script)
    };
    let attempt = node.run(&task, &Resources::default()).await.unwrap();
    let log = file(&attempt, "output.log");
    assert_eq!(attempt.verdict, Verdict::Completed, "{log}");
    assert_eq!(file(&attempt, "output.out_b"), "hello\n");
    assert!(file(&attempt, "output.out_d.tar").starts_with("d"));
    let names: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let expected =
        ["BOTTEGA_ARRAY_INDEX", "BOTTEGA_NATIVE", "COLOUR", "HOME", "LANG", "PATH", "PWD", "TMPDIR"];
    assert_eq!(names, expected, "nothing of the worker's own environment: {log}");
    assert!(log.starts_with("hello\n") && log.ends_with("\n1\n"), "one core: {log}");
}

#[tokio::test]
async fn each_way_to_fail_has_its_reason() {
    let node = Node::new();
    let fail =
        async |task: RunTask, resources: Resources| reason(&node.run(&task, &resources).await.unwrap());
    assert_eq!(fail(shell("exit 3"), within(60)).await, "exit: status 3");
    assert_eq!(fail(shell("kill -9 $$"), within(60)).await, "exit: status 137");
    let nowhere = RunTask { commands: vec![vec!["nowhere".to_owned()]], ..RunTask::default() };
    assert_eq!(fail(nowhere, within(60)).await, "exit: status 127");
    let output = RunTask { outputs: vec!["none".to_owned()], ..shell("true") };
    assert_eq!(fail(output, within(60)).await, "output: none: it is not there");
    let large = RunTask { outputs: vec!["x".to_owned()], ..shell("head -c 2000000 /dev/zero >x") };
    assert!(fail(large, within(60)).await.contains("output_bytes_max"));
    let lost = InputFile { path: "in".to_owned(), digest: Digest::of(b"lost"), bytes: 4, mode: 0o644 };
    let lost = fail(RunTask { inputs: vec![lost], ..shell("true") }, within(60)).await;
    assert!(lost.starts_with("input: in: ") && lost.contains("is missing"), "{lost}");
}

#[tokio::test]
async fn what_takes_more_memory_than_it_asked_for_is_killed() {
    let node = Node::new();
    let resources = Resources { memory_bytes: Some(64 << 20), ..within(60) };
    let attempt = node.run(&shell("tail /dev/zero"), &resources).await.unwrap();
    let is_accounted = attempt.notes.is_empty();
    let expected = if is_accounted { "out-of-memory: " } else { "exit: " };
    assert!(reason(&attempt).starts_with(expected), "{} {:?}", reason(&attempt), attempt.notes);
    assert!(!is_accounted || attempt.peak_memory_bytes.is_some_and(|peak| peak > 32 << 20));
    let mut task = shell("tail /dev/zero");
    task.commands.push(["sleep", "600"].map(str::to_owned).into());
    let resources = Resources { memory_bytes: Some(64 << 20), ..within(2) };
    let attempt = node.run(&task, &resources).await.unwrap();
    assert_eq!(reason(&attempt), "timeout: the bundle (at command 2 of 2) did not end within 2 s");
}

#[tokio::test]
async fn a_bundle_goes_on_after_a_failure_and_tells_of_each() {
    let node = Node::new();
    let mut task = shell("echo $BOTTEGA_ARRAY_INDEX >>all");
    task.commands = ["exit 4", "echo $BOTTEGA_ARRAY_INDEX >>all"]
        .map(|script| ["sh", "-c", script].map(str::to_owned).to_vec())
        .to_vec();
    task.array_index = Some(5);
    task.outputs = vec!["all".to_owned()];
    let attempt = node.run(&task, &Resources::default()).await.unwrap();
    assert_eq!(reason(&attempt), "exit: 1 of 2 commands failed, first number 1: status 4; see commands.json");
    assert_eq!(file(&attempt, "output.all"), "6\n");
    let commands: Vec<CommandRecord> = serde_json::from_str(&file(&attempt, "commands.json")).unwrap();
    assert_eq!(commands.iter().map(|command| command.status).collect::<Vec<_>>(), [Some(4), Some(0)]);
}

#[tokio::test]
async fn nothing_stays_after_the_end_or_the_deadline() {
    let node = Node::new();
    let left = shell("setsid env -i sleep 71717 & (setsid sleep 71718 &) ; sleep 0.3");
    let attempt = node.run(&left, &within(60)).await.unwrap();
    assert_eq!(attempt.verdict, Verdict::Completed);
    let hung = shell("trap '' TERM; setsid env -i sleep 71719 & sleep 71720");
    let attempt = node.run(&hung, &within(1)).await.unwrap();
    assert_eq!(reason(&attempt), "timeout: it did not end within 1 s");
    for seconds in ["71717", "71718", "71719", "71720"] {
        assert!(!is_asleep(seconds), "{seconds}");
    }
}

#[tokio::test]
async fn whoever_gives_an_attempt_up_ends_its_processes() {
    let node = Node::new();
    let task = shell("setsid env -i sleep 72727 & sleep 72728");
    let resources = within(600);
    {
        let attempt = node.run(&task, &resources);
        tokio::select! {
            _ = attempt => panic!("it ended"),
            () = until("it starts", || is_asleep("72727") && is_asleep("72728")) => {}
        }
    }
    until("it ends", || !is_asleep("72727") && !is_asleep("72728")).await;
}

#[tokio::test]
async fn a_fenced_worker_ends_all_its_commands_at_once() {
    let node = Node::new();
    let owner = node.labels.owner.clone();
    let task = shell("(setsid sleep 73737 &) ; sleep 73738");
    let fence = async {
        until("it starts", || is_asleep("73737") && is_asleep("73738")).await;
        tokio::task::spawn_blocking(move || end_native_commands_of(&owner)).await.unwrap();
        assert!(!is_asleep("73737") && !is_asleep("73738"));
    };
    let resources = within(600);
    let (attempt, ()) = tokio::join!(node.run(&task, &resources), fence);
    assert_eq!(reason(&attempt.unwrap()), "exit: status 137", "void: the lease is revoked before");
}

#[tokio::test]
async fn what_a_killed_supervisor_leaves_is_ended() {
    let node = Node::new();
    let has_groups = node.run(&shell("true"), &within(60)).await.unwrap().notes.is_empty();
    // The supervisor is the shell's parent; what has lost its variables is found by its control group.
    let env = if has_groups { "env -i" } else { "" };
    let task = shell(&format!("setsid {env} sleep 74747 & sleep 0.3; kill -9 $PPID; sleep 74748"));
    let error = node.run(&task, &within(600)).await.unwrap_err();
    assert!(matches!(error, RunError::Unsupervised), "{error}");
    assert!(!is_asleep("74747") && !is_asleep("74748"));
}

#[test]
fn what_the_dead_have_left_is_ended_though_their_tasks_are_gone() {
    let state = tempfile::tempdir().unwrap();
    let owner = || Owner::new("node", Incarnation::new(Uuid::now_v7()));
    let (dead, alive) = (owner(), owner());
    drop(LifeLock::hold(state.path(), &dead).unwrap());
    let _alive = LifeLock::hold(state.path(), &alive).unwrap();
    let mut left = [&dead, &alive].map(|owner| {
        let mut sleep = std::process::Command::new("sleep");
        sleep.arg("600").env("BOTTEGA_NATIVE", format!("{owner}/3/{}", Uuid::now_v7())).spawn().unwrap()
    });
    let pid = i32::try_from(left[1].id()).unwrap();
    while native_processes_in(&alive, 3).is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(native_processes_in(&alive, 3), [pid].into());
    assert!(native_processes_in(&alive, 33).is_empty() && native_processes_in(&alive, 0).is_empty());
    end_native_commands_of_the_dead(state.path()).unwrap();
    assert!(!left[0].wait().unwrap().success());
    assert_eq!(left[1].try_wait().unwrap(), None, "the living goes on");
    left[1].kill().unwrap();
    left[1].wait().unwrap();
}
