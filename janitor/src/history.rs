//! What was removed, when and why, from the audit log.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};

use jiff::Timestamp;
use serde::Deserialize;

use crate::audit::{Audit, Event};
use crate::breaker::{self, Budget};
use crate::show;

/// How long a removal may take that is still going on: the engine is given up on before.
const REMOVAL_SECONDS_MAX: i64 = 300;

/// A line of the audit log, as far as it is told here.
#[derive(Clone, Debug, Deserialize)]
pub struct Past {
    /// When.
    pub at: Timestamp,
    pub(crate) event: Event,
    what: String,
    id: String,
    name: String,
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    token: Option<String>,
    reason: String,
    #[serde(default)]
    bytes: Option<u64>,
    #[serde(default)]
    detail: Option<String>,
}

impl Audit {
    /// All that the log still tells, oldest first; a line that a crash has torn is left out.
    #[must_use]
    pub fn past(&self) -> Vec<Past> {
        let mut past = Vec::new();
        self.visit(|entry| past.push(entry));
        past
    }

    /// One line in memory at a time.
    fn visit(&self, mut see: impl FnMut(Past)) {
        for path in [&self.older_path(), self.path()] {
            let Ok(file) = File::open(path) else { continue };
            // Not UTF-8 ends a line like any other damage, and the file with it.
            for line in BufReader::new(file).lines().map_while(Result::ok) {
                serde_json::from_str(&line).into_iter().for_each(&mut see);
            }
        }
    }

    /// When things were removed since that count for the breaker.
    pub(crate) fn removed_since(&self, since: Timestamp) -> Vec<(Timestamp, Budget)> {
        let mut removed = Vec::new();
        self.visit(|past| {
            if past.event == Event::Removed && past.at >= since {
                removed.extend(breaker::budget(&past.what, &past.name).map(|budget| (past.at, budget)));
            }
        });
        removed
    }
}

/// What became of each thing, a line each, oldest first; only what `wanted` names, by id, name, task or the beginning of
/// one. A removal that was begun and not ended was cut short, if it was not begun just before `now`: the next pass looked
/// at it anew.
#[must_use]
pub fn history(past: &[Past], wanted: Option<&str>, now: Timestamp) -> Vec<String> {
    let mut open: HashMap<&str, usize> = HashMap::new();
    let mut lines: Vec<(&Past, bool)> = Vec::new();
    for entry in past {
        if let Some(at) = open.remove(entry.id.as_str()) {
            // It ends what was begun, or is begun anew.
            lines[at].1 = entry.event == Event::Removing;
        }
        if entry.event == Event::Removing {
            open.insert(&entry.id, lines.len());
        }
        lines.push((entry, entry.event == Event::Removing));
    }
    let is_wanted = |past: &&(&Past, bool)| {
        let past = past.0;
        wanted.is_none_or(|wanted| {
            let id = past.id.trim_start_matches("sha256:");
            id.starts_with(wanted)
                || past.id == wanted
                || past.name.contains(wanted)
                || past.task.as_deref() == Some(wanted)
        })
    };
    lines.iter().filter(is_wanted).filter_map(|(past, is_open)| past.line(*is_open, now)).collect()
}

impl Past {
    fn line(&self, is_open: bool, now: Timestamp) -> Option<String> {
        let age = now.duration_since(self.at).as_secs();
        let verb = match self.event {
            Event::Removing if is_open && (0..REMOVAL_SECONDS_MAX).contains(&age) => "begun",
            Event::Removing if is_open => "cut short",
            Event::Removing => return None,
            Event::Removed => "removed",
            Event::Kept => "kept",
            Event::Failed => "failed",
        };
        let mut line =
            format!("{} {verb} {} {}", self.at.strftime("%Y-%m-%dT%H:%M:%SZ"), self.what, self.name);
        if let (Some(task), Some(token)) = (&self.task, &self.token) {
            line.push_str(&format!(" of {task} {token}"));
        }
        line.push_str(&format!(": {}", self.reason));
        if let Some(bytes) = self.bytes {
            line.push_str(&format!(", {}", show::size(bytes)));
        }
        if let Some(detail) = &self.detail {
            line.push_str(&format!("; {detail}"));
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::policy::{Candidate, Patience, Reason, Target};

    #[test]
    fn what_was_cut_short_is_told_and_what_ended_is_told_once() {
        let dir = tempfile::tempdir().expect("dir");
        let audit = Audit::new(dir.path(), 1 << 20);
        let note = |second: i64, event, id: &str, detail: Option<&str>| {
            let candidate = Candidate {
                target: Target::Container(id.to_owned()),
                reason: Reason::ClaimGone,
                patience: Patience::Grace,
                name: format!("name-{id}"),
                entry: None,
                created_at: None,
                bytes: None,
            };
            let at = Timestamp::from_second(second).expect("a time");
            audit.record(at, event, &candidate, Some(7), detail).expect("written");
        };
        note(1, Event::Removing, "a", None);
        note(2, Event::Removing, "b", None);
        note(3, Event::Removed, "a", None);
        note(4, Event::Removing, "b", None);
        note(5, Event::Failed, "b", Some("it hangs"));
        note(6, Event::Removing, "c", None);
        let mut text = fs::read(audit.path()).expect("the log");
        text.extend(b"{\"at\":\"19");
        fs::write(audit.path(), text).expect("torn");
        let at = |second| Timestamp::from_second(second).expect("a time");
        let check = |wanted: Option<&str>, expected: &[&str]| {
            assert_eq!(history(&audit.past(), wanted, at(1000)), expected, "{wanted:?}");
        };
        let b = "1970-01-01T00:00:02Z cut short container name-b: its claim is gone, 7 B";
        let failed = "1970-01-01T00:00:05Z failed container name-b: its claim is gone, 7 B; it hangs";
        let c = "1970-01-01T00:00:06Z cut short container name-c: its claim is gone, 7 B";
        let a = "1970-01-01T00:00:03Z removed container name-a: its claim is gone, 7 B";
        check(None, &[b, a, failed, c]);
        check(Some("b"), &[b, failed]);
        check(Some("name-c"), &[c]);
        check(Some("z"), &[]);
        let begun = "1970-01-01T00:00:06Z begun container name-c: its claim is gone, 7 B";
        assert_eq!(history(&audit.past(), Some("c"), at(7)), [begun], "it may be going on");
        assert_eq!(audit.removed_since(Timestamp::UNIX_EPOCH).len(), 1);
        assert_eq!(audit.removed_since(Timestamp::from_second(4).expect("a time")), []);
    }
}
