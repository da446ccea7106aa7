//! `bottega up` and its processes: whatever happens to one of them, nothing is left running and the reason is said.
//!
//! Worker and janitor are shell scripts here: these tests are about processes, not about tasks.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{House, Said, accepted, rows, said, work};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything here takes on a slow machine; it only keeps a failing test from hanging.
const BOUND: Duration = Duration::from_secs(90);

/// Ends when it is told to.
const OBEDIENT: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

/// Has to be killed, and a child of its own with it.
const STUBBORN: &str = "trap '' TERM INT; sleep 1000 & while :; do sleep 0.1; done";

/// A house with programs of its own beside `bottega`.
struct Site {
    house: House,
    bin: PathBuf,
}

impl Site {
    fn new(worker: &str, janitor: &str) -> Self {
        let house = House::new();
        let bin = house.path("bin");
        fs::create_dir(&bin).expect("made");
        for program in
            [assert_cmd::cargo::cargo_bin!("bottega"), assert_cmd::cargo::cargo_bin!("bottega-master")]
        {
            let target = bin.join(program.file_name().expect("a name"));
            // A symbolic link would lead `bottega` to the real daemons beside its target.
            fs::hard_link(program, &target)
                .or_else(|_| fs::copy(program, &target).map(|_| ()))
                .expect("linked");
        }
        let site = Self { house, bin };
        site.script("bottega-worker", worker);
        site.script("bottega-janitor", janitor);
        site
    }

    /// A stand-in that notes its process id.
    fn script(&self, name: &str, text: &str) {
        let path = self.bin.join(name);
        let pids = self.house.path(&format!("{name}.pids"));
        fs::write(&path, format!("#!/bin/sh\necho $$ >> {}\n{text}\n", pids.display())).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }

    fn up(&self, more: &[&str]) -> Child {
        let mut command = Command::new(self.bin.join("bottega"));
        command
            .arg("up")
            .arg("--spool")
            .arg(self.house.spool_dir())
            .arg("--state")
            .arg(self.house.path("state"));
        command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    }

    /// The process ids that the stand-ins noted, once each has noted one.
    fn pids(&self) -> Vec<i32> {
        wait_for("both stand-ins", || {
            let (worker, janitor) = (self.noted("bottega-worker"), self.noted("bottega-janitor"));
            (!worker.is_empty() && !janitor.is_empty()).then(|| [worker, janitor].concat())
        })
    }

    /// The process ids that one stand-in noted so far.
    fn noted(&self, name: &str) -> Vec<i32> {
        let text = fs::read_to_string(self.house.path(&format!("{name}.pids"))).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        whole.map(|pid| pid.parse().expect("a pid")).collect()
    }

    /// The master that works on this house's spool.
    fn master(&self) -> i32 {
        wait_for("the master", || {
            let spool = self.house.spool();
            let mut owners = fs::read_dir(self.house.path("state").join("alive")).ok()?.flatten();
            let alive = owners.any(|_| true) && !spool.intakes_on(&systemd::hostname()).ok()?.is_empty();
            alive.then(|| find_master(&self.house.spool_dir())).flatten()
        })
    }
}

/// By its command line, which holds this test's own directory.
fn find_master(spool: &Path) -> Option<i32> {
    let spool = spool.canonicalize().ok()?.display().to_string();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let is_master = line.split('\0').next()?.ends_with("bottega-master") && line.contains(&spool);
        if is_master { entry.file_name().to_str()?.parse().ok() } else { None }
    })
}

fn wait_for<T>(what: &str, mut met: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = met() {
            return value;
        }
        assert!(started.elapsed() < BOUND, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ended(mut child: Child) -> Said {
    let started = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if started.elapsed() > BOUND {
            child.kill().expect("killed");
            let told = said(&child.wait_with_output().expect("ended"));
            panic!("up did not end:\n{}\n{}", told.out, told.err);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    said(&child.wait_with_output().expect("ended"))
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), signal).expect("signalled");
}

fn all_gone(pids: &[i32]) {
    for pid in pids {
        // One that has ended but was not waited for, by an init that does not, is gone too.
        wait_for(&format!("the end of {pid}"), || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
            stat.is_none_or(|stat| stat.contains(") Z ")).then_some(())
        });
    }
}

