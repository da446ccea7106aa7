use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::files::Files;
use crate::{Event, LoggedEvent, Owner, PathError, Spool, SpoolError, TaskId};

/// A log of this size is put aside as `<owner>.jsonl.1`, in the place of the one before; so one incarnation's logs
/// take twice this at most.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// Lines that wait to be written; while the spool takes none, the oldest go first.
const WAITING_MAX: usize = 10_000;

/// The longest line that is read: events are far shorter.
const LINE_BYTES_MAX: usize = 1 << 16;

/// Events of one task that are given at most, the latest.
const EVENTS_MAX: usize = 1000;

/// The log of one incarnation: `log/<owner>.jsonl`, one JSON object a line, written by nobody else.
///
/// [`EventLog::note`] touches no file, so that neither a full disk nor a hung mount keeps a worker from its work;
/// [`EventLog::flush`], called with every heartbeat, writes what has gathered with one append. What cannot be
/// written waits, and at last is counted as lost. The log is for people: nothing reads it to go on.
#[derive(Clone, Debug)]
pub struct EventLog {
    waiting: Arc<Mutex<Waiting>>,
    file: Arc<Mutex<LogFile>>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: std::collections::VecDeque<String>,
    lost: u64,
}

#[derive(Debug)]
struct LogFile {
    files: Files,
    path: PathBuf,
    bytes: u64,
    /// The last append failed and may have left half a line.
    is_torn: bool,
}

impl EventLog {
    /// The log of a new incarnation; its file is made with the first event.
    #[must_use]
    pub fn new(spool: &Spool, owner: &Owner) -> Self {
        let (files, path) = (spool.files().clone(), spool.layout().log(owner));
        let file = LogFile { files, path, bytes: 0, is_torn: false };
        Self { waiting: Arc::default(), file: Arc::new(Mutex::new(file)) }
    }

    /// Keeps an event to be written with the next [`EventLog::flush`]. Touches no file, and never fails.
    pub fn note(&self, at: Timestamp, event: Event) {
        // Nothing here has a value that JSON cannot hold.
        let Ok(line) = serde_json::to_string(&LoggedEvent { at, event }) else { return };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.lines.push_back(line);
        if waiting.lines.len() > WAITING_MAX {
            waiting.lines.pop_front();
            waiting.lost += 1;
        }
    }

    /// Writes what has gathered; what cannot be written waits for the next time.
    ///
    /// # Errors
    /// The log cannot be written. That is worth a notice, and must stop nothing.
    pub fn flush(&self, at: Timestamp) -> Result<(), PathError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { lines, lost } =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if lines.is_empty() && lost == 0 {
            return Ok(());
        }
        let missing = (lost > 0).then_some(LoggedEvent { at, event: Event::Missing { lost } });
        let mut text = missing.and_then(|event| serde_json::to_string(&event).ok()).unwrap_or_default();
        text.push_str(if text.is_empty() { "" } else { "\n" });
        for line in &lines {
            text.push_str(line);
            text.push('\n');
        }
        let written = file.write(&text);
        if written.is_err() {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.lost += lost;
            for line in lines.into_iter().rev() {
                if waiting.lines.len() < WAITING_MAX {
                    waiting.lines.push_front(line);
                } else {
                    waiting.lost += 1;
                }
            }
        }
        written
    }
}

impl LogFile {
    fn write(&mut self, text: &str) -> Result<(), PathError> {
        if self.bytes > 0 && self.bytes + text.len() as u64 > LOG_BYTES_MAX {
            let aside = self.path.with_extension("jsonl.1");
            self.files.remove_file(&aside)?;
            self.files.rename(&self.path, &aside)?;
            self.bytes = 0;
        }
        let start = if self.is_torn { "\n" } else { "" };
        self.is_torn = true;
        self.files.append(&self.path, format!("{start}{text}").as_bytes())?;
        self.is_torn = false;
        self.bytes += text.len() as u64;
        Ok(())
    }
}

/// Whose log a file is, the one put aside too.
pub(crate) fn owner_of(name: &str) -> Option<Owner> {
    name.strip_suffix(".1").unwrap_or(name).strip_suffix(".jsonl")?.parse().ok()
}

impl Spool {
    /// What the logs tell of one task, in order of time, the latest where there is very much; reads every log. Lines
    /// that are torn or of a newer version are passed over.
    ///
    /// # Errors
    /// A log cannot be read.
    pub fn events_of(&self, id: &TaskId) -> Result<Vec<(Owner, LoggedEvent)>, SpoolError> {
        let needle = format!("\"{id}\"");
        let mut found: Vec<(Owner, LoggedEvent)> = Vec::new();
        for name in self.files().list(&self.layout().logs())? {
            let Some(owner) = owner_of(&name) else { continue };
            let path = self.layout().logs().join(&name);
            let mut lines = BufReader::new(match self.files().open_regular(&path) {
                // Put aside or removed since it was listed.
                Err(e) if e.source.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?.content,
            });
            while let Some(line) = next_line(&mut lines).map_err(|source| PathError {
                action: "read",
                path: path.clone(),
                source,
            })? {
                if !line.contains(&needle) {
                    continue;
                }
                let Ok(event) = serde_json::from_str::<LoggedEvent>(&line) else { continue };
                if event.event.task() == Some(id) {
                    found.push((owner.clone(), event));
                }
            }
            found.sort_by_key(|(_, event)| event.at);
            found.drain(..found.len().saturating_sub(EVENTS_MAX));
        }
        Ok(found)
    }
}

