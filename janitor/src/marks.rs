use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::memory::Marked;
use crate::policy::{Candidate, Patience, Target};

/// How many grace periods [`Patience::Long`] is.
const LONG_GRACES: u32 = 20;

/// Since when each leftover has been seen, without a break.
#[derive(Debug, Default)]
pub struct Marks {
    since: HashMap<Target, (Patience, Instant)>,
}

impl Marks {
    /// Those that an earlier process left.
    pub(crate) fn recall(marks: Vec<Marked>, now: Instant) -> Self {
        let since = |waited| now.checked_sub(waited).unwrap_or(now);
        let marks = marks.into_iter().map(|mark| (mark.target, (Patience::Long, since(mark.waited))));
        Self { since: marks.collect() }
    }

    /// Those that a later process goes on with: what is waited for longer than one process may last.
    pub(crate) fn remembered(&self, now: Instant) -> Vec<Marked> {
        let long = self.since.iter().filter(|(_, (patience, _))| *patience == Patience::Long);
        let mark = |(target, (_, since)): (&Target, &(Patience, Instant))| Marked {
            target: target.clone(),
            waited: now.saturating_duration_since(*since),
        };
        long.map(mark).collect()
    }

    /// Whether something that is found at `at` too, and was found before, has been a leftover long enough then.
    pub(crate) fn is_ripe(&self, candidate: &Candidate, at: Instant, grace: Duration) -> bool {
        let known = self.since.get(&candidate.target).filter(|(before, _)| *before == candidate.patience);
        is_long_enough(
            candidate.patience,
            known.map(|(_, since)| at.saturating_duration_since(*since)),
            grace,
        )
    }

    /// Takes note of what a pass found, and gives what has been a leftover long enough: seen in this and an
    /// earlier pass, at least its patience apart. Whatever was not found this time starts anew, and so does what is less
    /// patiently waited for than before: its worker died just now, and the engine may still end what that had begun.
    pub fn ripe(&mut self, found: Vec<Candidate>, now: Instant, grace: Duration) -> Vec<Candidate> {
        let before = std::mem::take(&mut self.since);
        let mut ripe = Vec::new();
        for candidate in found {
            let patience = candidate.patience;
            let known = before.get(&candidate.target).filter(|(before, _)| *before == patience);
            let since = known.map(|(_, since)| *since);
            self.since.insert(candidate.target.clone(), (patience, since.unwrap_or(now)));
            let waited = since.map(|since| now.saturating_duration_since(since));
            if is_long_enough(patience, waited, grace) {
                ripe.push(candidate);
            }
        }
        ripe
    }
}

fn is_long_enough(patience: Patience, waited: Option<Duration>, grace: Duration) -> bool {
    match patience {
        Patience::None => true,
        Patience::Grace => waited.is_some_and(|waited| waited >= grace),
        Patience::Long => waited.is_some_and(|waited| waited >= grace * LONG_GRACES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Reason;

    #[test]
    fn only_what_is_seen_again_after_its_patience_is_ripe() {
        let start = Instant::now();
        let grace = Duration::from_secs(30);
        let candidate = |name: &str, patience| Candidate {
            target: Target::Container(name.to_owned()),
            reason: Reason::ClaimGone,
            patience,
            name: name.to_owned(),
            entry: None,
            created_at: None,
            bytes: None,
        };
        let mut marks = Marks::default();
        let mut check = |second: u64, found: &[(&str, Patience)], expected: &[&str]| {
            let found = found.iter().map(|(name, patience)| candidate(name, *patience)).collect();
            let ripe = marks.ripe(found, start + Duration::from_secs(second), grace);
            let names: Vec<&str> = ripe.iter().map(|candidate| candidate.name.as_str()).collect();
            assert_eq!(names, expected, "after {second} s");
        };
        check(0, &[("a", Patience::Grace), ("now", Patience::None)], &["now"]);
        check(29, &[("a", Patience::Grace), ("b", Patience::Grace)], &[]);
        check(30, &[("a", Patience::Grace), ("b", Patience::Grace)], &["a"]);
        check(45, &[("b", Patience::Grace)], &[]);
        check(60, &[("a", Patience::Grace), ("b", Patience::Grace), ("c", Patience::Long)], &["b"]);
        check(659, &[("c", Patience::Long)], &[]);
        check(660, &[("c", Patience::Long)], &["c"]);
        check(670, &[("c", Patience::Grace)], &[]);
        check(700, &[("c", Patience::Grace)], &["c"]);
    }
}
