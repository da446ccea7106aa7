//! A real cluster on one machine: a server of NFS and nodes that work, each with a kernel and a systemd of its own, and
//! what can happen to it.

pub mod chaos;
mod cluster;
pub mod figures;
mod network;
mod oracle;
pub mod package;
mod work;

pub use cluster::{Cluster, EXPORT, Mount, NODES_MAX, Plan, SPOOL, on, until};
pub use network::Network;
pub use oracle::{Judgement, judge};
pub use work::{Published, Timing, as_user, start};

/// Whether a lab can be made here: by root, who may make network namespaces and taps. Where not, says so for all to see.
///
/// # Panics
/// What is missing could be installed: the message says how.
#[must_use]
pub fn can_run() -> bool {
    if !crate::node::can_run() {
        return false;
    }
    let missing = crate::node::missing(&["ip"]);
    assert!(
        missing.is_empty(),
        "ip is missing; install: apt-get install iproute2 (systemd/set-up.sh does it)"
    );
    let is_allowed = Network::is_allowed();
    if !is_allowed {
        crate::node::say_skipped("no cluster was tried; nobody here may make network namespaces and taps");
    }
    is_allowed
}

/// Resolves once this process is told to end.
pub async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