/// One line, cut where it is too long to be an event; `None` at the end.
fn next_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        let part = from.fill_buf()?;
        if part.is_empty() {
            return Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()));
        }
        let end = part.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(part.len(), |at| at + 1);
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(&part[..taken.min(room)]);
        from.consume(taken);
        if end.is_some() {
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Incarnation, Token};
    use std::fs;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn spool() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::init(&dir.path().join("s"), uuid::Uuid::from_u128(1)).expect("a spool");
        (dir, spool)
    }

    fn claimed(id: &str) -> Event {
        Event::Claimed { task: id.parse().expect("an id"), token: Token(1), class: "5-build".to_owned() }
    }

    #[test]
    fn an_event_is_one_line_that_a_person_can_read() {
        let (_dir, spool) = spool();
        let me = Owner::new("n1", Incarnation::new(uuid::Uuid::from_u128(7)));
        let log = EventLog::new(&spool, &me);
        log.note(at(5), claimed("a"));
        assert!(!spool.layout().log(&me).exists(), "an event costs nothing until it is flushed");
        log.flush(at(6)).expect("written");
        log.flush(at(6)).expect("nothing to write");
        log.note(at(7), Event::Resumed);
        log.flush(at(8)).expect("written");
        let text = fs::read_to_string(spool.layout().log(&me)).expect("written");
        assert_eq!(
            text,
            "{\"at\":\"1970-01-01T00:00:05Z\",\"event\":\"claimed\",\"task\":\"a\",\"token\":\"a001\",\"class\":\"5-build\"}\n\
             {\"at\":\"1970-01-01T00:00:07Z\",\"event\":\"resumed\"}\n"
        );
    }

    #[test]
    fn a_log_that_cannot_be_written_stops_nothing_and_loses_nothing_at_first() {
        let (_dir, spool) = spool();
        let me = Owner::new("n1", Incarnation::new(uuid::Uuid::from_u128(7)));
        let log = EventLog::new(&spool, &me);
        fs::create_dir(spool.layout().log(&me)).expect("in the way");
        for n in 0..WAITING_MAX + 2 {
            log.note(at(i64::try_from(n).expect("small")), claimed("a"));
        }
        assert!(log.flush(at(9)).is_err());
        log.note(at(10), claimed("b"));
        assert!(log.flush(at(11)).is_err());
        fs::remove_dir(spool.layout().log(&me)).expect("out of the way");
        log.flush(at(12)).expect("written");
        let text = fs::read_to_string(spool.layout().log(&me)).expect("written");
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), WAITING_MAX + 1);
        assert_eq!(lines[0], "{\"at\":\"1970-01-01T00:00:12Z\",\"event\":\"missing\",\"lost\":3}");
        assert!(lines[WAITING_MAX].contains("\"b\""));
    }

    #[test]
    fn a_log_is_bounded_and_what_it_tells_of_a_task_is_found_in_order() {
        let (_dir, spool) = spool();
        let owner = |n: u128| Owner::new("n1", Incarnation::new(uuid::Uuid::from_u128(n)));
        let (first, second) = (EventLog::new(&spool, &owner(1)), EventLog::new(&spool, &owner(2)));
        let reason = "r".repeat(2000);
        for n in 0..20_000 {
            first.note(at(n), Event::Paused { reason: reason.clone() });
            if n % 1000 == 0 {
                first.note(at(n), claimed(&format!("t{}", n / 1000)));
                first.flush(at(n)).expect("written");
            }
        }
        let log = spool.layout().log(&owner(1));
        let sizes =
            [&log, &log.with_extension("jsonl.1")].map(|path| fs::metadata(path).expect("there").len());
        assert!(sizes.iter().all(|size| *size <= LOG_BYTES_MAX), "{sizes:?}");
        second.note(at(1), Event::Returned { task: "t18".parse().expect("an id"), token: Token(3) });
        second.flush(at(1)).expect("written");
        let mut torn = fs::read_to_string(spool.layout().log(&owner(2))).expect("written");
        torn.push_str("{\"at\":\"1970-01-01T00:00:05Z\",\"event\":\"claimed\",\"task\":\"t18\"");
        fs::write(spool.layout().log(&owner(2)), torn).expect("written");
        let found = spool.events_of(&"t18".parse().expect("an id")).expect("read");
        let found: Vec<(Owner, i64)> =
            found.into_iter().map(|(owner, event)| (owner, event.at.as_second())).collect();
        assert_eq!(found, [(owner(2), 1), (owner(1), 18_000)]);
    }
}
