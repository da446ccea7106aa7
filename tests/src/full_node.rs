//! A whole machine for a test: Debian with a kernel of its own, systemd as PID 1, Docker and Podman, in QEMU without KVM.
//!
//! It shows what User-Mode Linux cannot: control groups v2 with cpusets, engines that have systemd manage theirs, and
//! Podman without root. It has no network. Everything in it runs some twenty times slower than on its host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::harness::{printed, wait_for};
pub use crate::node::Said;

const CPUS: &str = "2";
const MEMORY_MIB: &str = "3072";
/// A minute on an idle machine, most of it the kernel's and udev's.
const BOOT_MAX: Duration = Duration::from_mins(10);
/// What its disk is made of, beside what it shares with [`crate::node`]'s.
const RECIPE: [&str; 4] = ["full/image.sh", "full/lab.mount", "agent", "lab.service"];
/// Lines of the console that an error has.
const CONSOLE_LINES: usize = 40;

/// A running machine. It is gone when this is dropped, or when the thread ends that booted it, and its disk with it.
#[derive(Debug)]
pub struct FullNode {
    dir: tempfile::TempDir,
    machine: Child,
    scripts: u32,
}

/// The directory with the kernel, the initrd and the disk that machines begin with, made once and kept in `cache`
/// under a name that changes with its recipe.
///
/// # Errors
/// It cannot be made.
pub fn image(cache: &Path) -> io::Result<PathBuf> {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab");
    let mut texts = Vec::new();
    for name in RECIPE {
        texts.extend(fs::read(lab.join(name))?);
    }
    let digest = Sha256::digest(&texts);
    let name = format!("full-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]);
    let path = cache.join(name);
    if !path.is_dir() {
        fs::create_dir_all(cache)?;
        let made = Command::new(lab.join("full/image.sh")).arg(&path).stdin(Stdio::null()).output()?;
        if !made.status.success() {
            return Err(io::Error::other(format!("no disk for full nodes: {}", printed(&made))));
        }
    }
    Ok(path)
}

impl FullNode {
    /// Starts a machine and waits until it is up. `drive`, a file of whole sectors, is its /dev/vdb, read only.
    ///
    /// # Errors
    /// It does not come up in time; the error has what it said.
    pub fn boot(image: &Path, drive: &Path) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let share = dir.path().join("share");
        fs::create_dir(&share)?;
        let said = fs::File::create(dir.path().join("qemu"))?;
        // The engines bring what they need of AppArmor, whose own profiles take half a minute to read.
        let kernel = "console=ttyS0 root=/dev/vda rw net.ifnames=0 quiet mitigations=off systemd.mask=apparmor.service";
        // Not left behind by a test that is killed: setpriv has the kernel tell.
        let machine = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nice", "qemu-system-x86_64", "-accel", "tcg,thread=multi"])
            .args(["-machine", "q35", "-cpu", "max", "-smp", CPUS, "-m", MEMORY_MIB])
            .args(["-nodefaults", "-nographic", "-no-reboot", "-append", kernel])
            .arg("-kernel")
            .arg(image.join("kernel"))
            .arg("-initrd")
            .arg(image.join("initrd"))
            .arg("-drive")
            .arg(format!(
                "file={},if=virtio,format=raw,snapshot=on,cache=unsafe",
                image.join("disk").display()
            ))
            .arg("-drive")
            .arg(format!("file={},if=virtio,format=raw,readonly=on", drive.display()))
            .arg("-serial")
            .arg(format!("file:{}", dir.path().join("console").display()))
            .arg("-fsdev")
            .arg(format!("local,id=lab,path={},security_model=none,multidevs=remap", share.display()))
            .args(["-device", "virtio-9p-pci,fsdev=lab,mount_tag=lab", "-device", "virtio-rng-pci"])
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()?;
        let mut node = Self { dir, machine, scripts: 0 };
        match node.run(BOOT_MAX, "systemctl is-system-running --wait") {
            Some(Said { status: 0, .. }) => Ok(node),
            other => {
                Err(io::Error::other(format!("the machine did not come up: {other:?}\n{}", node.console())))
            }
        }
    }

    /// The directory that it sees as /lab.
    #[must_use]
    pub fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    /// Runs a shell script as root there, and gives what it said and how it ended, or nothing where that takes longer
    /// than `at_most`.
    pub fn run(&mut self, at_most: Duration, script: &str) -> Option<Said> {
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

    /// As [`FullNode::run`], of a script that succeeds; gives what it said, trimmed.
    ///
    /// # Errors
    /// It fails, or does not end in time: what it said.
    pub fn must(&mut self, at_most: Duration, script: &str) -> Result<String, String> {
        match self.run(at_most, script) {
            Some(Said { status: 0, text }) => Ok(text.trim().to_owned()),
            Some(Said { status, text }) => Err(format!("ended with {status}: {script}\n{text}")),
            None => Err(format!("no end within {at_most:?}: {script}\n{}", self.console())),
        }
    }

    fn console(&self) -> String {
        let read = |name: &str| fs::read(self.dir.path().join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&[read("qemu"), read("console")].concat()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n")
    }
}

impl Drop for FullNode {
    fn drop(&mut self) {
        let _ = self.machine.kill();
        let _ = self.machine.wait();
    }
}
