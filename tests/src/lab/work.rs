//! A spool on the cluster, the daemons that work on it, and tasks for them.

use std::time::Duration;

use anyhow::{Context, Result};

use super::cluster::{Cluster, DAEMONS, SPOOL, on, until};
use crate::node::Node;

/// How long daemons may take to start or to end where nothing hangs.
const SOON: Duration = Duration::from_mins(3);

/// When a silent daemon is a dead one; `None` for the spool's own default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing(Option<[u64; 3]>);

impl Timing {
    /// As short as nodes can bear that share two processors: a beat, the fence and the silence in seconds.
    pub const SHORT: Self = Self(Some([3, 20, 30]));

    /// How long the server waits for its clients: after a restart, and before it forgets one that is gone. While it does,
    /// what a dead node had open cannot be moved, so it is kept below the silence, as 90 s are below 180.
    fn server_seconds(self) -> u64 {
        if self.0.is_some() { 10 } else { 90 }
    }

    /// The fence.
    #[must_use]
    pub fn fence(self) -> Duration {
        let default = queue_format::Timing::default();
        Duration::from_secs(self.0.map_or(default.fence_seconds, |[_, fence, _]| fence))
    }

    /// The silence.
    #[must_use]
    pub fn silence(self) -> Duration {
        let default = queue_format::Timing::default();
        Duration::from_secs(self.0.map_or(default.silence_seconds, |[_, _, silence]| silence))
    }
}

/// Tasks that were published: `<name>-000001` prints `<name>-1`, and so on.
#[derive(Clone, Debug)]
pub struct Published {
    /// What their ids begin with.
    pub name: String,
    /// How many.
    pub count: usize,
}

impl Cluster {
    /// An empty spool on the server, a worker on every node, a master and a janitor on the first.
    ///
    /// # Errors
    /// A daemon does not start.
    pub fn begin(&self, timing: &Timing) -> Result<()> {
        self.end()?;
        on(&self.server, &format!("rm -rf {SPOOL} {SPOOL}.*"))?;
        let seconds = timing.server_seconds();
        on(
            &self.server,
            &format!(
                "mkdir -p /etc/nfs.conf.d
                printf '[nfsd]\ngrace-time={seconds}\nlease-time={seconds}\n' >/tmp/lab.conf
                cmp -s /tmp/lab.conf /etc/nfs.conf.d/lab.conf || {{
                    mv /tmp/lab.conf /etc/nfs.conf.d/lab.conf
                    systemctl restart nfs-server
                }}"
            ),
        )?;
        let first = self.nodes.first().context("a lab has a node")?;
        let timing = timing.0.map_or_else(String::new, |[beat, fence, silence]| {
            format!(
                "printf '[timing]\\nbeat_seconds = {beat}\\nfence_seconds = {fence}\\nsilence_seconds = {silence}\\n' \
                 >>{SPOOL}/spool.toml"
            )
        });
        // What a node remembers of the spool before may be a minute old.
        let made =
            format!("runuser -u bottega -- sh -ec 'umask 027; bottega init --spool {SPOOL}; '\"{timing}\"");
        until(first, SOON, &made)?;
        self.each(false, |node| {
            until(node, SOON, &format!("runuser -u bottega -- grep -q format {SPOOL}/spool.toml"))
                .map(drop)?;
            start(node, "bottega-worker")
        })?;
        start(first, "bottega-master")?;
        start(first, "bottega-janitor")
    }

    /// Ends all daemons, in whatever state they are.
    ///
    /// # Errors
    /// One does not end.
    pub fn end(&self) -> Result<()> {
        self.each(false, |node| {
            on(
                node,
                &format!(
                    "systemctl kill --signal=KILL {DAEMONS} 2>/dev/null
                    systemctl disable --now bottega.target {DAEMONS} 2>/dev/null
                    systemctl stop {DAEMONS} && systemctl reset-failed
                    rm -rf /var/lib/bottega/* && sync"
                ),
            )
            .map(drop)
        })
    }

    /// Ends all daemons in order, so that each says what it has to say.
    ///
    /// # Errors
    /// One does not end.
    pub fn finish(&self) -> Result<()> {
        self.each(false, |node| on(node, &format!("systemctl stop {DAEMONS}")).map(drop))
    }

    /// Publishes commands that take `seconds` each, from node `n`.
    ///
    /// # Errors
    /// They cannot be published.
    pub fn publish(&self, n: usize, name: &str, count: usize, seconds: f64) -> Result<Published> {
        let script = format!(
            "cd /tmp && seq {count} | runuser -u bottega -- bottega run --spool {SPOOL} --native --name {name} --cores 1 \
             --memory 64MiB --array - -- sh -c 'sleep {seconds}; echo {name}-{{}}'"
        );
        on(&self.nodes[n], &script)?;
        Ok(Published { name: name.to_owned(), count })
    }

    /// How many tasks have come to an end, by the server's own disk.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn settled(&self) -> Result<usize> {
        Ok(on(&self.server, &settled())?.parse()?)
    }

    /// Waits until so many tasks have come to an end. Gives whether they have.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn until_settled(&self, count: usize, at_most: Duration) -> Result<bool> {
        let met = format!("test $({}) -ge {count}", settled());
        Ok(until(&self.server, at_most, &met).is_ok())
    }

    /// What `bottega status` says.
    ///
    /// # Errors
    /// No node can say it.
    pub fn status(&self) -> Result<String> {
        on(self.nodes.first().context("a lab has a node")?, &as_user("bottega status"))
    }
}

/// A script that runs as the spool's user, with the spool named.
#[must_use]
pub fn as_user(command: &str) -> String {
    format!("cd /tmp; BOTTEGA_SPOOL={SPOOL} runuser -u bottega -- {command}")
}

fn settled() -> String {
    format!("find {SPOOL}/done {SPOOL}/failed -name '*.json' | wc -l")
}

/// Enables and starts a daemon, as an administrator does.
///
/// # Errors
/// It does not start.
pub fn start(node: &Node, unit: &str) -> Result<()> {
    on(node, &format!("systemctl enable --now bottega.target {unit}")).map(drop)
}
