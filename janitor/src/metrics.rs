//! Numbers for a node's metrics collector: a text file, for the janitor opens no port.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use systemd::state_file;

use crate::disk::Level;
use crate::execute::Report;

/// The gauge that tells a janitor that is stopped, or whose passes all fail.
const LAST_PASS: &str = "last_pass_timestamp_seconds";

/// The file in the state directory, for the textfile collector of Prometheus' node_exporter.
pub const METRICS_FILE: &str = "janitor.prom";

const PREFIX: &str = "bottega_janitor_";

/// Counters: what the file says, and what this process has counted since it wrote there.
const COUNTERS: [(&str, &str); 5] = [
    ("passes_total", "Passes made."),
    ("passes_failed_total", "Passes that the spool or the state directory ended."),
    ("removed_total", "Things removed or forgotten, leases taken back."),
    ("failed_total", "Removals that failed."),
    ("freed_bytes_total", "Bytes freed, as far as known."),
];

/// What has been counted since it was last written, and how it is now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    /// In the order of [`COUNTERS`].
    counted: [u64; COUNTERS.len()],
    last: Report,
    last_pass_at: Option<Timestamp>,
    engine_answers: bool,
    level: Level,
    is_open: bool,
}

impl Metrics {
    pub(crate) fn pass(&mut self, report: Report, at: Timestamp, level: Level, is_open: bool) {
        let Report { removed, failed, bytes, .. } = report;
        self.count([1, 0, removed as u64, failed as u64, bytes]);
        self.last = report;
        self.last_pass_at = Some(at);
        self.level = level;
        self.is_open = is_open;
    }

    pub(crate) fn failed_pass(&mut self) {
        self.count([0, 1, 0, 0, 0]);
    }

    fn count(&mut self, more: [u64; COUNTERS.len()]) {
        for (counted, more) in self.counted.iter_mut().zip(more) {
            *counted = counted.saturating_add(more);
        }
    }

    /// In the exposition format of Prometheus; its counters go on from a text that was written before.
    fn text(&self, before: &str) -> String {
        let mut text = String::new();
        let mut put = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = write!(
                text,
                "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n{PREFIX}{name} {value}\n"
            );
        };
        for ((name, help), counted) in COUNTERS.into_iter().zip(self.counted) {
            put(name, "counter", help, value(before, name).unwrap_or(0).saturating_add(counted));
        }
        put("engine_up", "gauge", "Whether the container engine answers.", u64::from(self.engine_answers));
        let gauges = [
            (
                "waiting",
                "Leftovers that wait for their grace period, for builds or for a later pass.",
                (self.last.waiting + self.last.postponed) as u64,
            ),
            ("stuck", "Leftovers that cannot be removed.", self.last.stuck as u64),
            ("disk_level", "How full the disks are: 0 calm, 1 high, 2 emergency.", self.level as u64),
            (
                "breaker_open",
                "Whether removals are stopped, since there were too many.",
                u64::from(self.is_open),
            ),
        ];
        for (name, help, now) in gauges {
            // Who has not ended one pass yet knows no better than the process before.
            let known = value(before, name).filter(|_| self.last_pass_at.is_none());
            put(name, "gauge", help, known.unwrap_or(now));
        }
        let last_pass_at = self.last_pass_at.map(|at| at.as_second().max(0).unsigned_abs());
        let last_pass_at = last_pass_at.or_else(|| value(before, LAST_PASS)).unwrap_or(0);
        put(LAST_PASS, "gauge", "When the last pass was made that nothing ended.", last_pass_at);
        text
    }

    /// Beside another process that does the same, each adds what it has counted.
    pub(crate) fn write(&mut self, state_dir: &Path, engine_answers: bool) -> std::io::Result<()> {
        self.engine_answers = engine_answers;
        let path = state_dir.join(METRICS_FILE);
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        // The collector is another user.
        state_file::replace(&path, self.text(&before).as_bytes(), 0o644)?;
        self.counted = Default::default();
        Ok(())
    }
}

fn value(text: &str, name: &str) -> Option<u64> {
    let of_name = |line: &str| line.strip_prefix(PREFIX)?.strip_prefix(name)?.trim().parse().ok();
    text.lines().find_map(of_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_passes_all_fail_tells_what_was_known_before() {
        let dir = tempfile::tempdir().expect("dir");
        let check = |metrics: &mut Metrics, expected: [u64; 5]| {
            metrics.write(dir.path(), false).expect("written");
            let text = std::fs::read_to_string(dir.path().join(METRICS_FILE)).expect("metrics");
            let names = ["waiting", "stuck", "disk_level", "breaker_open", "passes_failed_total"];
            assert_eq!(names.map(|name| value(&text, name)), expected.map(Some), "{text}");
        };
        let mut before = Metrics::default();
        let report = Report { waiting: 3, postponed: 4, stuck: 2, ..Report::default() };
        before.pass(report, Timestamp::UNIX_EPOCH, Level::High, true);
        check(&mut before, [7, 2, 1, 1, 0]);
        let mut metrics = Metrics::default();
        for nth in 1..3 {
            metrics.failed_pass();
            check(&mut metrics, [7, 2, 1, 1, nth]);
        }
        metrics.pass(Report::default(), Timestamp::UNIX_EPOCH, Level::Calm, false);
        check(&mut metrics, [0, 0, 0, 0, 2]);
        metrics.failed_pass();
        check(&mut metrics, [0, 0, 0, 0, 3]);
    }
}
