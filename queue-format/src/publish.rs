use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{FirstError, OnPath};
use crate::files::{Files, Moved, json};
use crate::find::classes;
use crate::known::Known;
use crate::{Class, Owner, PathError, Spool, SpoolError, TaskId, TaskName, TaskSpec};

/// Tasks in one chunk, and so in one shard; a directory of this size is still quick to list over NFS.
pub const CHUNK_TASKS_MAX: usize = 4096;

/// Files of a shard written at once: each waits for the disk or the server, which serve many waits together.
const WRITERS: usize = 16;

/// Files that are not worth a thread of their own.
const WRITER_FILES_MIN: usize = 8;

/// What stays of a chunk in the ledger.
pub(crate) const RECORD_FILE: &str = "chunk.json";

/// Publishes one source, chunk by chunk, each **exactly once**, whoever else reads the same source.
///
/// A chunk is staged as a whole and then renamed to `ledger/<source>/<n>/`. Only one such rename succeeds, for that
/// directory is never empty again, and whoever comes later, from another node or back from the dead, learns there
/// that the chunk is taken. From the ledger its shards are renamed into `pending/`; whoever finds some left there
/// finishes that.
#[derive(Debug)]
pub struct Publisher<'a> {
    spool: &'a Spool,
    producer: Owner,
    source: Uuid,
    known: &'a mut Known,
    /// Nothing of it was in the ledger.
    is_new: bool,
    /// Publishers of one node take turns, so that two that are given the same id at once do not both find it missing.
    _turn: Turn,
}

/// Ends when it is dropped.
struct Turn(#[expect(dead_code, reason = "it is kept, not used")] Box<dyn Any + Send>);

/// What a publication did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Tasks that are now pending.
    pub published: usize,
    /// Ids that the spool had already, in whatever state; left as they are.
    pub known: Vec<TaskId>,
}

/// What is left of a chunk in the ledger, for people.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    producer: Owner,
    /// What it was called in staging: a name that was used once.
    staged: String,
    tasks: usize,
}

impl<'a> Publisher<'a> {
    /// A turn at publishing `source`: a number that names the rows, however often they are read. Ids that the spool
    /// has already are looked for in `known`, which is brought up to date first.
    ///
    /// # Errors
    /// The spool cannot be listed.
    pub fn begin(
        spool: &'a Spool,
        producer: Owner,
        source: Uuid,
        known: &'a mut Known,
    ) -> Result<Self, SpoolError> {
        let turn = Turn(spool.files().take_turn(&spool.layout().tmp())?);
        known.refresh(spool)?;
        known.note(source);
        // Read again after an error, a source has chunks that came no further than the ledger, where their ids are known.
        // This node may remember the directory without them.
        let _ = spool.files().refresh(&spool.layout().ledger_of(source));
        let chunks = spool.chunks_of(source)?;
        for chunk in &chunks {
            spool.finish_chunk(source, chunk)?;
        }
        Ok(Self { spool, producer, source, known, is_new: chunks.is_empty(), _turn: turn })
    }

    /// The ids among those of `tasks` that the spool has from elsewhere, perhaps for other work: none where the ledger
    /// knows this source.
    #[must_use]
    pub fn taken(&self, tasks: &[TaskSpec]) -> BTreeSet<TaskId> {
        let ids = tasks.iter().filter(|_| self.is_new).map(|task| &task.id);
        ids.filter(|id| self.known.has(id)).cloned().collect()
    }

    /// Makes the tasks of chunk `n` of the source pending, a whole shard with one rename, so that no reader ever sees
    /// half a file. Ids that the spool knows are skipped. The same `n` is always given the same rows.
    ///
    /// # Errors
    /// The spool cannot be written; then the chunk is published as a whole or not at all.
    pub fn publish(&mut self, n: u64, tasks: &[TaskSpec]) -> Result<Published, SpoolError> {
        let mut report = Published::default();
        let mut fresh: Vec<(Class, &TaskSpec)> = Vec::new();
        for task in tasks {
            if self.known.insert(&task.id) {
                fresh.push((task.class(), task));
            } else {
                report.known.push(task.id.clone());
            }
        }
        if fresh.is_empty() {
            return Ok(report);
        }
        fresh.sort_by(|(a, _), (b, _)| a.cmp(b));
        let is_ours = self.enter(n, &fresh).inspect_err(|_| self.known.forget())?;
        if is_ours {
            report.published = fresh.len();
        } else {
            report.known.extend(fresh.iter().map(|(_, task)| task.id.clone()));
        }
        Ok(report)
    }

