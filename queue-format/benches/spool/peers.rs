use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use queue_format::TaskSpec;

use crate::report::Report;

/// What asking a peer came to.
pub(crate) enum Measured {
    /// Tasks a second.
    Rates { who: String, publish: f64, complete: f64, promise: String },
    /// It is not here.
    LeftOut { who: String, why: String },
}

/// Adds, then locks, reads and removes; each line of the output is a number of seconds.
const DIRQ: &str = "\
import sys, time
from dirq.QueueSimple import QueueSimple
queue, count, size = QueueSimple(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
started = time.monotonic()
for n in range(count):
    queue.add('x' * size)
print(time.monotonic() - started)
started = time.monotonic()
for name in queue:
    if queue.lock(name):
        queue.get(name)
        queue.remove(name)
print(time.monotonic() - started)
";

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(10);

pub(crate) fn say(report: &mut Report, measured: &Measured) {
    match measured {
        Measured::Rates { who, publish, complete, promise } => {
            report.rates(who, *publish, *complete, promise);
        }
        Measured::LeftOut { who, why } => report.left_out(who, why),
    }
}

/// python-dirq, in an environment of its own.
pub(crate) fn dirq(dir: &Path, tasks: &[TaskSpec]) -> Measured {
    let who = "python-dirq".to_owned();
    let bytes: usize = tasks.iter().map(|task| serde_json::to_vec(task).expect("JSON").len()).sum();
    let python = dir.join("venv/bin/python");
    let run = || -> Result<[f64; 2], String> {
        fs::create_dir_all(dir).map_err(|e| e.to_string())?;
        said(Command::new("python3").args(["-m", "venv"]).arg(dir.join("venv")))?;
        said(Command::new(&python).args(["-m", "pip", "install", "--quiet", "dirq"]))?;
        let mut command = Command::new(&python);
        command.args(["-c", DIRQ]).arg(dir.join("queue"));
        let text = said(command.arg(tasks.len().to_string()).arg((bytes / tasks.len()).to_string()))?;
        let seconds: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        <[f64; 2]>::try_from(seconds).map_err(|_| format!("it said {text:?}"))
    };
    match run() {
        Ok([publish, complete]) => {
            let rate = |seconds: f64| tasks.len() as f64 / seconds;
            let promise = "nothing is synced, and no result is kept".to_owned();
            Measured::Rates { who, publish: rate(publish), complete: rate(complete), promise }
        }
        Err(why) => Measured::LeftOut { who, why },
    }
}

/// HyperQueue with a server and a worker of its own, and tasks that do nothing.
pub(crate) fn hyperqueue(dir: &Path, tasks: usize) -> Measured {
    let who = "HyperQueue".to_owned();
    let hq = || {
        let mut command = Command::new("hq");
        command.arg("--server-dir").arg(dir).stdin(Stdio::null());
        command
    };
    let run = || -> Result<f64, String> {
        said(Command::new("hq").arg("--version"))?;
        fs::create_dir_all(dir).map_err(|e| e.to_string())?;
        let _server = Program::start(hq().args(["server", "start"]))?;
        let started = Instant::now();
        while said(hq().args(["server", "info"])).is_err() && started.elapsed() < START {
            std::thread::sleep(Duration::from_millis(100));
        }
        let _worker = Program::start(hq().args(["worker", "start"]))?;
        let array = format!("1-{tasks}");
        let started = Instant::now();
        said(hq().args(["submit", "--array", &array, "--stdout=none", "--stderr=none", "--wait", "true"]))?;
        Ok(tasks as f64 / started.elapsed().as_secs_f64())
    };
    match run() {
        Ok(rate) => {
            let promise = "in memory, and each task is a process that does nothing".to_owned();
            Measured::Rates { who, publish: rate, complete: rate, promise }
        }
        Err(why) => Measured::LeftOut { who, why },
    }
}

/// Ended when it is dropped.
pub(crate) struct Program(pub(crate) Child);

impl Program {
    fn start(command: &mut Command) -> Result<Self, String> {
        let started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        started.map(Self).map_err(|e| e.to_string())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program prints; an error where it cannot be run, or fails.
fn said(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}", errors.lines().last().unwrap_or("it failed")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
