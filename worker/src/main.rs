//! The worker daemon: reads the command line, the environment and the machine, then works until it is told to stop.

mod predecessor;
mod replay;
mod serve;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit};
use queue_format::{Ledger, PathError, Spool, TaskId, Token};
use systemd::manual::FILES;
use systemd::{Environment, Source};
use worker::agents::BrainKind;
use worker::attempt::journal::boot_id;
use worker::awaited_cpus;
use worker::config::WorkerConfig;
use worker::engine::{Docker, DockerOptions};
use worker::prepare;
use worker::run::{SUPERVISE, supervise};
use worker::slots::{CpuLocks, Machine, Plans, plan};
use worker::topology::{CpuSet, Topology, recording_of_this_machine};

use crate::serve::serve;

/// Claims tasks from a spool, builds and verifies their environments in containers.
#[derive(Debug, Parser)]
#[command(name = "bottega-worker", version, max_term_width = 100, after_long_help = format!("{SIGNALS}\n\n{FILES}"))]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The spool [default: what the configuration says].
    #[arg(long, env = "BOTTEGA_SPOOL")]
    spool: Option<PathBuf>,
    /// Where this node keeps its ledger, locks and work directories; on a local disk.
    #[arg(long, global = true)]
    state: Option<PathBuf>,
    /// The configuration; its [worker] section counts.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// What this worker is called among those of its node; each of several has a name of its own, and goes on with what
    /// the last one of its name left.
    #[arg(long, env = "BOTTEGA_INSTANCE", default_value = "worker", global = true, value_parser = instance_name)]
    instance: String,
    /// Who makes environments [default: what the configuration says].
    #[arg(long)]
    brain: Option<BrainKind>,
    /// Print the effective configuration as TOML and end.
    #[arg(long)]
    print_config: bool,
}

const SIGNALS: &str = "\
Signals:
  SIGTERM  drain: claim nothing new; hand back what is not done in
           drain_seconds, or at a second signal; at a third one
           end as it is
  SIGINT   as the second SIGTERM
  SIGUSR1  leave: containers run on for the next worker of this name
  SIGHUP   read the configuration again

Exit status:
  0   it has ended as it was told to
  1   it cannot work, and says why; or a third signal has ended it
  2   the command line is wrong
  75  not heard of for too long, its claims may be void: start it again";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the worker sees of this machine, and the slots that it would make of it.
    Topology {
        /// Print a recording of this machine instead, to be sent with a report of what is wrong in it.
        #[arg(long)]
        record: bool,
    },
    /// Make an attempt of agents again from its journal: without model and engine, byte for byte.
    Replay {
        /// The task's id.
        id: TaskId,
        /// Which attempt, such as a002 [default: the last that was recorded].
        #[arg(long)]
        attempt: Option<Token>,
    },
    /// Do as root what a worker that is not root cannot: make the control groups of its slots, and give them to whoever
    /// owns the state directory. For ExecStartPre=+.
    Prepare,
}

/// It is a part of file names.
fn instance_name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("write letters, digits, and - _ . after the first".to_owned()),
    }
}

impl Cli {
    fn state_dir(&self, environment: &Environment) -> Option<PathBuf> {
        let usual = || systemd::state_dir(nix::unistd::geteuid().is_root(), environment);
        self.state.clone().or_else(usual)
    }
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == SUPERVISE) {
        return supervise();
    }
    if let Some(status) = systemd::manual::asked::<Cli>(std::env::args_os()) {
        return status;
    }
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bottega-worker: {}", systemd::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let environment = Environment::from_os(std::env::vars_os());
    let source = Source::named_or_default(cli.config.clone());
    let mut config = systemd::config::load_checked(&source, "worker", WorkerConfig::check)?;
    if let Some(brain) = cli.brain {
        config.brain = brain;
        config.check().map_err(anyhow::Error::msg)?;
    }
    if cli.print_config {
        print!("{}", systemd::config::print(&config, "worker")?);
        return Ok(());
    }
    if let Some(Command::Topology { record }) = cli.command {
        print!(
            "{}",
            if record { recording_of_this_machine() } else { tell_topology(cli, &config, &environment)? }
        );
        return Ok(());
    }
    if let Some(Command::Replay { id, attempt }) = &cli.command {
        let spool = systemd::config::named_or_said_spool(cli.spool.clone(), &source)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        return runtime.block_on(replay::run(&Spool::open(&spool)?, id, *attempt, config.git_timeouts()));
    }
    if let Some(Command::Prepare) = cli.command {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(prepare_node(cli, &config, &environment));
    }
    systemd::log::init("info", &environment)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(cli, source, config, &environment))
}

