use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The `[janitor]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// How long something must have been seen as a leftover before it is removed.
    pub grace_seconds: u64,
    /// Time between two passes, give or take a quarter.
    pub period_seconds: u64,
    /// The most removals of one pass; the rest waits for the next ones.
    pub deletions_max: usize,
    /// Removals in flight.
    pub parallel_removals: usize,
    /// How long the engine may take for one answer.
    pub engine_timeout_seconds: u64,
    /// How large the audit log becomes before it is rotated; one older file is kept.
    pub audit_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            grace_seconds: 30,
            period_seconds: 15,
            deletions_max: 200,
            parallel_removals: 8,
            engine_timeout_seconds: 60,
            audit_bytes_max: 8 << 20,
        }
    }
}

impl Config {
    /// The first value that makes no sense, in a sentence.
    ///
    /// # Errors
    /// There is one.
    pub fn validate(&self) -> Result<(), String> {
        let positive = [
            ("period_seconds", self.period_seconds),
            ("deletions_max", self.deletions_max as u64),
            ("parallel_removals", self.parallel_removals as u64),
            ("engine_timeout_seconds", self.engine_timeout_seconds),
            ("audit_bytes_max", self.audit_bytes_max),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(format!("janitor.{key} is 0; it must be at least 1")),
            None => Ok(()),
        }
    }

    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }

    pub(crate) fn engine_timeout(&self) -> Duration {
        Duration::from_secs(self.engine_timeout_seconds)
    }

    /// The time until the next pass: a quarter more or less than the period, so that the janitors of many nodes do
    /// not list the spool at once.
    pub(crate) fn pause(&self, random: u64) -> Duration {
        let period = Duration::from_secs(self.period_seconds);
        let fraction = (random % 1024) as f64 / 1024.0;
        period.mul_f64(0.75 + fraction / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_lie_around_the_period() {
        let config = Config { period_seconds: 100, ..Config::default() };
        let check = |random: u64, seconds: f64| {
            assert!((config.pause(random).as_secs_f64() - seconds).abs() < 0.1, "{random}");
        };
        check(0, 75.0);
        check(512, 100.0);
        check(1023, 125.0);
        check(1024 + 512, 100.0);
    }

    #[test]
    fn zero_is_refused_where_it_would_stop_the_work() {
        assert_eq!(Config::default().validate(), Ok(()));
        assert_eq!(Config { grace_seconds: 0, ..Config::default() }.validate(), Ok(()));
        let refused = Config { deletions_max: 0, ..Config::default() }.validate();
        assert_eq!(refused, Err("janitor.deletions_max is 0; it must be at least 1".to_owned()));
    }
}
