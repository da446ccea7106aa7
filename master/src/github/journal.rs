use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::GithubError;
use super::store::at;

/// A file of JSON lines that is only added to. A line that is lost with a crash, or torn by one, costs one request.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens it, and reads what it holds.
    pub(super) fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>), GithubError> {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(at(path))?;
        let text = std::fs::read(path).map_err(at(path))?;
        let lines = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let mut journal = Self { path: path.to_owned(), file };
        if text.last().is_some_and(|last| *last != b'\n') {
            journal.write(b"\n")?;
        }
        Ok((journal, lines.collect()))
    }

    pub(super) fn append(&mut self, value: &impl Serialize) -> Result<(), GithubError> {
        let mut line = serde_json::to_vec(value).map_err(|error| at(&self.path)(error.into()))?;
        line.push(b'\n');
        self.write(&line)
    }

    /// Has what was added survive a crash of the machine.
    pub(super) fn sync(&self) -> Result<(), GithubError> {
        self.file.sync_data().map_err(at(&self.path))
    }

    pub(super) fn clear(&mut self) -> Result<(), GithubError> {
        self.file.set_len(0).map_err(at(&self.path))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), GithubError> {
        self.file.write_all(bytes).map_err(at(&self.path))
    }
}
