use crate::claim::RETRIES_MAX;
use crate::files::Moved;
use crate::find::classes;
use crate::{FailureReason, Owner, PathError, Spool, SpoolError, TaskName};

/// How often a lease directory is emptied again into which late renames still bring tasks.
const ROUNDS_MAX: usize = 10;

/// What came of taking an incarnation for dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// It beat its heart meanwhile: nothing was touched.
    Alive,
    /// Its lease is closed for ever, and what it had claimed lies in pending again, or in `failed/poison` where
    /// it was lost too often.
    Closed(Vec<TaskName>),
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
                break;
            }
        }
        self.remove_worker_status(dead)?;
        Ok(Reaped::Closed(reaped))
    }

    fn empty_lease(&self, dead: &Owner, reaped: &mut Vec<TaskName>) -> Result<(), PathError> {
        let files = self.files();
        let lease = self.layout().lease(dead);
        // What this node remembers of the directories may be older than what is in them.
        let _ = files.refresh(&lease);
        for (class, dir) in classes(files, &lease)? {
            let _ = files.refresh(&dir);
            let pending = self.layout().pending_class(&class);
            for file_name in files.list(&dir)? {
                let Ok(name) = file_name.parse::<TaskName>() else { continue };
                let target = if name.retries < RETRIES_MAX {
                    pending.join(name.retried().to_string())
                } else {
                    self.dead_letter(FailureReason::Poison, &name)?
                };
                if files.bring(&dir.join(&file_name), &target)? == Moved::Yes {
                    reaped.push(name);
                }
            }
            files.remove_if_empty(&dir)?;
        }
        Ok(())
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
