//! A node of its own for a test: Debian with a real systemd as PID 1, in a User-Mode Linux that needs no privilege.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::harness::wait_for;
pub use crate::machine::Said;
use crate::machine::{self, NO_END};

/// What its disk is made of.
const RECIPE: [&str; 6] = ["image.sh", "agent", "network", "lab.mount", "lab.service", "lab-network.service"];
/// Its memory.
const MEMORY: &str = "512M";
/// How long it may take to come up; ten seconds on an idle machine.
const BOOT_MAX: Duration = Duration::from_mins(3);
/// How long one script may take.
const SCRIPT_MAX: Duration = Duration::from_mins(10);
/// How long its end may take, once it was killed.
const END_MAX: Duration = Duration::from_secs(20);

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What it is called.
    pub name: String,
    /// The disk that it begins with, which it only reads.
    pub image: PathBuf,
    /// Where it keeps what it writes, its console and the directory that it shares; made where it is missing.
    pub dir: PathBuf,
    /// How it is connected, if it is.
    pub network: Option<Connection>,
    /// A second disk, which it writes.
    pub disk: Option<PathBuf>,
}

/// How a node is connected.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The network namespace that it runs in.
    pub namespace: String,
    /// Its interface there.
    pub tap: String,
    /// Its own address, with the bits of the network.
    pub address: String,
}

/// A node. It is gone when this is dropped, unless it was left to run.
#[derive(Debug)]
pub struct Node {
    machine: Machine,
    process: Pid,
    is_left: bool,
    /// Gone with it, where it is for one test.
    _dir: Option<tempfile::TempDir>,
}

/// Whether nodes can run here. Where they cannot and cannot be installed either, says so for all to see.
///
/// # Panics
/// They could be installed: the message says how.
#[must_use]
pub fn can_run() -> bool {
    let missing = missing(&["linux.uml", "mmdebstrap", "mkfs.ext4"]);
    if missing.is_empty() {
        return true;
    }
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    assert!(
        !(cfg!(target_arch = "x86_64") && os.lines().any(|line| line == "ID=debian")),
        "{missing:?} missing; install: apt-get install user-mode-linux mmdebstrap e2fsprogs (systemd/set-up.sh does it)"
    );
    say_skipped("nothing was tried under a real systemd; this distribution has no user-mode-linux");
    false
}

/// Those of these programs that are not installed.
pub(crate) fn missing<'a>(programs: &[&'a str]) -> Vec<&'a str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    programs.iter().copied().filter(|name| !dirs.iter().any(|dir| dir.join(name).is_file())).collect()
}

/// Says for all to see that something was not tried: libtest shows nothing else of a test that passes.
pub(crate) fn say_skipped(why: &str) {
    // Not by eprintln!, which libtest keeps to itself.
    let _ = io::Write::write_all(&mut io::stderr(), format!("\n*** SKIPPED: {why} ***\n\n").as_bytes());
}

/// The disk that nodes begin with, made once and kept in `cache` under a name that changes with its recipe.
///
/// # Errors
/// It cannot be made.
pub fn image(cache: &Path) -> io::Result<PathBuf> {
    machine::image(cache, "node", &RECIPE)
}

