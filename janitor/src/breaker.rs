//! The end of a mistake: more removals than a node can have leftovers stop all removals for a while.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::policy::{Candidate, Target};
use crate::show;

/// The time that removals are counted in.
const WINDOW_SECONDS: i64 = 3600;

/// What removals are counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// The node's own: more of them stop all removals.
    Node,
    /// What finished tasks leave in the spool, which all nodes share: more of them wait for the next hour.
    Spool,
}

/// Counts the removals of the last hour, those before a restart included: the audit log knows them.
#[derive(Debug, Default)]
pub struct Breaker {
    removals: VecDeque<(Timestamp, Budget)>,
    /// Since when all removals have stopped, and at which limit.
    opened: Option<(Timestamp, usize)>,
}

/// Whether a removal counts, and for what: what somebody may miss. Leases, books, and layers without a name follow from what
/// counts, and after a busy day are more than any limit that protects the rest.
pub(crate) fn budget(kind: &str, name: &str) -> Option<Budget> {
    match kind {
        "lease" | "ledger-entry" | "lock" => None,
        "leftover" | "void-result" | "old-log" => Some(Budget::Spool),
        "image" => Some(Budget::Node).filter(|_| name != show::NAMELESS),
        _ => Some(Budget::Node),
    }
}

/// The same of a removal that is still to be made.
pub(crate) fn budget_of(candidate: &Candidate) -> Option<Budget> {
    budget(show::kind(&candidate.target), &candidate.name)
}

/// What is said once all removals have stopped.
pub(crate) fn told(per_hour_max: usize) -> String {
    format!(
        "nothing more is removed for now: {per_hour_max} removals in one hour are too many (janitor.deletions_per_hour_max); \
         bottega-janitor history tells which"
    )
}

impl Breaker {
    /// With what was removed before.
    pub fn new(removed: impl IntoIterator<Item = (Timestamp, Budget)>) -> Self {
        Self { removals: removed.into_iter().collect(), opened: None }
    }

    /// Counts removals.
    pub fn note(&mut self, removed: impl IntoIterator<Item = Budget>, now: Timestamp) {
        self.removals.extend(removed.into_iter().map(|budget| (now, budget)));
    }

    /// How many more of the node's own may follow now, of `per_hour_max`: once there were as many, none for an hour, unless
    /// that limit is changed meanwhile.
    pub fn allowance(&mut self, per_hour_max: usize, now: Timestamp) -> usize {
        let left = self.left(Budget::Node, per_hour_max, now);
        self.opened = self.opened.filter(|(at, of)| *of == per_hour_max && is_within_window(*at, now));
        if left == 0 && self.opened.is_none() {
            tracing::error!("{}", told(per_hour_max));
            self.opened = Some((now, per_hour_max));
        }
        if self.is_open() { 0 } else { left }
    }

    /// Whether all removals have stopped.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Leaves as much of each kind as may go now, the first; nothing but leases, which remove nothing, where all removals have
    /// stopped. Gives how many wait.
    pub fn ration(&mut self, ripe: &mut Vec<Candidate>, per_hour_max: usize, now: Timestamp) -> usize {
        let mut of_node = self.allowance(per_hour_max, now);
        let mut of_spool = self.left(Budget::Spool, per_hour_max, now);
        let (is_open, before) = (self.is_open(), ripe.len());
        ripe.retain(|candidate| {
            let left = match budget_of(candidate) {
                None => return !is_open || matches!(candidate.target, Target::Lease(_)),
                Some(Budget::Node) => &mut of_node,
                Some(Budget::Spool) => &mut of_spool,
            };
            let stays = !is_open && *left > 0;
            *left -= usize::from(stays);
            stays
        });
        before - ripe.len()
    }

    fn left(&mut self, budget: Budget, per_hour_max: usize, now: Timestamp) -> usize {
        self.removals.retain(|(at, _)| is_within_window(*at, now));
        per_hour_max.saturating_sub(self.removals.iter().filter(|(_, counted)| *counted == budget).count())
    }
}

/// What lies in the future was noted by a clock that has been set back.
fn is_within_window(at: Timestamp, now: Timestamp) -> bool {
    (0..WINDOW_SECONDS).contains(&now.as_second().saturating_sub(at.as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_other_removals_does_not_count() {
        let check = |kind: &str, name: &str, expected: Option<Budget>| {
            assert_eq!(budget(kind, name), expected, "{kind} {name}");
        };
        check("container", "bottega-x", Some(Budget::Node));
        check("container", "", Some(Budget::Node));
        check("image", "openswe--x:latest", Some(Budget::Node));
        check("image", "<none>", None);
        check("work-directory", "/state/work/x", Some(Budget::Node));
        check("repository", "/state/repositories/x.git", Some(Budget::Node));
        check("leftover", "/spool/tmp/.nfs01", Some(Budget::Spool));
        check("void-result", "/spool/results/00/x/a001", Some(Budget::Spool));
        check("old-log", "/spool/logs/x", Some(Budget::Spool));
        check("lease", "here~x", None);
        check("ledger-entry", "x", None);
        check("lock", "here~x", None);
    }

    #[test]
    fn an_hour_has_so_many_removals_and_no_more() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let mut breaker = Breaker::new([0, 1000].map(|second| (at(second), Budget::Node)));
        let allowance = |breaker: &mut Breaker, second| breaker.allowance(10, at(second));
        let of_spool = |breaker: &mut Breaker, second| breaker.left(Budget::Spool, 10, at(second));
        assert_eq!(allowance(&mut breaker, 2000), 8);
        breaker.note([Budget::Node; 7], at(2000));
        assert_eq!((allowance(&mut breaker, 2001), of_spool(&mut breaker, 2001)), (1, 10));
        assert!(!breaker.is_open());
        breaker.note([Budget::Node, Budget::Spool, Budget::Node], at(2001));
        assert_eq!((allowance(&mut breaker, 3599), of_spool(&mut breaker, 3599)), (0, 9));
        // Most of them are older than an hour now, but it has been open for less.
        assert_eq!(allowance(&mut breaker, 7198), 0);
        assert_eq!(breaker.allowance(11, at(7198)), 11, "somebody has looked, and raised the limit");
        assert_eq!(allowance(&mut breaker, 7199), 10);
        breaker.note([Budget::Node; 10], at(7199));
        assert_eq!(allowance(&mut breaker, 7200), 0);
        assert_eq!(allowance(&mut breaker, 100), 10, "the clock was set back");
    }
}
