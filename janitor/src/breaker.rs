//! The end of a mistake: more removals than a node can have leftovers stop all removals for a while.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::policy::Candidate;
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
        Self { removals: removed.into_iter().collect() }
    }

    /// Counts removals.
    pub fn note(&mut self, removed: impl IntoIterator<Item = Budget>, now: Timestamp) {
        self.removals.extend(removed.into_iter().map(|budget| (now, budget)));
    }

    /// How many more may follow now, of `per_hour_max`.
    pub fn allowance(&mut self, budget: Budget, per_hour_max: usize, now: Timestamp) -> usize {
        let age = |at: Timestamp| now.as_second().saturating_sub(at.as_second());
        // What lies in the future was noted by a clock that has been set back.
        self.removals.retain(|(at, _)| (0..WINDOW_SECONDS).contains(&age(*at)));
        per_hour_max.saturating_sub(self.removals.iter().filter(|(_, counted)| *counted == budget).count())
    }

    /// Leaves so much of the spool's leftovers as may go now.
    pub(crate) fn ration(&mut self, ripe: &mut Vec<Candidate>, per_hour_max: usize, now: Timestamp) {
        let mut left = self.allowance(Budget::Spool, per_hour_max, now);
        ripe.retain(|candidate| {
            let is_spools = budget_of(candidate) == Some(Budget::Spool);
            let stays = !is_spools || left > 0;
            left -= usize::from(is_spools && stays);
            stays
        });
    }
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
        let allowance = |breaker: &mut Breaker, second| breaker.allowance(Budget::Node, 10, at(second));
        assert_eq!(allowance(&mut breaker, 2000), 8);
        breaker.note([Budget::Node; 7], at(2000));
        assert_eq!(allowance(&mut breaker, 2001), 1);
        assert_eq!(breaker.allowance(Budget::Spool, 10, at(2001)), 10);
        breaker.note([Budget::Node, Budget::Spool, Budget::Node], at(2001));
        assert_eq!(allowance(&mut breaker, 3599), 0);
        assert_eq!(breaker.allowance(Budget::Spool, 10, at(3599)), 9);
        assert_eq!(allowance(&mut breaker, 5600), 8);
        assert_eq!(allowance(&mut breaker, 100), 10, "the clock was set back");
    }
}
