use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::Network;
use super::package::{self, CONFIG};
use crate::harness::printed;
use crate::node::{Machine, Node, image};

/// What the server exports, and where every node mounts it.
pub const EXPORT: &str = "/srv/bottega";
/// The spool that is worked on.
pub const SPOOL: &str = "/srv/bottega/spool";

/// Nodes that a lab may have beside its server: more would not fit onto a small machine.
pub const NODES_MAX: u32 = 8;
/// How large the server's disk for the spool is: small enough to be filled.
const DISK_MIB: u64 = 400;
/// How long one script may take on a node that shares its host with others.
const SCRIPT_MAX: Duration = Duration::from_mins(4);
/// Between two looks at something that is waited for.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// What a cluster is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Nodes that work, beside the server.
    pub nodes: u32,
    /// How they mount the spool.
    pub mount: Mount,
}

/// How nodes mount the spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The version of NFS: 3, 4.1 or 4.2.
    pub version: String,
    /// Further options than docs/install.md has, such as `,actimeo=1`; empty for none.
    pub more: String,
}

/// What systemd runs for a node.
pub(super) const DAEMONS: &str = "bottega-worker bottega-master bottega-janitor";

/// A cluster that is up.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    network: Network,
    /// Keeps the spool, and exports it.
    pub server: Node,
    /// Work.
    pub nodes: Vec<Node>,
    _lock: Option<File>,
}

impl Default for Mount {
    fn default() -> Self {
        Self { version: "4.2".to_owned(), more: String::new() }
    }
}

impl Mount {
    /// The line of docs/install.md.
    fn fstab(&self) -> String {
        let (version, more) = (&self.version, &self.more);
        let kind = if version == "3" { "nfs" } else { "nfs4" };
        format!(
            "server:{EXPORT} {EXPORT} {kind} vers={version},hard,proto=tcp,timeo=600,noatime,_netdev{more} 0 0"
        )
    }
}

impl Cluster {
    /// Makes a cluster in `dir`, with what is left there of another removed first. The disk that nodes begin with is kept
    /// in `cache`.
    ///
    /// # Errors
    /// Somebody else works on that lab; or a node does not come up: the error has what it said.
    pub fn up(dir: &Path, cache: &Path, plan: &Plan) -> Result<Self> {
        ensure!(
            (1..=NODES_MAX).contains(&plan.nodes),
            "a lab has 1 to {NODES_MAX} nodes, not {}",
            plan.nodes
        );
        let lock = lock(dir)?;
        clear(dir)?;
        let image = image(cache)?;
        let packages = package::make(dir)?;
        let disk = dir.join("spool.img");
        File::create(&disk)?.set_len(DISK_MIB << 20)?;
        run(Command::new("mkfs.ext4").arg("-qF").arg(&disk))?;

        let network = Network::of(dir)?;
        network.make()?;
        let mut started = Vec::new();
        for machine in machines(dir, &image, &network, plan.nodes) {
            network.connect(u32::try_from(started.len())? + 1)?;
            started.push(Node::start(machine)?);
        }
        let server = started.remove(0);
        let cluster = Self { dir: dir.to_owned(), network, server, nodes: started, _lock: Some(lock) };
        cluster.each(true, |node| {
            node.until_up()?;
            for package in &packages {
                fs::copy(package, node.share().join(package.file_name().unwrap_or_default()))?;
            }
            on(node, "dpkg -i /lab/bottega_1.deb").map(drop)
        })?;
        on(
            &cluster.server,
            &format!(
                "install -d -o bottega -g bottega -m 2751 {EXPORT}
                mkdir -p /etc/exports.d
                echo '{EXPORT} 10.77.0.0/24(rw,sync,no_subtree_check,root_squash)' >/etc/exports.d/bottega.exports
                systemctl enable --now nfs-server"
            ),
        )?;
        cluster.configure()?;
        cluster.mount(&plan.mount)?;
        fs::write(dir.join("plan.json"), serde_json::to_vec(plan)?)?;
        Ok(cluster)
    }

    /// The cluster that is up in `dir`, if one is; it runs on when this is dropped.
    ///
    /// # Errors
    /// What was noted of it cannot be read.
    pub fn attach(dir: &Path, cache: &Path) -> Result<Option<Self>> {
        let Ok(noted) = fs::read(dir.join("plan.json")) else { return Ok(None) };
        let plan: Plan = serde_json::from_slice(&noted)?;
        let network = Network::of(dir)?;
        if !network.is_there()? {
            return Ok(None);
        }
        let image = image(cache)?;
        let machines = machines(dir, &image, &network, plan.nodes);
        let mut nodes = machines.into_iter().map(Node::attach).collect::<io::Result<Vec<_>>>()?;
        let server = nodes.remove(0);
        Ok(Some(Self { dir: dir.to_owned(), network, server, nodes, _lock: None }))
    }

    /// Ends the cluster in `dir`, and whatever is left of one whose maker was killed; nothing where there is none.
    ///
    /// # Errors
    /// Somebody else works on that lab, or something does not end.
    pub fn down(dir: &Path) -> Result<()> {
        let _lock = lock(dir)?;
        clear(dir)
    }

    /// [`Cluster::down`] for whoever works on the lab itself, from whatever thread.
    ///
    /// # Errors
    /// Something does not end.
    pub fn abandon(dir: &Path) -> Result<()> {
        clear(dir)
    }

    /// Lets it run on when this is dropped.
    pub fn leave(mut self) {
        self.server.leave();
        self.nodes.iter_mut().for_each(Node::leave);
    }