    /// Stages a chunk, brings it into the ledger and from there into pending; false where somebody else's is there.
    fn enter(&self, n: u64, tasks: &[(Class, &TaskSpec)]) -> Result<bool, SpoolError> {
        let files = self.spool.files();
        let staging = self.spool.layout().staging(&self.producer);
        let staged = staging.join(files.unique().simple().to_string());
        if let Err(error) = self.stage(&staged, tasks) {
            files.discard_dir(&staged);
            return Err(error);
        }
        let dir = self.spool.layout().ledger_of(self.source);
        files.make_dirs(&dir)?;
        let chunk = dir.join(n.to_string());
        // After an error the rename may still be done: what is staged then stays whole.
        let renamed = files.rename_dir(&staged, &chunk);
        let is_ours = matches!(renamed, Ok(Moved::Yes)) || {
            // Where nobody's is there, the rename failed for a reason of its own: the chunk is not taken.
            let Some(record) = record_in(files, &chunk)? else {
                renamed?;
                return Err(io::Error::from(io::ErrorKind::NotFound)).on_path("publish", &staged)?;
            };
            record.staged == name_of(&staged)
        };
        files.sync_dir(&dir)?;
        if !is_ours {
            files.discard_dir(&staged);
        }
        self.spool.finish_chunk(self.source, &chunk)?;
        files.remove_if_empty(&staging)?;
        Ok(is_ours)
    }

    fn stage(&self, staged: &Path, tasks: &[(Class, &TaskSpec)]) -> Result<(), SpoolError> {
        let files = self.spool.files();
        for group in tasks.chunk_by(|(a, _), (b, _)| a == b) {
            let dir = staged.join(group[0].0.to_string());
            files.make_dirs(&dir)?;
            write_tasks(files, group, &dir)?;
            files.sync_dir(&dir)?;
        }
        let path = staged.join(RECORD_FILE);
        let record = Record { producer: self.producer.clone(), staged: name_of(staged), tasks: tasks.len() };
        files.write_new(&path, &json(&path, &record)?)?;
        Ok(files.sync_dir(staged)?)
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turn")
    }
}

impl Spool {
    /// Publishes tasks of a source of their own, which `unique` names.
    ///
    /// # Errors
    /// The spool cannot be written; chunks published before the error stay published.
    pub fn publish(
        &self,
        tasks: &[TaskSpec],
        producer: &Owner,
        unique: impl FnOnce() -> Uuid,
    ) -> Result<Published, SpoolError> {
        let mut known = Known::default();
        let mut publisher = Publisher::begin(self, producer.clone(), unique(), &mut known)?;
        let mut report = Published::default();
        for (n, chunk) in (0..).zip(tasks.chunks(CHUNK_TASKS_MAX)) {
            let published = publisher.publish(n, chunk)?;
            report.published += published.published;
            report.known.extend(published.known);
        }
        Ok(report)
    }

