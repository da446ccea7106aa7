use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Owner, Timing};

/// Decides from what one process has seen, by its own monotonic clock, which incarnations are dead.
///
/// It touches no file and compares no clocks of two machines.
#[derive(Debug)]
pub struct Judge {
    silence: Duration,
    /// When a judge was away for this long, or a look took as long, it mistrusts its own clock rather than all
    /// others: its windows begin anew.
    stall: Duration,
    seen: BTreeMap<Owner, (Option<u64>, Duration)>,
    last_look: Option<Duration>,
}

impl Judge {
    /// A judge that has seen nothing yet.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        let silence = Duration::from_secs(timing.silence_seconds);
        Self { silence, stall: silence * 2 / 3, seen: BTreeMap::new(), last_look: None }
    }

    /// Takes one look into account: what was there, and when the look `began` and `ended`, as time since any fixed
    /// moment. Gives the incarnations whose heartbeat has stood still, or has been missing, for too long.
    pub fn look(
        &mut self,
        began: Duration,
        ended: Duration,
        incarnations: &BTreeMap<Owner, Option<u64>>,
    ) -> Vec<Owner> {
        let away = self.last_look.map_or(Duration::ZERO, |last| ended.saturating_sub(last));
        let stalled = away > self.stall || ended.saturating_sub(began) > self.stall;
        self.last_look = Some(ended);
        let seen = std::mem::take(&mut self.seen);
        // What is seen was so when the look began at the latest; a beat may have come since.
        for (owner, counter) in incarnations {
            let since = match seen.get(owner) {
                Some((before, since)) if before == counter && !stalled => *since,
                _ => ended,
            };
            self.seen.insert(owner.clone(), (*counter, since));
        }
        let silent = |since: &Duration| began.saturating_sub(*since) >= self.silence;
        self.seen.iter().filter(|(_, (_, since))| silent(since)).map(|(owner, _)| owner.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;

    fn owner(n: u128) -> Owner {
        Owner::new("n", Incarnation::new(uuid::Uuid::from_u128(n)))
    }

    /// Looks every 20 s at incarnations 0, 1, …; a row gives each one's counter, −1 for a missing heartbeat.
    fn dead_after(rows: &[&[i64]], pauses: &[u64]) -> Vec<Owner> {
        let mut judge = Judge::new(Timing::default());
        let mut now = Duration::from_secs(5);
        let mut dead = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            now += Duration::from_secs(pauses.get(i).copied().unwrap_or(20));
            let found = row.iter().enumerate().map(|(n, c)| (owner(n as u128), u64::try_from(*c).ok()));
            dead = judge.look(now, now, &found.collect());
        }
        dead
    }

    #[test]
    fn silence_is_death_by_the_judges_own_clock_only() {
        let silent: Vec<&[i64]> = vec![&[7]; 10];
        assert_eq!(dead_after(&silent[..9], &[]), [], "160 s after the first look");
        assert_eq!(dead_after(&silent, &[]), [owner(0)], "180 s after it");
        let without_heartbeat: Vec<&[i64]> = vec![&[-1]; 10];
        assert_eq!(dead_after(&without_heartbeat, &[]), [owner(0)]);
        let beating: Vec<Vec<i64>> = (0..30).map(|n| vec![n, 3]).collect();
        let rows: Vec<&[i64]> = beating.iter().map(Vec::as_slice).collect();
        assert_eq!(dead_after(&rows, &[]), [owner(1)]);
        let mut woke = silent.clone();
        woke[8] = &[8];
        assert_eq!(dead_after(&woke, &[]), []);
    }

    #[test]
    fn a_judge_that_stalled_begins_anew() {
        let silent: Vec<&[i64]> = vec![&[7, 7]; 12];
        let pauses = |at: usize| (0..12).map(|i| if i == at { 130 } else { 20 }).collect::<Vec<_>>();
        assert_eq!(dead_after(&silent, &pauses(8)), [], "three looks after the stall");
        assert_eq!(dead_after(&silent, &pauses(2)), [owner(0), owner(1)], "nine looks after it");
        let mut judge = Judge::new(Timing::default());
        let found = BTreeMap::from([(owner(0), Some(1))]);
        let mut look =
            |began, ended| judge.look(Duration::from_secs(began), Duration::from_secs(ended), &found);
        for began in [0, 50, 100] {
            look(began, began);
        }
        assert_eq!(look(101, 222), [], "a look that took two minutes proves nothing");
        assert_eq!(look(300, 300), []);
        assert_eq!(look(400, 400), []);
        assert_eq!(look(402, 402), [owner(0)], "180 s after the slow look ended");
    }

    #[test]
    fn who_leaves_and_returns_has_a_new_window() {
        let mut rows: Vec<&[i64]> = vec![&[7]; 5];
        rows.push(&[]);
        rows.extend([&[7_i64][..]; 9]);
        assert_eq!(dead_after(&rows, &[]), []);
        rows.push(&[7]);
        assert_eq!(dead_after(&rows, &[]), [owner(0)]);
    }
}
