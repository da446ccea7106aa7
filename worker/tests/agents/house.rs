//! A spool with one task and the real worker.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use queue_format::{Incarnation, Instance, Owner, Spool, State, TaskSpec};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

use super::calc::{TASK, TESTS, repository, row};
use super::model::Model;

/// Longer than any attempt here takes on a slow machine.
const BOUND: Duration = Duration::from_mins(8);
/// A directory with everything in it.
pub(crate) struct House {
    dir: TempDir,
    pub(crate) base: String,
    /// More keys of `[worker]`.
    pub(crate) keys: &'static str,
    /// More keys of its endpoint.
    pub(crate) endpoint: &'static str,
}

impl House {
    pub(crate) fn new() -> Self {
        Self::with_tests(TESTS)
    }

    /// The project's tests before the test patch; that expects the end of [`TESTS`].
    pub(crate) fn with_tests(tests: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let base = repository(dir.path(), tests);
        Self { dir, base, keys: "", endpoint: "" }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn spec(&self) -> TaskSpec {
        self.spec_of(TASK)
    }

    fn spec_of(&self, id: &str) -> TaskSpec {
        let instance: Instance = serde_json::from_value(row(id, &self.base)).expect("a row");
        TaskSpec::build(instance, self.path("bare.git").display().to_string()).expect("a task")
    }

    /// The spool with the task in it.
    pub(crate) fn spool(&self) -> Spool {
        self.spool_with(TASK)
    }

    /// The spool with another task of the same repository in it.
    pub(crate) fn spool_with(&self, id: &str) -> Spool {
        let spool = Spool::init(&self.path("spool"), Uuid::now_v7()).expect("a spool");
        let producer = Owner::new("test", Incarnation::new(Uuid::now_v7()));
        spool.publish(&[self.spec_of(id)], &producer, Uuid::now_v7).expect("published");
        spool
    }

    /// A worker whose agents ask `model`, begun.
    pub(crate) fn worker(&self, model: &Model, brain: &str, agents: &str) -> Worker {
        self.configure(model, brain, agents);
        self.begin()
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, model: &Model, brain: &str, agents: &str) {
        let Self { keys, endpoint, .. } = self;
        let config = format!(
            "[worker]\nbrain = \"{brain}\"\nslots = 1\nslot_cores = 1\nslot_memory_gib = 0.5\nslot_disk_gib = 1.0\n\
             reserved_memory_gib = 0.0\nreserved_disk_gib = 1.0\nbuild_network = \"auto\"\nrepeats = 1\n\
             iterations_max = 3\n{keys}\n[worker.agents]\n{agents}\n[[worker.agents.endpoints]]\nname = \"scripted\"\nurl = \"{}\"\nmodel = \"scripted-1\"\nkey = \"model.key\"\n\
             dollars_per_million_read = 3.0\ndollars_per_million_written = 15.0\n{endpoint}\n",
            model.url()
        );
        fs::write(self.path("bottega.toml"), config).expect("written");
        fs::create_dir_all(self.path("credentials")).expect("made");
        fs::write(self.path("credentials/model.key"), "sk-of-the-test\n").expect("written");
    }

    fn begin(&self) -> Worker {
        let log = fs::File::options().create(true).append(true).open(self.path("worker.log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_bottega-worker"));
        command.arg("--spool").arg(self.path("spool")).arg("--state").arg(self.path("state"));
        command
            .arg("--config")
            .arg(self.path("bottega.toml"))
            .env("CREDENTIALS_DIRECTORY", self.path("credentials"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Worker(command.spawn().expect("it starts"))
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.path("worker.log")).unwrap_or_default()
    }

    /// What became of the task: its state, manifest and directory of results.
    pub(crate) fn outcome(&self, spool: &Spool) -> (State, Value, PathBuf) {
        self.outcome_of(spool, TASK)
    }

    pub(crate) fn outcome_of(&self, spool: &Spool, id: &str) -> (State, Value, PathBuf) {
        let begun = Instant::now();
        while begun.elapsed() < BOUND {
            let found = spool.find(&id.parse().expect("an id")).expect("listed");
            if let Some(task) =
                found.into_iter().find(|t| matches!(t.state, State::Done(_) | State::Failed(_)))
            {
                let dir = spool.layout().attempt(&task.name.id, task.name.token);
                let manifest = fs::read(dir.join("manifest.json")).expect("a manifest");
                return (task.state, serde_json::from_slice(&manifest).expect("JSON"), dir);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("it does not end:\n{}", self.said());
    }
}

/// Waits until something holds.
pub(crate) fn until(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < BOUND, "it never holds");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ended with the test.
pub(crate) struct Worker(Child);

impl Worker {
    /// Has it read its configuration again.
    pub(crate) fn reload(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).expect("a process"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).expect("signalled");
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("it ended");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).expect("a process"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
