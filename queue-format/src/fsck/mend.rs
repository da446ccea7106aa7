use std::path::Path;

use super::finding::Step;
use crate::files::Moved;
use crate::{PathError, Spool};

impl Spool {
    /// Does one step of a repair. Gives false where it is no longer to be done: the file was moved meanwhile, its
    /// target is taken, the directory is no longer empty.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn mend(&self, step: &Step) -> Result<bool, PathError> {
        match step {
            Step::Move { from, to } => self.move_free(from, to),
            Step::Aside { from, to, reason } => {
                let is_moved = self.move_free(from, to)?;
                if is_moved {
                    self.leave_reason(to, reason)?;
                }
                Ok(is_moved)
            }
            Step::RemoveDir { path } => self.files().remove_if_empty(path),
            Step::RemoveLeftover { path } => {
                let is_there = self.files().is_file(path);
                self.files().remove_file(path)?;
                Ok(is_there)
            }
        }
    }

    fn move_free(&self, from: &Path, to: &Path) -> Result<bool, PathError> {
        if let Some(dir) = to.parent() {
            self.files().make_dirs(dir)?;
        }
        if self.files().is_there_now(to)? {
            return Ok(false);
        }
        Ok(self.files().rename(from, to)? == Moved::Yes)
    }
}