impl Node {
    /// Starts a node of that name for one test, and waits until it takes scripts.
    ///
    /// # Errors
    /// It does not come up in time; the error has what it said.
    pub fn boot(image: &Path, name: &str) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let machine = Machine {
            name: name.to_owned(),
            image: image.to_owned(),
            dir: dir.path().to_owned(),
            network: None,
            disk: None,
        };
        let mut node = Self::start(machine)?;
        node._dir = Some(dir);
        node.until_up()?;
        Ok(node)
    }

    /// Starts a node, with the disk that it had when it ran before.
    ///
    /// # Errors
    /// Its process cannot be started.
    pub fn start(machine: Machine) -> io::Result<Self> {
        let process = spawn(&machine)?;
        Ok(Self { machine, process, is_left: false, _dir: None })
    }

    /// A node that somebody started and left to run. The caller knows that the process noted is still this node's.
    ///
    /// # Errors
    /// Nobody noted its process.
    pub fn attach(machine: Machine) -> io::Result<Self> {
        let noted = fs::read_to_string(machine.dir.join("pid"))?;
        let process = Pid::from_raw(noted.trim().parse().map_err(io::Error::other)?);
        Ok(Self { machine, process, is_left: true, _dir: None })
    }

    /// Lets it run on when this is dropped.
    pub fn leave(&mut self) {
        self.is_left = true;
    }

    /// Waits until it is up.
    ///
    /// # Errors
    /// It is not in time; the error has what it said.
    pub fn until_up(&self) -> io::Result<()> {
        match self.try_run("systemctl is-system-running --wait", BOOT_MAX) {
            Some(Said { status: 0, .. }) => Ok(()),
            other => Err(io::Error::other(format!(
                "{} did not come up: {other:?}\n{}",
                self.name(),
                self.console()
            ))),
        }
    }

    /// Its power is lost: what it had not written to its disk is gone.
    ///
    /// # Errors
    /// It does not end.
    pub fn lose_power(&self) -> io::Result<()> {
        // A machine is many processes of the host, all in one group.
        match killpg(self.process, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
        wait_for(END_MAX, || {
            // Only who started it can collect it.
            let _ = waitpid(self.process, Some(WaitPidFlag::WNOHANG));
            (killpg(self.process, None) == Err(Errno::ESRCH)).then_some(())
        })
        .ok_or_else(|| io::Error::other(format!("{} does not end", self.name())))
    }

    /// Begins again, after it lost its power.
    ///
    /// # Errors
    /// Its process cannot be started.
    pub fn restart(&mut self) -> io::Result<()> {
        self.process = spawn(&self.machine)?;
        Ok(())
    }

    /// Stands still, as a whole, until [`Node::thaw`].
    ///
    /// # Errors
    /// It is gone.
    pub fn freeze(&self) -> io::Result<()> {
        // The processes in it run only when the kernel of the machine, which is this one, lets them.
        Ok(kill(self.process, Signal::SIGSTOP)?)
    }

    /// Goes on.
    ///
    /// # Errors
    /// It is gone.
    pub fn thaw(&self) -> io::Result<()> {
        Ok(kill(self.process, Signal::SIGCONT)?)
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// The process that it is to its host: its kernel.
    #[must_use]
    pub fn process(&self) -> Pid {
        self.process
    }

    /// The directory that it sees as /lab.
    #[must_use]
    pub fn share(&self) -> PathBuf {
        self.machine.dir.join("share")
    }

    /// Runs a shell script as root there, and gives what it said and how it ended.
    ///
    /// # Panics
    /// It does not end in time.
    pub fn run(&self, script: &str) -> Said {
        let said = self.try_run(script, SCRIPT_MAX);
        said.unwrap_or_else(|| panic!("no end of: {script}\n{}", self.console()))
    }

    /// As [`Node::run`], of a script that succeeds; gives what it said, trimmed.
    ///
    /// # Panics
    /// It fails, or does not end in time.
    pub fn must(&self, script: &str) -> String {
        let said = self.run(script);
        assert_eq!(said.status, 0, "{script}\n{}\n{}", said.text, self.journal());
        said.text.trim().to_owned()
    }

    /// Repeats a script until it succeeds.
    ///
    /// # Panics
    /// It does not within `at_most`.
    pub fn until(&self, at_most: Duration, script: &str) -> String {
        let mut last = None;
        let met = wait_for(at_most, || {
            let said = self.run(script);
            let text = (said.status == 0).then(|| said.text.trim().to_owned());
            last = Some(said);
            text
        });
        met.unwrap_or_else(|| panic!("not within {at_most:?}: {script}\n{last:?}\n{}", self.journal()))
    }

    /// The end of the daemons' journal.
    pub fn journal(&self) -> String {
        self.run("journalctl --no-pager -n 60 -u 'bottega*' -o short-precise").text
    }

    /// As [`Node::run`]; `None` where it does not end within `at_most`. Others can be run meanwhile, and afterwards.
    #[must_use]
    pub fn try_run(&self, script: &str, at_most: Duration) -> Option<Said> {
        Some(machine::run(&self.share(), script, at_most)).filter(|said| said.status != NO_END)
    }

    /// What it printed last, while no script could run.
    #[must_use]
    pub fn console(&self) -> String {
        machine::last_lines(&self.machine.dir.join("console"))
    }
}

fn spawn(machine: &Machine) -> io::Result<Pid> {
    let share = machine.dir.join("share");
    if share.exists() {
        fs::remove_dir_all(&share)?;
    }
    fs::create_dir_all(&share)?;
    let console = fs::File::create(machine.dir.join("console"))?;
    let mut command = match &machine.network {
        Some(network) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &network.namespace, "linux.uml"]);
            command.arg(format!("vec0:transport=tap,ifname={}", network.tap));
            command.arg(format!("lab.address={}", network.address));
            command
        }
        None => Command::new("linux.uml"),
    };
    if let Some(disk) = &machine.disk {
        command.arg(format!("ubd1={}", disk.display())).arg("lab.disk=/dev/ubdb");
    }
    let child = command
        .arg(format!("mem={MEMORY}"))
        .args(["root=/dev/ubda", "rw", "con=null", "con0=null,fd:2", "ssl=null"])
        .arg(format!("ubd0={},{}", machine.dir.join("disk").display(), machine.image.display()))
        .arg(format!("hostfs={}", share.display()))
        .arg(format!("uml_dir={}", machine.dir.display()))
        .arg(format!("systemd.hostname={}", machine.name))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(console)
        .process_group(0)
        .spawn()?;
    let process = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    fs::write(machine.dir.join("pid"), process.to_string())?;
    Ok(process)
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.is_left {
            let _ = self.lose_power();
        }
    }
}
