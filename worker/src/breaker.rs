//! Whether this node may be trusted with tasks: a node that fails one after the other through its own fault stops, and
//! proves that it works before it claims again.

use std::time::Duration;

/// Faults of the node in a row, without a verdict between them, after which it claims nothing.
const STRIKES_MAX: u32 = 3;
/// The longest pause before the first test of the node; twice as long after each further one that fails.
const PAUSE_FIRST: Duration = Duration::from_secs(60);
/// The longest of all.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Counts a node's faults.
#[derive(Debug, Default)]
pub struct Breaker {
    strikes: u32,
    trips: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Duration,
    why: String,
}

/// What a node may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Claim.
    Pass,
    /// Nothing yet, and why.
    Wait(String),
    /// Test itself, and say what came of it.
    Test,
}

impl Breaker {
    /// Of a node that has not shown yet that it works.
    #[must_use]
    pub fn untested() -> Self {
        let why = "this node tests itself before it claims".to_owned();
        Self { open: Some(Open { until: Duration::ZERO, why }), ..Self::default() }
    }

    /// The node failed a task. `random`, from 0 to 1, draws the pause; gives whether it is trusted no more from now on.
    pub fn strike(&mut self, now: Duration, why: &str, random: f64) -> bool {
        self.strikes += 1;
        let trips = self.strikes >= STRIKES_MAX && self.open.is_none();
        if trips {
            let strikes = self.strikes;
            let why = format!("{strikes} tasks in a row failed through this node's fault, the last: {why}");
            self.trip(now, &why, random);
        }
        trips
    }

    /// A task came to a verdict: the node works. One that has claimed nothing yet tests itself all the same.
    pub fn settle(&mut self) {
        let is_untested = self.trips == 0 && self.open.is_some();
        *self = if is_untested { Self::untested() } else { Self::default() };
    }

    /// What it may do now.
    #[must_use]
    pub fn gate(&self, now: Duration) -> Gate {
        match &self.open {
            None => Gate::Pass,
            Some(open) if now < open.until => Gate::Wait(open.why.clone()),
            Some(_) => Gate::Test,
        }
    }

    /// What a test of the node came to. Where it passed after faults, one more is enough to stop again, until a verdict.
    pub fn tested(&mut self, now: Duration, result: Result<(), String>, random: f64) {
        match result {
            Ok(()) => {
                self.open = None;
                self.strikes = if self.trips > 0 { STRIKES_MAX - 1 } else { 0 };
            }
            Err(why) => self.trip(now, &format!("this node failed its own test: {why}"), random),
        }
    }

    fn trip(&mut self, now: Duration, why: &str, random: f64) {
        let pause = (PAUSE_FIRST * 2_u32.saturating_pow(self.trips.min(16))).min(PAUSE_MAX);
        self.trips += 1;
        let why = format!("{why}; it tests itself before it claims again");
        self.open = Some(Open { until: now + pause.mul_f64(random), why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_fails_task_after_task_stops_until_it_has_proved_that_it_works() {
        let at = Duration::from_secs;
        let mut breaker = Breaker::default();
        assert!(!breaker.strike(at(0), "disk", 1.0));
        breaker.settle();
        assert!(!breaker.strike(at(1), "disk", 1.0));
        assert!(!breaker.strike(at(2), "disk", 1.0));
        assert_eq!(breaker.gate(at(2)), Gate::Pass, "a verdict wipes strikes out");
        assert!(breaker.strike(at(3), "disk", 1.0));
        let Gate::Wait(why) = breaker.gate(at(3)) else { panic!("it goes on") };
        assert!(why.contains("3 tasks in a row") && why.contains("disk"), "{why}");
        // Another slot's fault of the same moment changes nothing.
        assert!(!breaker.strike(at(4), "disk", 1.0));
        assert!(matches!(breaker.gate(at(62)), Gate::Wait(_)));
        assert_eq!(breaker.gate(at(63)), Gate::Test);

        breaker.tested(at(63), Err("no container starts".to_owned()), 1.0);
        assert!(matches!(breaker.gate(at(182)), Gate::Wait(why) if why.contains("no container starts")));
        assert_eq!(breaker.gate(at(183)), Gate::Test);
        breaker.tested(at(183), Ok(()), 1.0);
        assert_eq!(breaker.gate(at(183)), Gate::Pass);
        // One more is enough, and it waits longer; a verdict makes it a node like any other.
        assert!(breaker.strike(at(184), "disk", 1.0));
        assert!(matches!(breaker.gate(at(423)), Gate::Wait(_)));
        assert_eq!(breaker.gate(at(424)), Gate::Test);
        breaker.tested(at(424), Ok(()), 1.0);
        breaker.settle();
        assert!(!breaker.strike(at(425), "disk", 1.0));
    }

    #[test]
    fn a_node_shows_that_it_works_before_its_first_claim() {
        let mut breaker = Breaker::untested();
        breaker.settle();
        assert_eq!(breaker.gate(Duration::ZERO), Gate::Test, "what was adopted proves nothing of a claim");
        breaker.tested(Duration::ZERO, Ok(()), 1.0);
        assert_eq!(breaker.gate(Duration::ZERO), Gate::Pass);
        assert!(!breaker.strike(Duration::ZERO, "disk", 1.0), "a first fault is one of several");
    }

    #[test]
    fn the_pause_has_an_end_and_is_drawn() {
        let mut breaker = Breaker::default();
        for _ in 0..40 {
            breaker.tested(Duration::ZERO, Err("no".to_owned()), 1.0);
        }
        assert_eq!(breaker.gate(PAUSE_MAX), Gate::Test);
        breaker.tested(Duration::ZERO, Err("no".to_owned()), 0.0);
        assert_eq!(breaker.gate(Duration::ZERO), Gate::Test);
    }
}
