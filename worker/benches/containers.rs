//! What containers cost by way of the worker's engine beside the raw calls, and what a neighbour on other cores costs.
//! Prints Markdown tables: ratios within one run. Needs a container engine and the base image.
#![expect(clippy::unwrap_used, reason = "a bench")]

use std::path::Path;
use std::time::{Duration, Instant};

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions,
};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use queue_format::{Incarnation, Labels, Ledger, Owner, Token};
use uuid::Uuid;
use worker::config::{ReservedCores, WorkerConfig};
use worker::engine::{Docker, DockerOptions, Engine, RunRequest};
use worker::slots::{Machine, Slot, plan};
use worker::topology::Topology;

const IMAGE: &str = "openswe-python-3.11";
/// Of each kind, in turn.
const RUNS: usize = 15;
const VICTIM_RUNS: usize = 4;
/// Prints the CPU time that it took.
const VICTIM: &str = "import time; sum(i * i for i in range(12_000_000)); print(time.process_time())";

fn labels() -> Labels {
    Labels {
        spool: serde_json::from_str("\"018f0000-0000-7000-8000-000000000000\"").unwrap(),
        owner: Owner::new("bench", Incarnation::new(Uuid::now_v7())),
        task: "bench".parse().unwrap(),
        token: Token(1),
        object: Uuid::now_v7(),
    }
}

/// This machine's slots of one core each, as a worker makes them.
async fn slots(engine: &Docker) -> Vec<Slot> {
    let (taken, theirs) = Default::default();
    let topology = Topology::read(Path::new("/"));
    let machine = Machine { topology, nofile_max: 1024, free_disk_bytes: None, taken, theirs };
    let config = WorkerConfig {
        slot_cores: 1,
        slot_memory_gib: 0.5,
        slot_disk_gib: 1.0,
        reserved_cores: ReservedCores::Cpus(0),
        reserved_memory_gib: 0.0,
        ..WorkerConfig::default()
    };
    let mut slots = plan(&machine, &config).slots;
    for slot in &mut slots {
        engine.make_ready(&slot.cpus, &mut slot.limits).await.unwrap();
    }
    slots
}

fn request(command: &[&str], slot: &Slot) -> RunRequest {
    let command = command.iter().map(|&word| word.to_owned()).collect();
    RunRequest::new(IMAGE, command, labels(), &slot.limits)
}

/// Create, start, wait, remove, with as little as the engine takes.
async fn raw_run(engine: &bollard::Docker) -> Duration {
    let began = Instant::now();
    let host_config = HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() };
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(vec!["true".to_owned()]),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    };
    let id = engine.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
    engine.start_container(&id, None::<StartContainerOptions>).await.unwrap();
    std::pin::pin!(engine.wait_container(&id, None::<WaitContainerOptions>)).next().await;
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    engine.remove_container(&id, Some(options)).await.unwrap();
    began.elapsed()
}

async fn own_run(engine: &Docker, slot: &Slot) -> Duration {
    let began = Instant::now();
    engine.run(&request(&["true"], slot)).await.unwrap();
    began.elapsed()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// CPU and wall seconds of the victim.
async fn victim(engine: &Docker, slot: &Slot) -> (f64, f64) {
    let (mut cpu, mut wall) = (Vec::new(), Vec::new());
    for _ in 0..VICTIM_RUNS {
        let outcome = engine.run(&request(&["python3", "-c", VICTIM], slot)).await.unwrap();
        cpu.push(outcome.log.trim().parse().unwrap());
        wall.push(outcome.seconds);
    }
    (median(cpu), median(wall))
}

#[tokio::main]
async fn main() {
    let state = tempfile::tempdir().unwrap();
    let host = std::env::var("DOCKER_HOST").ok();
    let ledger = Ledger::open(state.path()).unwrap();
    let engine = Docker::connect(DockerOptions::new(host, ledger, jiff::Timestamp::now)).await.unwrap();
    let raw = bollard::Docker::connect_with_defaults().unwrap().negotiate_version().await.unwrap();

    let slots = slots(&engine).await;
    let (first, others) = slots.split_first().unwrap();

    let (mut own, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        bare.push(raw_run(&raw).await.as_secs_f64());
        own.push(own_run(&engine, first).await.as_secs_f64());
    }
    let (own, bare) = (median(own), median(bare));
    println!("\n| create, start, wait, remove ({RUNS} each, in turn) | median |\n|---|---|");
    println!("| bare calls, no limits | {:.0} ms |", bare * 1e3);
    println!("| the worker's engine: ledger, limits, read back, output | {:.0} ms |", own * 1e3);
    println!("| ratio | {:.2} |", own / bare);

    if others.is_empty() {
        println!("\nSKIPPED: this machine has one core, and no neighbour");
        return;
    }
    let alone = victim(&engine, first).await;
    // On each CPU one process that never waits, and one that waits for it.
    let hogs = others.iter().map(|slot| {
        let forks = slot.cpus.len() * 2 - 1;
        let hog = format!("import os\nany(os.fork() == 0 for _ in range({forks}))\nwhile True: pass");
        let mut hog = request(&["python3", "-c", &hog], slot);
        hog.timeout = Duration::from_mins(10);
        let engine = &engine;
        async move { engine.run(&hog).await }
    });
    let mut hogs: FuturesUnordered<_> = hogs.collect();
    let beside = tokio::select! {
        ended = hogs.next() => panic!("{ended:?}"),
        beside = victim(&engine, first) => beside,
    };
    drop(hogs);
    assert!(engine.settle(Duration::from_secs(20), |_| true).await);
    println!("\n| victim on the first of {} slots | CPU time | wall time |\n|---|---|---|", slots.len());
    println!("| alone | {:.2} s | {:.2} s |", alone.0, alone.1);
    println!("| beside 100 % load on all other slots | {:.2} s | {:.2} s |", beside.0, beside.1);
    println!("| ratio | {:.2} | {:.2} |", beside.0 / alone.0, beside.1 / alone.1);
}
