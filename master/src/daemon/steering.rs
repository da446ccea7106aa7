use std::collections::BTreeSet;

use jiff::Timestamp;
use queue_format::{Cancelled, Control, Event, EventLog, Owner, Spool, SpoolError, TaskId};

/// A master's part in what people ask for in `control/`: it sets aside what no worker has, and says what it does not
/// understand.
pub(super) struct Steering {
    spool: Spool,
    log: EventLog,
    control: Control,
    /// Ids that were asked for and not seen: said once.
    unseen: BTreeSet<TaskId>,
}

impl Steering {
    pub(super) fn new(spool: &Spool, owner: &Owner) -> Self {
        Self {
            spool: spool.clone(),
            log: EventLog::new(spool, owner),
            control: Control::default(),
            unseen: BTreeSet::new(),
        }
    }

    /// Looks at `control/` once, and does what is left to a master.
    pub(super) fn look(&mut self, now: Timestamp) -> Result<(), SpoolError> {
        let before = std::mem::take(&mut self.control);
        self.control = match self.spool.control() {
            Ok(control) => control.after(&before),
            Err(error) => {
                self.control = before;
                return Err(error.into());
            }
        };
        for notice in self.control.notices().iter().filter(|notice| !before.notices().contains(notice)) {
            tracing::warn!("{notice}");
        }
        match (before.paused(), self.control.paused()) {
            (None, Some(reason)) => {
                tracing::info!(reason, "the spool is paused: nobody claims");
                self.log.note(now, Event::Paused { reason: reason.to_owned() });
            }
            (Some(_), None) => {
                tracing::info!("the pause is over");
                self.log.note(now, Event::Resumed);
            }
            _ => {}
        }
        let carried_out = self.cancel(now);
        // A log that cannot be written now is written later.
        if let Err(error) = self.log.flush(now) {
            tracing::warn!(%error, "cannot write the event log; what it lacks is kept for the next time");
        }
        carried_out
    }

    fn cancel(&mut self, now: Timestamp) -> Result<(), SpoolError> {
        let became = self.spool.carry_out(self.control.cancelled())?;
        let mut unseen = BTreeSet::new();
        for (task, what) in became {
            match what {
                Cancelled::SetAside => {
                    tracing::info!(%task, "cancelled: it lies in failed/cancelled now");
                    self.log.note(now, Event::Cancelled { task, token: None });
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
