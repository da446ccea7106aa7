use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Read};
use std::path::PathBuf;

use jiff::Timestamp;
use queue_format::{
    CHUNK_TASKS_MAX, Known, Owner, PathError, Publisher, Rejects, Spool, SpoolError, TaskId, TaskSpec, Work,
};
use uuid::Uuid;

use super::candidate::{Candidate, LookedAt};
use super::commits::{Commits, Looking};
use super::row::bytes_of;
use super::split::MOVED_FIELD;
use super::{Refusal, Rows, Template};

/// Bytes of tasks held before they are published.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// After so many rows at the latest `progress` is called, whatever became of them.
pub(crate) const PROGRESS_ROWS: usize = CHUNK_TASKS_MAX;

/// Refusals shown; the others are in the file beside the rows.
const SHOWN_MAX: usize = 10;

/// Whoever publishes rows: a spool, a name for the staging area, and where repositories are.
pub struct Ingest<'a> {
    /// Where to.
    pub spool: &'a Spool,
    /// Who.
    pub producer: &'a Owner,
    /// Where the repositories of the rows lie; `None`: each row says so.
    pub repositories: Option<&'a Template>,
    /// Of its tasks, 0 (first) to 9; `None`: a row's is the middle one, a task file's its own.
    pub priority: Option<u8>,
    /// Tasks in a shard, at most [`CHUNK_TASKS_MAX`].
    pub shard_tasks: usize,
    /// Where the commits of rows are looked for.
    pub looking: Looking,
    /// Whether it is only counted what would become of the rows: then nothing is published, and no refused row kept.
    pub is_dry: bool,
}

impl<'a> Ingest<'a> {
    /// With what holds where nobody says otherwise.
    #[must_use]
    pub fn new(spool: &'a Spool, producer: &'a Owner, repositories: Option<&'a Template>) -> Self {
        let (looking, shard_tasks) = (Looking::default(), CHUNK_TASKS_MAX);
        Self { spool, producer, repositories, priority: None, shard_tasks, looking, is_dry: false }
    }
}

/// Where rows come from.
#[derive(Debug)]
pub struct Source<'a> {
    /// What its refused rows are called after.
    pub name: &'a str,
    /// Its number: read again under the same, its rows are still published once.
    pub number: Uuid,
    /// The ids that the spool has.
    pub known: &'a mut Known,
}

/// What became of the rows of one input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Tasks that are now pending, or would be.
    pub published: usize,
    /// Rows whose id the spool had already, or that stand twice in the input.
    pub known: usize,
    /// Rows without a test patch whose patch had the tests: they were moved.
    pub split: usize,
    /// Rows of whose repositories nobody here could tell whether they have the base commit.
    pub unseen: usize,
    /// Rows whose repository lacks the end commit, which no task needs.
    pub without_end: usize,
    /// Rows that were refused.
    pub rejected: usize,
    /// The first of them: place, field, reason.
    pub shown: Vec<String>,
    /// Where the refused rows are kept.
    pub kept: Option<PathBuf>,
}

/// Rows of an input whose content is remembered, to refuse another of the same id; with more, such a row counts as one
/// that is known.
const COMPARED_MAX: usize = 100_000;