    /// A directory of the host for what a scenario leaves.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether a node's machine runs.
    ///
    /// # Errors
    /// The network is gone.
    pub fn is_running(&self, node: &Node) -> io::Result<bool> {
        self.network.holds(node.process())
    }

    /// Cuts or mends the wire of node `n`, from 0.
    ///
    /// # Errors
    /// It is not there.
    pub fn set_connected(&self, n: usize, is_connected: bool) -> Result<()> {
        // The first wire is the server's.
        Ok(self.network.set_connected(u32::try_from(n)? + 2, is_connected)?)
    }

    /// Mends whatever was broken, as far as it can be without the spool: what stands still goes on, what is down begins
    /// again, and all are connected.
    ///
    /// # Errors
    /// A node does not come up.
    pub fn heal(&mut self) -> Result<()> {
        for n in 0..self.nodes.len() {
            self.set_connected(n, true)?;
        }
        for node in self.nodes.iter_mut().chain([&mut self.server]) {
            if self.network.holds(node.process())? {
                node.thaw()?;
            } else {
                node.restart()?;
            }
        }
        on(&self.server, &format!("rm -f {EXPORT}/filler {EXPORT}/rest; systemctl start nfs-server"))?;
        self.each(false, |node| Ok(node.until_up()?))
    }

    /// Does something on every node at once, on the server too if `with_server`.
    ///
    /// # Errors
    /// The first that fails.
    pub fn each(&self, with_server: bool, work: impl Fn(&Node) -> Result<()> + Sync) -> Result<()> {
        let work = &work;
        std::thread::scope(|scope| {
            let nodes = self.nodes.iter().chain(with_server.then_some(&self.server));
            let begun: Vec<_> = nodes.map(|node| scope.spawn(move || work(node))).collect();
            begun.into_iter().try_for_each(|node| node.join().map_err(|_| anyhow::anyhow!("a panic"))?)
        })
    }

    /// Mounts the spool on every node in another way, by its line in fstab.
    ///
    /// # Errors
    /// A node cannot.
    pub fn mount(&self, mount: &Mount) -> Result<()> {
        let line = mount.fstab();
        self.each(false, |node| {
            let script = format!(
                "set -e
                mkdir -p {EXPORT}
                mountpoint -q {EXPORT} && umount {EXPORT}
                sed -i '\\|{EXPORT}|d' /etc/fstab
                echo '{line}' >>/etc/fstab
                systemctl daemon-reload
                mount {EXPORT}"
            );
            on(node, &script).map(drop)
        })
    }

    /// The one file to edit: what docs/install.md says, and that these nodes have no engine.
    fn configure(&self) -> Result<()> {
        self.each(false, |node| {
            let script = format!(
                "set -e
                for pair in containers=false native=true reserved_disk_gib=0.0 reserved_memory_gib=0.0 slot_cores=1; do
                    grep -q \"^#*${{pair%=*}} = \" {CONFIG}
                    sed -i \"s|^#*${{pair%=*}} = .*|${{pair%=*}} = ${{pair#*=}}|\" {CONFIG}
                done
                sed -i 's|^# spool = .*|spool = \"{SPOOL}\"|' {CONFIG}
                runuser -u bottega -- bottega config check
                systemctl daemon-reload"
            );
            on(node, &script).map(drop)
        })
    }
}

/// Runs a shell script as root on a node; gives what it said, trimmed.
///
/// # Errors
/// It fails or does not end in time; the error has all that it said.
pub fn on(node: &Node, script: &str) -> Result<String> {
    let said = node.try_run(script, SCRIPT_MAX);
    let said = said.with_context(|| format!("{}: no end of: {script}\n{}", node.name(), node.console()))?;
    if said.status != 0 {
        bail!("{}: status {} of: {script}\n{}", node.name(), said.status, said.text);
    }
    Ok(said.text.trim().to_owned())
}

/// Repeats a script until it succeeds.
///
/// # Errors
/// It does not within `at_most`; the error has what it said last.
pub fn until(node: &Node, at_most: Duration, script: &str) -> Result<String> {
    let began = Instant::now();
    loop {
        match on(node, script) {
            Ok(said) => return Ok(said),
            Err(error) if began.elapsed() > at_most => {
                return Err(error.context(format!("not within {} s", at_most.as_secs())));
            }
            Err(_) => std::thread::sleep(LOOK_PAUSE),
        }
    }
}

/// The server first.
fn machines(dir: &Path, image: &Path, network: &Network, nodes: u32) -> Vec<Machine> {
    let machine = |number: u32| {
        let name = if number == 1 { "server".to_owned() } else { format!("node{}", number - 1) };
        Machine {
            image: image.to_owned(),
            dir: dir.join(&name),
            network: Some(network.connection(number)),
            disk: (number == 1).then(|| dir.join("spool.img")),
            name,
        }
    };
    (1..=nodes + 1).map(machine).collect()
}

/// One works on a lab at a time.
fn lock(dir: &Path) -> Result<File> {
    fs::create_dir_all(dir)?;
    let lock = File::open(dir)?;
    if lock.try_lock().is_err() {
        bail!("somebody else works on the lab in {}; wait, or name another with --dir", dir.display());
    }
    Ok(lock)
}

/// Ends what runs for a lab, and empties its directory.
fn clear(dir: &Path) -> Result<()> {
    Network::of(dir)?.remove()?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let ran = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(ran.status.success(), "{command:?}: {}", printed(&ran));
    Ok(())
}
