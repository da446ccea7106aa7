use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use systemd::state_file;

use crate::error::JanitorError;
use crate::policy::Candidate;
use crate::show;

/// The audit log's name in the state directory.
pub const AUDIT_FILE: &str = "janitor.jsonl";

/// What is told of a removal: one line before it, one after it, so that one that was cut short shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Event {
    /// It is about to be done.
    Removing,
    /// It is done.
    Removed,
    /// The object is still there, and why.
    Kept,
    /// It could not be done.
    Failed,
}

/// An append-only log of every removal, bounded by rotation.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
    bytes_max: u64,
}

#[derive(Serialize)]
struct Record<'a> {
    at: Timestamp,
    event: Event,
    what: &'static str,
    id: String,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

impl Audit {
    /// The log in a state directory; at `bytes_max` it becomes `janitor.jsonl.1`, whose predecessor goes.
    #[must_use]
    pub fn new(state_dir: &Path, bytes_max: u64) -> Self {
        Self { path: state_dir.join(AUDIT_FILE), bytes_max }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn older_path(&self) -> PathBuf {
        self.path.with_extension("jsonl.1")
    }

    pub(crate) fn record(
        &self,
        at: Timestamp,
        event: Event,
        candidate: &Candidate,
        bytes: Option<u64>,
        detail: Option<&str>,
    ) -> Result<(), JanitorError> {
        let entry = candidate.entry.as_ref();
        let record = Record {
            at,
            event,
            what: show::kind(&candidate.target),
            id: show::id(&candidate.target),
            name: &candidate.name,
            task: entry.map(|entry| entry.task.as_str()),
            token: entry.map(|entry| entry.token.to_string()),
            owner: entry.map(|entry| entry.owner.to_string()),
            reason: candidate.reason.to_string(),
            created_at: candidate.created_at,
            bytes,
            detail,
        };
        self.append(&record).map_err(|source| {
            let (action, path) = ("write the audit log", self.path.clone());
            JanitorError::State { action, path, source }
        })
    }

    fn append(&self, record: &Record<'_>) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let mut file = self.open()?;
        if file.metadata()?.len() + line.len() as u64 > self.bytes_max && self.rotate(&file)? {
            file = self.open()?;
        }
        if is_torn(&file)? {
            line.insert(0, b'\n');
        }
        // One write: the lines of two janitors on one node do not mix.
        file.write_all(&line)
    }

    fn open(&self) -> io::Result<File> {
        let options = || OpenOptions::new().append(true).read(true).clone();
        // Only what was just made, and by no link that somebody put there, is given away.
        let made = match options().create_new(true).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return options().create(true).open(&self.path);
            }
            made => made?,
        };
        self.path.parent().into_iter().for_each(|dir| state_file::hand_over(&made, dir));
        Ok(made)
    }

    /// False where another janitor does that just now, or has done it since the log was opened: then the older file is the
    /// one that is open.
    fn rotate(&self, log: &File) -> io::Result<bool> {
        let is_alone = log.try_lock().is_ok();
        let is_current = fs::metadata(&self.path).is_ok_and(|now| {
            log.metadata().is_ok_and(|log| (now.dev(), now.ino()) == (log.dev(), log.ino()))
        });
        if !is_alone || !is_current {
            return Ok(false);
        }
        let older = self.older_path();
        let absent_is_fine = |done: io::Result<()>| match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        };
        absent_is_fine(fs::remove_file(&older))?;
        fs::hard_link(&self.path, &older)?;
        absent_is_fine(fs::remove_file(&self.path))?;
        Ok(true)
    }
}

/// Whether the last line was cut short, by a full disk or a kill: the next one must not be lost with it.
fn is_torn(log: &File) -> io::Result<bool> {
    let length = log.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        log.read_exact_at(&mut last, length - 1)?;
    }
    Ok(last != [b'\n'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Patience, Reason, Target};

    fn candidate(number: u32) -> Candidate {
        Candidate {
            target: Target::Container(format!("id{number:04}")),
            reason: Reason::ClaimGone,
            patience: Patience::Grace,
            name: "x".to_owned(),
            entry: None,
            created_at: None,
            bytes: None,
        }
    }

    #[test]
    fn a_torn_line_takes_no_other_with_it() {
        let dir = tempfile::tempdir().expect("dir");
        let audit = Audit::new(dir.path(), 1 << 20);
        let record =
            |number| audit.record(Timestamp::UNIX_EPOCH, Event::Removed, &candidate(number), None, None);
        record(1).expect("written");
        let whole = fs::read(audit.path()).expect("the log");
        fs::write(audit.path(), &whole[..whole.len() - 9]).expect("torn");
        record(2).expect("written");
        record(3).expect("written");
        let text = fs::read_to_string(audit.path()).expect("the log");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert_eq!(audit.past().len(), 2, "{text}");
    }

    #[test]
    fn who_comes_late_rotates_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        let audit = Audit::new(dir.path(), 300);
        let record =
            |number| audit.record(Timestamp::UNIX_EPOCH, Event::Removed, &candidate(number), None, None);
        record(1).expect("written");
        let late = audit.open().expect("the log");
        let other = audit.open().expect("the log");
        other.lock().expect("locked");
        assert!(!audit.rotate(&late).expect("looked"), "another one does it");
        drop(other);
        for number in 2..4 {
            record(number).expect("written");
        }
        let older = fs::read(audit.older_path()).expect("an older one");
        assert!(!audit.rotate(&late).expect("looked"), "another one has done it");
        assert_eq!(fs::read(audit.older_path()).expect("an older one"), older);
    }

    #[test]
    fn every_line_is_kept_until_its_file_is_the_oldest_but_one() {
        let dir = tempfile::tempdir().expect("dir");
        let audit = Audit::new(dir.path(), 2000);
        for number in 0..100 {
            let at = Timestamp::from_second(i64::from(number)).expect("time");
            audit.record(at, Event::Removed, &candidate(number), Some(7), None).expect("written");
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect(name);
        let (older, newer) = (read("janitor.jsonl.1"), read(AUDIT_FILE));
        assert!(older.len() <= 2000 && newer.len() <= 2000);
        let ids: Vec<String> = format!("{older}{newer}")
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["id"].to_string())
            .collect();
        let expected: Vec<String> =
            (100 - ids.len()..100).map(|number| format!("\"id{number:04}\"")).collect();
        assert_eq!(ids, expected);
        assert!(ids.len() > 10, "two files of 2000 bytes hold more than {}", ids.len());
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 2);
    }
}
