use std::time::Duration;

use systemd::{Notifier, Reload, Shutdown};
use tokio::time::{Instant, sleep_until};

use crate::config::Config;
use crate::ending::unless_ended;
use crate::error::JanitorError;
use crate::execute::Report;
use crate::janitor::Janitor;
use crate::show;

/// Passes, one after the other, until the shutdown is asked for; it cuts a pass short, but not while
/// builds wait for it, and the next run takes up what was left. `random` gives the jitter.
pub async fn run(
    mut janitor: Janitor,
    notifier: &Notifier,
    shutdown: &Shutdown,
    reload: &mut Reload<Config>,
    mut random: impl FnMut() -> u64,
) {
    janitor.listen();
    let mut ready = false;
    let mut trouble = None;
    loop {
        let ending = janitor.ending();
        let Some(done) = unless_ended(janitor.pass(), &ending, shutdown).await else { break };
        let status = status(&done, &janitor);
        tell_news(&mut trouble, done.as_ref().err().map(ToString::to_string));
        if ready {
            notifier.status(&status);
        } else if trouble.is_none() {
            ready = true;
            tracing::info!("{status}");
            notifier.ready(&status);
        }
        notifier.watchdog();
        if pause(&mut janitor, notifier, shutdown, reload, random()).await == Next::End {
            break;
        }
    }
    notifier.stopping("ending");
}

/// Troubles that a status line has room for.
const TROUBLES_TOLD_MAX: usize = 3;

#[derive(PartialEq, Eq)]
enum Next {
    Pass,
    End,
}

/// Waits for the next pass, and goes by a new configuration from the moment it is there.
async fn pause(
    janitor: &mut Janitor,
    notifier: &Notifier,
    shutdown: &Shutdown,
    reload: &mut Reload<Config>,
    random: u64,
) -> Next {
    let began = Instant::now();
    loop {
        let (now, end) = (Instant::now(), began + janitor.config().pause(random));
        if now >= end {
            return Next::Pass;
        }
        let tick = notifier.watchdog_interval().unwrap_or(Duration::MAX);
        tokio::select! {
            () = sleep_until(end.min(now.checked_add(tick).unwrap_or(end))) => notifier.watchdog(),
            config = reload.next() => janitor.follow(config),
            () = shutdown.requested() => return Next::End,
        }
    }
}

/// An error that lasts is logged once.
fn tell_news(before: &mut Option<String>, trouble: Option<String>) {
    match &trouble {
        Some(error) if *before != trouble => tracing::warn!("{error}; nothing is removed until then"),
        None if before.is_some() => tracing::info!("what was wrong is mended: passes go on"),
        _ => {}
    }
    *before = trouble;
}

/// What systemd is told.
fn status(done: &Result<Report, JanitorError>, janitor: &Janitor) -> String {
    match done {
        Ok(report) => {
            let engine = if janitor.engine_answers() { "" } else { "; the container engine does not answer" };
            let freed = show::size(report.bytes);
            let mut status = format!(
                "removed {} ({freed}), {} wait{engine}",
                report.removed,
                report.waiting + report.postponed
            );
            for trouble in janitor.troubles().iter().take(TROUBLES_TOLD_MAX) {
                status.push_str("; ");
                status.push_str(trouble);
            }
            status
        }
        Err(error) => format!("nothing is removed: {error}"),
    }
}
