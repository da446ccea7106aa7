use systemd::{Notifier, Shutdown};

use crate::error::JanitorError;
use crate::execute::Report;
use crate::janitor::Janitor;
use crate::show;

/// Passes, one after the other, until the shutdown is asked for; it cuts a pass short, and the next run takes up
/// what was left. `random` gives the jitter.
pub async fn run(
    mut janitor: Janitor,
    notifier: &Notifier,
    shutdown: &Shutdown,
    mut random: impl FnMut() -> u64,
) {
    let mut ready = false;
    let mut healthy = true;
    loop {
        let done = tokio::select! {
            done = janitor.pass() => done,
            () = shutdown.requested() => break,
        };
        let status = status(&done, &janitor, healthy);
        healthy = done.is_ok();
        if ready {
            notifier.status(&status);
        } else if healthy {
            ready = true;
            tracing::info!("{status}");
            notifier.ready(&status);
        }
        notifier.watchdog();
        let pause = janitor.config().pause(random());
        if pause_or_end(pause, notifier, shutdown).await {
            break;
        }
    }
    notifier.stopping("ending");
}

/// Gives whether the end was asked for meanwhile.
async fn pause_or_end(pause: std::time::Duration, notifier: &Notifier, shutdown: &Shutdown) -> bool {
    let end = tokio::time::Instant::now() + pause;
    let tick = notifier.watchdog_interval().unwrap_or(pause);
    while tokio::time::Instant::now() < end {
        let next = end.min(tokio::time::Instant::now() + tick);
        tokio::select! {
            () = tokio::time::sleep_until(next) => notifier.watchdog(),
            () = shutdown.requested() => return true,
        }
    }
    false
}

/// What systemd and the log are told; an error that lasts is logged once.
fn status(done: &Result<Report, JanitorError>, janitor: &Janitor, was_healthy: bool) -> String {
    match done {
        Ok(report) => {
            let engine = if janitor.engine_answers() { "" } else { "; the container engine does not answer" };
            let freed = show::size(report.bytes);
            format!(
                "removed {} ({freed}), {} wait{engine}",
                report.removed,
                report.waiting + report.postponed
            )
        }
        Err(error) => {
            if was_healthy {
                tracing::warn!("{error}; nothing is removed until then");
            }
            format!("nothing is removed: {error}")
        }
    }
}
