use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use queue_format::{
    CHUNK_TASKS_MAX, Deceased, Event, EventLog, Intake, Known, Life, LifeLock, Owner, PathError, Reaped,
    Settling, Spool, SpoolError, Taken, TaskName,
};

use systemd::Notifier;
use uuid::Uuid;

use super::steering::Steering;
use crate::ingest::{Ingest, IngestError, Source, Template};
use crate::summary::{Status, Watch};

/// How long the ledger knows a source whose tasks are all pending: far longer than any daemon stays silent and lives.
const LEDGER_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked through.
const FORGET_PERIOD: Duration = Duration::from_secs(3600);

/// What a master does again and again; each step stands alone, so that one that fails keeps no other from its turn.
pub(super) struct Round {
    pub(super) spool: Spool,
    pub(super) owner: Owner,
    pub(super) state_dir: PathBuf,
    pub(super) log: EventLog,
    pub(super) steering: Steering,
    pub(super) intake: Intake,
    pub(super) repositories: Option<Template>,
    pub(super) shard_tasks: usize,
    pub(super) known: Known,
    pub(super) settling: Settling,
    pub(super) read: Settling,
    /// Files that could not be taken or read.
    pub(super) refused: BTreeSet<String>,
    pub(super) summariser: Summariser,
    pub(super) notifier: Notifier,
    /// When the ledger is looked through again, since the beginning.
    pub(super) forget_due: Duration,
    /// Incarnations, on whatever node, that the heartbeats say are dead, and what was taken back from them.
    pub(super) dead: Receiver<Deceased>,
}

/// Tells how many tasks there are, again and again.
pub(super) struct Summariser {
    pub(super) watch: Watch,
    pub(super) every: Duration,
    pub(super) due: Instant,
    pub(super) now: fn() -> Timestamp,
}

impl Round {
    /// Does what people ask for in control/.
    pub(super) fn steer(&mut self, now: Timestamp) -> Result<(), SpoolError> {
        self.steering.look(&self.spool, &self.log, now)
    }

    /// Takes over what dead incarnations left; one that cannot be taken over keeps no other from its turn.
    pub(super) fn reap(&self, now: Timestamp) -> Result<(), SpoolError> {
        let is_dead = |owner: &Owner| -> Result<bool, PathError> {
            Ok(*owner != self.owner && LifeLock::look(&self.state_dir, owner)? == Life::Dead)
        };
        let try_again = |owner: &Owner, error: SpoolError| {
            tracing::error!(%owner, "cannot take over what it left: {error}; trying again");
        };
        for owner in self.spool.owners_on(self.owner.node())? {
            if is_dead(&owner)? {
                match self.spool.reap(&owner) {
                    Ok(reaped) => {
                        let tasks = reaped.tasks();
                        tracing::info!(tasks = tasks.len(), %owner, "taken back from a worker that died");
                        self.note_reaped(now, &owner, tasks);
                    }
                    Err(error) => try_again(&owner, error),
                }
            }
        }
        let adopt = |owner: &Owner| match self.intake.adopt(owner) {
            Ok(0) => {}
            Ok(files) => {
                tracing::info!(files, %owner, "adopted what a master that died had taken from incoming/");
            }
            Err(error) => try_again(owner, error),
        };
        for owner in self.spool.intakes_on(self.owner.node())? {
            if is_dead(&owner)? {
                adopt(&owner);
            }
        }
        for Deceased { owner, reaped } in self.dead.try_iter() {
            self.note_reaped(now, &owner, reaped.as_ref().map_or(&[], Reaped::tasks));
            adopt(&owner);
        }
        Ok(())
    }

    fn note_reaped(&self, now: Timestamp, owner: &Owner, tasks: &[TaskName]) {
        for TaskName { id, token, .. } in tasks {
            let (task, owner) = (id.clone(), owner.clone());
            self.log.note(now, Event::Reaped { task, token: *token, owner });
        }
    }

    pub(super) fn release(&self) -> Result<(), SpoolError> {
        let released = self.spool.release_due()?;
        if released > 0 {
            tracing::info!(released, "delayed tasks are pending again");
        }
        Ok(())
    }

    /// Forgets what need not be known any more, now and then.
    pub(super) fn forget(&mut self, elapsed: Duration) -> Result<(), SpoolError> {
        if elapsed >= self.forget_due {
            let sources = self.spool.forget_sources(LEDGER_AGE_MAX);
            self.spool.forget_worker_statuses()?;
            sources?;
            self.forget_due = elapsed + FORGET_PERIOD;
        }
        Ok(())
    }

