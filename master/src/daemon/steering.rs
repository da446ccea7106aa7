use std::collections::BTreeSet;
use std::mem;

use jiff::Timestamp;
use queue_format::{Cancelled, Control, Event, EventLog, Spool, SpoolError, TaskId};

/// A master's part in what people ask for in `control/`: it sets aside what no worker has, and says what it does not
/// understand.
#[derive(Default)]
pub(super) struct Steering {
    control: Control,
    /// Ids that were asked for and not seen: said once.
    unseen: BTreeSet<TaskId>,
}

impl Steering {
    /// Looks at `control/` once, and does what is left to a master.
    pub(super) fn look(&mut self, spool: &Spool, log: &EventLog, now: Timestamp) -> Result<(), SpoolError> {
        let control = spool.control()?.after(&self.control);
        let before = mem::replace(&mut self.control, control);
        for notice in self.control.notices().iter().filter(|notice| !before.notices().contains(notice)) {
            tracing::warn!("{notice}");
        }
        match (before.paused(), self.control.paused()) {
            (None, Some(reason)) => {
                tracing::info!(reason, "the spool is paused: nobody claims");
                log.note(now, Event::Paused { reason: reason.to_owned() });
            }
            (Some(_), None) => {
                tracing::info!("the pause is over");
                log.note(now, Event::Resumed);
            }
            _ => {}
        }
        self.cancel(spool, log, now)
    }

    fn cancel(&mut self, spool: &Spool, log: &EventLog, now: Timestamp) -> Result<(), SpoolError> {
        let became = spool.carry_out(self.control.cancelled())?;
        let mut unseen = BTreeSet::new();
        for (task, what) in became {
            match what {
                Cancelled::SetAside => {
                    tracing::info!(%task, "cancelled: it lies in failed/cancelled now");
                    log.note(now, Event::Cancelled { task, token: None });
                }
                Cancelled::Settled(_) => tracing::info!(%task, "not cancelled: it is settled already"),
                // Its worker does it.
                Cancelled::AtWork(_) => {}
                Cancelled::NotSeen => {
                    if !self.unseen.contains(&task) {
                        tracing::warn!(%task, "to be cancelled, but not seen; if it is a mistake: rm control/cancel/{task}");
                    }
                    unseen.insert(task);
                }
            }
        }
        self.unseen = unseen;
        Ok(())
    }
}
