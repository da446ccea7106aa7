//! From the configuration to a worker that works, and to its end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use base_images::{IMAGE_PREFIX, PythonVersion};
use jiff::Timestamp;
use queue_format::{
    EventLog, Incarnation, Labels, Ledger, LifeLock, Owner, Spool, SpoolError, Token, node_name,
};
use systemd::{Environment, Notifier, Reload, Shutdown, Source, state_file};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use uuid::Uuid;
use worker::agents::{BrainKind, Llm, Surroundings};
use worker::attempt::Workshop;
use worker::attempt::journal::boot_id;
use worker::board::{Board, Topic};
use worker::breaker::Breaker;
use worker::config::{BuildNetwork, WorkerConfig};
use worker::disk::DiskReserve;
use worker::engine::{Docker, DockerOptions, Engine, Network, NodeEngine};
use worker::repository::RepositoryCache;
use worker::run::{end_native_commands_of, kinds};
use worker::seats::Seats;
use worker::slots::{CpuLocks, Plans, Slot, plan};
use worker::{Mandate, Worker};

use crate::predecessor::{Node, SETTLE_MAX};
use crate::{Cli, machine, see_others};

/// The exit status of a worker that ends since others take it for dead; its supervisor starts it again.
const EXIT_FENCED: i32 = 75;

/// How long is waited before an engine is looked for again that did not answer.
const CONNECT_PAUSE: Duration = Duration::from_secs(10);
/// And before it is asked again what builds reach, which may take a minute and a half.
const PROBE_PAUSE: Duration = Duration::from_secs(60);

/// How long the log may take to be written when the process leaves.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// The file in the state directory that says what builds can reach.
const BUILD_NETWORK: &str = "build-network";