    /// Takes what rests in incoming/ and reads all that is taken. A file that cannot be taken or read is said and tried
    /// again, and keeps no other waiting.
    pub(super) fn ingest(&mut self, now: Timestamp, elapsed: Duration) -> Result<(), SpoolError> {
        for file in self.settling.look(self.spool.dropped()?, elapsed) {
            if let Err(error) = self.intake.take(&file) {
                self.refused(&file.name, &error);
            }
        }
        let mut first = Ok(());
        for taken in self.intake.taken()? {
            match self.finish(&taken, now) {
                Ok(()) => drop(self.refused.remove(&taken.name)),
                // Perhaps what lies at the class of its tasks alone.
                Err(IngestError::Spool(error)) => first = first.and(Err(error)),
                Err(error) => self.refused(&taken.name, &error),
            }
        }
        first
    }

    fn finish(&mut self, taken: &Taken, now: Timestamp) -> Result<(), IngestError> {
        self.read(taken, now)?;
        Ok(self.intake.finish(taken)?)
    }

    /// Said once of each file, however often it is tried.
    fn refused(&mut self, name: &str, error: &dyn Display) {
        if self.refused.insert(name.to_owned()) {
            tracing::error!(
                file = name,
                "cannot read it from incoming/: {error}; trying again until it is gone"
            );
        }
    }

    /// Looks after what was read: its writer may only have paused.
    pub(super) fn look_after_read(&mut self, elapsed: Duration) -> Result<(), PathError> {
        for name in self.spool.look_after_read(&mut self.read, elapsed)? {
            tracing::warn!(file = name, "somebody wrote more of it after it was read: it is read again");
        }
        Ok(())
    }

    fn read(&mut self, taken: &Taken, now: Timestamp) -> Result<(), IngestError> {
        let name = taken.name.as_str();
        let shard_tasks = self.shard_tasks;
        let ingest =
            Ingest { shard_tasks, ..Ingest::new(&self.spool, &self.owner, self.repositories.as_ref()) };
        let number = number_of(taken.source, shard_tasks);
        let source = Source { name, number, known: &mut self.known };
        // A large file takes minutes: people see meanwhile how far it is, and systemd that it goes on.
        let (summariser, notifier) = (&mut self.summariser, &self.notifier);
        let report = ingest.run(source, now, self.intake.read(taken)?, |_| {
            notifier.watchdog();
            if let Err(error) = summariser.look(&self.spool) {
                tracing::error!("cannot write the summary: {error}; trying again");
            }
        })?;
        let (published, known, rejected) = (report.published, report.known, report.rejected);
        tracing::info!(file = name, published, known, rejected, "read from incoming/");
        if let Some(kept) = report.kept {
            let first = report.shown.first().map(String::as_str).unwrap_or_default();
            tracing::warn!(file = name, kept = %kept.display(), "rows were refused; {first}");
        }
        Ok(())
    }
}

impl Summariser {
    /// Counts where that is due, and publishes the count. Gives a line for people.
    pub(super) fn look(&mut self, spool: &Spool) -> Result<Option<String>, SpoolError> {
        if Instant::now() < self.due {
            return Ok(None);
        }
        let now = (self.now)();
        let status = Status::take(spool, &mut self.watch, now)?;
        let summary = queue_format::Summary {
            at: now,
            counts: status.counts.clone(),
            pace: status.pace.clone(),
            every_seconds: self.every.as_secs_f64(),
        };
        let text = format!("{}\n\n{}", now.strftime("%Y-%m-%d %H:%M:%S UTC"), status.to_text());
        spool.write_summary(&summary, &text)?;
        self.due = Instant::now() + self.every;
        Ok(Some(format!("{} open, {} settled", status.counts.open(), status.counts.settled())))
    }
}

