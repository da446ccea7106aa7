use std::path::{Path, PathBuf};

use crate::{CHUNK_TASKS_MAX, FailureReason, PathError, Spool, TaskId, TaskName};

/// One task in so many makes whoever puts it down count what lies there already.
const PUTS_PER_LISTING: u8 = 64;

impl Spool {
    /// Where in `dir` a task is put that comes alone: directly, where one `ls` shows it, and once some 4096 lie there,
    /// into one of 256 directories below. Nothing is remembered: those directories are there or not.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub(crate) fn shelf(&self, dir: &Path, id: &TaskId) -> Result<PathBuf, PathError> {
        let files = self.files();
        let below = dir.join(id.bucket());
        if files.is_dir(&below) {
            return Ok(below);
        }
        let counts = blake3::hash(id.as_str().as_bytes()).as_bytes()[1].is_multiple_of(PUTS_PER_LISTING);
        if !counts || files.list(dir)?.len() < CHUNK_TASKS_MAX {
            return Ok(dir.to_owned());
        }
        for bucket in 0..=u8::MAX {
            files.make_dirs(&dir.join(format!("{bucket:02x}")))?;
        }
        Ok(below)
    }

    /// Where the file of a task goes that fails for this reason.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub(crate) fn dead_letter(&self, reason: FailureReason, name: &TaskName) -> Result<PathBuf, PathError> {
        Ok(self.shelf(&self.layout().failed_for(reason), &name.id)?.join(name.settled().to_string()))
    }

    /// Every place that [`Spool::dead_letter`] may ever have given.
    pub(crate) fn dead_letters(&self, reason: FailureReason, name: &TaskName) -> Vec<PathBuf> {
        let (dir, file) = (self.layout().failed_for(reason), name.settled().to_string());
        vec![dir.join(&file), dir.join(name.id.bucket()).join(file)]
    }
}