/// Works until it is told to stop.
pub(crate) async fn serve(
    cli: &Cli,
    source: Source,
    config: WorkerConfig,
    environment: &Environment,
) -> anyhow::Result<()> {
    let notifier = Notifier::new(environment);
    let spool = systemd::config::named_or_said_spool(cli.spool.clone(), &source)?;
    let (live, reading) = watch::channel(config.clone());
    // Some keys hold at once and others after a restart: both now and then it must be fit.
    let check = {
        let started_with = config.clone();
        move |config: &WorkerConfig| {
            config.check().and_then(|()| config.clone().reloaded(&started_with).0.check())
        }
    };
    let reload = Reload::listen(source, "worker", config.clone(), check, notifier.clone())?;
    let shutdown = Shutdown::on_signals_draining({
        let reading = reading.clone();
        move || reading.borrow().drain_max()
    })?;
    let spool = loop {
        match Spool::open(&spool) {
            Ok(spool) => break spool,
            // Not mounted yet, or not any more.
            Err(error @ (SpoolError::Path(_) | SpoolError::NotASpool(_)))
                if notifier.watchdog_interval().is_some() =>
            {
                if !wait(&notifier, &shutdown, &error.to_string(), CONNECT_PAUSE).await {
                    return Ok(());
                }
            }
            Err(error) => return Err(error.into()),
        }
    };
    let state_dir = cli
        .state_dir(environment)
        .context("there is no home directory to keep the node's state in; name one with --state")?;
    let ledger = Ledger::open(&state_dir)?;
    let host = environment.get("DOCKER_HOST").map(ToOwned::to_owned);
    let options = DockerOptions::new(host, ledger.clone(), Timestamp::now);
    let Some(engine) = connect(&config, &options, &notifier, &shutdown).await? else { return Ok(()) };
    let facts = engine.facts();
    let local: Vec<&Path> =
        [state_dir.as_path()].into_iter().chain(facts.map(|facts| facts.root_dir.as_path())).collect();

    let locks = CpuLocks::open(&state_dir)?;
    let _named = locks.name(&cli.instance)?.with_context(|| {
        format!(
            "a worker called {} runs on this node already: end it, or call this one otherwise with --instance",
            cli.instance
        )
    })?;
    let choosing = locks.choose()?;
    let mut machine = machine(&local)?;
    let boot = boot_id();
    let awaited = see_others(&mut machine, &locks, &state_dir, &boot, &cli.instance)?;
    let plan = plan(&machine, &config);
    let (mut slots, mut notices) = (plan.slots, plan.notices);
    anyhow::ensure!(!slots.is_empty(), "{}", notices.join("; "));
    Plans::of(&state_dir, &boot).keep(&cli.instance, &machine, &slots)?;
    let join_wait = Duration::from_secs(config.join_wait_seconds);
    let seats = Arc::new(Seats::new(slots.clone(), locks, &awaited, join_wait, time_since_boot)?);
    drop(choosing);
    notices.extend(facts.iter().flat_map(|facts| facts.warnings.iter().cloned()));
    let node = Node {
        spool: &spool,
        state_dir: &state_dir,
        ledger: &ledger,
        engine: &engine,
        name: node_name(&systemd::hostname()),
    };
    let (owner, _alive, mandate) = match node.take_up(&boot, &cli.instance, &slots, &seats).await? {
        Some((owner, alive, mandate)) => (owner, alive, Some(mandate)),
        None => {
            let owner = Owner::new(&node.name, Incarnation::new(Uuid::now_v7()));
            let alive = LifeLock::hold(&state_dir, &owner)?;
            (owner, alive, None)
        }
    };
    node.reap_the_dead(&owner).await?;
    if let Some(mandate) = &mandate {
        node.clean_up(&owner, mandate).await?;
    }

    let mut of_slots = Vec::new();
    for slot in &mut slots {
        // What goes on has the group that it began with, and what another worker has is its own business.
        let goes_on = mandate.as_ref().is_some_and(|mandate| mandate.is_at_work(slot));
        if goes_on || !seats.is_held(slot.number) {
            continue;
        }
        let why_not = engine.make_ready(&slot.cpus, &mut slot.limits).await.map_err(anyhow::Error::msg)?;
        of_slots.extend(why_not.map(|why_not| (slot.number, why_not)));
    }
    for notice in &notices {
        tracing::warn!("{notice}");
    }

    let pythons = loop {
        let pythons = available_pythons(&engine).await?;
        if !config.containers || !pythons.is_empty() {
            break pythons;
        }
        let why = "no base image is on this node; make them with: bottega images build";
        if notifier.watchdog_interval().is_none() {
            anyhow::bail!(why);
        }
        if !wait(&notifier, &shutdown, why, CONNECT_PAUSE).await {
            return Ok(());
        }
    };
    // A probe needs cores that are ours, and on which nothing goes on.
    let is_free = |slot: &&Slot| {
        seats.is_held(slot.number) && !mandate.as_ref().is_some_and(|mandate| mandate.is_at_work(slot))
    };
    let auto = config.build_network == BuildNetwork::Auto;
    let remembered = remembered_network(&state_dir).filter(|_| auto);
    let build_network = match (remembered, slots.iter().find(is_free)) {
        (Some(network), None) => network,
        // What goes on must not wait for it.
        (Some(network), _) if mandate.is_some() => network,
        (_, free) => loop {
            match build_network(&config, &engine, &spool, &owner, &pythons, free).await {
                Ok(network) => break network,
                Err(why) => match remembered {
                    Some(network) => {
                        let said = format!("builds get the network that was found before: {why:#}");
                        tracing::warn!("{said}");
                        notices.push(said);
                        break network;
                    }
                    None if notifier.watchdog_interval().is_none() || free.is_none() => return Err(why),
                    None => {
                        if !wait(&notifier, &shutdown, &format!("{why:#}"), PROBE_PAUSE).await {
                            return Ok(());
                        }
                    }
                },
            }
        },
    };
    // Who builds nothing has found out nothing.
    if auto && build_network != Network::None {
        let (path, text) = (state_dir.join(BUILD_NETWORK), format!("{build_network:?}\n"));
        if let Err(error) = state_file::replace(&path, text.as_bytes(), 0o644) {
            tracing::warn!("{} cannot be written: {error}; it is found out again next time", path.display());
        }
    }
    let shown: Vec<String> = pythons.iter().map(ToString::to_string).collect();
    tracing::info!(%owner, slots = slots.len(), ?build_network, pythons = shown.join(" "), "ready");
    let mut disks = vec![spool.layout().root().to_owned()];
    disks.extend(local.iter().map(|dir| dir.to_path_buf()));
    let board = Board::new(owner.clone(), &slots, notices);
    board.set_kinds(kinds(&config));
    for (slot, why_not) in of_slots {
        for news in board.tell(Topic::Slot(slot), [why_not]) {
            tracing::warn!("{news}");
        }
    }
    let surroundings = Surroundings {
        credentials_dir: environment.get("CREDENTIALS_DIRECTORY").map(Into::into),
        clock: time_since_boot,
        random,
    };
    let llm = Arc::new(Llm::new(&config.agents, surroundings));
    if config.brain != BrainKind::Rules
        && let Some(why) = llm.obstacle()
    {
        anyhow::bail!(why);
    }
    let worker = Worker {
        board,
        shop: Workshop {
            repositories: RepositoryCache::new(&state_dir.join("repositories"), config.git_timeouts()),
            engine: engine.clone(),
            config: config.clone(),
            build_network,
            pythons,
        },
        config: reading,
        instance: cli.instance.clone(),
        boot,
        notifier: notifier.clone(),
        llm,
        seats,
        turned_at: AtomicU64::new(time_since_boot().as_secs()),
        listed_at: std::sync::Mutex::new(None),
        poll: Arc::default(),
        breaker: std::sync::Mutex::new(Breaker::untested()),
        clock: time_since_boot,
        control: Arc::default(),
        log: EventLog::new(&spool, &owner),
        disks: DiskReserve::new(disks, config.reserved_disk_gib),
        spool: spool.clone(),
        owner: owner.clone(),
        program: "/proc/self/exe".into(),
        state_dir: state_dir.clone(),
        ledger,
    };
    let die = {
        let (me, state_dir) = (owner.clone(), state_dir.clone());
        move |why: &str| {
            tracing::error!("ending at once, to come back as a new incarnation: {why}");
            end_native_commands_of(&me);
            // What is void is gone on with by nobody.
            let _ = LifeLock::forget_attempts(&state_dir, &me);
            crate::predecessor::end_containers(&me, options);
            std::process::exit(EXIT_FENCED);
        }
    };
    let mandate = match mandate {
        Some(mandate) => mandate,
        None => Mandate::new(&spool, &owner)?,
    };
    leave_on_signal(&notifier, &worker.log)?;
    tokio::spawn(end_at_once(shutdown.clone()));
    notifier.ready(&worker.board.line());
    let worker = Arc::new(worker);
    let heeding = tokio::spawn(heed_reloads(reload, live, worker.clone(), cli.brain));
    worker.run(slots, mandate, shutdown, die).await?;
    heeding.abort();
    end_native_commands_of(&owner);
    if let NodeEngine::Docker(docker) = &engine
        && !docker.settle(SETTLE_MAX, |_| true).await
    {
        tracing::warn!("some containers could not be removed in time: they are left to the janitor");
    }
    if let NodeEngine::Docker(docker) = &engine {
        docker.remove_groups();
    }
    LifeLock::forget_attempts(&state_dir, &owner)?;
    notifier.stopping("every claim is settled");
    Ok(())
}