/// Why an input was not read to its end. What was published before stays published, and is known the next time.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The input cannot be read.
    #[error("cannot read {name}: {source}")]
    Read {
        /// The input.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The spool cannot be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A file of it cannot be written.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// The rows of one chunk; where it ends follows from the input alone, so that it ends there again.
#[derive(Default)]
struct Batch {
    chunk: u64,
    tasks: Vec<TaskSpec>,
    bytes: usize,
}

impl Ingest<'_> {
    /// Publishes the rows of an input. `progress` is called after each batch, and where none is published after each
    /// few thousand rows.
    ///
    /// # Errors
    /// The input cannot be read, or the spool not be written.
    pub fn run(
        &self,
        source: Source<'_>,
        now: Timestamp,
        input: impl Read,
        mut progress: impl FnMut(&Report),
    ) -> Result<Report, IngestError> {
        let Source { name, number, known } = source;
        let unreadable = |source| IngestError::Read { name: name.to_owned(), source };
        let mut report = Report::default();
        let mut rejects = Rejects::new(self.spool, &format!("{name}.{}", now.strftime("%Y%m%dT%H%M%SZ")));
        let (mut seen, mut commits) = (HashMap::new(), Commits::new(self.looking));
        let mut publisher = Publisher::begin(self.spool, self.producer.clone(), number, known)?;
        let mut batch = Batch::default();
        let mut rows = Rows::new(input).map_err(unreadable)?;
        let mut unsaid = 0;
        let mut looked_at = LookedAt::new(self.repositories);
        while let Some(row) = looked_at.next(&mut rows, &mut commits, &mut report).map_err(unreadable)? {
            unsaid += 1;
            if unsaid >= PROGRESS_ROWS {
                progress(&report);
                unsaid = 0;
            }
            let Candidate { place, raw, task } = row;
            match task.and_then(|task| self.admit(task, &place, &mut seen)) {
                Ok(None) => report.known += 1,
                Ok(Some((task, bytes))) => {
                    if let Work::Build(build) = &task.work {
                        report.split += usize::from(build.instance.extra.contains_key(MOVED_FIELD));
                    }
                    batch.bytes += bytes;
                    batch.tasks.push(task);
                    if batch.bytes >= BATCH_BYTES_MAX || batch.tasks.len() >= self.shard_tasks {
                        batch.publish(&mut publisher, self.is_dry, &mut report)?;
                        progress(&report);
                        unsaid = 0;
                    }
                }
                Err(why) => {
                    let reason = format!("{place}: {why}");
                    if !self.is_dry {
                        rejects.keep(&raw, &reason)?;
                    }
                    report.rejected += 1;
                    if report.shown.len() < SHOWN_MAX {
                        report.shown.push(reason);
                    }
                }
            }
        }
        batch.publish(&mut publisher, self.is_dry, &mut report)?;
        report.kept = rejects.finish()?;
        Ok(report)
    }

    /// `None` for a row that stood in the input before, word for word.
    fn admit(
        &self,
        mut task: TaskSpec,
        place: &str,
        seen: &mut HashMap<TaskId, (String, blake3::Hash)>,
    ) -> Result<Option<(TaskSpec, usize)>, Refusal> {
        task.priority = self.priority.unwrap_or(task.priority);
        let bytes = bytes_of(&task)?;
        let digest = blake3::hash(&bytes);
        let is_full = seen.len() >= COMPARED_MAX;
        match seen.entry(task.id.clone()) {
            Entry::Vacant(free) => {
                if !is_full {
                    free.insert((place.to_owned(), digest));
                }
                Ok(Some((task, bytes.len())))
            }
            Entry::Occupied(first) if first.get().1 == digest => Ok(None),
            Entry::Occupied(first) => {
                let why = format!("{} has the same id with other content; keep one of them", first.get().0);
                Err(Refusal { field: Some("instance_id".to_owned()), why })
            }
        }
    }
}

impl Batch {
    fn publish(
        &mut self,
        publisher: &mut Publisher<'_>,
        is_dry: bool,
        report: &mut Report,
    ) -> Result<(), SpoolError> {
        let (published, known) = if is_dry {
            let known = publisher.taken(&self.tasks).len();
            (self.tasks.len() - known, known)
        } else {
            let published = publisher.publish(self.chunk, &self.tasks)?;
            (published.published, published.known.len())
        };
        report.published += published;
        report.known += known;
        *self = Self { chunk: self.chunk + 1, ..Self::default() };
        Ok(())
    }
}

impl Report {
    /// True unless every row was refused.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.published + self.known > 0 || self.rejected == 0
    }
}
