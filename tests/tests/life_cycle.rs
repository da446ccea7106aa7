//! A worker that is killed, told to leave, to drain or to read its configuration again, on the real engine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use bollard::query_parameters::{InspectContainerOptions, KillContainerOptionsBuilder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queue_format::{Counts, Located, Spool, State};
use serde_json::Value;
use tests::harness::{House, engine, printed, program, wait_for};

/// Longer than any of it takes on a slow machine.
const BOUND: Duration = Duration::from_mins(3);

/// What `make test` makes first.
const IMAGE: &str = "openswe-python-3.11";

/// A house with a spool, and one worker after the other in it.
struct Node {
    house: House,
    spool: Spool,
}

impl Node {
    fn new(config: &str) -> Self {
        let house = House::new().expect("a house");
        let init = house.bottega(&["init"]).output().expect("it runs");
        assert!(init.status.success(), "{}", printed(&init));
        fs::write(house.path("bottega.toml"), config).expect("written");
        let spool = Spool::open(&house.spool_dir()).expect("a spool");
        Self { house, spool }
    }

    fn run(&self, name: &str, command: &str) {
        let args =
            ["run", "--name", name, "--cores", "1", "--memory", "256MiB", IMAGE, "--", "sh", "-c", command];
        let ran = self.house.bottega(&args).output().expect("it runs");
        assert!(ran.status.success(), "{}", printed(&ran));
    }

    fn worker(&self) -> Worker {
        self.worker_called("worker")
    }

    fn worker_called(&self, instance: &str) -> Worker {
        self.worker_with(instance, &[])
    }