/// The engine, if this node has one. Under a supervisor that watches, one that does not answer yet is waited for; `None`
/// where the worker was told to end meanwhile.
async fn connect(
    config: &WorkerConfig,
    options: &DockerOptions,
    notifier: &Notifier,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<NodeEngine>> {
    if !config.containers {
        return Ok(Some(NodeEngine::None));
    }
    let mut has_waited = false;
    loop {
        match Docker::connect(options.clone()).await {
            Ok(docker) if has_waited && !docker.facts().limits_build_processes => anyhow::bail!(
                "the container engine came after this start, which made no control groups of slots without it: beginning anew"
            ),
            Ok(docker) => return Ok(Some(NodeEngine::Docker(docker))),
            Err(error) if notifier.watchdog_interval().is_none() => return Err(error.into()),
            Err(error) => {
                has_waited = true;
                let why = format!("waiting for the container engine: {error}");
                if !wait(notifier, shutdown, &why, CONNECT_PAUSE).await {
                    return Ok(None);
                }
            }
        }
    }
}

/// Waits before something is tried again that a start needs, and tells of it; false where the worker was told to end.
async fn wait(notifier: &Notifier, shutdown: &Shutdown, why: &str, pause: Duration) -> bool {
    tracing::warn!("{why}");
    notifier.waiting(why, pause * 3);
    tokio::select! {
        () = shutdown.draining() => false,
        () = tokio::time::sleep(pause) => true,
    }
}

async fn build_network(
    config: &WorkerConfig,
    engine: &NodeEngine,
    spool: &Spool,
    owner: &Owner,
    pythons: &[PythonVersion],
    free: Option<&Slot>,
) -> anyhow::Result<Network> {
    let (NodeEngine::Docker(docker), Some(newest)) = (engine, pythons.last()) else {
        return Ok(Network::None);
    };
    Ok(match config.build_network {
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
            let free = free.context(
                "every core is another worker's, and none is free to find out what builds can reach: give this worker cores \
                 of its own (worker.slots of the other), or say worker.build_network",
            )?;
            docker.probe_build_network(&newest.image(), &labels, &free.limits).await?
        }
    })
}

