use std::time::Duration;

use queue_format::LitterAges;
use serde::{Deserialize, Serialize};

use crate::disk::Watermarks;
use crate::retain::Retention;

/// The `[janitor]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// How long something must have been seen as a leftover before it is removed.
    pub grace_seconds: u64,
    /// Time between two passes, give or take a quarter.
    pub period_seconds: u64,
    /// The most removals of one pass; the rest waits for the next ones.
    pub deletions_max: usize,
    /// The most removals of one hour, restarts included: more is no leftover but a mistake, of ours or of somebody who moved
    /// the spool. Nothing is removed then until the hour is over. Layers without a name, leases, ledger entries and locks do
    /// not count.
    pub deletions_per_hour_max: usize,
    /// Removals in flight.
    pub parallel_removals: usize,
    /// How long the engine may take for one answer.
    pub engine_timeout_seconds: u64,
    /// How large the audit log becomes before it is rotated; one older file is kept.
    pub audit_bytes_max: u64,
    /// How long a pass waits for a moment without builds before images are removed; none is kept out meanwhile.
    pub builds_wait_seconds: u64,
    /// From this use of the node's disks on, in bytes or in inodes, images that are only kept for later use go.
    pub disk_high_percent: u8,
    /// Until so much is in use.
    pub disk_low_percent: u8,
    /// From this use on, workers of this node are asked to claim nothing until it is lower.
    pub disk_emergency_percent: u8,
    /// Where less is free on one of these disks, that counts as `disk_high_percent`, and half as much again as
    /// `disk_low_percent`; 0: the percents alone. Above `reserved_disk_gib` of `[worker]`, or nobody makes the room that
    /// workers wait for.
    pub disk_free_gib: f64,
    /// How long the image of an accepted task stays after its last use.
    pub accepted_keep_days: u64,
    /// What copies of repositories may take together.
    pub repositories_bytes_max: u64,
    /// How long files that were removed but for their last name or never got one, and results of attempts that never ended,
    /// stay in the spool.
    pub leftovers_keep_days: u64,
    /// How long the logs of this node's workers stay in the spool after these are gone, and what they may take together.
    pub logs_keep_days: u64,
    /// See `logs_keep_days`.
    pub logs_bytes_max: u64,
    /// Time between two looks at what lies in the spool and at copies of repositories.
    pub spool_period_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            grace_seconds: 30,
            period_seconds: 15,
            deletions_max: 200,
            deletions_per_hour_max: 5000,
            parallel_removals: 8,
            engine_timeout_seconds: 60,
            audit_bytes_max: 8 << 20,
            builds_wait_seconds: 20,
            disk_high_percent: 85,
            disk_low_percent: 75,
            disk_emergency_percent: 98,
            disk_free_gib: 10.0,
            accepted_keep_days: 14,
            repositories_bytes_max: 100 << 30,
            leftovers_keep_days: 7,
            logs_keep_days: 90,
            logs_bytes_max: 1 << 30,
            spool_period_seconds: 600,
        }
    }
}

/// What is waited for longer than this keeps systemd's watchdog waiting, or a build until it gives up.
pub(crate) const ENGINE_TIMEOUT_SECONDS_MAX: u64 = 90;
const BUILDS_WAIT_SECONDS_MAX: u64 = 120;

/// A week, a century, and more than any node has: what is larger is a mistake.
const SECONDS_MAX: u64 = 7 * 24 * 3600;
const DAYS_MAX: u64 = 36_500;
const COUNT_MAX: u64 = 1 << 32;
const DISK_GIB_MAX: f64 = 1e9;

/// Where the disk is full, what was used so recently stays until the emergency: it may be used again in a moment.
const ACCEPTED_REST: Duration = Duration::from_secs(3600);

fn days(days: u64) -> Duration {
    Duration::from_secs(days.saturating_mul(24 * 3600))
}

