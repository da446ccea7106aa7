use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::cluster::{EXPORT, SPOOL, on, until};
use super::Chaos;

/// How long a node may take to come back.
const BACK_MAX: Duration = Duration::from_mins(4);
/// How much longer than the silence it may take until a dead node's tasks are pending again, with default settings.
const REAP_MARGIN: Duration = Duration::from_secs(20);
/// How often daemons are killed: less often than systemd takes for hopeless.
const KILLS: usize = 18;
/// Files under the server swapped so often.
const SWAPS: usize = 3;

pub(super) fn power_loss(chaos: &mut Chaos<'_>) -> Result<()> {
    chaos.publish("power", 40, 1.0)?;
    let n = lose(chaos)?;
    chaos.until_settled(chaos.expected())?;
    back(chaos, n)
}

/// A node that works loses its power, and others take its task.
fn lose(chaos: &mut Chaos<'_>) -> Result<usize> {
    let n = chaos.below(chaos.cluster.nodes.len());
    chaos.until_busy(n)?;
    let leases = chaos.leases(n)?;
    chaos.cluster.nodes[n].lose_power()?;
    let took = chaos.until_reaped(&leases)?;
    chaos.note(format!(
        "pending again {} s after the power loss (silence {} s)",
        took.as_secs(),
        chaos.timing.silence().as_secs()
    ));
    ensure!(
        took < chaos.timing.silence() + REAP_MARGIN,
        "it took {} s until the dead node's tasks were pending again",
        took.as_secs()
    );
    Ok(n)
}

/// A node that was without power begins again, and works.
fn back(chaos: &mut Chaos<'_>, n: usize) -> Result<()> {
    let began = Instant::now();
    chaos.cluster.nodes[n].restart()?;
    chaos.cluster.nodes[n].until_up()?;
    chaos.note(format!("up again after {} s", began.elapsed().as_secs()));
    until(&chaos.cluster.nodes[n], BACK_MAX, "systemctl is-active bottega-worker").map(drop)
}

pub(super) fn reboot(chaos: &mut Chaos<'_>) -> Result<()> {
    chaos.publish("reboot", 60, 1.0)?;
    for _ in 0..2 {
        let n = chaos.below(chaos.cluster.nodes.len());
        chaos.until_busy(n)?;
        chaos.cluster.nodes[n].lose_power()?;
        back(chaos, n)?;
    }
    Ok(())
}

pub(super) fn freeze(chaos: &mut Chaos<'_>) -> Result<()> {
    chaos.publish("freeze", 40, 1.0)?;
    // The first has the only master; with it, workers alone have to take the others for dead.
    let n = chaos.below(chaos.cluster.nodes.len());
    chaos.until_busy(n)?;
    let leases = chaos.leases(n)?;
    chaos.cluster.nodes[n].freeze()?;
    let reaped = chaos.until_reaped(&leases);
    chaos.cluster.nodes[n].thaw()?;
    chaos.note(format!("taken for dead after {} s", reaped?.as_secs()));
    // It must see that it was given up, and come back as another.
    let other = format!(
        "cd {SPOOL}/claimed && ls -d {}~* | grep -vxF '{}'",
        chaos.cluster.nodes[n].name(),
        leases.replace(' ', "\n")
    );
    until(&chaos.cluster.server, chaos.timing.silence() * 2 + BACK_MAX, &other).map(drop)
}

pub(super) fn partition(chaos: &mut Chaos<'_>) -> Result<()> {
    chaos.publish("partition", 40, 1.0)?;
    let n = chaos.below(chaos.cluster.nodes.len());
    chaos.until_busy(n)?;
    let leases = chaos.leases(n)?;
    chaos.cluster.set_connected(n, false)?;
    let reaped = chaos.until_reaped(&leases);
    chaos.cluster.set_connected(n, true)?;
    chaos.note(format!("taken for dead after {} s", reaped?.as_secs()));
    until(
        &chaos.cluster.nodes[n],
        BACK_MAX,
        &format!("timeout 20 stat {SPOOL} && systemctl is-active bottega-worker"),
    )
    .map(drop)
}

pub(super) fn nfs_restart(chaos: &mut Chaos<'_>) -> Result<()> {
    chaos.publish("restart", 60, 0.5)?;
    for count in [5, 20] {
        chaos.until_some(count)?;
        on(&chaos.cluster.server, "systemctl restart nfs-server")?;
    }
    Ok(())
}

