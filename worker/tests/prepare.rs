//! What `bottega-worker prepare` does as root in a directory that is not root's.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Output};

/// Nobody's, on most systems; the worker's here.
const USER: u32 = 65534;

/// With an engine that does not answer: no control group is made on this machine.
fn prepare(state: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bottega-worker"));
    command.args(["prepare", "--state"]).arg(state).env("DOCKER_HOST", "unix:///nowhere/engine.sock");
    command.output().unwrap()
}

#[test]
fn root_goes_through_no_link_of_the_workers_user() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root prepares a node for somebody else");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let (state, roots) = (dir.path().join("state"), dir.path().join("roots"));
    fs::create_dir(&state).unwrap();
    fs::create_dir(&roots).unwrap();
    fs::set_permissions(&roots, Permissions::from_mode(0o700)).unwrap();
    chown(&state, Some(USER), Some(USER)).unwrap();

    let ran = prepare(&state);
    assert!(ran.status.success(), "{ran:?}");
    let (locks, lock) = (state.join("cpus"), state.join("cpus/choosing"));
    for made in [&locks, &lock] {
        let made = fs::metadata(made).unwrap();
        assert_eq!((made.uid(), made.gid()), (USER, USER));
    }

    fs::remove_file(&lock).unwrap();
    symlink(roots.join("made"), &lock).unwrap();
    let ran = prepare(&state);
    assert!(!roots.join("made").exists(), "root made a file where a link led");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success() && said.contains("choosing"), "{ran:?}");
}