    fn worker_with(&self, instance: &str, variables: &[(&str, &str)]) -> Worker {
        let log = fs::File::options().create(true).append(true).open(self.log()).expect("a log");
        let mut command = std::process::Command::new(program("bottega-worker"));
        command.arg("--spool").arg(self.house.spool_dir()).arg("--state").arg(self.house.state_dir());
        command.arg("--config").arg(self.house.path("bottega.toml")).stdin(Stdio::null());
        command.args(["--instance", instance]).envs(variables.iter().copied());
        Worker(command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts"))
    }

    fn log(&self) -> PathBuf {
        self.house.path("worker.log")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn until_said(&self, text: &str, times: usize) {
        let said = wait_for(BOUND, || (self.said().matches(text).count() >= times).then_some(()));
        assert!(said.is_some(), "{text:?} was not said {times} times:\n{}", self.said());
    }

    fn find(&self, id: &str) -> Located {
        let id = id.parse().expect("an id");
        let find = || self.spool.find(&id).expect("listed");
        // One that is renamed meanwhile is seen in both directories, or in neither.
        let found = wait_for(BOUND, || <[Located; 1]>::try_from(find()).ok());
        let [found] = found.unwrap_or_else(|| panic!("{id}: {:?}", find()));
        found
    }

    fn until_done(&self, id: &str) -> (Value, String) {
        let done = wait_for(BOUND, || {
            let task = self.find(id);
            matches!(task.state, State::Done(_) | State::Failed(_)).then_some(task)
        });
        let task = done.unwrap_or_else(|| panic!("{id} does not end:\n{}", self.said()));
        let dir = self.spool.layout().attempt(&task.name.id, task.name.token);
        let read = |name: &str| fs::read_to_string(dir.join(name)).expect("a result");
        let manifest: Value = serde_json::from_str(&read("manifest.json")).expect("JSON");
        assert_eq!(manifest["verdict"], "completed", "{manifest:#}");
        (manifest, read("output.log"))
    }

    /// The container that serves a task, once it runs.
    async fn until_running(&self, task: &str) -> String {
        for _ in 0..BOUND.as_millis() / 100 {
            for id in self.house.containers(&self.spool).await.expect("listed") {
                let Ok(found) = engine()
                    .expect("an engine")
                    .inspect_container(&id, None::<InspectContainerOptions>)
                    .await
                else {
                    continue;
                };
                let is_running = found.state.and_then(|state| state.running).unwrap_or(false);
                if is_running && found.name.is_some_and(|name| name.contains(&format!("-{task}-"))) {
                    return id;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{task} never runs:\n{}", self.said());
    }

    async fn until_exited(&self, container: &str) {
        for _ in 0..BOUND.as_millis() / 100 {
            let found = engine()
                .expect("an engine")
                .inspect_container(container, None::<InspectContainerOptions>)
                .await;
            match found {
                // Podman's word for a container that has just ended is none that bollard knows.
                Err(bollard::errors::Error::JsonDataError { message, .. }) if message.contains("stopped") => {
                    return;
                }
                found
                    if found.as_ref().expect("it is there").state.as_ref().expect("a state").running
                        == Some(false) =>
                {
                    return;
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{container} does not end");
    }
}

/// Killed when it is dropped: a test that fails leaves none.
struct Worker(Child);

impl Worker {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).expect("it lives");
    }

    fn until_ended(mut self) -> ExitStatus {
        wait_for(BOUND, || self.0.try_wait().expect("a child")).expect("it ends")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prints for so many seconds.
fn ticks(count: u32) -> String {
    format!("for i in $(seq 1 {count}); do echo tick $i of {count}; sleep 1; done")
}

fn all_ticks(count: u32) -> String {
    (1..=count).map(|i| format!("tick {i} of {count}\n")).collect()
}

fn went_on(manifest: &Value) -> bool {
    manifest["notes"].as_array().is_some_and(|notes| {
        notes.iter().any(|note| note.as_str().is_some_and(|note| note.contains("started again")))
    })
}

#[tokio::test]
async fn containers_run_on_while_their_worker_is_away() {
    let node = Node::new("");
    node.run("long", &ticks(25));
    node.run("short", &ticks(4));
    let first = node.worker();
    let (long, short) = (node.until_running("long").await, node.until_running("short").await);
    first.signal(Signal::SIGKILL);
    first.until_ended();
    // It ends while nobody looks.
    node.until_exited(&short).await;

    let second = node.worker();
    let (manifest, output) = node.until_done("short");
    assert_eq!(output, all_ticks(4), "{manifest:#}");
    // An engine remembers some hundred events of all containers: where others made more, it was run again.
    let is_forgotten = node.said().contains("the engine does not know any more");
    assert!(went_on(&manifest) || is_forgotten, "{manifest:#}\n{}", node.said());
    assert_eq!(node.until_running("long").await, long, "the same container");
    // Left on purpose, as before an upgrade; then gone on with once more.
    second.signal(Signal::SIGUSR1);
    assert!(second.until_ended().success());
    let third = node.worker();
    let (manifest, output) = node.until_done("long");
    assert_eq!(output, all_ticks(25));
    assert!(went_on(&manifest), "{manifest:#}");
    for id in ["long", "short"] {
        assert_eq!(node.find(id).name.token.0, 1, "one claim, from its begin to its end:\n{}", node.said());
    }
    assert_eq!(node.spool.incarnations().expect("listed").len(), 1);
    third.signal(Signal::SIGTERM);
    assert!(third.until_ended().success());
    assert!(node.house.containers(&node.spool).await.expect("listed").is_empty());
    assert!(node.spool.incarnations().expect("listed").is_empty());
}

/// An upgrade restarts all workers of a node at once, and they come back in any order.
#[tokio::test]
async fn each_of_two_workers_goes_on_with_its_own_whoever_is_back_first() {
    let node = Node::new("[worker]\nslots = 1\nslot_cores = 1\nslot_memory_gib = 2.0\nreserved_cores = 0\n");
    let start = |instance: &str, task: &str| {
        node.run(task, &ticks(40));
        node.worker_called(instance)
    };
    let first = start("alpha", "one");
    let one = node.until_running("one").await;
    let second = start("beta", "two");
    let two = node.until_running("two").await;
    for worker in [first, second] {
        worker.signal(Signal::SIGUSR1);
        assert!(worker.until_ended().success());
    }
    // Alone, it could have either's cores.
    let _second = node.worker_called("beta");
    node.until_said("going on with what the process before this one left", 1);
    let _first = node.worker_called("alpha");
    for (task, container) in [("one", one), ("two", two)] {
        assert_eq!(node.until_running(task).await, container, "the same container:\n{}", node.said());
        let (manifest, _) = node.until_done(task);
        assert!(went_on(&manifest), "{manifest:#}\n{}", node.said());
        assert_eq!(node.find(task).name.token.0, 1, "{}", node.said());
    }
}

/// Left for a successor, killed, and drained for less time than a task takes: in turn, with every slot at work.
#[tokio::test]
async fn a_node_at_full_load_loses_nothing_however_its_worker_ends() {
    const TASKS: usize = 12;
    let node = Node::new(
        "[worker]\nslot_cores = 1\nreserved_cores = 0\ndrain_seconds = 1\nbuild_network = \"bridge\"\n",
    );
    let ids: Vec<String> = (0..TASKS).map(|n| format!("task-{n:02}")).collect();
    ids.iter().for_each(|id| node.run(id, &ticks(5)));
    let begun = || ["turn: claimed", "turn: goes on"].map(|text| node.said().matches(text).count());
    let ends = [Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGKILL];
    for (round, end) in ends.into_iter().chain(ends).enumerate() {
        let before = begun();
        let worker = node.worker();
        if round >= ends.len() {
            let has_begun = wait_for(BOUND, || (begun() != before).then_some(()));
            assert!(has_begun.is_some(), "{}", node.said());
        }
        // Any of them.
        node.until_running("task").await;
        worker.signal(end);
        worker.until_ended();
    }
    let last = node.worker();
    let (mut adopted, mut handed_back) = (0, 0);
    for id in &ids {
        let (manifest, output) = node.until_done(id);
        assert_eq!(output, all_ticks(5), "{manifest:#}\n{}", node.said());
        adopted += usize::from(went_on(&manifest));
        handed_back += usize::from(node.find(id).name.token.0 > 1);
    }
    println!("{TASKS} tasks: {adopted} adopted, {handed_back} handed back, 0 lost, 0 done twice");
    assert!(adopted > 0 && handed_back > 0, "this shows nothing:\n{}", node.said());
    last.signal(Signal::SIGTERM);
    assert!(last.until_ended().success());
    let done: usize = Counts::of(&node.spool.all().expect("listed")).done.values().sum();
    assert_eq!(done, TASKS);
    assert!(node.house.containers(&node.spool).await.expect("listed").is_empty());
}

#[test]
fn a_node_that_does_not_work_claims_nothing_until_it_is_mended() {
    let node = Node::new("[worker]\ncontainers = false\nnative = true\nreserved_disk_gib = 0.0\n");
    let ran = node.house.bottega(&["run", "--name", "waits", "--native", "--", "true"]).output();
    assert!(ran.expect("it runs").status.success());
    let git = node.house.path("git");
    fs::write(&git, "#!/bin/sh\necho no git today >&2\nexit 1\n").expect("written");
    fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).expect("made executable");
    let path = format!("{}:{}", node.house.path("").display(), std::env::var("PATH").unwrap_or_default());
    let _worker = node.worker_with("worker", &[("PATH", &path)]);
    node.until_said("nothing is claimed: ", 1);
    assert!(node.said().contains("no git today"), "{}", node.said());
    let told = wait_for(BOUND, || {
        let status = node.house.bottega(&["status"]).output().expect("it runs");
        printed(&status).contains("no git today").then_some(())
    });
    assert!(told.is_some(), "its status does not say so");
    assert!(matches!(node.find("waits").state, State::Pending(_)), "{}", node.said());
    fs::remove_file(&git).expect("mended");
    node.until_done("waits");
    assert_eq!(node.find("waits").name.token.0, 1, "{}", node.said());
}

/// As a person does it, past the worker.
async fn kill_by_hand(container: &str, signal: &str) {
    let options = KillContainerOptionsBuilder::new().signal(signal).build();
    engine().expect("an engine").kill_container(container, Some(options)).await.expect("killed");
}

#[tokio::test]
async fn what_somebody_else_has_ended_counts_for_nothing() {
    let node = Node::new("");
    node.run("killed", &ticks(6));
    let first = node.worker();
    let container = node.until_running("killed").await;
    first.signal(Signal::SIGKILL);
    first.until_ended();
    kill_by_hand(&container, "SIGKILL").await;
    node.until_exited(&container).await;
    let _second = node.worker();
    let (manifest, output) = node.until_done("killed");
    assert_eq!(output, all_ticks(6), "it ran again, whole: {manifest:#}");
    assert_eq!(node.find("killed").name.token.0, 1);
}

#[tokio::test]
async fn what_somebody_else_ends_before_a_workers_eyes_is_tried_again() {
    let node = Node::new("");
    node.run("stopped", &ticks(6));
    let _worker = node.worker();
    let container = node.until_running("stopped").await;
    kill_by_hand(&container, "SIGTERM").await;
    node.until_said(
        "it will be tried again: somebody else had a hand in what ran: the engine tells of a kill",
        1,
    );
    assert!(matches!(node.find("stopped").state, State::Delayed { .. }), "{:?}", node.find("stopped"));
}

#[tokio::test]
async fn a_drain_finishes_what_it_can_and_hands_back_the_rest() {
    let node = Node::new("[worker]\ndrain_seconds = 20\n");
    node.run("short", &ticks(5));
    node.run("long", "sleep 600");
    let worker = node.worker();
    node.until_running("short").await;
    node.until_running("long").await;
    worker.signal(Signal::SIGTERM);
    node.run("late", "true");
    node.until_done("short");
    assert!(worker.until_ended().success(), "{}", node.said());
    for id in ["long", "late"] {
        assert!(matches!(node.find(id).state, State::Pending(_)), "{id}: {}", node.said());
    }
    assert!(node.house.containers(&node.spool).await.expect("listed").is_empty());

    // Ctrl-C waits for nothing.
    let worker = node.worker();
    node.until_running("long").await;
    worker.signal(Signal::SIGINT);
    assert!(worker.until_ended().success());
    assert!(matches!(node.find("long").state, State::Pending(_)));
}

#[tokio::test]
async fn a_configuration_is_read_again_and_an_invalid_one_changes_nothing() {
    let node = Node::new("[worker]\ncontainers = false\nnative = true\nrun_timeout_seconds = 600\n");
    let worker = node.worker();
    node.until_said("ready", 1);
    let config = node.house.path("bottega.toml");
    fs::write(&config, "[worker]\ncontainers = false\nnative = true\nrun_timeout_secs = 1\n")
        .expect("written");
    node.until_said("did you mean \"worker.run_timeout_seconds\"", 1);
    fs::write(&config, "[worker]\ncontainers = false\nnative = true\nrun_timeout_seconds = 1\nslots = 1\n")
        .expect("written");
    node.until_said("holds after the next restart: worker.slots", 1);
    worker.signal(Signal::SIGHUP);
    node.until_said("nothing in [worker] is new", 1);
    let ran = node.house.bottega(&["run", "--native", "--name", "late", "--", "sleep", "600"]).output();
    assert!(ran.expect("it runs").status.success());
    let failed = wait_for(BOUND, || matches!(node.find("late").state, State::Failed(_)).then_some(()));
    assert!(failed.is_some(), "the new time-out holds:\n{}", node.said());
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.until_ended().signal(), None);
}
