use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::finding::{Check, Severity, Step};
use super::items::{Item, items, look};
use super::run::{Depth, Run};
use crate::files::is_gone;
use crate::{Class, FailureReason, Located, Owner, PathError, SpoolError, State, TaskName, Work};

/// A master releases within seconds; later than this, none is at work.
const OVERDUE: Duration = Duration::from_secs(60);

impl Run<'_> {
    /// Every state directory: what lies in it, and whether daemons see it.
    pub(super) fn places(&mut self) -> Result<(), PathError> {
        let layout = self.spool.layout().clone();
        self.ledger()?;
        self.each_in(&layout.pending(), &mut |run, item| match item.name.parse::<Class>() {
            Ok(class) if item.is_dir => run.class_dir(&item.path, &State::Pending(class), true),
            _ => run.out_of_sight(&item),
        })?;
        self.each_in(&layout.delayed(), &mut |run, item| run.bucket(&item))?;
        self.each_in(&layout.hold(), &mut |run, item| {
            if item.is_dir {
                run.class_dir(&item.path, &State::Hold, false)
            } else {
                run.task(&item, &State::Hold);
                Ok(())
            }
        })?;
        self.each_in(&layout.claimed(), &mut |run, item| match item.name.parse::<Owner>() {
            Ok(owner) if item.is_dir => run.lease(&item.path, &State::Claimed(owner)),
            _ => run.out_of_sight(&item),
        })?;
        self.done()?;
        self.each_in(&layout.failed(), &mut |run, item| match item.name.parse::<FailureReason>() {
            Ok(reason) if item.is_dir => run.class_dir(&item.path, &State::Failed(reason), true),
            _ => run.out_of_sight(&item),
        })
    }

    /// Shows what lies in a directory to `visit`, but for names that daemons never see.
    pub(super) fn each_in(
        &mut self,
        dir: &Path,
        visit: &mut dyn FnMut(&mut Self, Item) -> Result<(), PathError>,
    ) -> Result<(), PathError> {
        let listing = match items(dir) {
            Ok(listing) => listing,
            Err(error) => {
                self.unreadable(&error);
                return Ok(());
            }
        };
        for item in listing {
            match item {
                Ok(item) if self.is_unseen(&item) => {}
                Ok(item) => visit(self, item)?,
                Err(error) => self.unreadable(&error),
            }
        }
        Ok(())
    }

    /// Tasks, and where they are published, shards of tasks.
    fn class_dir(&mut self, dir: &Path, state: &State, has_shards: bool) -> Result<(), PathError> {
        self.each_in(dir, &mut |run, item| {
            if item.is_dir && has_shards && !item.name.ends_with(".json") {
                run.shard(&item.path, state)
            } else if item.is_dir {
                run.out_of_sight(&item)
            } else {
                run.task(&item, state);
                Ok(())
            }
        })
    }

    fn shard(&mut self, dir: &Path, state: &State) -> Result<(), PathError> {
        let mut is_empty = true;
        self.each_in(dir, &mut |run, item| {
            is_empty = false;
            if item.is_dir {
                return run.out_of_sight(&item);
            }
            run.task(&item, state);
            Ok(())
        })?;
        if is_empty && look(dir).is_some() {
            let repair = vec![Step::RemoveDir { path: dir.to_owned() }];
            self.plan(Severity::Note, Check::EmptyShard, dir, "this shard is used up", "remove it", repair);
        }
        Ok(())
    }

    fn bucket(&mut self, item: &Item) -> Result<(), PathError> {
        let Some(due) = item.name.parse::<u64>().ok().filter(|_| item.is_dir) else {
            return self.out_of_sight(item);
        };
        let late = self.now.and_then(|now| {
            let now = now.duration_since(std::time::UNIX_EPOCH).ok()?;
            now.checked_sub(Duration::from_secs(due)).filter(|late| *late > OVERDUE)
        });
        self.each_in(&item.path, &mut |run, inner| {
            let Some(class) = inner.name.parse::<Class>().ok().filter(|_| inner.is_dir) else {
                return run.out_of_sight(&inner);
            };
            let pending = run.spool.layout().pending_class(&class);
            let state = State::Delayed { due_seconds: due, class };
            run.each_in(&inner.path, &mut |run, item| {
                if item.is_dir {
                    return run.out_of_sight(&item);
                }
                let Some(task) = run.task(&item, &state) else { return Ok(()) };
                let Some(late) = late else { return Ok(()) };
                let what = format!("it was due {} s ago, and nobody has released it", late.as_secs());
                let repair = run.move_task(&task.name.id, &item.path, pending.join(&item.name));
                let remedy = "start a master (bottega up, or bottega-master), which releases it";
                run.plan(Severity::Warning, Check::Overdue, &task.path, what, remedy, repair);
                Ok(())
            })
        })
    }

    fn lease(&mut self, dir: &Path, state: &State) -> Result<(), PathError> {
        self.each_in(dir, &mut |run, item| match item.name.parse::<Class>() {
            Ok(_) if item.is_dir => run.class_dir(&item.path, state, false),
            _ => run.out_of_sight(&item),
        })
    }

    /// One task's file. Gives it where it is one that daemons see.
    pub(super) fn task(&mut self, item: &Item, state: &State) -> Option<Located> {
        let name = match item.name.parse::<TaskName>() {
            Ok(name) => name,
            Err(why) => {
                let remedy = "rename it to <id>.json, or remove it if it is no task";
                let repair = vec![self.aside(&item.path, &why.to_string())];
                self.plan(Severity::Warning, Check::BadName, &item.path, why.to_string(), remedy, repair);
                return None;
            }
        };
        if !item.is_file {
            let what = "it is a link, a directory or a device, and not a file";
            let repair = vec![self.aside(&item.path, what)];
            self.plan(
                Severity::Error,
                Check::NotAFile,
                &item.path,
                what,
                "put a copy of the file there",
                repair,
            );
            return None;
        }
        self.count(state);
        let task = Located { state: state.clone(), name, path: item.path.clone() };
        if self.depth == Depth::Contents {
            self.content(&task);
        }
        Some(task)
    }

    /// Tells of a task whose file has several names. Gives whether it has.
    fn has_links(&mut self, task: &Located) -> bool {
        let links = look(&task.path).map_or(1, |found| found.nlink());
        if links > 1 {
            let what = format!(
                "it has {links} hard links: daemons refuse it, since a rename onto a link moves nothing"
            );
            let remedy = "make a file of its own: cp FILE FILE.copy && mv FILE.copy FILE";
            self.say(Severity::Error, Check::HardLinks, &task.path, what, remedy);
        }
        links > 1
    }

    fn count(&mut self, state: &State) {
        let checked = &mut self.checked;
        *match state {
            State::Pending(_) => &mut checked.pending,
            State::Delayed { .. } => &mut checked.delayed,
            State::Hold => &mut checked.hold,
            State::Claimed(_) => &mut checked.claimed,
            State::Done(_) => &mut checked.done,
            State::Failed(_) => &mut checked.failed,
        } += 1;
    }

    fn content(&mut self, task: &Located) {
        if matches!(task.state, State::Claimed(_) | State::Failed(FailureReason::BadSpec)) {
            self.has_links(task);
            return;
        }
        self.checked.files_read += 1;
        let why = match self.spool.read_task(task) {
            Ok(spec) => {
                if let Work::Run(run) = &spec.work {
                    self.inputs_of(task, run);
                }
                return;
            }
            // Moved since it was listed, and perhaps moved back.
            Err(SpoolError::Path(e)) if is_gone(&e.source) => return,
            Err(_) if look(&task.path).is_none() => return,
            Err(SpoolError::Path(e)) if e.source.kind() != std::io::ErrorKind::InvalidData => {
                return self.unreadable(&e);
            }
            // Reading refuses several names.
            Err(SpoolError::Path(_)) if self.has_links(task) => return,
            Err(SpoolError::Damaged { why, .. }) => why,
            Err(other) => other.to_string(),
        };
        match task.state {
            State::Done(_) | State::Failed(_) => {
                let remedy =
                    "put back the file as it was, or remove it with its results and submit the row again";
                self.say(Severity::Error, Check::DamagedTask, &task.path, why, remedy);
            }
            _ => {
                let failed = self.spool.layout().failed_for(FailureReason::BadSpec);
                let to = failed.join(task.name.settled().to_string());
                let repair = self.move_task(&task.name.id, &task.path, to);
                let remedy = "mend the field that is named; the first worker would move it to failed/badspec";
                self.plan(Severity::Error, Check::DamagedTask, &task.path, why, remedy, repair);
            }
        }
    }

    /// Something where no daemon looks. A task among it waits for ever, and so it is parked where people see it.
    pub(super) fn out_of_sight(&mut self, item: &Item) -> Result<(), PathError> {
        if item.is_dir {
            let mut inside = 0_usize;
            self.each_in(&item.path, &mut |run, inner| {
                inside += 1;
                run.out_of_sight(&inner)
            })?;
            if inside == 0 {
                let repair = vec![Step::RemoveDir { path: item.path.clone() }];
                let what = "no daemon looks into a directory of this name; it is empty";
                self.plan(Severity::Note, Check::UnknownName, &item.path, what, "remove it", repair);
            }
            return Ok(());
        }
        let what = "no daemon looks here";
        match item.name.parse::<TaskName>() {
            Ok(name) if item.is_file => {
                let to = self.spool.layout().hold().join(name.to_string());
                let repair = vec![Step::Move { from: item.path.clone(), to }];
                let remedy = "move it to pending/5-build/ to have it done";
                self.plan(Severity::Error, Check::OutOfSight, &item.path, what, remedy, repair);
            }
            _ => {
                let remedy = "move it out of the spool, or remove it";
                self.say(Severity::Warning, Check::UnknownName, &item.path, what, remedy);
            }
        }
        Ok(())
    }
}