impl Config {
    /// The first value that makes no sense, in a sentence.
    ///
    /// # Errors
    /// There is one.
    pub fn validate(&self) -> Result<(), String> {
        let ranges = [
            ("grace_seconds", self.grace_seconds, 0, SECONDS_MAX),
            ("period_seconds", self.period_seconds, 1, SECONDS_MAX),
            ("deletions_max", self.deletions_max as u64, 1, COUNT_MAX),
            ("deletions_per_hour_max", self.deletions_per_hour_max as u64, 1, COUNT_MAX),
            ("parallel_removals", self.parallel_removals as u64, 1, 1024),
            ("engine_timeout_seconds", self.engine_timeout_seconds, 1, ENGINE_TIMEOUT_SECONDS_MAX),
            ("audit_bytes_max", self.audit_bytes_max, 1, u64::MAX),
            ("builds_wait_seconds", self.builds_wait_seconds, 0, BUILDS_WAIT_SECONDS_MAX),
            ("disk_low_percent", u64::from(self.disk_low_percent), 1, 100),
            ("accepted_keep_days", self.accepted_keep_days, 0, DAYS_MAX),
            ("leftovers_keep_days", self.leftovers_keep_days, 1, DAYS_MAX),
            ("logs_keep_days", self.logs_keep_days, 0, DAYS_MAX),
            ("spool_period_seconds", self.spool_period_seconds, 1, SECONDS_MAX),
        ];
        let outside = ranges.iter().filter(|(_, value, from, to)| !(from..=to).contains(&value));
        let mut wrong: Vec<String> = outside
            .map(|(key, value, from, to)| format!("janitor.{key} is {value}, expected {from} to {to}"))
            .collect();
        let (low, high, emergency) =
            (self.disk_low_percent, self.disk_high_percent, self.disk_emergency_percent);
        if low >= high || high > emergency {
            wrong.push(format!(
                "janitor.disk_low_percent ({low}) must be below disk_high_percent ({high}), and that no more than \
                 disk_emergency_percent ({emergency})"
            ));
        }
        if !(0.0..=DISK_GIB_MAX).contains(&self.disk_free_gib) {
            let found = self.disk_free_gib;
            wrong.push(format!("janitor.disk_free_gib is {found}, expected 0 to {DISK_GIB_MAX}"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        Watermarks {
            high_percent: self.disk_high_percent,
            low_percent: self.disk_low_percent,
            emergency_percent: self.disk_emergency_percent,
            free_bytes_min: (self.disk_free_gib * f64::from(1 << 30)) as u64,
        }
    }

    pub(crate) fn retention(&self) -> Retention {
        Retention { accepted: days(self.accepted_keep_days), rest: ACCEPTED_REST }
    }

    pub(crate) fn litter_ages(&self) -> LitterAges {
        LitterAges {
            leftovers: days(self.leftovers_keep_days),
            logs: days(self.logs_keep_days),
            logs_bytes_max: self.logs_bytes_max,
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
    fn what_would_stop_the_work_is_refused() {
        assert_eq!(Config::default().validate(), Ok(()));
        assert_eq!(Config { grace_seconds: 0, ..Config::default() }.validate(), Ok(()));
        let refused = Config { deletions_max: 0, ..Config::default() }.validate();
        assert_eq!(refused, Err("janitor.deletions_max is 0, expected 1 to 4294967296".to_owned()));
        let check = |config: Config, expected: &str| {
            assert_eq!(config.validate().err().unwrap_or_default(), expected);
        };
        let engine = |engine_timeout_seconds| Config { engine_timeout_seconds, ..Config::default() };
        check(engine(90), "");
        check(engine(91), "janitor.engine_timeout_seconds is 91, expected 1 to 90");
        let builds = |builds_wait_seconds| Config { builds_wait_seconds, ..Config::default() };
        check(builds(120), "");
        check(builds(700), "janitor.builds_wait_seconds is 700, expected 0 to 120");
        let free = |disk_free_gib| Config { disk_free_gib, ..Config::default() };
        check(free(0.0), "");
        check(free(-1.0), "janitor.disk_free_gib is -1, expected 0 to 1000000000");
        check(free(f64::NAN), "janitor.disk_free_gib is NaN, expected 0 to 1000000000");
        let refused = Config { disk_low_percent: 90, ..Config::default() }.validate();
        assert!(
            refused
                .is_err_and(|why| why.contains("disk_low_percent (90) must be below disk_high_percent (85)"))
        );
    }
}