    /// Makes pending what dead publishers had brought as far as the ledger.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn finish_chunks(&self) -> Result<(), SpoolError> {
        let mut errors = FirstError::default();
        for (source, chunk) in self.chunks()? {
            errors.keep(self.finish_chunk(source, &chunk));
        }
        errors.or(())
    }

    /// Throws away what a dead publisher had staged and not brought into the ledger; its staging directory stays, as
    /// the last trace of it, until its intake is adopted. The caller vouches that it is dead.
    ///
    /// # Errors
    /// The spool cannot be listed.
    pub fn discard_staged(&self, dead: &Owner) -> Result<(), PathError> {
        let staging = self.layout().staging(dead);
        for name in self.files().list(&staging)? {
            let staged = staging.join(&name);
            // The intake is adopted, not thrown away.
            if staged != self.layout().intake(dead) {
                self.files().discard_dir(&staged);
            }
        }
        Ok(())
    }

    /// Forgets sources that were read to the end more than `age` ago by the server's clock; gives their number. Whoever still had a chunk of one to bring must be long reaped by then.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn forget_sources(&self, age: Duration) -> Result<usize, SpoolError> {
        let files = self.files();
        let mut forgotten = 0;
        let mut now = None;
        for name in files.list(&self.layout().ledger())? {
            let Ok(source) = name.parse::<Uuid>() else { continue };
            let dir = self.layout().ledger_of(source);
            let Some(found) = files.look(&dir)? else { continue };
            let now = match now {
                Some(now) => now,
                None => *now.insert(self.server_time()?),
            };
            if now.duration_since(found.modified).unwrap_or_default() < age {
                continue;
            }
            // Only records and empty directories are removed: a task that is still on its way keeps its own.
            for chunk in self.chunks_of(source)? {
                if classes(files, &chunk)?.is_empty() {
                    files.remove_file(&chunk.join(RECORD_FILE))?;
                    files.remove_if_empty(&chunk)?;
                }
            }
            forgotten += usize::from(files.remove_if_empty(&dir)?);
        }
        Ok(forgotten)
    }

    /// Every chunk of the ledger.
    pub(crate) fn chunks(&self) -> Result<Vec<(Uuid, PathBuf)>, PathError> {
        let ledger = self.layout().ledger();
        let mut chunks = Vec::new();
        for name in self.files().list(&ledger)? {
            let Ok(source) = name.parse::<Uuid>() else { continue };
            chunks.extend(self.chunks_of(source)?.into_iter().map(|chunk| (source, chunk)));
        }
        Ok(chunks)
    }

    fn chunks_of(&self, source: Uuid) -> Result<Vec<PathBuf>, PathError> {
        let dir = self.layout().ledger_of(source);
        Ok(self.files().list(&dir)?.iter().map(|n| dir.join(n)).collect())
    }

    fn finish_chunk(&self, source: Uuid, chunk: &Path) -> Result<(), SpoolError> {
        let files = self.files();
        for (class, staged) in classes(files, chunk)? {
            let class_dir = self.layout().pending_class(&class);
            files.make_dirs(&class_dir)?;
            let shard = self.layout().shard(&class, source, &name_of(chunk));
            // Of an earlier chunk of the same content, which the ledger has forgotten, some tasks may still wait there.
            let beside = shard.with_file_name(format!("{}-{}", name_of(&shard), files.unique().simple()));
            let is_done = |shard: &Path| -> Result<bool, PathError> {
                Ok(files.rename_dir(&staged, shard)? == Moved::Yes || !files.is_left(&staged)?)
            };
            if !is_done(&shard)? && !is_done(&beside)? {
                let source = io::Error::from(io::ErrorKind::StaleNetworkFileHandle);
                return Err(source).on_path("publish", &staged)?;
            }
            files.sync_dir(&class_dir)?;
        }
        Ok(())
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `None` where there is no chunk; one without a readable record is an error.
fn record_in(files: &Files, chunk: &Path) -> Result<Option<Record>, SpoolError> {
    const RECORD_BYTES_MAX: u64 = 1 << 16;
    let path = chunk.join(RECORD_FILE);
    match files.read_regular(&path, RECORD_BYTES_MAX) {
        Err(e) if e.source.kind() == io::ErrorKind::NotFound => Ok(None),
        read => match serde_json::from_slice(&read?) {
            Ok(record) => Ok(Some(record)),
            Err(e) => Err(SpoolError::Damaged { path, why: e.to_string() }),
        },
    }
}

fn write_tasks(files: &Files, tasks: &[(Class, &TaskSpec)], dir: &Path) -> Result<(), SpoolError> {
    let share = tasks.len().div_ceil(WRITERS).max(WRITER_FILES_MIN);
    let write = |tasks: &[(Class, &TaskSpec)]| -> Result<(), SpoolError> {
        for (_, task) in tasks {
            let path = dir.join(TaskName::fresh(task.id.clone()).to_string());
            files.write_new(&path, &json(&path, task)?)?;
        }
        Ok(())
    };
    if tasks.len() <= share {
        return write(tasks);
    }
    std::thread::scope(|scope| {
        let writers: Vec<_> = tasks.chunks(share).map(|tasks| scope.spawn(|| write(tasks))).collect();
        writers.into_iter().try_for_each(|writer| match writer.join() {
            Ok(written) => written,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
