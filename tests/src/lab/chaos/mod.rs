//! What can happen to a cluster, and whether the spool keeps its promises meanwhile.

mod faults;
mod mounts;
mod people;
mod run;

pub use run::{Chaos, Row, Scenario, run, table};

use anyhow::Result;

/// All of them, in the order in which they are run.
pub const SCENARIOS: &[Scenario] = &[
    scenario("power-loss", "a node loses its power, is taken for dead, and comes back", faults::power_loss),
    scenario("reboot", "a node loses its power and is back at once", faults::reboot),
    scenario("freeze", "a node stands still for longer than its lease, and goes on", faults::freeze),
    scenario("partition", "a node is cut off for longer than its lease, and is back", faults::partition),
    scenario("nfs-restart", "the server of NFS is restarted, with its grace period", faults::nfs_restart),
    scenario(
        "nfs-outage",
        "the server of NFS is away for long: nobody is to be taken for dead",
        faults::nfs_outage,
    ),
    scenario("server-power-loss", "the server loses its power and comes back", faults::server_power_loss),
    scenario(
        "clock-jumps",
        "clocks of nodes and of the server jump by a year, both ways",
        faults::clock_jumps,
    ),
    scenario("disk-full", "the server's disk is full for a while", faults::disk_full),
    scenario(
        "stale-handles",
        "the server's files are replaced by copies, several times",
        faults::stale_handles,
    ),
    scenario("nfs3", "the spool by NFS version 3: a power loss and a restart of the server", mounts::nfs3),
    scenario("actimeo-1", "attributes remembered for a second: a power loss", mounts::actimeo_short),
    scenario("actimeo-600", "attributes remembered for ten minutes: a power loss", mounts::actimeo_long),
    scenario("kill-loop", "daemons are killed again and again, and restarted by systemd", faults::kill_loop),
    scenario("upgrade", "every node in turn gets a new version of the package", people::upgrade),
    scenario("two-masters", "two masters read what is dropped, and are killed", people::two_masters),
    scenario("two-janitors", "two janitors, one of them killed", people::two_janitors),
    scenario("operator", "somebody moves tasks about all the while", people::operator),
];

const fn scenario(
    name: &'static str,
    about: &'static str,
    play: fn(&mut Chaos<'_>) -> Result<()>,
) -> Scenario {
    Scenario { name, about, play }
}
