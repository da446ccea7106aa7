//! `lab`: a cluster of its own on this machine.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use tests::lab::chaos::{self, Row, SCENARIOS, Scenario};
use tests::lab::{Cluster, Mount, Plan, Timing, figures};

/// How long a script of `lab sh` may take.
const SCRIPT_MAX: Duration = Duration::from_hours(1);

#[derive(Parser)]
#[command(
    about = "A cluster on this machine: a server of NFS, and nodes with the package installed. As root"
)]
struct Arguments {
    /// Where the lab lies; each has a directory of its own
    #[arg(long, global = true, value_name = "DIR", default_value = "target/lab/cluster")]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a cluster, and leave it running; one that is there is replaced.
    Up {
        /// Nodes that work, beside the server.
        #[arg(long, default_value_t = 3)]
        nodes: u32,
        /// The version of NFS.
        #[arg(long, value_enum, default_value = "4.2")]
        nfs: Nfs,
    },
    /// Tell how it is.
    Status,
    /// Run a command, or the standard input as a script, as root on server, node1, node2 …
    #[command(alias = "ssh")]
    Sh {
        /// Which.
        node: String,
        /// What, for a shell.
        command: Vec<String>,
    },
    /// Let things happen to a cluster of its own, and judge the spool after each.
    Chaos {
        /// What is drawn follows from it.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Leases of half a minute in place of three: quicker, and not what is in the field.
        #[arg(long)]
        short: bool,
        /// Nodes that work, beside the server.
        #[arg(long, default_value_t = 3)]
        nodes: u32,
        /// Keep the cluster and the evidence afterwards.
        #[arg(long)]
        keep: bool,
        /// Which; all without a name.
        scenarios: Vec<String>,
    },
    /// Measure what a spool costs on the NFS of the cluster that is up, by how it is mounted.
    Figures {
        /// Ways to mount it: a version and further options, such as 4.2,actimeo=1.
        mounts: Vec<String>,
    },
    /// End it, and whatever is left of one that was killed.
    Down,
}

#[derive(Clone, Copy, ValueEnum)]
enum Nfs {
    #[value(name = "3")]
    V3,
    #[value(name = "4.2")]
    V42,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (dir, cache) = (&arguments.dir, cache(&arguments.dir));
    match &arguments.command {
        Command::Up { nodes, nfs } => {
            let began = Instant::now();
            let version = match nfs {
                Nfs::V3 => "3",
                Nfs::V42 => "4.2",
            };
            let mount = Mount { version: version.to_owned(), ..Mount::default() };
            let cluster = until_signal(dir, || {
                let cluster = Cluster::up(dir, &cache, &Plan { nodes: *nodes, mount })?;
                cluster.begin(&Timing::default())?;
                Ok(cluster)
            })?;
            cluster.leave();
            println!("up in {} s; lab sh node1, lab status, lab down", began.elapsed().as_secs());
        }
        Command::Status => {
            let cluster = Cluster::attach(dir, &cache)?.context("there is none; lab up makes one")?;
            for node in cluster.nodes.iter().chain([&cluster.server]) {
                println!("{:8} {}", node.name(), if cluster.is_running(node)? { "runs" } else { "is down" });
            }
            print!("{}", cluster.status()?);
        }
        Command::Sh { node, command } => {
            let cluster = Cluster::attach(dir, &cache)?.context("there is none; lab up makes one")?;
            let mut nodes = cluster.nodes.iter().chain([&cluster.server]);
            let node = nodes.find(|found| found.name() == node).context("there is no such node")?;
            let mut script = command.join(" ");
            if command.is_empty() {
                std::io::stdin().read_to_string(&mut script)?;
            }
            let said = node.try_run(&script, SCRIPT_MAX).context("it does not end")?;
            print!("{}", said.text);
            return Ok(ExitCode::from(u8::try_from(said.status).unwrap_or(1)));
        }
        Command::Chaos { seed, short, nodes, keep, scenarios } => {
            let chosen = chosen(scenarios)?;
            let timing = if *short { Timing::SHORT } else { Timing::default() };
            let (cluster, rows) = until_signal(dir, || {
                let mut cluster = Cluster::up(dir, &cache, &Plan { nodes: *nodes, mount: Mount::default() })?;
                let rows: Vec<Row> = chosen
                    .into_iter()
                    .map(|scenario| {
                        println!("{}: {}", scenario.name, scenario.about);
                        let row = chaos::run(&mut cluster, scenario, *seed, timing);
                        print!("{}", chaos::table(std::slice::from_ref(&row)));
                        row
                    })
                    .collect();
                Ok((cluster, rows))
            })?;
            println!("\nseed {seed}\n{}", chaos::table(&rows));
            if *keep {
                cluster.leave();
            } else {
                drop(cluster);
                Cluster::abandon(dir)?;
            }
            if rows.iter().any(|row| !row.is_sound) {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Figures { mounts } => {
            let cluster = Cluster::attach(dir, &cache)?.context("there is none; lab up makes one")?;
            for mount in mounts {
                let (version, more) = mount.split_at(mount.find(',').unwrap_or(mount.len()));
                let mount = Mount { version: version.to_owned(), more: more.to_owned() };
                print!("{}", figures::table(&figures::measure(&cluster, &[mount])?));
            }
        }
        Command::Down => Cluster::down(dir)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen(names: &[String]) -> Result<Vec<Scenario>> {
    if names.is_empty() {
        return Ok(SCENARIOS.to_vec());
    }
    let all = || SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| {
        let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
        found.copied().with_context(|| format!("there is no scenario {name:?}, but {}", all()))
    };
    names.iter().map(find).collect()
}

/// The disk that nodes begin with is one for all labs.
fn cache(dir: &Path) -> PathBuf {
    dir.parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Does something that takes long; Ctrl-C ends it, and so does an error, and the lab in `dir` with it.
fn until_signal<T>(dir: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let abandon = |dir: &Path| {
        if let Err(error) = Cluster::abandon(dir) {
            eprintln!("lab: {error:#}; lab down tries again");
        }
    };
    runtime.spawn({
        let dir = dir.to_owned();
        async move {
            tests::lab::told_to_end().await;
            // What runs for the lab is found by its namespace, at whatever moment it is cut off.
            abandon(&dir);
            std::process::exit(130);
        }
    });
    work().inspect_err(|_| abandon(dir))
}
