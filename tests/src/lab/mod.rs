//! A real cluster on one machine: a server of NFS and nodes that work, each with a kernel and a systemd of its own, and
//! what can happen to it.

mod cluster;
mod network;
mod oracle;
pub mod package;
mod work;

pub use cluster::{Cluster, EXPORT, Mount, NODES_MAX, Plan, SPOOL, on, until};
pub use network::Network;
pub use oracle::{Judgement, judge};
pub use work::{Published, Timing, as_user, start};

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
