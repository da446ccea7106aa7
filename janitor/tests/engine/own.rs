//! An engine of the test's own, on a small disk of its own: whatever is done to it, no other loses anything.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Looks at an engine that starts, and the pause between them.
const LOOKS_MAX: u32 = 1200;
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Killed, with all that it started, when it is dropped.
pub(crate) struct OwnEngine {
    dir: TempDir,
    daemon: Option<Child>,
}

impl OwnEngine {
    /// On a disk of so many bytes.
    pub(crate) fn start(disk_bytes: u64) -> Self {
        // A socket's path has 107 bytes.
        let dir = tempfile::Builder::new().prefix("bj").tempdir_in("/tmp").expect("a directory");
        let root = dir.path().join("root");
        std::fs::create_dir(&root).expect("made");
        let options = format!("size={disk_bytes},nr_inodes=200000");
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", &root.display().to_string()]);
        let mut engine = Self { dir, daemon: None };
        engine.up();
        engine
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.file("docker.sock").display())
    }

    /// Where its objects lie.
    pub(crate) fn root(&self) -> PathBuf {
        self.file("root")
    }

    /// Ends it as a crash does, or a reboot.
    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // Its containerd is of its process group.
            let _ = kill(Pid::from_raw(-daemon.id().cast_signed()), Signal::SIGKILL);
            let _ = daemon.wait();
        }
        for name in ["docker.sock", "docker.pid"] {
            let _ = std::fs::remove_file(self.file(name));
        }
        // By the number in there the next one would take a process that is dead, but not yet reaped, for its containerd.
        let _ = std::fs::remove_dir_all(self.file("exec/containerd"));
    }

    pub(crate) fn up(&mut self) {
        use std::os::unix::process::CommandExt;
        let log = std::fs::File::create(self.file("log")).expect("a log");
        // In a network of its own: without a bridge, a daemon removes docker0, whoever's that is.
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--", "dockerd", "--data-root"])
            .arg(self.root())
            .arg("--exec-root")
            .arg(self.file("exec"))
            .arg("--pidfile")
            .arg(self.file("docker.pid"))
            .args(["--host", &self.address(), "--bridge=none", "--iptables=false", "--ip-forward=false"])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        self.daemon = Some(command.spawn().expect("unshare is there"));
        for _ in 0..LOOKS_MAX {
            if std::os::unix::net::UnixStream::connect(self.file("docker.sock")).is_ok() {
                return;
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        panic!("dockerd does not start: {}", std::fs::read_to_string(self.file("log")).unwrap_or_default());
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if let Some(daemon) = &self.daemon {
            // Asked to, it ends its containers and what it has mounted.
            let _ = kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM);
            for _ in 0..LOOKS_MAX {
                if self.daemon.as_mut().is_none_or(|daemon| daemon.try_wait().is_ok_and(|end| end.is_some()))
                {
                    break;
                }
                std::thread::sleep(LOOK_PAUSE);
            }
        }
        self.kill();
        unmount_below(self.dir.path());
    }
}

/// The last mounted first.
fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|path| Path::new(path).starts_with(dir));
    for path in below.collect::<Vec<_>>().into_iter().rev() {
        run("umount", &["--lazy", path]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().expect(program);
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}
