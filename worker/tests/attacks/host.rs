//! The host's side: what attacks are after, and what they must leave as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bollard::Docker;
use bollard::query_parameters::{ListNetworksOptions, ListVolumesOptions};
use nix::time::{ClockId, clock_gettime};
use uuid::Uuid;

/// Files that attacks try to write, or to get others to write.
const FILES: [&str; 6] =
    ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/hostname", "/etc/resolv.conf", "/etc/bottega-canary"];
/// Settings of the kernel that they try to change.
const SETTINGS: [&str; 10] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/kernel/panic",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/fs/suid_dumpable",
    "/sys/kernel/uevent_helper",
    "/proc/swaps",
];
/// How far the clock may have been set by those who may.
const CLOCK_SECONDS_MAX: i64 = 30;

pub(crate) struct Host {
    dir: tempfile::TempDir,
    /// What must never be seen in a log or a result.
    pub(crate) canary: String,
    sentinel: Child,
    /// Where it listens for whoever has got out.
    pub(crate) port: u16,
    pub(crate) socket_name: String,
    visitors: Arc<AtomicUsize>,
    before: State,
}

struct State {
    texts: BTreeMap<PathBuf, Option<Vec<u8>>>,
    engine: BTreeSet<String>,
    clock_seconds: i64,
}

impl Host {
    pub(crate) async fn watch(engine: &Docker) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let canary = format!("canary-{}", Uuid::now_v7());
        fs::create_dir(dir.path().join("dir")).unwrap();
        for name in ["secret", "dir/secret"] {
            fs::write(dir.path().join(name), &canary).unwrap();
        }
        let mut sentinel = Command::new("sleep");
        let sentinel = sentinel.arg("3600").env("KEY", &canary).stdin(Stdio::null()).spawn().unwrap();
        let visitors = Arc::new(AtomicUsize::new(0));
        let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let socket_name = format!("bottega-{}", Uuid::now_v7());
        let unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&socket_name).unwrap()).unwrap();
        let count = Arc::clone(&visitors);
        std::thread::spawn(move || {
            tcp.incoming().for_each(|_| {
                count.fetch_add(1, Ordering::SeqCst);
            });
        });
        let count = Arc::clone(&visitors);
        std::thread::spawn(move || {
            unix.incoming().for_each(|_| {
                count.fetch_add(1, Ordering::SeqCst);
            });
        });
        let before = State::now(dir.path(), engine).await;
        Self { dir, canary, sentinel, port, socket_name, visitors, before }
    }

    /// A file that nobody in a container may read.
    pub(crate) fn secret(&self) -> PathBuf {
        self.dir.path().join("secret")
    }

    /// A directory with such a file.
    pub(crate) fn secret_dir(&self) -> PathBuf {
        self.dir.path().join("dir")
    }

    /// A sentence for everything that is not as it was.
    pub(crate) async fn changes(&mut self, engine: &Docker) -> Vec<String> {
        let now = State::now(self.dir.path(), engine).await;
        let mut changes = Vec::new();
        for (path, text) in &self.before.texts {
            if now.texts.get(path) != Some(text) {
                changes.push(format!("{} is not what it was", path.display()));
            }
        }
        changes.extend(now.engine.difference(&self.before.engine).map(|left| format!("{left} was left")));
        if (now.clock_seconds - self.before.clock_seconds).abs() > CLOCK_SECONDS_MAX {
            changes.push("the clock was set".to_owned());
        }
        if self.visitors.load(Ordering::SeqCst) > 0 {
            changes.push("somebody reached a socket of the host".to_owned());
        }
        if self.sentinel.try_wait().unwrap().is_some() {
            changes.push("a process of the host was ended".to_owned());
        }
        changes
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.sentinel.kill();
        let _ = self.sentinel.wait();
    }
}

impl State {
    async fn now(dir: &Path, engine: &Docker) -> Self {
        let own = ["secret", "dir/secret"].map(|name| dir.join(name));
        let paths = FILES.iter().chain(&SETTINGS).map(PathBuf::from).chain(own);
        let networks = engine.list_networks(None::<ListNetworksOptions>).await.unwrap();
        let volumes = engine.list_volumes(None::<ListVolumesOptions>).await.unwrap().volumes;
        let networks = networks.into_iter().map(|one| format!("network {}", one.name.unwrap_or_default()));
        let volumes = volumes.unwrap_or_default().into_iter().map(|one| format!("volume {}", one.name));
        let clock = |id| clock_gettime(id).unwrap().tv_sec();
        Self {
            texts: paths.map(|path| (path.clone(), fs::read(path).ok())).collect(),
            engine: networks.chain(volumes).collect(),
            clock_seconds: clock(ClockId::CLOCK_REALTIME) - clock(ClockId::CLOCK_BOOTTIME),
        }
    }
}

/// Processes in control groups with a name, and below them.
pub(crate) fn processes_of(group: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let theirs = processes.filter(|process| {
        fs::read_to_string(process.path().join("cgroup")).is_ok_and(|groups| groups.contains(group))
    });
    theirs.map(|process| format!("process {}", process.file_name().display())).collect()
}

/// Processes and control groups whose group is named after one of `names`: a container's id, a build's object.
pub(crate) fn left_of(names: &[String]) -> Vec<String> {
    let is_theirs = |text: &str| names.iter().any(|name| text.contains(name.as_str()));
    let mut left: Vec<String> = names.iter().flat_map(|name| processes_of(name)).collect();
    let mut dirs = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((dir, depth)) = dirs.pop() {
        if is_theirs(&dir.to_string_lossy()) {
            left.push(format!("control group {}", dir.display()));
        } else if depth < 5 {
            let children = fs::read_dir(&dir).into_iter().flatten().flatten();
            let children = children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()));
            dirs.extend(children.map(|child| (child.path(), depth + 1)));
        }
    }
    left
}
