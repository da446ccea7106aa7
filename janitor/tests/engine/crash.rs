//! A janitor that is killed in the middle leaves nothing that the next one does not finish.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queue_format::{Incarnation, LifeLock, Owner};
use uuid::Uuid;

use crate::node::Node;

/// Removals are slow enough that a kill comes in between; how many there are must not be known.
const CONTAINERS: usize = 24;

#[tokio::test]
async fn a_killed_janitor_is_finished_by_the_next() {
    let node = Node::new().await;
    let owner = Owner::new(&systemd::hostname(), Incarnation::new(Uuid::now_v7()));
    drop(LifeLock::hold(&node.state(), &owner).expect("a lock"));
    let task = format!("crash-{}", node.hostname);
    node.claim(&owner, &task, 1);
    let images = node.build(&node.labels(&owner, &task, 1)).await;
    let image = images.last().expect("an image");
    for _ in 0..CONTAINERS {
        node.container(image, &node.labels(&owner, &task, 1)).await;
        node.work_dir(&node.labels(&owner, &task, 1));
    }
    let config = "grace_seconds = 0\nparallel_removals = 1\n";
    let mut first = node.command("once", config).stderr(Stdio::null()).spawn().expect("started");
    let mut waited = 0;
    while node_progress(&node) < 5 {
        assert!(first.try_wait().expect("a child").is_none(), "it ended before it was killed");
        assert!(waited < 3000, "no removal within a minute");
        waited += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    kill(Pid::from_raw(first.id().cast_signed()), Signal::SIGKILL).expect("killed");
    assert!(!first.wait().expect("ended").success());
    assert!(!node.left().await.is_empty(), "it was killed too late to show anything");

    let second = node.command("once", config).output().expect("run");
    assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
    assert!(node.left().await.is_empty());
    assert_eq!(std::fs::read_dir(node.state().join("work")).expect("work").count(), 0);
    // The build's entry outlives its images by one run: only what is seen to be gone is forgotten.
    let third = node.command("once", config).output().expect("run");
    assert!(third.status.success(), "{}", String::from_utf8_lossy(&third.stderr));
    assert_eq!(node.ledger().entries().expect("entries"), []);
}

fn node_progress(node: &Node) -> usize {
    let text = std::fs::read_to_string(node.state().join(janitor::AUDIT_FILE)).unwrap_or_default();
    text.lines().filter(|line| line.contains("\"removed\"")).count()
}