pub(super) fn nfs_outage(chaos: &mut Chaos<'_>) -> Result<()> {
    chaos.publish("outage", 40, 1.0)?;
    chaos.until_some(4)?;
    // Ten minutes, where a silence is three.
    let away = chaos.timing.silence() * 10 / 3;
    on(&chaos.cluster.server, "systemctl stop nfs-server")?;
    sleep(away);
    on(&chaos.cluster.server, "systemctl start nfs-server")?;
    let began = Instant::now();
    let settled = chaos.cluster.settled()?;
    chaos.until_settled(settled + 1)?;
    chaos.note(format!(
        "away for {} s; the next task was done {} s after its return",
        away.as_secs(),
        began.elapsed().as_secs()
    ));
    Ok(())
}

pub(super) fn server_power_loss(chaos: &mut Chaos<'_>) -> Result<()> {
    chaos.publish("server", 60, 0.5)?;
    for count in [5, 20] {
        chaos.until_some(count)?;
        chaos.cluster.server.lose_power()?;
        chaos.cluster.server.restart()?;
        chaos.cluster.server.until_up()?;
    }
    Ok(())
}

pub(super) fn clock_jumps(chaos: &mut Chaos<'_>) -> Result<()> {
    chaos.publish("clock", 80, 0.5)?;
    let nodes = chaos.cluster.nodes.len();
    let first = chaos.below(nodes);
    let jump = |chaos: &Chaos<'_>, n: Option<usize>, by: &str| {
        let node = n.map_or(&chaos.cluster.server, |n| &chaos.cluster.nodes[n % nodes]);
        on(node, &format!("date -s \"$(date -d '{by}')\"")).map(drop)
    };
    let jumps = [
        (Some(first), "1 year", "1 year ago"),
        (Some(first + 1), "1 year ago", "1 year"),
        (None, "1 year", "1 year ago"),
        (None, "1 year ago", "1 year"),
    ];
    for (count, (n, there, _)) in (5..).step_by(10).zip(jumps) {
        chaos.until_some(count)?;
        jump(chaos, n, there)?;
    }
    chaos.until_settled(chaos.expected())?;
    // What the next scenario begins with; the server's two jumps undo each other.
    for (n, _, back) in &jumps[..2] {
        jump(chaos, *n, back)?;
    }
    Ok(())
}

pub(super) fn disk_full(chaos: &mut Chaos<'_>) -> Result<()> {
    let full_for = chaos.timing.fence() / 2;
    chaos.publish("full", 50, 0.5)?;
    for count in [5, 20] {
        chaos.until_some(count)?;
        let fill = format!(
            "dd if=/dev/zero of={EXPORT}/filler bs=1M 2>/dev/null; dd if=/dev/zero of={EXPORT}/rest bs=1k 2>/dev/null"
        );
        on(&chaos.cluster.server, &format!("{fill}; df {EXPORT} | grep -q 100%"))?;
        sleep(full_for);
        on(&chaos.cluster.server, &format!("rm {EXPORT}/filler {EXPORT}/rest"))?;
    }
    Ok(())
}

pub(super) fn stale_handles(chaos: &mut Chaos<'_>) -> Result<()> {
    chaos.publish("stale", 60, 0.5)?;
    for swap in 0..SWAPS {
        chaos.until_some(5 + swap * 10)?;
        // Nobody changes anything between the copy and its turn; then every handle that is held is stale.
        on(
            &chaos.cluster.server,
            &format!(
                "set -e
                systemctl stop nfs-server
                cp -a {SPOOL} {SPOOL}.copy
                mv {SPOOL} {SPOOL}.old
                mv {SPOOL}.copy {SPOOL}
                rm -rf {SPOOL}.old
                systemctl start nfs-server"
            ),
        )?;
    }
    Ok(())
}

pub(super) fn kill_loop(chaos: &mut Chaos<'_>) -> Result<()> {
    chaos.publish("kill", 60, 0.5)?;
    let units = ["bottega-worker", "bottega-worker", "bottega-worker", "bottega-master", "bottega-janitor"];
    for _ in 0..KILLS {
        let unit = units[chaos.below(units.len())];
        let nodes = if unit == "bottega-worker" { chaos.cluster.nodes.len() } else { 1 };
        let n = chaos.below(nodes);
        let pause = Duration::from_millis(u64::try_from(chaos.below(3000))?);
        on(&chaos.cluster.nodes[n], &format!("systemctl kill --signal=KILL {unit}; true"))?;
        sleep(pause);
    }
    // What systemd holds for hopeless an administrator begins again.
    chaos
        .cluster
        .each(false, |node| on(node, "systemctl reset-failed; systemctl start bottega-worker").map(drop))
}
