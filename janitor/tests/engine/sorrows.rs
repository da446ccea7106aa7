//! What must not make it remove the wrong thing, nor stop it from removing the right one.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use janitor::{Config, Janitor, JanitorError, Place};
use queue_format::{LedgerEntry, ObjectKind, SpoolError, State};

use crate::common::config;
use crate::node::{Node, id};

async fn files_are_looked_after(node: &Node, place: Place, config: Config) {
    let (owner, _lock) = node.living_owner();
    let dead = node.dead_owner();
    node.claim(&dead, "waits", 1);
    let dir = node.work_dir(&node.labels(&owner, "ended", 1));
    let container = node.labels(&owner, "ended", 1);
    node.record(&container, ObjectKind::Container { name: "unseen".to_owned() });
    let mut janitor =
        Janitor::open(place, config, jiff::Timestamp::now, systemd::Notifier::default()).expect("a janitor");
    let report = janitor.once().await.expect("a pass without an engine");
    assert_eq!((report.removed, report.failed), (2, 0), "the lease and the directory");
    assert!(!janitor.engine_answers() && !dir.exists());
    let found = node.spool.find(&id("waits")).expect("found");
    assert!(matches!(found[0].state, State::Pending(_)));
    assert!(node.ledger().get(container.object).is_some(), "what is not seen is not forgotten");
}

#[tokio::test]
async fn an_absent_engine_stops_nothing_else() {
    let node = Node::new().await;
    let socket = format!("unix://{}", node.state().join("nobody.sock").display());
    let config = config();
    files_are_looked_after(&node, Place { engine: Some(socket), ..node.place() }, config).await;
}

#[tokio::test]
async fn a_hung_engine_stops_nothing_else() {
    let node = Node::new().await;
    let socket = node.spool.layout().root().join("hung.sock");
    // It accepts, by the kernel's queue, and never answers.
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let config = Config { engine_timeout_seconds: 1, ..config() };
    let engine = Some(format!("unix://{}", socket.display()));
    files_are_looked_after(&node, Place { engine, ..node.place() }, config).await;
}

