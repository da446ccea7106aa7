//! The worker daemon: reads the command line, the environment and the machine, then works until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use base_images::{IMAGE_PREFIX, PythonVersion};
use clap::{Parser, Subcommand};
use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit};
use queue_format::{EventLog, Incarnation, Labels, Ledger, Life, LifeLock, Owner, Spool, Token};
use systemd::{Environment, Notifier, Shutdown, Source};
use uuid::Uuid;
use worker::Worker;
use worker::attempt::Workshop;
use worker::board::Board;
use worker::config::{BuildNetwork, WorkerConfig};
use worker::disk::DiskReserve;
use worker::engine::{Docker, DockerOptions, Engine, Network};
use worker::prepare;
use worker::repository::RepositoryCache;
use worker::run::{SUPERVISE, end_native_commands_of, end_native_commands_of_the_dead, supervise};
use worker::seats::Seats;
use worker::slots::{CpuLocks, Machine, plan};
use worker::synthesis::Rules;
use worker::topology::{CpuSet, Topology, recording_of_this_machine};

/// The exit status of a worker that ends since others take it for dead; its supervisor starts it again.
const EXIT_FENCED: i32 = 75;

/// How long the removal of containers may take when the worker ends.
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// Claims tasks from a spool, builds and verifies their environments in containers.
#[derive(Debug, Parser)]
#[command(name = "bottega-worker", version, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The spool.
    #[arg(long, env = "BOTTEGA_SPOOL", required_unless_present = "print_config")]
    spool: Option<PathBuf>,
    /// Where this node keeps its ledger, locks and work directories; on a local disk.
    #[arg(long, global = true)]
    state: Option<PathBuf>,
    /// The configuration; its [worker] section counts.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Print the effective configuration as TOML and end.
    #[arg(long)]
    print_config: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the worker sees of this machine, and the slots that it would make of it.
    #[command(hide = true)]
    Topology {
        /// Print a recording of this machine instead, to be sent with a report of what is wrong in it.
        #[arg(long)]
        record: bool,
    },
    /// Do as root what a worker that is not root cannot: make the control groups of its slots, and give them to whoever
    /// owns the state directory. For ExecStartPre=+.
    #[command(hide = true)]
    Prepare,
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
    let config: WorkerConfig =
        systemd::config::load(&Source::named_or_default(cli.config.clone()), "worker")?;
    config.check().map_err(anyhow::Error::msg)?;
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
    if let Some(Command::Prepare) = cli.command {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(prepare_node(cli, &config, &environment));
    }
    systemd::log::init("info", &environment)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(cli, config, &environment))
}

async fn serve(cli: &Cli, config: WorkerConfig, environment: &Environment) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let notifier = Notifier::new(environment);
    let spool = Spool::open(cli.spool.as_deref().context("--spool is missing")?)?;
    let state_dir =
        cli.state.clone().or_else(|| systemd::state_dir(nix::unistd::geteuid().is_root(), environment));
    let state_dir =
        state_dir.context("there is no home directory to keep the node's state in; name one with --state")?;
    let owner = Owner::new(&systemd::hostname(), Incarnation::new(Uuid::now_v7()));
    let ledger = Ledger::open(&state_dir)?;
    let _alive = LifeLock::hold(&state_dir, &owner)?;
    let host = environment.get("DOCKER_HOST").map(ToOwned::to_owned);
    let engine = Docker::connect(DockerOptions::new(host.clone(), ledger.clone(), Timestamp::now)).await?;
    reap_the_dead(&spool, &state_dir, &owner, &engine).await?;

    let locks = CpuLocks::open(&state_dir)?;
    let choosing = locks.choose()?;
    let mut machine = machine(&[&state_dir, &engine.facts().root_dir])?;
    machine.taken = locks.taken(&machine.topology.cores)?;
    let plan = plan(&machine, &config);
    let (mut slots, mut notices) = (plan.slots, plan.notices);
    anyhow::ensure!(!slots.is_empty(), "{}", notices.join("; "));
    let join_wait = Duration::from_secs(config.join_wait_seconds);
    let seats = Arc::new(Seats::new(slots.clone(), locks, join_wait, time_since_boot)?);
    drop(choosing);
    notices.extend(engine.facts().warnings.iter().cloned());
    for slot in &mut slots {
        let why_not = engine.confine(slot.cpus[0], &mut slot.limits).err();
        notices.extend(why_not.filter(|why_not| !notices.contains(why_not)));
    }
    for notice in &notices {
        tracing::warn!("{notice}");
    }
    let pythons = available_pythons(&engine).await?;
    let newest =
        pythons.last().context("no base image is on this node; make them with: bottega images build")?;
    let build_network = match config.build_network {
        BuildNetwork::Bridge => Network::Bridge,
        BuildNetwork::Host => Network::Host,
        BuildNetwork::Auto => {
            let labels = Labels {
                spool: spool.id(),
                owner: owner.clone(),
                task: "bottega-probe".parse()?,
                token: Token(0),
                object: Uuid::now_v7(),
            };
            engine.probe_build_network(&newest.image(), &labels, &slots[0].limits).await?
        }
    };
    let shown: Vec<String> = pythons.iter().map(ToString::to_string).collect();
    tracing::info!(%owner, slots = slots.len(), ?build_network, pythons = shown.join(" "), "ready");
    notifier.ready(&format!("{} slots", slots.len()));
    let engine_dir = engine.facts().root_dir.clone();
    let reserved_disk_gib = config.reserved_disk_gib;
    let git_timeout = Duration::from_secs(config.git_timeout_seconds);
    let worker = Worker {
        board: Board::new(owner.clone(), &slots, notices),
        shop: Workshop {
            repositories: RepositoryCache::new(&state_dir.join("repositories"), git_timeout),
            engine,
            config,
            build_network,
            pythons,
        },
        new_brain: Rules::default,
        seats,
        listed_at: std::sync::Mutex::new(None),
        poll: Arc::default(),
        breaker: std::sync::Mutex::default(),
        clock: time_since_boot,
        control: Arc::default(),
        log: EventLog::new(&spool, &owner),
        disks: DiskReserve::new(
            vec![spool.layout().root().to_owned(), state_dir.clone(), engine_dir],
            reserved_disk_gib,
        ),
        spool,
        owner,
        program: "/proc/self/exe".into(),
        state_dir,
        ledger,
    };
    let engine = worker.shop.engine.clone();
    let (me, ledger) = (worker.owner.clone(), worker.ledger.clone());
    let die = move |why: &str| {
        tracing::error!("ending at once, to come back as a new incarnation: {why}");
        end_native_commands_of(&me);
        end_containers(&me, host, ledger);
        std::process::exit(EXIT_FENCED);
    };
    let me = worker.owner.clone();
    Arc::new(worker).run(slots, shutdown, die).await?;
    end_native_commands_of(&me);
    if !engine.settle(SETTLE_MAX).await {
        tracing::warn!("some containers could not be removed in time: they are left to the janitor");
    }
    engine.remove_groups();
    notifier.stopping("every claim is settled");
    Ok(())
}

