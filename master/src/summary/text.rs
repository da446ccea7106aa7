use std::fmt::Write;

use jiff::Timestamp;
use queue_format::{SlotStatus, WorkerStatus};

use super::Status;
use crate::text::{bytes, clean_line, duration, list_of, plural};

/// Names of files that nobody reads, of which each is told.
const IGNORED_SHOWN_MAX: usize = 5;

/// Less free space on the spool's disk, and results can hardly be written.
const FREE_BYTES_MIN: u64 = 64 << 20;

impl Status {
    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("spool    {}  ({} free)\n", self.path.display(), bytes(self.free_bytes));
        if self.counted_at != self.at {
            let age = duration(self.at.duration_since(self.counted_at).as_secs_f64());
            let _ = writeln!(text, "counted  {age} ago, by the master");
        }
        let counts = &self.counts;
        let sum = |map: &std::collections::BTreeMap<String, usize>| map.values().sum::<usize>();
        let due = counts.next_due_seconds.map_or_else(String::new, |due| self.until(due));
        let nodes =
            counts.claimed.iter().map(|(owner, n)| (owner.split('~').next().unwrap_or(owner).to_owned(), n));
        let mut by_node = std::collections::BTreeMap::new();
        for (node, count) in nodes {
            *by_node.entry(node).or_default() += count;
        }
        let rows = [
            ("pending", sum(&counts.pending), list_of(&counts.pending)),
            ("delayed", counts.delayed, due),
            ("hold", counts.hold, String::new()),
            ("claimed", sum(&counts.claimed), list_of(&by_node)),
            ("done", sum(&counts.done), list_of(&counts.done)),
            ("failed", sum(&counts.failed), list_of(&counts.failed)),
        ];
        for (state, count, detail) in rows {
            let _ = writeln!(text, "{}", format!("{state:8} {count:6}  {detail}").trim_end());
        }
        if self.unread.files > 0 {
            let files = self.unread.files;
            let _ = writeln!(text, "incoming {files:6}  {} not read yet", plural(files, "file"));
        }
        if let Some(ignored) = self.ignored() {
            let _ = writeln!(text, "note     {ignored}");
        }
        if let Some(full) = self.fullness() {
            let _ = writeln!(text, "note     {full}");
        }
        text.push_str(&self.pace_line());
        text.push_str(&self.control_lines());
        for worker in &self.workers {
            text.push_str(&worker_lines(worker, self.at));
        }
        if self.workers.is_empty() && self.counts.open() > 0 {
            text.push_str(
                "no worker has said anything: start one with bottega up, or bottega-worker on a node\n",
            );
        }
        text
    }

    /// What lies in `incoming/`, and nobody will ever read.
    fn ignored(&self) -> Option<String> {
        let ignored = &self.unread.ignored;
        let shown: Vec<String> =
            ignored.iter().take(IGNORED_SHOWN_MAX).map(|name| clean_line(name)).collect();
        let more = match ignored.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!shown.is_empty()).then(|| {
            format!(
                "no master reads incoming/{}{more}: only files called *.json or *.jsonl",
                shown.join(", ")
            )
        })
    }

    /// What to say where the spool's disk is so full that daemons cannot even say it themselves.
    #[must_use]
    pub fn fullness(&self) -> Option<String> {
        (self.free_bytes < FREE_BYTES_MIN).then(|| {
            let free = bytes(self.free_bytes);
            format!(
                "the spool's disk is as good as full ({free} free): what does not fit waits until there is space at {}",
                self.path.display()
            )
        })
    }

    fn until(&self, due_seconds: u64) -> String {
        let now = u64::try_from(self.at.as_second()).unwrap_or(0);
        match due_seconds.checked_sub(now) {
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            Some(left) if left > 0 => format!("next due in {}", duration(left as f64)),
            _ => "due now".to_owned(),
        }
    }

    fn control_lines(&self) -> String {
        let mut text = String::new();
        if let Some(reason) = self.control.paused() {
            let why = if reason.is_empty() { String::new() } else { format!(": {}", clean_line(reason)) };
            let _ = writeln!(text, "paused   nobody claims{why}; to go on: bottega resume");
        }
        if !self.control.drained().is_empty() {
            let nodes: Vec<&str> = self.control.drained().iter().map(String::as_str).collect();
            let _ = writeln!(text, "drained  {} (claims no more; bottega drain --undo)", nodes.join(", "));
        }
        for notice in self.control.notices() {
            let _ = writeln!(text, "note     {}", clean_line(notice));
        }
        text
    }

    fn pace_line(&self) -> String {
        let Some(pace) = &self.pace else { return String::new() };
        let (rate, window) = (pace.settled_per_hour, duration(pace.window_seconds));
        let eta = pace
            .eta_seconds
            .map_or_else(String::new, |eta| format!("; the rest takes about {}", duration(eta)));
        format!("pace     {rate:6.1}  tasks an hour, over the last {window}{eta}\n")
    }
}

fn worker_lines(worker: &WorkerStatus, now: Timestamp) -> String {
    let age = now.duration_since(worker.at).as_secs_f64();
    let silent = if worker.is_silent(now) { ": silent, perhaps dead" } else { "" };
    let mut text = format!("\nworker {}  (heard {} ago{silent})\n", worker.owner, duration(age));
    if let Some(obstacle) = &worker.obstacle {
        let _ = writeln!(text, "  nothing is claimed: {}", clean_line(obstacle));
    }
    for notice in &worker.notices {
        let _ = writeln!(text, "  note: {}", clean_line(notice));
    }
    for slot in &worker.slots {
        let _ = writeln!(text, "  {}", slot_line(slot, now));
    }
    text
}

/// `slot 0  cores 0-3  24.0 GiB  build (2nd) for 12 s  pallets__click-1`.
pub(crate) fn slot_line(slot: &SlotStatus, now: Timestamp) -> String {
    let doing = match (&slot.activity, &slot.out_of_service) {
        (Some(activity), _) => {
            let age = duration(now.duration_since(activity.since).as_secs_f64());
            format!("{:12} {age:>12}  {}", clean_line(&activity.stage), activity.task)
        }
        (None, Some(why)) => format!("out of service: {}", clean_line(why)),
        (None, None) => "idle".to_owned(),
    };
    format!("slot {}  cores {}  {}  {doing}", slot.slot, slot.cpuset, bytes(slot.memory_bytes))
}
