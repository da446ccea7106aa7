//! The end of a mistake: more removals than a node can have leftovers stop all removals for a while.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::show;

/// The time that removals are counted in.
const WINDOW_SECONDS: i64 = 3600;

/// Counts the removals of the last hour, those before a restart included: the audit log knows them.
#[derive(Debug, Default)]
pub struct Breaker {
    removals: VecDeque<(Timestamp, usize)>,
}

/// Whether a removal counts: what somebody may miss. Leases, books, and layers without a name follow from what counts, and
/// after a busy day are more than any limit that protects the rest.
pub(crate) fn counts(kind: &str, name: &str) -> bool {
    match kind {
        "lease" | "ledger-entry" | "lock" => false,
        "image" => name != show::NAMELESS,
        _ => true,
    }
}

impl Breaker {
    /// With what was removed before.
    pub fn new(removed_at: impl IntoIterator<Item = Timestamp>) -> Self {
        Self { removals: removed_at.into_iter().map(|at| (at, 1)).collect() }
    }

    /// Counts removals.
    pub fn note(&mut self, removed: usize, now: Timestamp) {
        if removed > 0 {
            self.removals.push_back((now, removed));
        }
    }

    /// How many more may follow now, of `per_hour_max`.
    pub fn allowance(&mut self, per_hour_max: usize, now: Timestamp) -> usize {
        let age = |at: Timestamp| now.as_second().saturating_sub(at.as_second());
        // What lies in the future was noted by a clock that has been set back.
        self.removals.retain(|(at, _)| (0..WINDOW_SECONDS).contains(&age(*at)));
        per_hour_max.saturating_sub(self.removals.iter().map(|(_, removed)| removed).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_other_removals_does_not_count() {
        let check = |kind: &str, name: &str, expected: bool| {
            assert_eq!(counts(kind, name), expected, "{kind} {name}");
        };
        check("container", "bottega-x", true);
        check("container", "", true);
        check("image", "openswe--x:latest", true);
        check("image", "<none>", false);
        check("work-directory", "/state/work/x", true);
        check("repository", "/state/repositories/x.git", true);
        check("leftover", "/spool/tmp/.nfs01", true);
        check("void-result", "/spool/results/00/x/a001", true);
        check("lease", "here~x", false);
        check("ledger-entry", "x", false);
        check("lock", "here~x", false);
    }

    #[test]
    fn an_hour_has_so_many_removals_and_no_more() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let mut breaker = Breaker::new([at(0), at(1000)]);
        assert_eq!(breaker.allowance(10, at(2000)), 8);
        breaker.note(7, at(2000));
        assert_eq!(breaker.allowance(10, at(2001)), 1);
        breaker.note(5, at(2001));
        assert_eq!(breaker.allowance(10, at(3599)), 0);
        assert_eq!(breaker.allowance(10, at(3601)), 0);
        assert_eq!(breaker.allowance(10, at(5600)), 5);
        assert_eq!(breaker.allowance(10, at(100)), 10, "the clock was set back");
    }
}
