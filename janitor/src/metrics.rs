//! Numbers for a node's metrics collector: a text file, for the janitor opens no port.

use std::fmt::Write as _;
use std::path::Path;
use systemd::state_file;

use crate::disk::Level;
use crate::execute::Report;

/// The file in the state directory, for the textfile collector of Prometheus' node_exporter.
pub const METRICS_FILE: &str = "janitor.prom";

/// What has been counted since the start, and how it is now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    passes: u64,
    passes_failed: u64,
    removed: u64,
    failed: u64,
    freed_bytes: u64,
    last: Report,
    engine_answers: bool,
    level: Level,
    is_open: bool,
}

impl Metrics {
    pub(crate) fn pass(&mut self, report: Report, engine_answers: bool, level: Level, is_open: bool) {
        self.passes += 1;
        self.removed += report.removed as u64;
        self.failed += report.failed as u64;
        self.freed_bytes += report.bytes;
        self.last = report;
        self.engine_answers = engine_answers;
        self.level = level;
        self.is_open = is_open;
    }

    pub(crate) fn failed_pass(&mut self) {
        self.passes_failed += 1;
    }

    /// In the exposition format of Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut put = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = write!(
                text,
                "# HELP bottega_janitor_{name} {help}\n# TYPE bottega_janitor_{name} {kind}\nbottega_janitor_{name} {value}\n"
            );
        };
        put("passes_total", "counter", "Passes made.", self.passes);
        put(
            "passes_failed_total",
            "counter",
            "Passes that the spool or the state directory ended.",
            self.passes_failed,
        );
        put("removed_total", "counter", "Things removed or forgotten, leases taken back.", self.removed);
        put("failed_total", "counter", "Removals that failed.", self.failed);
        put("freed_bytes_total", "counter", "Bytes freed, as far as known.", self.freed_bytes);
        put(
            "waiting",
            "gauge",
            "Leftovers that wait for their grace period, for builds or for a later pass.",
            (self.last.waiting + self.last.postponed) as u64,
        );
        put("stuck", "gauge", "Leftovers that cannot be removed.", self.last.stuck as u64);
        put("engine_up", "gauge", "Whether the container engine answers.", u64::from(self.engine_answers));
        put("disk_level", "gauge", "How full the disks are: 0 calm, 1 high, 2 emergency.", self.level as u64);
        put(
            "breaker_open",
            "gauge",
            "Whether removals are stopped, since there were too many.",
            u64::from(self.is_open),
        );
        text
    }

    pub(crate) fn write(&self, state_dir: &Path) -> std::io::Result<()> {
        // The collector is another user.
        state_file::replace(&state_dir.join(METRICS_FILE), self.text().as_bytes(), 0o644)
    }
}
