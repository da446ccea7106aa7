//! Many objects, builds all the time, a full disk, an engine that comes and goes: on an engine of the test's own.

use std::collections::{BTreeSet, HashMap};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{ListNetworksOptions, ListVolumesOptions};
use janitor::{Config, DiskUse, Janitor};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queue_format::{BuildGate, Incarnation, LifeLock, ObjectKind, Owner};
use uuid::Uuid;

use crate::common::config;
use crate::node::{Node, container_name};
use crate::own::OwnEngine;

/// The disk of an engine of the tests' own.
const DISK_BYTES: u64 = 400 << 20;
/// What one accepted image takes in the test of the full disk.
const IMAGE_BYTES: usize = 16 << 20;
/// Enough of them that a build takes a second and more.
const BUILD_STEPS: usize = 16;
/// Longer than it takes to find an engine again, and to try again what it did not do.
const FOUND_AGAIN_MAX: Duration = Duration::from_secs(180);
/// More than an engine remembers.
const EVENTS: usize = 350;
/// Passes within which a node must be clean.
const PASSES_MAX: usize = 40;

fn janitor(node: &Node, config: Config) -> Janitor {
    Janitor::open(node.place(), config, jiff::Timestamp::now, systemd::Notifier::default())
        .expect("a janitor")
}

/// Foreign objects of every kind, `number` of each, and every one of them next to being ours.
async fn canaries(node: &Node, owner: &Owner, number: usize) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let plain = node.raw_build("scratch", &HashMap::new(), "canary").await;
    let image = plain.last().expect("an image").clone();
    all.extend(plain);
    for nth in 0..number {
        let forged = node.labels(owner, "forged", 1);
        let labels = match nth % 4 {
            0 => HashMap::new(),
            1 => forged.to_map(),
            2 => {
                let recorded = queue_format::Labels { token: queue_format::Token(9), ..forged.clone() };
                node.record(&recorded, ObjectKind::Container { name: container_name(&forged) });
                forged.to_map()
            }
            _ => {
                let other = node.labels(owner, "other", 1);
                let other = queue_format::Labels {
                    spool: Uuid::now_v7().to_string().parse().expect("a spool"),
                    ..other
                };
                node.record(&other, ObjectKind::Container { name: container_name(&other) });
                other.to_map()
            }
        };
        all.insert(node.raw_container(&image, labels.clone(), Default::default()).await);
        let volume = VolumeCreateRequest {
            name: Some(format!("canary-{nth}")),
            labels: Some(labels.clone()),
            ..Default::default()
        };
        node.docker.create_volume(volume).await.expect("a volume");
        // By itself an engine has room for some thirty.
        let subnet = Some(format!("10.{}.{}.0/28", nth / 256, nth % 256));
        let config = Some(vec![IpamConfig { subnet, ..IpamConfig::default() }]);
        let network = NetworkCreateRequest {
            name: format!("canary-{nth}"),
            labels: Some(labels.clone()),
            ipam: Some(Ipam { config, ..Ipam::default() }),
            ..NetworkCreateRequest::default()
        };
        node.docker.create_network(network).await.expect("a network");
        directory(node, owner, nth);
        // Three images each: what it is tagged, and what it stands on.
        if nth % 3 == 0 {
            let tag = if nth % 2 == 0 { format!("canary-{nth}") } else { format!("openswe--task-{nth}") };
            all.extend(node.raw_build("scratch", &labels, &tag).await);
        }
    }
    all
}

/// A directory where work directories lie, that the ledger does not know, or another spool's, or knows elsewhere.
fn directory(node: &Node, owner: &Owner, nth: usize) {
    let path = node.state().join("work").join(format!("canary-{nth}"));
    std::fs::create_dir_all(path.join("inside")).expect("made");
    let mut labels = node.labels(owner, "theirs", 1);
    match nth % 3 {
        0 => return,
        1 => labels.spool = Uuid::now_v7().to_string().parse().expect("a spool"),
        _ => labels.owner = Owner::new("elsewhere", Incarnation::new(Uuid::now_v7())),
    }
    node.record(&labels, ObjectKind::WorkDir { path });
}

