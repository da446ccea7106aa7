//! What cannot be removed: told once, and tried again less and less often.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::memory::Resisted;
use crate::policy::{Candidate, Target};
use crate::show;

/// How often in a row a removal must have failed before it is told as stuck.
const FAILURES_STUCK: u32 = 3;
/// The pause after the first failure, doubled with each further one; and the longest.
const PAUSE_MIN: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// What resisted its removal, how often, and until when it is left alone.
#[derive(Debug, Default)]
pub struct Resistance {
    known: HashMap<Target, Resisting>,
}

#[derive(Clone, Debug)]
struct Resisting {
    failures: u32,
    until: Instant,
    why: String,
}

impl Resistance {
    /// What an earlier process left.
    pub(crate) fn recall(resisted: Vec<Resisted>, now: Instant) -> Self {
        let known = resisted
            .into_iter()
            .map(|Resisted { target, failures, why }| (target, Resisting { failures, until: now, why }));
        Self { known: known.collect() }
    }

    /// What a later process goes on with.
    pub(crate) fn remembered(&self) -> Vec<Resisted> {
        let known = self.known.iter().map(|(target, known)| Resisted {
            target: target.clone(),
            failures: known.failures,
            why: known.why.clone(),
        });
        known.collect()
    }

    /// Forgets whatever is no leftover any more; of an engine that does not answer nobody knows that.
    pub fn forget_others(&mut self, found: &[Candidate], engine_answers: bool) {
        let is_unseen =
            |target: &Target| !engine_answers && matches!(target, Target::Container(_) | Target::Image(_));
        let found: HashSet<&Target> = found.iter().map(|candidate| &candidate.target).collect();
        self.known.retain(|target, _| is_unseen(target) || found.contains(target));
    }

    /// Leaves out what is to be left alone for now.
    pub fn leave_alone(&self, found: &mut Vec<Candidate>, now: Instant) {
        found.retain(|candidate| !self.leaves_alone(candidate, now));
    }

    /// Whether something is to be left alone for now.
    pub(crate) fn leaves_alone(&self, candidate: &Candidate, now: Instant) -> bool {
        self.known.get(&candidate.target).is_some_and(|known| known.until > now)
    }

    /// The images that are to be left alone for now, by full id.
    pub(crate) fn images_left_alone(&self, now: Instant) -> BTreeSet<String> {
        let alone = self.known.iter().filter(|(_, known)| known.until > now);
        let images = alone.filter_map(|(target, _)| match target {
            Target::Image(id) => Some(id.clone()),
            _ => None,
        });
        images.collect()
    }

    /// Takes note of what a pass could not remove.
    pub fn note(&mut self, resisted: Vec<(Target, String)>, now: Instant) {
        for (target, why) in resisted {
            let failures = self.known.get(&target).map_or(0, |known| known.failures) + 1;
            let pause = PAUSE_MIN.saturating_mul(1 << (failures - 1).min(16)).min(PAUSE_MAX);
            if failures == FAILURES_STUCK {
                tracing::warn!("{}", told(&target, failures, &why));
            }
            self.known.insert(target, Resisting { failures, until: now + pause, why });
        }
    }

    /// Those that have resisted often, a sentence each.
    #[must_use]
    pub fn stuck(&self) -> Vec<String> {
        let stuck = self.known.iter().filter(|(_, known)| known.failures >= FAILURES_STUCK);
        let mut told: Vec<String> =
            stuck.map(|(target, known)| told(target, known.failures, &known.why)).collect();
        told.sort();
        told
    }
}

fn told(target: &Target, failures: u32, why: &str) -> String {
    let remedy = match target {
        Target::Container(_) => {
            "; docker inspect shows its state, docker top whether a process of it hangs in the kernel (D): then only a \
             restart of the node ends it"
        }
        Target::Image(_) => "; docker ps --all shows who uses it",
        _ => "",
    };
    format!(
        "{} {} could not be removed {failures} times: {why}{remedy}",
        show::kind(target),
        show::id(target)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Patience, Reason};

    #[test]
    fn what_resists_is_tried_less_and_less_often_and_told() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let candidate = Candidate {
            target: Target::Container("c".to_owned()),
            reason: Reason::ClaimGone,
            patience: Patience::Grace,
            name: String::new(),
            entry: None,
            created_at: None,
            bytes: None,
        };
        let mut resistance = Resistance::default();
        let mut tries = Vec::new();
        for second in 0..1000 {
            let mut found = vec![candidate.clone()];
            resistance.forget_others(&found, true);
            resistance.leave_alone(&mut found, at(second));
            if let Some(candidate) = found.pop() {
                tries.push((second, resistance.stuck().len()));
                resistance.note(vec![(candidate.target, "it is being removed".to_owned())], at(second));
            }
        }
        assert_eq!(tries, [(0, 0), (10, 0), (30, 0), (70, 1), (150, 1), (310, 1), (630, 1)]);
        assert!(
            resistance.stuck()[0].contains("container c could not be removed 7 times: it is being removed")
        );
        resistance.forget_others(&[], false);
        assert_eq!(resistance.stuck().len(), 1, "nobody knows whether it is gone");
        resistance.forget_others(&[], true);
        assert!(resistance.stuck().is_empty(), "it is gone");
        let mut found = vec![candidate];
        resistance.leave_alone(&mut found, at(1002));
        assert_eq!(found.len(), 1);
    }
}
