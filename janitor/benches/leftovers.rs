//! What a pass costs beside the engine's own lists, removals beside one after the other, and what others leave and take of
//! the same: on an engine of its own. Prints Markdown tables. Needs root, dockerd, docker; docuum where it is on PATH or
//! cargo can install it.
#![expect(clippy::unwrap_used, reason = "a bench")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/engine/node.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod node;
#[path = "../tests/engine/own.rs"]
mod own;

use std::collections::{BTreeSet, HashMap};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveContainerOptionsBuilder,
};
use common::config;
use futures_util::StreamExt;
use janitor::{Config, DiskUse, Janitor};
use node::{Node, Shape, container_name};
use own::OwnEngine;
use queue_format::ObjectKind;

const DISK_BYTES: u64 = 2 << 30;
const CONTAINERS: usize = 1000;
/// Each is three images.
const BUILDS: usize = 334;
const ZOMBIES: usize = 200;
const CANARIES: usize = 50;
const ROUNDS: usize = 7;
const FREED_IMAGES: usize = 20;
const FREED_IMAGE_BYTES: usize = 16 << 20;
/// docuum never ends by itself.
const DOCUUM_SECONDS: u64 = 30;

fn janitor(node: &Node, config: Config) -> Janitor {
    Janitor::open(node.place(), config, jiff::Timestamp::now, systemd::Notifier::default()).unwrap()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::main]
async fn main() {
    // `cargo test` asks benches for their lists too.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let engine = OwnEngine::start(DISK_BYTES);
    idle(&engine).await;
    drop(engine);
    zombies().await;
    freed().await;
    peers().await;
}

async fn idle(engine: &OwnEngine) {
    let node = Node::at(&engine.address()).await;
    let mut image = String::new();
    for nth in 0..BUILDS {
        image = node.raw_build("scratch", &HashMap::new(), &format!("foreign-{nth}")).await.pop().unwrap();
    }
    for _ in 0..CONTAINERS {
        node.raw_container(&image, HashMap::new(), Shape::default()).await;
    }
    let mut janitor = janitor(&node, config());
    let (mut passes, mut lists) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        janitor.pass().await.unwrap();
        passes.push(began.elapsed());
        let began = Instant::now();
        let options = ListContainersOptionsBuilder::new().all(true).build();
        node.docker.list_containers(Some(options)).await.unwrap();
        let options = ListImagesOptionsBuilder::new().all(true).build();
        node.docker.list_images(Some(options)).await.unwrap();
        lists.push(began.elapsed());
    }
    let (pass, list) = (median(passes), median(lists));
    println!("| a pass with nothing to do over {CONTAINERS} containers and {} images | ms |", BUILDS * 3);
    println!("|---|---|");
    println!("| the engine's own lists | {} |", list.as_millis());
    println!("| beyond them | {} |", pass.saturating_sub(list).as_millis());
    let [resident, peak] = resident_kilobytes(&node).await;
    println!("| resident, as a daemon, kB | {resident} |\n| at its peak | {peak} |\n");
}

/// What the daemon holds after some passes, and the most that it held; with the environment of its unit.
async fn resident_kilobytes(node: &Node) -> [String; 2] {
    let unit = include_str!("../../systemd/units/bottega-janitor.service");
    let environment = unit.lines().filter_map(|line| line.strip_prefix("Environment="));
    let mut command = node.command("run", "grace_seconds = 0\nperiod_seconds = 1\n");
    command.envs(environment.flat_map(str::split_whitespace).filter_map(|pair| pair.split_once('=')));
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    ["VmRSS:", "VmHWM:"].map(|field| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").to_owned()
    })
}

/// An image whose containers run until they are killed, as those of a dead worker's tasks do.
async fn pausing_image(node: &Node) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("pause.c"), dir.path().join("pause"));
    std::fs::write(&source, "int pause(void); int main(void) { for (;;) pause(); }").unwrap();
    let compiled = Command::new("cc").arg("-static").arg("-o").arg(&program).arg(&source).status();
    assert!(compiled.unwrap().success());
    let files: [(&str, &[u8]); 1] = [("pause", &std::fs::read(&program).unwrap())];
    node.try_build("scratch", &HashMap::new(), "pausing", &files, true).await.unwrap().pop().unwrap()
}

async fn zombies() {
    println!("| {ZOMBIES} zombies | s | times one by one | the engine alone, s | times one by one |");
    println!("|---|---|---|---|---|");
    for runs in [false, true] {
        let mut serial = None;
        for parallel in [1, 8, 32] {
            let engine = OwnEngine::start(DISK_BYTES);
            let node = Node::at(&engine.address()).await;
            let image = pausing_image(&node).await;
            let shape = Shape { runs, ..Shape::default() };
            let bare = bare_removals(&node, &image, shape, parallel).await;
            let (owner, _alive) = node.living_owner();
            for _ in 0..ZOMBIES {
                let labels = node.labels(&owner, "ended", 1);
                node.record(&labels, ObjectKind::Container { name: container_name(&labels) });
                node.raw_container(&image, labels.to_map(), shape).await;
            }
            let mut janitor = janitor(&node, Config { parallel_removals: parallel, ..config() });
            janitor.pass().await.unwrap();
            let began = Instant::now();
            let report = janitor.pass().await.unwrap();
            let took = began.elapsed().as_secs_f64();
            assert_eq!(report.removed, ZOMBIES);
            let (one, bare_one) = *serial.get_or_insert((took, bare));
            println!(
                "| {}, {parallel} in flight | {took:.2} | {:.1} | {bare:.2} | {:.1} |",
                if runs { "running" } else { "never started" },
                one / took,
                bare_one / bare
            );
        }
    }
    println!();
}