/// How many volumes, networks and directories are left of those of a person.
async fn others_left(node: &Node) -> [usize; 3] {
    let volumes = node.docker.list_volumes(None::<ListVolumesOptions>).await.expect("volumes");
    let networks = node.docker.list_networks(None::<ListNetworksOptions>).await.expect("networks");
    let is_canary = |name: &Option<String>| name.as_ref().is_some_and(|name| name.starts_with("canary-"));
    let networks = networks.iter().filter(|network| is_canary(&network.name));
    let directories = std::fs::read_dir(node.state().join("work")).expect("directories").flatten();
    let directories = directories.filter(|dir| dir.path().join("inside").is_dir());
    [volumes.volumes.unwrap_or_default().len(), networks.count(), directories.count()]
}

/// What a dead worker and ended tasks leave, `number` of each kind.
async fn leftovers(node: &Node, owner: &Owner, number: usize) {
    let built = node.build(&node.labels(owner, &format!("ended-{}", node.hostname), 1)).await;
    let image = built.last().expect("an image").clone();
    for _ in 0..number {
        node.container(&image, &node.labels(owner, "ended", 1)).await;
        node.work_dir(&node.labels(owner, "ended", 1));
    }
}

async fn clean(node: &Node, janitor: &mut Janitor, kept: &BTreeSet<String>) {
    for _ in 0..PASSES_MAX {
        janitor.pass().await.expect("a pass");
        if node.left().await == *kept {
            return;
        }
    }
    let left = node.left().await;
    let lost: Vec<_> = kept.difference(&left).collect();
    let more: Vec<_> = left.difference(kept).collect();
    panic!("lost {lost:?}, and still there {more:?}: {:?}", janitor.troubles());
}

async fn canaries_survive(number: usize) {
    let engine = OwnEngine::start(DISK_BYTES);
    let node = Node::at(&engine.address()).await;
    let (owner, _alive) = node.living_owner();
    let kept = canaries(&node, &owner, number).await;
    leftovers(&node, &owner, 20).await;
    clean(&node, &mut janitor(&node, config()), &kept).await;
    assert_eq!(others_left(&node).await, [number; 3]);
    println!("of {number} foreign things of each kind and {} containers and images: none lost", kept.len());
}

#[tokio::test]
async fn canaries_of_every_kind_survive() {
    canaries_survive(24).await;
}

#[tokio::test]
#[ignore = "a thousand of each kind take minutes; make janitor-long"]
async fn a_thousand_canaries_of_every_kind_survive() {
    canaries_survive(1000).await;
}

/// What became of builds beside a janitor in a tight loop.
#[derive(Debug)]
struct Built {
    done: usize,
    failed: Vec<String>,
    removed: usize,
}