/// Whatever cannot be done is said and left out: the worker runs without it.
async fn prepare_node(cli: &Cli, config: &WorkerConfig, environment: &Environment) -> anyhow::Result<()> {
    let state_dir = cli.state.clone().or_else(|| systemd::state_dir(true, environment));
    let state_dir = state_dir.context("name the worker's state directory with --state")?;
    let owner =
        prepare::Owner::of(&state_dir).with_context(|| format!("{} is not there", state_dir.display()))?;
    let say = |why: &str| eprintln!("bottega-worker: {why}");
    // Until the groups are made no other chooses, nor takes these locks for those of a worker.
    let (locks, _choosing) = owner.act(|| {
        let locks = CpuLocks::open(&state_dir)?;
        let choosing = locks.choose()?;
        Ok::<_, PathError>((locks, choosing))
    })??;
    // Nothing is made with this engine: its ledger may be any.
    let nowhere = tempfile::tempdir()?;
    let host = environment.get("DOCKER_HOST").map(ToOwned::to_owned);
    let options = DockerOptions::new(host, Ledger::open(nowhere.path())?, Timestamp::now);
    let engine = match Docker::connect(options).await {
        Ok(engine) => engine,
        Err(error) => {
            say(&format!("slots get no control groups: {error}"));
            return Ok(());
        }
    };
    let mut machine = machine(&[&state_dir, &engine.facts().root_dir])?;
    owner.act(|| see_others(&mut machine, &locks, &state_dir, &boot_id(), &cli.instance))??;
    prepare::prepare(engine.facts(), &plan(&machine, config).slots, owner).iter().for_each(|why| say(why));
    Ok(())
}

/// What other workers of the node have, or will have again: the CPUs of attempts that wait for them, which it gives, too.
pub(crate) fn see_others(
    machine: &mut Machine,
    locks: &CpuLocks,
    state_dir: &Path,
    boot: &str,
    instance: &str,
) -> Result<CpuSet, PathError> {
    let (locked, awaited) = (locks.taken(&machine.topology.cores)?, awaited_cpus(state_dir, boot, instance)?);
    machine.taken = locked.iter().chain(awaited.iter()).collect();
    let plans = Plans::of(state_dir, boot);
    machine.theirs = plans.of_others(instance, &machine.taken);
    machine.free_disk_bytes = plans.free_disk(instance, machine.free_disk_bytes)?;
    Ok(awaited)
}

fn tell_topology(cli: &Cli, config: &WorkerConfig, environment: &Environment) -> anyhow::Result<String> {
    // Where there is none yet, the first worker makes it there.
    let state_dir = cli.state_dir(environment).map(std::path::absolute).transpose()?;
    let made = state_dir.iter().flat_map(|dir| dir.ancestors()).find(|dir| dir.exists());
    let machine = machine(&made.into_iter().collect::<Vec<_>>())?;
    Ok(machine.topology.tell(&plan(&machine, config)))
}

/// This machine; `dirs` is where containers and their tasks write.
pub(crate) fn machine(dirs: &[&Path]) -> anyhow::Result<Machine> {
    let (_, nofile_max) =
        getrlimit(Resource::RLIMIT_NOFILE).context("cannot ask how many files may be open")?;
    // One that cannot be asked is elsewhere: an engine on another host.
    let free = dirs.iter().filter_map(|dir| fs2::available_space(dir).ok());
    Ok(Machine {
        topology: Topology::read("/".as_ref()),
        nofile_max,
        free_disk_bytes: free.min(),
        taken: Default::default(),
        theirs: Default::default(),
    })
}
