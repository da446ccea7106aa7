use std::sync::atomic::{AtomicU64, Ordering};

use super::llm::dollars;

/// What models have cost here and elsewhere, and what they may cost together.
#[derive(Debug)]
pub struct Fleet {
    here: AtomicU64,
    elsewhere: AtomicU64,
    /// [`u64::MAX`]: no limit.
    limit: AtomicU64,
}

impl Default for Fleet {
    fn default() -> Self {
        Self { here: AtomicU64::new(0), elsewhere: AtomicU64::new(0), limit: AtomicU64::new(u64::MAX) }
    }
}

impl Fleet {
    /// What was spent here so far, in millionths of a dollar.
    #[must_use]
    pub fn here(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }

    /// Adds what was spent here.
    pub fn charge(&self, micro_dollars: u64) {
        let more = |here: u64| Some(here.saturating_add(micro_dollars));
        let _ = self.here.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Takes off what somebody does not count any more.
    pub fn forget(&self, micro_dollars: u64) {
        let less = |here: u64| Some(here.saturating_sub(micro_dollars));
        let _ = self.here.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// What others have spent by now, and what all may.
    pub fn look(&self, elsewhere: u64, limit: Option<u64>) {
        self.elsewhere.store(elsewhere, Ordering::Relaxed);
        self.limit.store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Why no model is asked now.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let spent = self.here().saturating_add(self.elsewhere.load(Ordering::Relaxed));
        let limit = self.limit.load(Ordering::Relaxed);
        (spent >= limit).then(|| {
            format!(
                "models have cost ${:.2} of the ${:.2} that control/limits.toml allows (model_dollars): raise it, or remove \
                 the files in spend/ to count anew",
                dollars(spent),
                dollars(limit)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_all_is_held_to_the_limit() {
        let fleet = Fleet::default();
        fleet.charge(5);
        let check = |elsewhere, limit, expected: bool| {
            fleet.look(elsewhere, limit);
            assert_eq!(fleet.obstacle().is_some(), expected, "{elsewhere} {limit:?}");
        };
        check(1 << 60, None, false);
        check(5, Some(11), false);
        check(6, Some(11), true);
        check(0, Some(0), true);
        fleet.forget(3);
        check(6, Some(11), false);
        fleet.forget(3);
        assert_eq!(fleet.here(), 0);
        fleet.charge(5);
        check(u64::MAX, Some(11), true);
    }
}
