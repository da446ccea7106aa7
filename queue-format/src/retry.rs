use std::path::Path;
use std::time::SystemTime;

use crate::error::FirstError;
use crate::files::Moved;
use crate::find::classes;
use crate::{Class, Located, PathError, Spool, SpoolError, State, TaskName};

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

    /// Makes every delayed task pending whose time has come by the server's clock, which is asked only if there is any;
    /// gives their number.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn release_due(&self) -> Result<usize, SpoolError> {
        let buckets = self.files().list(&self.layout().delayed())?;
        if buckets.is_empty() {
            return Ok(0);
        }
        let now = self.server_time()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.release_from(&buckets, now.as_secs())
    }

    /// Makes every delayed task pending that is due at `now_seconds`, since 1970; gives their number.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn release_until(&self, now_seconds: u64) -> Result<usize, SpoolError> {
        self.release_from(&self.files().list(&self.layout().delayed())?, now_seconds)
    }

    fn release_from(&self, buckets: &[String], now_seconds: u64) -> Result<usize, SpoolError> {
        let (mut released, mut errors) = (0, FirstError::default());
        let is_due = |due: &&String| !due.parse::<u64>().is_ok_and(|seconds| seconds > now_seconds);
        for due in buckets.iter().filter(is_due) {
            let bucket = self.layout().delayed().join(due);
            for (class, dir) in classes(self.files(), &bucket)? {
                for name in self.files().list(&dir)? {
                    released += usize::from(errors.keep(self.release_one(&class, &dir, &name)) == Some(true));
                }
                errors.keep(self.files().remove_if_empty(&dir));
            }
            errors.keep(self.files().remove_if_empty(&bucket));
        }
        errors.or(released)
    }

    /// Gives whether this made a task pending; what is none goes the same way, and is no task there either.
    fn release_one(&self, class: &Class, dir: &Path, name: &str) -> Result<bool, PathError> {
        let pending = self.layout().pending_class(class);
        let task = name.parse::<TaskName>().ok();
        let target = match &task {
            Some(task) => self.shelf(&pending, &task.id)?,
            None => pending,
        };
        let moved = self.files().bring(&dir.join(name), &target.join(name))?;
        Ok(task.is_some() && moved == Moved::Yes)
    }
}