#[test]
fn one_ctrl_c_ends_all_three() {
    let site = Site::new(OBEDIENT, OBEDIENT);
    let up = site.up(&[]);
    let (mut pids, master) = (site.pids(), site.master());
    pids.push(master);
    signal(&up, Signal::SIGINT);
    let said = ended(up);
    assert_eq!(said.status, 0, "{}\n{}", said.out, said.err);
    assert!(
        said.out.contains("interrupted after") && said.out.contains("nothing is left running"),
        "{}",
        said.out
    );
    all_gone(&pids);
    assert!(
        site.house.spool().intakes_on(&systemd::hostname()).expect("listed").is_empty(),
        "a master ends cleanly"
    );
}

#[test]
fn a_run_that_should_have_become_idle_tells_that_it_did_not() {
    let site = Site::new(OBEDIENT, OBEDIENT);
    assert_eq!(site.house.submit(&rows(&["a"])).status, 0);
    let up = site.up(&["--until-idle"]);
    let pids = site.pids();
    signal(&up, Signal::SIGTERM);
    assert_eq!(ended(up).status, 130);
    all_gone(&pids);
}

#[test]
fn a_second_ctrl_c_kills_what_does_not_end() {
    let site = Site::new(STUBBORN, OBEDIENT);
    let mut up = site.up(&[]);
    let pids = site.pids();
    let children = wait_for("the worker's child", || {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", pids[0])).ok()?;
        let children: Vec<i32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        (!children.is_empty()).then_some(children)
    });
    signal(&up, Signal::SIGINT);
    let mut out = std::io::BufReader::new(up.stdout.take().expect("a pipe"));
    let mut heard = String::new();
    while !heard.contains("stopping: waiting for bottega-worker") {
        let more = std::io::BufRead::read_line(&mut out, &mut heard).expect("readable");
        assert!(more > 0, "it ended without waiting: {heard}");
    }
    signal(&up, Signal::SIGINT);
    std::io::Read::read_to_string(&mut out, &mut heard).expect("readable");
    assert!(heard.contains("bottega-worker was killed"), "{heard}");
    assert_eq!(ended(up).status, 0);
    all_gone(&pids);
    all_gone(&children);
}

#[test]
fn daemons_die_with_up() {
    let site = Site::new(STUBBORN, STUBBORN);
    let mut up = site.up(&[]);
    let (mut pids, master) = (site.pids(), site.master());
    pids.push(master);
    up.kill().expect("killed");
    up.wait().expect("ended");
    all_gone(&pids);
    // The next run's master adopts what this one had open.
    let intakes = || site.house.spool().intakes_on(&systemd::hostname()).expect("listed");
    let left = intakes();
    site.script("bottega-worker", OBEDIENT);
    site.script("bottega-janitor", OBEDIENT);
    let again = site.up(&[]);
    wait_for("the adoption", || {
        let owners = intakes();
        (owners.len() == 1 && owners != left).then_some(())
    });
    signal(&again, Signal::SIGINT);
    assert_eq!(ended(again).status, 0);
}

#[test]
fn a_worker_that_cannot_start_is_told_of_at_once() {
    let site = Site::new("echo 'no engine answers; set DOCKER_HOST' >&2; exit 1", OBEDIENT);
    assert_eq!(site.house.submit(&rows(&["a"])).status, 0);
    let said = ended(site.up(&["--until-idle"]));
    assert_eq!(said.status, 1, "{}", said.out);
    assert!(said.err.starts_with("bottega: bottega-worker could not start: exit status: 1"), "{}", said.err);
    assert!(said.err.contains("| no engine answers; set DOCKER_HOST"), "{}", said.err);
    assert!(said.err.contains("state/log/bottega-worker.log"), "{}", said.err);
    assert_eq!(site.noted("bottega-worker").len(), 1, "it was tried once");
    // The janitor may have been told to end before it came to note its own.
    all_gone(&[site.noted("bottega-worker"), site.noted("bottega-janitor")].concat());
}

