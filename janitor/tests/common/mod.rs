//! What several of the janitor's tests begin with.

use janitor::Config;

/// Without a grace period, on disks that are never full.
pub(crate) fn config() -> Config {
    Config {
        grace_seconds: 0,
        disk_low_percent: 99,
        disk_high_percent: 100,
        disk_emergency_percent: 101,
        disk_free_gib: 0.0,
        ..Config::default()
    }
}