async fn build_beside_a_janitor(builds: usize, with_gate: bool) -> Built {
    let engine = OwnEngine::start(DISK_BYTES);
    let node = Node::at(&engine.address()).await;
    let (owner, _alive) = node.living_owner();
    let gate = BuildGate::open(&node.state()).expect("a gate");
    node.raw_build("scratch", &HashMap::new(), "from").await;
    let (ended, failed) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
    let is_over = AtomicBool::new(false);
    let one = async |slot: usize| {
        for nth in 0..builds {
            let task = format!("built-{slot}-{nth}");
            let claim = node.claim(&owner, &task, 1);
            let labels = node.labels(&owner, &task, 1);
            node.record(&labels, ObjectKind::Build { image: queue_format::image_name(&labels.task) });
            let _building = match with_gate {
                true => {
                    let gate = gate.clone();
                    Some(
                        tokio::task::spawn_blocking(move || gate.build())
                            .await
                            .expect("asked")
                            .expect("a lock"),
                    )
                }
                false => None,
            };
            // With a look into the cache at each of its steps.
            let names: [String; BUILD_STEPS] = std::array::from_fn(|nth| format!("file-{nth}"));
            let files = names.each_ref().map(|name| (name.as_str(), name.as_bytes()));
            let tag = queue_format::image_name(&labels.task);
            if let Err(error) = node.try_build("from", &labels.to_map(), &tag, &files, false).await {
                failed.lock().expect("unpoisoned").push(error);
            }
            ended.fetch_add(1, Ordering::Relaxed);
            std::fs::remove_file(claim).expect("the task ended");
        }
    };
    let building = async {
        futures_util::future::join_all((0..3).map(one)).await;
        is_over.store(true, Ordering::Relaxed);
    };
    // On a full disk the first pass that has something to remove keeps builds waiting, and each of these makes one.
    std::fs::write(engine.root().join("filler"), vec![1; DISK_BYTES as usize / 20]).expect("written");
    let full = Config { disk_low_percent: 1, disk_high_percent: 2, ..config() };
    let sweeping = async {
        let mut removed = 0;
        while !is_over.load(Ordering::Relaxed) {
            removed += janitor(&node, full.clone()).once().await.expect("a pass").removed;
        }
        removed
    };
    let ((), removed) = tokio::join!(building, sweeping);
    Built { done: ended.into_inner(), failed: failed.into_inner().expect("unpoisoned"), removed }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_build_fails_beside_a_janitor_in_a_tight_loop() {
    let built = build_beside_a_janitor(6, true).await;
    assert_eq!((built.done, built.failed.as_slice()), (18, [].as_slice()));
    assert!(built.removed > 0, "images went meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "hundreds of builds take minutes; make janitor-long"]
async fn none_of_hundreds_of_builds_fails_and_without_the_lock_some_may() {
    let built = build_beside_a_janitor(80, true).await;
    assert_eq!(built.failed, [""; 0]);
    println!(
        "with the lock: {} builds, {} failed, {} removals",
        built.done,
        built.failed.len(),
        built.removed
    );
    let bare = build_beside_a_janitor(80, false).await;
    println!(
        "without it: {} builds, {} failed, {} removals: {:?}",
        bare.done,
        bare.failed.len(),
        bare.removed,
        bare.failed.first()
    );
}

#[tokio::test]
async fn a_full_disk_is_freed_to_the_low_mark_oldest_first() {
    let engine = OwnEngine::start(DISK_BYTES);
    let node = Node::at(&engine.address()).await;
    let (owner, _alive) = node.living_owner();
    let used = || DiskUse::of(&engine.root()).expect("a disk");
    let percent = |disk: &DiskUse| disk.used_bytes * 100 / disk.total_bytes;
    let mut images = Vec::new();
    let mut nth = 0u8;
    // A build needs room for its context too.
    while percent(&used()) < 82 {
        let task = format!("accepted-{nth}-{}", node.hostname);
        let labels = node.labels(&owner, &task, 1);
        node.record(&labels, ObjectKind::Build { image: queue_format::image_name(&labels.task) });
        let content = vec![nth; IMAGE_BYTES];
        let tag = queue_format::image_name(&labels.task);
        let built = node
            .try_build("scratch", &labels.to_map(), &tag, &[("file", &content)], true)
            .await
            .expect("built");
        node.accept(&owner, &task, 1);
        images.push(built);
        nth += 1;
    }
    // A foreign image, and a live one, older than all that is used from here on.
    let canary = node.raw_build("scratch", &HashMap::new(), "canary").await;
    let live = images.remove(0);
    node.claim(&owner, &format!("accepted-0-{}", node.hostname), 1);
    let full = Config { disk_low_percent: 50, disk_high_percent: 70, disk_emergency_percent: 80, ..config() };
    let mut janitor = janitor(&node, full);
    let before = used();
    let (mut told, mut passes) = (0, 0);
    while percent(&used()) > 50 && passes < PASSES_MAX {
        told += janitor.pass().await.expect("a pass").bytes;
        passes += 1;
    }
    let after = used();
    assert!(percent(&after) <= 50, "{after:?} after {passes} passes: {:?}", janitor.troubles());
    let freed = before.used_bytes - after.used_bytes;
    assert!(told.abs_diff(freed) * 20 <= freed, "told {told}, freed {freed}");
    let left = node.left().await;
    assert!(live.iter().chain(&canary).all(|id| left.contains(id)), "live and foreign images stay");
    let stay = images.iter().filter(|image| left.contains(image.last().expect("an image"))).count();
    assert!(stay > 0 && stay < images.len(), "no more goes than must: {stay} of {}", images.len());
}

#[tokio::test]
async fn an_engine_that_is_restarted_in_the_middle_is_cleaned_in_the_end() {
    let mut engine = OwnEngine::start(DISK_BYTES);
    let node = Node::at(&engine.address()).await;
    let (owner, _alive) = node.living_owner();
    let kept = canaries(&node, &owner, 6).await;
    leftovers(&node, &owner, 12).await;
    let slow = Config { parallel_removals: 1, engine_timeout_seconds: 30, period_seconds: 1, ..config() };
    let mut janitor = janitor(&node, slow);
    janitor.listen();
    janitor.pass().await.expect("a pass");
    // Killed while removals go on: what fails is told, and nothing else is touched.
    let restart = async {
        while node.audit().iter().filter(|line| line["event"] == "removed").count() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        engine.kill();
    };
    let (report, ()) = tokio::join!(janitor.pass(), restart);
    report.expect("a pass");
    assert_eq!(janitor.pass().await.expect("a pass without an engine").failed, 0);
    assert!(!janitor.engine_answers());
    engine.up();
    // It is asked less and less often, and found again by the same daemon.
    let until = Instant::now() + FOUND_AGAIN_MAX;
    while node.left().await != kept {
        assert!(Instant::now() < until, "{:?} {:?}", janitor.troubles(), node.left().await);
        tokio::time::sleep(Duration::from_millis(200)).await;
        janitor.pass().await.expect("a pass");
    }
    assert!(janitor.engine_answers());
}

/// More events than an engine remembers, between two passes.
#[tokio::test]
async fn who_listens_misses_no_use_of_an_image_however_much_happens() {
    let engine = OwnEngine::start(DISK_BYTES);
    let node = Node::at(&engine.address()).await;
    let quiet = node.raw_build("scratch", &HashMap::new(), "quiet").await.pop().expect("an image");
    let busy = node.raw_build("scratch", &HashMap::new(), "busy").await.pop().expect("an image");
    let used_at = || {
        let text = std::fs::read(node.state().join("janitor-uses.json")).expect("uses");
        let uses: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        [&quiet, &busy].map(|id| uses["images"][id].as_str().expect("a time").to_owned())
    };
    let options = |repository: &str| {
        bollard::query_parameters::TagImageOptionsBuilder::new().repo(repository).tag("1").build()
    };
    let check = async |listens: bool| {
        let mut janitor = janitor(&node, config());
        if listens {
            janitor.listen();
        }
        let mut pass = async || {
            // With this it writes down what it knows.
            janitor.look_further();
            janitor.pass().await.expect("a pass");
            used_at()
        };
        // The first one hears the builds.
        pass().await;
        let before = pass().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        for _ in 0..EVENTS {
            node.docker.tag_image(&busy, Some(options("busy-too"))).await.expect("tagged");
        }
        let after = pass().await;
        assert_ne!(before[1], after[1], "it is used all the time");
        assert_eq!(before[0] == after[0], listens, "{before:?} {after:?}");
    };
    check(true).await;
    check(false).await;
}

async fn killed_at_random(kills: u64) {
    let engine = OwnEngine::start(DISK_BYTES);
    let node = Node::at(&engine.address()).await;
    let owner = Owner::new(&systemd::hostname(), Incarnation::new(Uuid::now_v7()));
    drop(LifeLock::hold(&node.state(), &owner).expect("a lock"));
    let kept = canaries(&node, &owner, 6).await;
    for nth in 0..kills {
        leftovers(&node, &owner, 4).await;
        let mut child =
            node.command("once", "grace_seconds = 0\n").stderr(Stdio::null()).spawn().expect("started");
        // Anywhere from its start to its end, which takes some hundred milliseconds.
        tokio::time::sleep(Duration::from_millis(nth * 37 % 600)).await;
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        let _ = child.wait();
    }
    for _ in 0..3 {
        let ended = node.command("once", "grace_seconds = 0\n").output().expect("run");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    assert_eq!(node.left().await, kept);
    let entries = node.ledger().entries().expect("entries");
    assert!(entries.iter().all(|entry| entry.task.as_str() != "ended"), "{entries:?}");
}

#[tokio::test]
#[ignore = "takes minutes; make janitor-long"]
async fn whenever_it_is_killed_the_next_one_finishes() {
    killed_at_random(40).await;
}
