use std::time::SystemTime;

use crate::files::Moved;
use crate::{Located, Owner, Spool, SpoolError, State, TaskName};

/// What a retry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is pending again, with a fresh budget of automatic retries.
    Pending,
    /// It was not in `failed/` (any more).
    NotFailed,
}

impl Spool {
    /// Moves a dead letter back to pending, as a person would with `mv`.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn retry(&self, task: &Located) -> Result<Retried, SpoolError> {
        if !matches!(task.state, State::Failed(_)) {
            return Ok(Retried::NotFailed);
        }
        let dir = self.layout().pending_class(&self.class_of(task));
        let dir = self.shelf(&dir, &task.name.id)?;
        match self.files().bring(&task.path, &dir.join(task.name.settled().to_string()))? {
            Moved::Yes => Ok(Retried::Pending),
            Moved::Gone => Ok(Retried::NotFailed),
        }
    }

    /// Makes every delayed task pending whose time has come by the server's clock, which `me` asks only if there is
    /// any; gives their number.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn release_due(&self, me: &Owner) -> Result<usize, SpoolError> {
        let buckets = self.files().list(&self.layout().delayed())?;
        if buckets.is_empty() {
            return Ok(0);
        }
        let now = self.server_time(me)?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.release_until(now.as_secs())
    }

    /// Makes every delayed task pending that is due at `now_seconds`, since 1970; gives their number.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn release_until(&self, now_seconds: u64) -> Result<usize, SpoolError> {
        let mut released = 0;
        for due in self.files().list(&self.layout().delayed())? {
            if due.parse::<u64>().is_ok_and(|seconds| seconds > now_seconds) {
                continue;
            }
            let bucket = self.layout().delayed().join(&due);
            for (class, dir) in crate::find::classes(self.files(), &bucket)? {
                let pending = self.layout().pending_class(&class);
                for name in self.files().list(&dir)? {
                    let target = match name.parse::<TaskName>() {
                        Ok(task) => self.shelf(&pending, &task.id)?,
                        Err(_) => pending.clone(),
                    };
                    let moved = self.files().bring(&dir.join(&name), &target.join(&name))?;
                    released += usize::from(moved == Moved::Yes);
                }
                self.files().remove_if_empty(&dir)?;
            }
            self.files().remove_if_empty(&bucket)?;
        }
        Ok(released)
    }
}