#[test]
fn a_daemon_that_dies_is_started_again_but_not_for_ever() {
    let site = Site::new(OBEDIENT, OBEDIENT);
    let mut up = site.up(&[]);
    let pids = site.pids();
    let mut killed = Vec::new();
    for _ in 0..4 {
        let master = wait_for("a new master that is ready", || {
            let master = Some(site.master()).filter(|pid| !killed.contains(pid))?;
            // It has said that it is ready once it has written its first summary.
            let summary = site.house.spool_dir().join("status/summary.json");
            fs::remove_file(summary).is_ok().then_some(master)
        });
        kill(Pid::from_raw(master), Signal::SIGKILL).expect("killed");
        killed.push(master);
        all_gone(&[master]);
    }
    let mut out = String::new();
    std::io::Read::read_to_string(&mut up.stdout.take().expect("a pipe"), &mut out).expect("readable");
    let said = ended(up);
    assert_eq!(said.status, 1);
    assert_eq!(
        out.matches("bottega-master died (signal: 9 (SIGKILL)) and is started again").count(),
        3,
        "{out}"
    );
    assert!(said.err.starts_with("bottega: bottega-master keeps dying: signal: 9 (SIGKILL)"), "{}", said.err);
    all_gone(&pids);
}

#[test]
fn until_idle_ends_with_a_table_whatever_the_verdicts() {
    let site = Site::new(OBEDIENT, OBEDIENT);
    assert_eq!(site.house.submit(&rows(&["good-1"])).status, 0);
    let up = site.up(&["--until-idle"]);
    site.pids();
    // What a worker would do, and rows dropped by hand on the way.
    let dropped = site.house.spool_dir().join("incoming/more.jsonl");
    let mut row = common::row("bad-1");
    row["repository"] = "/mirrors/x".into();
    fs::write(&dropped, row.to_string()).expect("written");
    wait_for("the dropped row", || {
        let all = site.house.spool().all().expect("listed");
        all.iter().any(|task| task.name.id.as_str() == "bad-1").then_some(())
    });
    work(&site.house.spool(), |id| match id {
        "good-1" => accepted(),
        _ => common::failed(queue_format::FailureReason::Build, "pip found no foo==9"),
    });
    let said = ended(up);
    assert_eq!(said.status, 0, "{}", said.err);
    let table: String = said
        .out
        .lines()
        .skip_while(|line| !line.contains("verdict"))
        .map(|l| format!("{}\n", l.trim_end()))
        .collect();
    insta::assert_snapshot!(table);

    let again = ended(site.up(&["--until-idle"]));
    assert_eq!(again.status, 0);
    assert!(
        again.out.contains("0 tasks open, 2 settled already") && again.out.contains("nothing to do"),
        "{}",
        again.out
    );
    assert!(
        again.out.ends_with(table.lines().last().expect("totals"))
            || again.out.contains("2 tasks: 1 accepted")
    );
}

#[test]
fn programs_that_are_missing_are_named() {
    let site = Site::new(OBEDIENT, OBEDIENT);
    fs::remove_file(site.bin.join("bottega-janitor")).expect("removed");
    let mut command = Command::new(site.bin.join("bottega"));
    command.args(["up", "--spool"]).arg(site.house.spool_dir()).arg("--state").arg(site.house.path("state"));
    let missing = said(&command.env("PATH", "/usr/bin:/bin").output().expect("it runs"));
    assert_eq!(missing.status, 1);
    assert!(
        missing.err.contains("bottega-janitor is neither beside ") && missing.err.contains("make build"),
        "{}",
        missing.err
    );
}
