use std::io;

use crate::{
    Located, MANIFEST_FILE, Manifest, PathError, Spool, SpoolError, TASK_FILE_BYTES_MAX, TaskId, TaskName,
    TaskSpec, Token,
};

/// The largest manifest that is read.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// What is left of an attempt that came to no verdict: one line that says why.
const ERROR_FILE: &str = "error.txt";

/// The largest error.txt that is read.
const ERROR_BYTES_MAX: u64 = 1 << 20;

impl Spool {
    /// The attempts at a task that left anything, in order.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn attempts(&self, id: &TaskId) -> Result<Vec<Token>, PathError> {
        let names = self.files().list(&self.layout().attempts(id))?;
        let mut tokens: Vec<Token> = names.iter().filter_map(|name| name.parse().ok()).collect();
        tokens.sort();
        Ok(tokens)
    }

    /// An attempt's manifest; `None` where it was never finished.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn manifest(&self, id: &TaskId, token: Token) -> Result<Option<Manifest>, SpoolError> {
        let Some(bytes) = self.attempt_file(id, token, MANIFEST_FILE, MANIFEST_BYTES_MAX)? else {
            return Ok(None);
        };
        let path = self.layout().attempt(id, token).join(MANIFEST_FILE);
        serde_json::from_slice(&bytes).map(Some).map_err(|e| SpoolError::Damaged { path, why: e.to_string() })
    }

    /// One file of an attempt, of at most `bytes_max` bytes; `None` where it is not there.
    ///
    /// # Errors
    /// It cannot be read, is larger, or is not a regular file.
    pub fn attempt_file(
        &self,
        id: &TaskId,
        token: Token,
        name: &str,
        bytes_max: u64,
    ) -> Result<Option<Vec<u8>>, PathError> {
        match self.files().read_regular(&self.layout().attempt(id, token).join(name), bytes_max) {
            Err(e) if e.source.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Leaves with an attempt why it came to no verdict.
    pub(crate) fn leave_error(&self, task: &TaskName, why: &str) -> Result<(), PathError> {
        let dir = self.layout().attempt(&task.id, task.token);
        self.files().make_dirs(&dir)?;
        self.files().replace(&dir.join(ERROR_FILE), format!("{why}\n").as_bytes())
    }

    /// Why an attempt came to no verdict, where somebody said so.
    #[must_use]
    pub fn attempt_error(&self, id: &TaskId, token: Token) -> Option<String> {
        let bytes = self.attempt_file(id, token, ERROR_FILE, ERROR_BYTES_MAX).ok().flatten()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The content of a task file.
    ///
    /// # Errors
    /// It cannot be read (perhaps it has just been moved), or is not valid.
    pub fn read_task(&self, task: &Located) -> Result<TaskSpec, SpoolError> {
        let bytes = self.files().read_regular(&task.path, TASK_FILE_BYTES_MAX)?;
        TaskSpec::parse(&bytes, &task.name.id)
            .map_err(|e| SpoolError::Damaged { path: task.path.clone(), why: e.to_string() })
    }
}