#[tokio::test]
async fn a_spool_that_went_away_proves_nothing() {
    let node = Node::new().await;
    let (owner, _lock) = node.living_owner();
    let claim = node.claim(&owner, "live", 1);
    let dir = node.work_dir(&node.labels(&owner, "live", 1));
    let root = node.spool.layout().root().to_owned();
    let mut janitor = node.janitor();

    // Unmounted: an empty directory where the spool was.
    let text = fs::read_to_string(root.join("spool.toml")).expect("text");
    let kept = fs::read(&claim).expect("bytes");
    fs::remove_dir_all(&root).expect("removed");
    fs::create_dir(&root).expect("made");
    assert!(matches!(janitor.once().await, Err(JanitorError::Spool(_))));

    // Another spool in its place.
    queue_format::Spool::init(&root, uuid::Uuid::now_v7()).expect("a spool");
    assert!(matches!(janitor.once().await, Err(JanitorError::Spool(SpoolError::OtherSpool { .. }))));
    assert!(dir.is_dir());

    // Back again, with the claim: nothing is to be done; without it, the directory goes.
    fs::write(root.join("spool.toml"), text).expect("written");
    fs::create_dir_all(claim.parent().expect("a parent")).expect("made");
    fs::write(&claim, kept).expect("written");
    assert_eq!(janitor.once().await.expect("a pass").removed, 0);
    assert!(dir.is_dir());
    fs::remove_file(&claim).expect("removed");
    assert_eq!(janitor.once().await.expect("a pass").removed, 1);
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_directory_elsewhere_is_never_removed() {
    let node = Node::new().await;
    let (owner, _lock) = node.living_owner();
    let elsewhere = node.state().join("elsewhere");
    fs::create_dir_all(elsewhere.join("inside")).expect("made");
    let work = node.state().join("work");
    fs::create_dir_all(&work).expect("made");
    symlink(&elsewhere, work.join("link")).expect("link");
    for path in [elsewhere.clone(), work.join("link"), work.join("link/inside"), work.join("../elsewhere")] {
        node.record(&node.labels(&owner, "ended", 1), ObjectKind::WorkDir { path });
    }
    // A link inside a true work directory is removed, not followed.
    let true_dir = node.work_dir(&node.labels(&owner, "ended", 1));
    symlink(&elsewhere, true_dir.join("out")).expect("link");
    let report = node.janitor().once().await.expect("a pass");
    assert_eq!((report.removed, report.failed), (1, 0));
    assert!(elsewhere.join("inside").is_dir() && work.join("link").is_symlink() && !true_dir.exists());
}

#[tokio::test]
async fn a_pass_removes_no_more_than_it_may() {
    let node = Node::new().await;
    let (owner, _lock) = node.living_owner();
    for _ in 0..7 {
        node.work_dir(&node.labels(&owner, "ended", 1));
    }
    let left = || fs::read_dir(node.state().join("work")).expect("work").count();
    let config = Config { deletions_max: 3, ..config() };
    let mut janitor = Janitor::open(node.place(), config, jiff::Timestamp::now, systemd::Notifier::default())
        .expect("a janitor");
    let planned = janitor.plan().await.expect("a plan");
    assert_eq!(planned.last().expect("a line"), "4 more would wait: janitor.deletions_max is 3");
    let what = |lines: &[String]| -> Vec<String> {
        lines.iter().map(|line| line.split(", ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(what(&janitor.plan().await.expect("a plan")), what(&planned));
    for expected in [7, 4, 1, 0, 0] {
        janitor.pass().await.expect("a pass");
        assert_eq!(left(), expected);
    }
    let make = |count| (0..count).for_each(|_| drop(node.work_dir(&node.labels(&owner, "ended", 1))));
    make(2);
    janitor.pass().await.expect("a pass");
    // The first look of a run removes two, the second one of what it has just seen.
    make(5);
    assert_eq!(janitor.once().await.expect("a run").removed, 3);
    assert_eq!(left(), 4);
}

#[tokio::test]
async fn what_last_looks_keep_is_left_alone_for_a_while() {
    let node = Node::new().await;
    let (owner, _lock) = node.living_owner();
    let labels = node.labels(&owner, &format!("between-{}", node.hostname), 1);
    let built = node.build(&labels).await;
    let last = node.docker.inspect_image(built.last().expect("an image")).await.expect("there");
    let made_at: jiff::Timestamp = last.created.expect("a date").parse().expect("a time");
    // Engines list when an image was made in whole seconds: by the list it is older than this, by the last look younger.
    let second = jiff::Timestamp::from_second(made_at.as_second()).expect("a time");
    let entry = node.ledger().get(labels.object).expect("an entry");
    node.ledger().record(&LedgerEntry { ended_at: Some(second), ..entry }).expect("recorded");
    let mut janitor = node.janitor();
    let first = janitor.pass().await.expect("a pass");
    let (second, third) = (janitor.pass().await.expect("a pass"), janitor.pass().await.expect("a pass"));
    assert_eq!((first.removed, second.removed, third.removed), (0, 0, 0));
    assert_eq!((second.kept, third.kept), (first.waiting, 0), "{first:?} {third:?}");
    assert!(first.waiting > 0 && third.waiting == first.waiting, "{first:?} {third:?}");
}

#[tokio::test]
async fn what_is_mounted_in_a_work_directory_is_not_removed() {
    let node = Node::new().await;
    let (owner, _lock) = node.living_owner();
    let dir = node.work_dir(&node.labels(&owner, "ended", 1));
    let (precious, inside) = (node.state().join("precious"), dir.join("tree/mnt"));
    for made in [&precious, &inside] {
        fs::create_dir_all(made).expect("made");
    }
    fs::write(precious.join("thesis"), "x").expect("written");
    let run = |program: &str, arguments: &[&Path]| {
        assert!(Command::new(program).args(arguments).status().expect("it runs").success());
    };
    run("mount", &[Path::new("--bind"), &precious, &inside]);
    let mut janitor = node.janitor();
    let planned = janitor.plan().await;
    let done = janitor.once().await;
    run("umount", &[&inside]);
    assert_eq!(planned.expect("a plan"), Vec::<String>::new());
    assert_eq!(done.expect("a pass").kept, 1);
    assert!(precious.join("thesis").exists() && inside.exists());
    let why = node.audit().last().expect("a line").to_string();
    assert!(why.contains("something is mounted in it"), "{why}");
    node.janitor().once().await.expect("a pass");
    assert!(!dir.exists() && precious.join("thesis").exists());
}

#[tokio::test]
async fn what_the_ledger_cannot_tell_any_more_is_told() {
    let node = Node::new().await;
    let (owner, _lock) = node.living_owner();
    let labels = node.labels(&owner, "ended", 1);
    let dir = node.work_dir(&labels);
    let entry = node.state().join(format!("ledger/{}.json", labels.object));
    fs::write(&entry, "{").expect("written");
    let mut janitor = node.janitor();
    assert_eq!(janitor.once().await.expect("a pass").removed, 0);
    assert!(dir.exists());
    let told = janitor.troubles().join("; ");
    assert!(told.contains(&entry.display().to_string()), "{told}");
    fs::remove_file(entry).expect("removed");
    janitor.pass().await.expect("a pass");
    assert_eq!(janitor.troubles(), Vec::<String>::new());
}

#[tokio::test]
async fn an_engine_that_should_be_there_is_missed() {
    let node = Node::new().await;
    for what in ["once", "plan"] {
        let mut command = node.command(what, "grace_seconds = 0\n");
        let done = command.env("DOCKER_HOST", "unix:///nonexistent/engine.sock").output().expect("it runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{what}: {said}");
        assert!(said.contains("containers and images were not looked at"), "{said}");
    }
}
