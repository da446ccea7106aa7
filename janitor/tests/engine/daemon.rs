//! The binary as systemd and people meet it.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queue_format::{Incarnation, LifeLock, Owner};
use uuid::Uuid;

use crate::node::Node;

/// Far longer than any of it takes; it only keeps a failing test from hanging.
const BOUND: Duration = Duration::from_secs(60);

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn it_is_ready_after_a_pass_removes_and_ends_on_sigterm() {
    let node = Node::new().await;
    let owner = Owner::new(&systemd::hostname(), Incarnation::new(Uuid::now_v7()));
    drop(LifeLock::hold(&node.state(), &owner).expect("a lock"));
    let dir = node.work_dir(&node.labels(&owner, "ended", 1));
    let socket = node.state().join("notify.sock");
    let listener = UnixDatagram::bind(&socket).expect("a socket");
    listener.set_read_timeout(Some(BOUND)).expect("a time-out");
    let mut command = node.command("run", "grace_seconds = 1\nperiod_seconds = 1\n");
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000").stderr(Stdio::null());
    let mut running = Running(command.spawn().expect("started"));

    let said = |wanted: &str| {
        // Every message counts: a watchdog's among them.
        for _ in 0..1000 {
            let mut bytes = [0; 4096];
            let length = listener.recv(&mut bytes).expect("a message in time");
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.contains(wanted) {
                return text;
            }
        }
        panic!("it never said {wanted}");
    };
    assert!(said("READY=1").contains("STATUS=removed 0"));
    said("WATCHDOG=1");
    said("STATUS=removed 1");
    assert!(!dir.exists());
    kill(Pid::from_raw(running.0.id().cast_signed()), Signal::SIGTERM).expect("signalled");
    said("STOPPING=1");
    assert!(running.0.wait().expect("ended").success());
}

#[tokio::test]
async fn errors_name_their_remedy() {
    let node = Node::new().await;
    let check = |config: &str, spool: &str, expected: &str| {
        let mut command = node.command("plan", config);
        if !spool.is_empty() {
            command.arg("--spool").arg(spool);
        }
        let output = command.output().expect("run");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(expected), "{error}");
    };
    check(
        "grace = 1",
        "",
        "line 6: there is no key \"janitor.grace\"; did you mean \"janitor.grace_seconds\"?",
    );
    check("deletions_max = 0", "", "janitor.deletions_max is 0, expected 1 to 4294967296");
    let printed = node.command("plan", "grace_seconds = 7").arg("--print-config").output().expect("run");
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(text.starts_with("[janitor]\ngrace_seconds = 7\nperiod_seconds = 15\n"), "{text}");
    let bare = assert_cmd::Command::cargo_bin("bottega-janitor")
        .expect("built")
        .arg("plan")
        .args(["--spool", "/nonexistent"])
        .assert()
        .failure();
    let error = String::from_utf8_lossy(&bare.get_output().stderr).into_owned();
    assert!(error.contains("make one with: bottega init --spool /nonexistent"), "{error}");
}