/// What the process before this one found.
fn remembered_network(state_dir: &Path) -> Option<Network> {
    let text = std::fs::read_to_string(state_dir.join(BUILD_NETWORK)).ok()?;
    [Network::Bridge, Network::Host].into_iter().find(|network| format!("{network:?}") == text.trim())
}

/// SIGUSR1 ends this process and nothing else: its containers run on for the one that comes after. What it was writing
/// is as after a crash, which is what every other part is made for.
fn leave_on_signal(notifier: &Notifier, log: &EventLog) -> anyhow::Result<()> {
    let mut leave = signal(SignalKind::user_defined1()).context("cannot handle signals")?;
    let (notifier, log) = (notifier.clone(), log.clone());
    tokio::spawn(async move {
        if leave.recv().await.is_some() {
            tracing::info!("leaving: containers run on for the worker that comes after this one");
            notifier.stopping("leaving: containers run on for the worker that comes after this one");
            // What happened since the last beat; nothing depends on it, and the spool may hang.
            let written = tokio::task::spawn_blocking(move || log.flush(Timestamp::now()));
            let _ = tokio::time::timeout(LEAVE_MAX, written).await;
            std::process::exit(0);
        }
    });
    Ok(())
}

async fn end_at_once(shutdown: Shutdown) {
    shutdown.now().await;
    tracing::warn!("asked once more: ending at once, and the next start takes back what is left");
    std::process::exit(1);
}

/// What holds for the next attempts; what only a start can change is said.
async fn heed_reloads(
    mut reload: Reload<WorkerConfig>,
    live: watch::Sender<WorkerConfig>,
    worker: Arc<Worker<NodeEngine>>,
    brain: Option<BrainKind>,
) {
    let started_with = live.borrow().clone();
    loop {
        let (mut config, keys) = reload.next().await.reloaded(&started_with);
        config.brain = brain.unwrap_or(config.brain);
        let restart = (!keys.is_empty()).then(|| {
            let mut said = "changed in the configuration, and holds after the next restart: worker.".to_owned();
            said += &keys.join(", worker.");
            if keys.iter().any(|key| ["slots", "slot_cores", "reserved_cores"].contains(key)) {
                said += "; what runs in slots of other cores then begins again, unless the worker is drained first";
            }
            said
        });
        let endpoints = worker.llm.reload(&config.agents).err().map(|why| {
            format!("changed in the configuration, and the endpoints of models stay as they were: {why}")
        });
        for (of, said) in [(Topic::Restart, restart), (Topic::Endpoints, endpoints)] {
            for news in worker.board.tell(of, said) {
                tracing::warn!("{news}");
            }
        }
        worker.board.set_kinds(kinds(&config));
        live.send_replace(config);
    }
}

/// Counts on while the machine sleeps, unlike the clock of [`std::time::Instant`].
fn time_since_boot() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// From 0 to 1; the low bits of a fresh UUID v7 are as random as a pause needs to be.
fn random() -> f64 {
    f64::from(Uuid::now_v7().as_u128() as u32) / f64::from(u32::MAX)
}

async fn available_pythons(engine: &NodeEngine) -> anyhow::Result<Vec<PythonVersion>> {
    let NodeEngine::Docker(engine) = engine else { return Ok(Vec::new()) };
    let images = engine.images(IMAGE_PREFIX).await?;
    let mut pythons: Vec<_> = images.keys().filter_map(|name| PythonVersion::from_image(name)).collect();
    pythons.sort();
    pythons.dedup();
    Ok(pythons)
}