/// Removes all that runs for this incarnation, over a connection and a runtime of its own: those of the worker may
/// hang on the spool's mount.
fn end_containers(me: &Owner, host: Option<String>, ledger: Ledger) {
    let removal = async {
        let engine = Docker::connect(DockerOptions::new(host, ledger, Timestamp::now)).await?;
        engine.remove_containers_of(me).await
    };
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(async { tokio::time::timeout(SETTLE_MAX, removal).await }));
    if !matches!(ended, Ok(Ok(Ok(())))) {
        tracing::error!("some containers could not be removed: the next start, or the janitor, does it");
    }
}

/// Counts on while the machine sleeps, unlike the clock of [`std::time::Instant`].
fn time_since_boot() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Takes back what earlier incarnations on this node left when they died, tasks and containers.
async fn reap_the_dead(
    spool: &Spool,
    state_dir: &std::path::Path,
    me: &Owner,
    engine: &Docker,
) -> anyhow::Result<()> {
    end_native_commands_of_the_dead(state_dir)?;
    for owner in spool.owners_on(me.node())? {
        if owner != *me && LifeLock::look(state_dir, &owner)? == Life::Dead {
            engine.remove_containers_of(&owner).await?;
            let tasks = spool.reap(&owner)?.tasks().len();
            tracing::info!(tasks, %owner, "taken back from an incarnation that died");
        }
    }
    Ok(())
}

async fn available_pythons(engine: &Docker) -> anyhow::Result<Vec<PythonVersion>> {
    let images = engine.images(IMAGE_PREFIX).await?;
    let mut pythons: Vec<_> = images.keys().filter_map(|name| PythonVersion::from_image(name)).collect();
    pythons.sort();
    pythons.dedup();
    Ok(pythons)
}

/// Whatever cannot be done is said and left out: the worker runs without it.
async fn prepare_node(cli: &Cli, config: &WorkerConfig, environment: &Environment) -> anyhow::Result<()> {
    let state_dir = cli.state.clone().or_else(|| systemd::state_dir(true, environment));
    let state_dir = state_dir.context("name the worker's state directory with --state")?;
    let owner =
        prepare::Owner::of(&state_dir).with_context(|| format!("{} is not there", state_dir.display()))?;
    let say = |why: &str| eprintln!("bottega-worker: {why}");
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
    let locks = CpuLocks::open(&state_dir)?;
    let mut machine = machine(&[&state_dir, &engine.facts().root_dir])?;
    machine.taken = locks.taken(&machine.topology.cores)?;
    prepare::give_dir(locks.dir(), owner).unwrap_or_else(|why| say(&why));
    prepare::prepare(engine.facts(), &plan(&machine, config).slots, owner).iter().for_each(|why| say(why));
    Ok(())
}

fn tell_topology(cli: &Cli, config: &WorkerConfig, environment: &Environment) -> anyhow::Result<String> {
    let state_dir =
        cli.state.clone().or_else(|| systemd::state_dir(nix::unistd::geteuid().is_root(), environment));
    let machine = machine(&state_dir.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    Ok(machine.topology.tell(&plan(&machine, config)))
}

/// This machine; `dirs` is where containers and their tasks write.
fn machine(dirs: &[&std::path::Path]) -> anyhow::Result<Machine> {
    let (_, nofile_max) =
        getrlimit(Resource::RLIMIT_NOFILE).context("cannot ask how many files may be open")?;
    // One that cannot be asked is elsewhere: an engine on another host.
    let free = dirs.iter().filter_map(|dir| fs2::available_space(dir).ok());
    Ok(Machine {
        topology: Topology::read("/".as_ref()),
        nofile_max,
        free_disk_bytes: free.min(),
        taken: CpuSet::default(),
    })
}
