use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Role;
use crate::summary::Status;
use crate::text::{bytes, clean_line, duration};

/// Cells of the bar.
const BAR_CELLS: usize = 32;

/// Slots shown; more are counted.
const SLOTS_SHOWN: usize = 24;

/// What a daemon is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Starting,
    Ready,
    Stopping,
    Ended,
}

/// All that a look at the progress needs.
pub(super) struct Progress<'a> {
    pub(super) status: &'a Status,
    pub(super) daemons: &'a BTreeMap<Role, (Condition, String)>,
    pub(super) started_at: Timestamp,
    pub(super) now: Timestamp,
    /// What is waited for, while stopping.
    pub(super) closing: Option<&'a str>,
}

impl Progress<'_> {
    /// The block for a terminal.
    pub(super) fn block(&self) -> Vec<String> {
        let mut lines = vec![String::new(), format!("{}  {}", self.bar(), self.times()), self.states()];
        let slots = self.slots(true);
        let left_out = slots.len().saturating_sub(SLOTS_SHOWN);
        lines.extend(slots.into_iter().take(SLOTS_SHOWN).map(|line| format!("  {line}")));
        if left_out > 0 {
            lines.push(format!("  and {left_out} more slots"));
        }
        lines.extend(self.obstacles());
        lines.push(self.daemons());
        lines.extend(self.closing.map(str::to_owned));
        lines
    }

    /// One line for a log.
    pub(super) fn line(&self) -> String {
        let slots = self.slots(false).join("; ");
        let slots = if slots.is_empty() { String::new() } else { format!("; {slots}") };
        let obstacles: String = self.obstacles().map(|line| format!("; {line}")).collect();
        format!("{}; {}{}{obstacles}", self.times(), self.states(), squeeze(&slots))
    }

    fn bar(&self) -> String {
        let (settled, total) = (self.status.counts.settled(), self.status.total());
        let full = (settled * BAR_CELLS).checked_div(total).unwrap_or(0);
        format!("{}{} {settled}/{total}", "█".repeat(full), "░".repeat(BAR_CELLS - full))
    }

    fn times(&self) -> String {
        let elapsed = duration(self.now.duration_since(self.started_at).as_secs_f64());
        let eta = self.status.pace.as_ref().and_then(|pace| pace.eta_seconds);
        let eta = eta.map_or_else(String::new, |eta| format!(", about {} left", duration(eta)));
        format!("{elapsed} elapsed{eta}")
    }

    fn states(&self) -> String {
        let counts = &self.status.counts;
        let sum = |map: &BTreeMap<String, usize>| map.values().sum::<usize>();
        let parts = [
            ("unread file(s)", self.status.unread.files),
            ("pending", sum(&counts.pending)),
            ("delayed", counts.delayed),
            ("on hold", counts.hold),
            ("claimed", sum(&counts.claimed)),
            ("done", sum(&counts.done)),
            ("failed", sum(&counts.failed)),
        ];
        let always = ["pending", "claimed", "done", "failed"];
        let shown = parts.iter().filter(|(state, count)| *count > 0 || always.contains(state));
        shown.map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(" · ")
    }

    fn slots(&self, with_shape: bool) -> Vec<String> {
        let several = self.status.workers.len() > 1;
        let mut lines = Vec::new();
        for worker in &self.status.workers {
            for slot in &worker.slots {
                let node = if several { format!("{} ", worker.owner.node()) } else { String::new() };
                let shape = format!(" (cores {}, {})", slot.cpuset, bytes(slot.memory_bytes));
                let place = format!("{node}slot {}{}", slot.slot, if with_shape { &shape } else { "" });
                lines.push(match (&slot.activity, &slot.out_of_service) {
                    (None, None) => format!("{place}  idle"),
                    (None, Some(why)) => format!("{place}  out of service: {}", clean_line(why)),
                    (Some(activity), _) => {
                        let age = duration(self.now.duration_since(activity.since).as_secs_f64());
                        format!("{place}  {:14} {age:>12}  {}", clean_line(&activity.stage), activity.task)
                    }
                });
            }
        }
        lines
    }

    fn obstacles(&self) -> impl Iterator<Item = String> {
        let workers = self.status.workers.iter();
        let told = workers.filter_map(|worker| {
            let obstacle = clean_line(worker.obstacle.as_ref()?);
            Some(format!("nothing is claimed on {}: {obstacle}", worker.owner.node()))
        });
        self.status.fullness().into_iter().chain(told)
    }

    fn daemons(&self) -> String {
        let shown = self.daemons.iter().map(|(role, (condition, said))| {
            let name = role.program().trim_start_matches("bottega-");
            match condition {
                Condition::Starting => format!("{name}: starting"),
                Condition::Ready if said.is_empty() => format!("{name}: ready"),
                Condition::Ready => format!("{name}: {said}"),
                Condition::Stopping => format!("{name}: stopping"),
                Condition::Ended => format!("{name}: ended"),
            }
        });
        shown.collect::<Vec<_>>().join(" · ")
    }
}

fn squeeze(text: &str) -> String {
    clean_line(text).replace(" ;", ";")
}
