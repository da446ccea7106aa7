//! A node of its own for a test: Debian with a real systemd as PID 1, in a User-Mode Linux that needs no privilege.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::harness::wait_for;

/// Its memory.
const MEMORY: &str = "768M";
/// How long it may take to come up; a second on an idle machine.
const BOOT_MAX: Duration = Duration::from_mins(2);
/// How long one script may take.
const SCRIPT_MAX: Duration = Duration::from_mins(2);

/// A running node. It is gone when this is dropped, with everything that it wrote to its disk.
#[derive(Debug)]
pub struct Node {
    dir: tempfile::TempDir,
    machine: Child,
    scripts: u32,
}

/// What a script on a node said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit status.
    pub status: i32,
    /// Both its streams.
    pub text: String,
}

/// Whether nodes can run here. Where they cannot and cannot be installed either, says so for all to see: libtest
/// shows nothing else of a test that passes.
///
/// # Panics
/// They could be installed: the message says how.
#[must_use]
pub fn can_run() -> bool {
    let is_there = |name: &str| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|dir: PathBuf| dir.join(name).is_file())
    };
    let missing: Vec<_> =
        ["linux.uml", "mmdebstrap", "mkfs.ext4"].into_iter().filter(|name| !is_there(name)).collect();
    if missing.is_empty() {
        return true;
    }
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    assert!(
        !(cfg!(target_arch = "x86_64") && os.lines().any(|line| line == "ID=debian")),
        "{missing:?} missing; install: apt-get install user-mode-linux mmdebstrap e2fsprogs (systemd/set-up.sh does it)"
    );
    let text = "\n*** SKIPPED: nothing was tried under a real systemd; this distribution has no user-mode-linux ***\n\n";
    // Not by eprintln!, which libtest keeps to itself.
    let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
    false
}

/// The disk that nodes begin with, made once and kept in `cache` under a name that changes with its recipe.
///
/// # Errors
/// It cannot be made.
pub fn image(cache: &Path) -> io::Result<PathBuf> {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab");
    let mut texts = Vec::new();
    for name in ["image.sh", "agent", "lab.mount", "lab.service"] {
        texts.extend(fs::read(recipe.join(name))?);
    }
    let digest = Sha256::digest(&texts);
    let path =
        cache.join(format!("node-{:02x}{:02x}{:02x}{:02x}.img", digest[0], digest[1], digest[2], digest[3]));
    if !path.is_file() {
        fs::create_dir_all(cache)?;
        let made = Command::new(recipe.join("image.sh")).arg(&path).stdin(Stdio::null()).output()?;
        if !made.status.success() {
            return Err(io::Error::other(format!("no disk for nodes: {}", crate::harness::printed(&made))));
        }
    }
    Ok(path)
}

impl Node {
    /// Starts a node of that name and waits until it takes scripts. Its disk is `image`, copied where it writes.
    ///
    /// # Errors
    /// It does not come up in time; the error has what it said.
    pub fn boot(image: &Path, name: &str) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let share = dir.path().join("share");
        fs::create_dir(&share)?;
        let console = fs::File::create(dir.path().join("console"))?;
        let machine = Command::new("linux.uml")
            .args([
                &format!("mem={MEMORY}"),
                "root=/dev/ubda",
                "rw",
                "con=null",
                "con0=null,fd:2",
                "ssl=null",
            ])
            .arg(format!("ubd0={},{}", dir.path().join("disk").display(), image.display()))
            .arg(format!("hostfs={}", share.display()))
            .arg(format!("uml_dir={}", dir.path().display()))
            .arg(format!("systemd.hostname={name}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(console)
            .process_group(0)
            .spawn()?;
        let mut node = Self { dir, machine, scripts: 0 };
        match node.try_run("systemctl is-system-running --wait", BOOT_MAX) {
            Some(Said { status: 0, .. }) => Ok(node),
            other => {
                Err(io::Error::other(format!("the node did not come up: {other:?}\n{}", node.console())))
            }
        }
    }

    /// The directory that it sees as /lab.
    #[must_use]
    pub fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    /// Runs a shell script as root there, and gives what it said and how it ended.
    ///
    /// # Panics
    /// It does not end in time.
    pub fn run(&mut self, script: &str) -> Said {
        let said = self.try_run(script, SCRIPT_MAX);
        said.unwrap_or_else(|| panic!("no end of: {script}\n{}", self.console()))
    }

    /// As [`Node::run`], of a script that succeeds; gives what it said, trimmed.
    ///
    /// # Panics
    /// It fails, or does not end in time.
    pub fn must(&mut self, script: &str) -> String {
        let said = self.run(script);
        assert_eq!(said.status, 0, "{script}\n{}\n{}", said.text, self.journal());
        said.text.trim().to_owned()
    }

    /// Repeats a script until it succeeds.
    ///
    /// # Panics
    /// It does not within `at_most`.
    pub fn until(&mut self, at_most: Duration, script: &str) -> String {
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
    pub fn journal(&mut self) -> String {
        self.run("journalctl --no-pager -n 60 -u 'bottega*' -o short-precise").text
    }

    fn try_run(&mut self, script: &str, at_most: Duration) -> Option<Said> {
        self.scripts += 1;
        let path = |end: &str| self.share().join(format!("{}.{end}", self.scripts));
        let (new, rc, out) =
            (tempfile::NamedTempFile::new_in(self.dir.path()).ok()?, path("rc"), path("out"));
        fs::write(new.path(), script).ok()?;
        new.persist(path("sh")).ok()?;
        let status = wait_for(at_most, || fs::read_to_string(&rc).ok())?;
        let text = String::from_utf8_lossy(&fs::read(&out).ok()?).into_owned();
        Some(Said { status: status.trim().parse().ok()?, text })
    }

    fn console(&self) -> String {
        const LINES: usize = 40;
        let text = fs::read(self.dir.path().join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A machine is many processes of the host, all in one group.
        if let Ok(group) = i32::try_from(self.machine.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.machine.wait();
    }
}