/// How long the engine takes for as many removals with nobody looking at anything.
async fn bare_removals(node: &Node, image: &str, shape: Shape<'_>, parallel: usize) -> f64 {
    let mut ids = Vec::new();
    for _ in 0..ZOMBIES {
        ids.push(node.raw_container(image, HashMap::new(), shape).await);
    }
    let began = Instant::now();
    futures_util::stream::iter(ids)
        .for_each_concurrent(parallel, async |id| {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            node.docker.remove_container(&id, Some(options)).await.unwrap();
        })
        .await;
    began.elapsed().as_secs_f64()
}

/// What a pass says that it freed, beside what the disk says.
async fn freed() {
    let engine = OwnEngine::start(DISK_BYTES);
    let node = Node::at(&engine.address()).await;
    let (owner, _alive) = node.living_owner();
    for nth in 0..FREED_IMAGES {
        let labels = node.labels(&owner, &format!("ended-{nth}"), 1);
        let tag = queue_format::image_name(&labels.task);
        node.record(&labels, ObjectKind::Build { image: tag.clone() });
        let content = vec![nth as u8; FREED_IMAGE_BYTES];
        node.try_build("scratch", &labels.to_map(), &tag, &[("file", &content)], true).await.unwrap();
    }
    let used = || DiskUse::of(&engine.root()).unwrap().used_bytes;
    let before = used();
    let told = janitor(&node, config()).once().await.unwrap().bytes;
    let freed = before - used();
    println!("| bytes of {FREED_IMAGES} images | told | freed | off by, % |\n|---|---|---|---|");
    println!("| | {told} | {freed} | {:.2} |\n", told.abs_diff(freed) as f64 * 100.0 / freed as f64);
}

/// The same leftovers and canaries for each.
async fn peers() {
    println!(
        "| on the same node | s | leftovers left of {} | foreign objects taken of {} |",
        ZOMBIES + 3,
        CANARIES + 3
    );
    println!("|---|---|---|---|");
    peer("bottega-janitor once", async |node| {
        let mut janitor = janitor(node, config());
        janitor.once().await.unwrap();
        true
    })
    .await;
    peer("docker container prune", async |node| {
        docker(node, &["container", "prune", "--force"]);
        true
    })
    .await;
    peer("docker system prune --all", async |node| {
        docker(node, &["system", "prune", "--all", "--force"]);
        true
    })
    .await;
    let docuum = docuum();
    peer("docuum, ended after that time", async |node| {
        let Some(docuum) = &docuum else { return false };
        let mut command = Command::new(docuum);
        command.args(["--threshold", "1 B"]).env("DOCKER_HOST", node.place().engine.unwrap());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_secs(DOCUUM_SECONDS)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        true
    })
    .await;
}

async fn peer(name: &str, sweep: impl AsyncFn(&Node) -> bool) {
    let engine = OwnEngine::start(DISK_BYTES);
    let node = Node::at(&engine.address()).await;
    let mut foreign: BTreeSet<String> =
        node.raw_build("scratch", &HashMap::new(), "canary").await.into_iter().collect();
    let image = foreign.last().unwrap().clone();
    for _ in 0..CANARIES {
        foreign.insert(node.raw_container(&image, HashMap::new(), Shape::default()).await);
    }
    let (owner, _alive) = node.living_owner();
    node.build(&node.labels(&owner, "ended", 1)).await;
    for _ in 0..ZOMBIES {
        node.container(&image, &node.labels(&owner, "ended", 1)).await;
    }
    let began = Instant::now();
    if !sweep(&node).await {
        println!("| {name} | not installed | | |");
        return;
    }
    let took = began.elapsed().as_secs_f64();
    let left = node.left().await;
    let taken = foreign.difference(&left).count();
    println!("| {name} | {took:.2} | {} | {taken} |", left.difference(&foreign).count());
}

fn docker(node: &Node, arguments: &[&str]) {
    let mut command = Command::new("docker");
    let done = command.args(arguments).env("DOCKER_HOST", node.place().engine.unwrap()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// From PATH, or from the registry into a directory of the bench's own.
fn docuum() -> Option<String> {
    let answers = |program: &str| {
        Command::new(program).arg("--version").output().is_ok_and(|done| done.status.success())
    };
    if answers("docuum") {
        return Some("docuum".to_owned());
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench/docuum");
    let program = format!("{root}/bin/docuum");
    if !answers(&program) {
        let _ =
            Command::new("cargo").args(["install", "docuum", "--locked", "--quiet", "--root", root]).status();
    }
    answers(&program).then_some(program)
}
