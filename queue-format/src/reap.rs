use std::path::Path;

use crate::claim::RETRIES_MAX;
use crate::error::FirstError;
use crate::files::Moved;
use crate::{Class, FailureReason, Owner, PathError, Spool, SpoolError, TaskName};

/// How often a lease directory is emptied again into which late renames still bring tasks.
const ROUNDS_MAX: usize = 10;

/// What came of taking an incarnation for dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// It beat its heart meanwhile: nothing was touched.
    Alive,
    /// What it had claimed lies in pending again, or in `failed/poison` where it was lost too often; and its lease is
    /// closed for ever.
    Closed(Vec<TaskName>),
    /// The same, but something that cannot be moved keeps the lease's directory: it is to be reaped again.
    Open(Vec<TaskName>),
}

impl Reaped {
    /// What was taken back.
    #[must_use]
    pub fn tasks(&self) -> &[TaskName] {
        match self {
            Self::Alive => &[],
            Self::Closed(tasks) | Self::Open(tasks) => tasks,
        }
    }
}

impl Spool {
    /// Takes back what a dead incarnation had claimed. Several may do so at once, and a wrong suspicion costs only
    /// work: the lease directory is emptied file by file and then removed, and no rename into it succeeds after
    /// that, from wherever it comes.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn reap(&self, dead: &Owner) -> Result<Reaped, SpoolError> {
        if !self.stop_heartbeat(dead)? {
            return Ok(Reaped::Alive);
        }
        let lease = self.layout().lease(dead);
        let mut reaped = Vec::new();
        for _ in 0..ROUNDS_MAX {
            self.empty_lease(dead, &mut reaped)?;
            if self.files().remove_if_empty(&lease)? || !self.files().is_dir(&lease) {
                self.remove_worker_status(dead)?;
                return Ok(Reaped::Closed(reaped));
            }
        }
        Ok(Reaped::Open(reaped))
    }

    fn empty_lease(&self, dead: &Owner, reaped: &mut Vec<TaskName>) -> Result<(), SpoolError> {
        let mut errors = FirstError::default();
        let files = self.files();
        let lease = self.layout().lease(dead);
        // What this node remembers of the directories may be older than what is in them.
        let _ = files.refresh(&lease);
        for dir_name in files.list(&lease)? {
            let dir = lease.join(&dir_name);
            let Ok(class) = dir_name.parse::<Class>() else {
                errors.keep(self.take_out(&dir));
                continue;
            };
            let _ = files.refresh(&dir);
            for file_name in errors.keep(files.list(&dir)).unwrap_or_default() {
                let path = dir.join(&file_name);
                match file_name.parse::<TaskName>() {
                    Ok(name) => {
                        let returned = errors.keep(self.return_task(&path, name, &class));
                        reaped.extend(returned.flatten());
                    }
                    Err(_) => drop(errors.keep(self.take_out(&path))),
                }
            }
            if errors.keep(files.remove_if_empty(&dir)) == Some(false) && files.is_file(&dir) {
                errors.keep(self.take_out(&dir));
            }
        }
        errors.or(())
    }

    /// Makes a task pending that its worker lost; gives its name, where nobody else was faster.
    fn return_task(&self, path: &Path, name: TaskName, class: &Class) -> Result<Option<TaskName>, PathError> {
        let target = if name.retries < RETRIES_MAX {
            self.layout().pending_class(class).join(name.retried().to_string())
        } else {
            self.dead_letter(FailureReason::Poison, &name)?
        };
        Ok((self.files().bring(path, &target)? == Moved::Yes).then_some(name))
    }

    /// What a person put into a lease must not keep it open.
    fn take_out(&self, path: &Path) -> Result<(), PathError> {
        match path.file_name().and_then(|name| name.to_str()) {
            // It goes with its directory, or by itself.
            Some(name) if name.starts_with('.') => Ok(()),
            _ => self.keep_aside(path, "it lay in the lease of a worker that died, and is no task of it"),
        }
    }

    /// The incarnations of one node that hold a lease directory.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn owners_on(&self, node: &str) -> Result<Vec<Owner>, PathError> {
        let owners = self.files().list(&self.layout().claimed())?;
        Ok(owners
            .iter()
            .filter_map(|name| name.parse().ok())
            .filter(|owner: &Owner| owner.node() == node)
            .collect())
    }
}
