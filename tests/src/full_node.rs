//! A whole machine for a test: Debian with a kernel of its own, systemd as PID 1, Docker and Podman, in QEMU without KVM.
//!
//! It shows what User-Mode Linux cannot: control groups v2 with cpusets, engines that have systemd manage theirs, and
//! Podman without root. It has no network. Everything in it runs some twenty times slower than on its host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::machine;
pub use crate::machine::{NO_END, Said};

const CPUS: &str = "2";
const MEMORY_MIB: &str = "4096";
/// A minute on an idle machine, most of it the kernel's and udev's.
const BOOT_MAX: Duration = Duration::from_mins(10);
/// What its disk is made of, beside what it shares with [`crate::node`]'s.
const RECIPE: [&str; 4] = ["full/image.sh", "full/lab.mount", "agent", "lab.service"];

/// A running machine. It is gone when this is dropped, or when the thread ends that booted it, and its disk with it.
#[derive(Debug)]
pub struct FullNode {
    dir: tempfile::TempDir,
    machine: Child,
}

/// The directory with the kernel, the initrd and the disk that machines begin with, made once and kept in `cache`
/// under a name that changes with its recipe.
///
/// # Errors
/// It cannot be made.
pub fn image(cache: &Path) -> io::Result<PathBuf> {
    machine::image(cache, "full", &RECIPE)
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
        let node = Self { dir, machine };
        match node.run(BOOT_MAX, "systemctl is-system-running --wait") {
            Said { status: 0, .. } => Ok(node),
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

    /// Runs a shell script as root there, and gives what it said and how it ended: with -1 where that takes longer
    /// than `at_most`.
    pub fn run(&self, at_most: Duration, script: &str) -> Said {
        let mut said = machine::run(&self.share(), script, at_most);
        if said.status == NO_END {
            said.text += &format!("\nno end within {at_most:?}; the console:\n{}", self.console());
        }
        said
    }

    /// As [`FullNode::run`], of a script that succeeds; gives what it said, trimmed.
    ///
    /// # Errors
    /// It fails, or does not end in time: what it said.
    pub fn must(&self, at_most: Duration, script: &str) -> Result<String, String> {
        match self.run(at_most, script) {
            Said { status: 0, text } => Ok(text.trim().to_owned()),
            Said { status, text } => Err(format!("ended with {status}: {script}\n{text}")),
        }
    }

    fn console(&self) -> String {
        ["qemu", "console"].map(|name| machine::last_lines(&self.dir.path().join(name))).join("\n")
    }
}

impl Drop for FullNode {
    fn drop(&mut self) {
        let _ = self.machine.kill();
        let _ = self.machine.wait();
    }
}