/// What a file is called as a source. Where its chunks end follows from the size of shards: read again with another one, by
/// whoever adopts it, it is another source, whose published ids are known; or rows between two ends would be missed.
fn number_of(source: Uuid, shard_tasks: usize) -> Uuid {
    Uuid::from_u128(source.as_u128() ^ (CHUNK_TASKS_MAX ^ shard_tasks) as u128)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc::channel;

    use queue_format::Incarnation;
    use systemd::Environment;

    use super::*;
    use crate::ingest::PROGRESS_ROWS;

    fn round(dir: &std::path::Path) -> Round {
        let spool = Spool::init(&dir.join("spool"), Uuid::from_u128(1)).expect("a spool");
        let owner = Owner::new("node-a", Incarnation::new(Uuid::from_u128(2)));
        Round {
            log: EventLog::new(&spool, &owner),
            steering: Steering::default(),
            intake: Intake::open(&spool, owner.clone()).expect("an intake"),
            state_dir: dir.join("state"),
            repositories: None,
            shard_tasks: CHUNK_TASKS_MAX,
            known: Known::default(),
            settling: Settling::new(Duration::ZERO),
            read: Settling::new(Duration::ZERO),
            refused: BTreeSet::new(),
            summariser: Summariser {
                watch: Watch::default(),
                every: FORGET_PERIOD,
                due: Instant::now() + FORGET_PERIOD,
                now: || Timestamp::UNIX_EPOCH,
            },
            notifier: Notifier::default(),
            forget_due: Duration::ZERO,
            dead: channel().1,
            spool,
            owner,
        }
    }

    #[test]
    fn systemd_hears_of_a_long_file_while_it_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut round = round(dir.path());
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("set");
        let path = path.display().to_string();
        round.notifier = Notifier::new(&Environment::from([("NOTIFY_SOCKET", path.as_str())]));
        let mut ingest = |name: &str, rows: usize| {
            let file = round.spool.layout().incoming().join(name);
            fs::write(file, "7\n".repeat(rows)).expect("dropped");
            round.ingest(Timestamp::UNIX_EPOCH, Duration::ZERO).expect("read");
            let mut heard = [0; 64];
            std::iter::from_fn(|| socket.recv(&mut heard).ok()).count()
        };
        assert_eq!(ingest("short.jsonl", 1), 0);
        assert!(ingest("long.jsonl", 3 * PROGRESS_ROWS) >= 3);
    }

    #[test]
    fn a_file_is_read_to_its_end_by_whoever_has_shards_of_another_size() {
        let dir = tempfile::tempdir().expect("a directory");
        let round = round(dir.path());
        let template = Template::parse("/m/{repo}", dir.path()).expect("a template");
        let patch = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n";
        let row = |number: usize| {
            let row = serde_json::json!({
                "instance_id": format!("o__n-{number}"), "repo": "o/n", "base_commit": "0".repeat(40),
                "problem_statement": "it breaks", "patch": patch, "test_patch": patch,
            });
            format!("{row}\n")
        };
        let read = |rows: usize, shard_tasks: usize| {
            let ingest = Ingest { shard_tasks, ..Ingest::new(&round.spool, &round.owner, Some(&template)) };
            let (number, mut known) = (number_of(Uuid::from_u128(7), shard_tasks), Known::default());
            let source = Source { name: "rows", number, known: &mut known };
            let rows: String = (0..rows).map(row).collect();
            ingest.run(source, Timestamp::UNIX_EPOCH, rows.as_bytes(), |_| ()).expect("read").published
        };
        // The first ends after three rows.
        assert_eq!(read(3, 2), 3);
        assert_eq!(read(9, 4), 6);
        assert_eq!(number_of(Uuid::from_u128(7), CHUNK_TASKS_MAX), Uuid::from_u128(7));
    }

    #[test]
    fn what_could_not_be_forgotten_is_tried_again_in_the_next_round() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut round = round(dir.path());
        let statuses = round.spool.layout().worker_status();
        fs::create_dir_all(&statuses).expect("made");
        let stale = statuses.join("node-x~0.json");
        fs::write(&stale, "{}").expect("written");
        let ledger = round.spool.layout().root().join("ledger");
        let _ = fs::remove_dir_all(&ledger);
        std::os::unix::fs::symlink(&ledger, &ledger).expect("a link to itself");
        round.forget(Duration::ZERO).expect_err("it cannot be listed");
        assert!(!stale.exists(), "the other half is done");
        fs::remove_file(&ledger).expect("removed");
        fs::write(&stale, "{}").expect("written");
        round.forget(Duration::ZERO).expect("looked");
        assert!(!stale.exists(), "tried again");
        fs::write(&stale, "{}").expect("written");
        round.forget(Duration::ZERO).expect("looked");
        assert!(stale.exists(), "an hour later only");
    }
}
