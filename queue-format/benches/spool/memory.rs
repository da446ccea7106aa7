use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use queue_format::Spool;

use crate::peers::Program;
use crate::report::Report;

/// How long a daemon may take until it has counted a large spool, or told what it does.
const BOUND: Duration = Duration::from_secs(300);

/// What the real daemons take while the spool holds `tasks`. The worker is paused: it does no task, and so measures what
/// it is itself.
pub(crate) fn measure(spool: &Spool, dir: &Path, tasks: usize, report: &mut Report) {
    const MIB: f64 = (1 << 20) as f64;
    spool.pause("its memory is measured").expect("paused");
    let is_counted = || spool.summary().is_some_and(|summary| summary.counts.open() >= tasks);
    let is_told = || spool.worker_statuses().is_ok_and(|statuses| !statuses.is_empty());
    let daemons: [(&str, f64, &dyn Fn() -> bool); 2] =
        [("bottega-master", 100.0, &is_counted), ("bottega-worker", 30.0, &is_told)];
    for (name, most, is_ready) in daemons {
        match peak_bytes(name, spool.layout().root(), &dir.join(name), is_ready) {
            Ok(bytes) => {
                let mib = bytes as f64 / MIB;
                let what = format!("resident memory of {name}, {tasks} tasks");
                report.goal(&what, &format!("≤ {most} MiB"), &format!("{mib:.1} MiB"), mib <= most);
            }
            Err(why) => report.left_out(name, &why),
        }
    }
    spool.resume().expect("resumed");
}

fn peak_bytes(name: &str, spool: &Path, dir: &Path, is_ready: &dyn Fn() -> bool) -> Result<u64, String> {
    let program = program(name).ok_or("it is not built: make build")?;
    fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    let said = dir.join("said");
    let log = fs::File::create(&said).map_err(|e| e.to_string())?;
    let mut command = Command::new(program);
    command.arg("--spool").arg(spool).arg("--state").arg(dir.join("state"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    let mut daemon = Program(child.map_err(|e| e.to_string())?);
    let started = Instant::now();
    while !is_ready() {
        let ended = daemon.0.try_wait().map_err(|e| e.to_string())?;
        if ended.is_some() || started.elapsed() > BOUND {
            let said = fs::read_to_string(&said).unwrap_or_default();
            return Err(said.lines().last().unwrap_or("it said nothing").to_owned());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.0.id())).map_err(|e| e.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let kib: u64 =
        line.trim().trim_end_matches(" kB").parse().map_err(|_| format!("it has no VmHWM: {line:?}"))?;
    Ok(kib << 10)
}

/// A program beside this one, or, as cargo puts benchmarks one directory deeper, above it.
fn program(name: &str) -> Option<PathBuf> {
    let me = std::env::current_exe().ok()?;
    me.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file())
}
