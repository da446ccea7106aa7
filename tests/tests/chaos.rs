//! A cluster on real NFS, and the worst that happens to one: a short selection of `make chaos`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::harness::{printed, program, wait_for};
use tests::lab::chaos::{self, SCENARIOS};
use tests::lab::{Cluster, Mount, Network, Plan, Timing, can_run};

/// Far longer than anything here takes on an idle machine.
const SOON: Duration = Duration::from_mins(5);

fn cache() -> PathBuf {
    program("bottega").ancestors().nth(2).expect("the target directory").join("lab")
}

#[test]
#[ignore = "it takes ten minutes: cargo test -p tests --test chaos -- --ignored"]
fn a_cluster_keeps_its_promises_whoever_loses_power_stands_still_or_is_restarted() {
    if !can_run() {
        return;
    }
    let dir = cache().join("chaos-test");
    let mut cluster =
        Cluster::up(&dir, &cache(), &Plan { nodes: 2, mount: Mount::default() }).expect("a cluster");
    let chosen = ["power-loss", "freeze", "nfs-restart"];
    let rows: Vec<_> = SCENARIOS
        .iter()
        .filter(|scenario| chosen.contains(&scenario.name))
        .map(|scenario| chaos::run(&mut cluster, *scenario, 1, Timing::SHORT))
        .collect();
    drop(cluster);
    assert_eq!(rows.len(), chosen.len());
    assert!(rows.iter().all(|row| row.is_sound), "evidence in {}\n{}", dir.display(), chaos::table(&rows));
    Cluster::down(&dir).expect("removed");
}

#[test]
fn what_is_left_of_a_lab_that_was_cut_off_is_found_and_removed() {
    if !can_run() {
        return;
    }
    let dir = cache().join("left-test");
    let network = || Network::of(&dir).expect("a directory");
    let begun = || -> Child {
        let mut lab = lab(&dir, "up").args(["--nodes", "1"]).spawn().expect("started");
        let begun = wait_for(SOON, || (lab.try_wait().ok()?.is_some() || is_booting(&dir)).then_some(()));
        assert!(begun.is_some() && lab.try_wait().expect("asked").is_none(), "it began no node");
        lab
    };

    let mut killed = begun();
    killed.kill().expect("killed");
    killed.wait().expect("gone");
    assert!(network().is_there().expect("listed"), "nobody could tidy up");
    let down = lab(&dir, "down").output().expect("run");
    assert!(down.status.success(), "{}", printed(&down));
    is_gone(&dir, &network());

    let mut interrupted = begun();
    kill(Pid::from_raw(i32::try_from(interrupted.id()).expect("a pid")), Signal::SIGINT).expect("sent");
    interrupted.wait().expect("gone");
    is_gone(&dir, &network());
}

fn lab(dir: &Path, what: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--dir").arg(dir).arg(what).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Its nodes have begun, and are not up yet.
fn is_booting(dir: &Path) -> bool {
    dir.join("node1/pid").exists()
}

fn is_gone(dir: &Path, network: &Network) {
    assert!(!network.is_there().expect("listed"), "its namespace, and all that ran there");
    assert_eq!(dir.read_dir().expect("listed").count(), 0, "its files");
}
