use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::GithubError;

/// The pull requests that were collected, a row each.
pub const PULLS_FILE: &str = "pulls.jsonl";
const CURSOR_FILE: &str = "cursor.json";
const ETAGS_FILE: &str = "etags.json";
const REPOSITORIES_FILE: &str = "repositories.json";

/// What was collected so far, and how far that is.
pub(super) struct Store {
    dir: PathBuf,
    pulls: File,
    cursor: Cursor,
    repositories: Vec<String>,
    etags: BTreeMap<String, String>,
    /// Repository in lower case, and number.
    known: HashSet<(String, u64)>,
}

/// How far it came: all that a successor needs to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    /// What was asked for; another question begins anew, with what was collected known.
    question: String,
    /// The place of the repository in the list.
    repository: usize,
    /// Where its next page begins; `None`: at the first.
    after: Option<String>,
    /// What the file of pull requests holds for certain.
    bytes: u64,
}

/// The repositories of a question.
#[derive(Serialize, Deserialize)]
struct Listed {
    question: String,
    repositories: Vec<String>,
}

impl Store {
    /// Opens what a directory holds, or begins there.
    pub(super) fn open(dir: &Path) -> Result<Self, GithubError> {
        std::fs::create_dir_all(dir).map_err(at(dir))?;
        let path = dir.join(PULLS_FILE);
        let pulls = OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))?;
        // The kernel drops the lock with the process, however that ends.
        pulls.try_lock().map_err(|_| at(&path)(io::Error::other("another command collects into it")))?;
        let cursor: Cursor = read(&dir.join(CURSOR_FILE))?.unwrap_or_default();
        // What a predecessor wrote and did not note, it did not finish.
        pulls.set_len(cursor.bytes).map_err(at(&path))?;
        let known = known(&path)?;
        let etags = read(&dir.join(ETAGS_FILE))?.unwrap_or_default();
        Ok(Self { dir: dir.to_owned(), pulls, cursor, repositories: Vec::new(), etags, known })
    }

    /// The repositories of a question that was begun and not finished.
    pub(super) fn resume(&mut self, question: &str) -> Result<bool, GithubError> {
        let listed: Option<Listed> = read(&self.dir.join(REPOSITORIES_FILE))?;
        let Some(listed) = listed.filter(|listed| listed.question == question) else { return Ok(false) };
        let is_open = self.cursor.question == question && self.cursor.repository < listed.repositories.len();
        if is_open {
            self.repositories = listed.repositories;
        }
        Ok(is_open)
    }

    /// Begins a question.
    pub(super) fn begin(&mut self, question: &str, repositories: Vec<String>) -> Result<(), GithubError> {
        let listed = Listed { question: question.to_owned(), repositories };
        write(&self.dir.join(REPOSITORIES_FILE), &listed)?;
        self.repositories = listed.repositories;
        let bytes = self.cursor.bytes;
        self.cursor = Cursor { question: question.to_owned(), bytes, ..Cursor::default() };
        self.save()
    }

    /// The repository that it is at, and where its next page begins; `None` at the end.
    pub(super) fn place(&self) -> Option<(&str, Option<&str>)> {
        let repository = self.repositories.get(self.cursor.repository)?;
        Some((repository, self.cursor.after.as_deref()))
    }

    /// How many repositories are done, of how many.
    pub(super) fn repositories(&self) -> (usize, usize) {
        (self.cursor.repository, self.repositories.len())
    }

    pub(super) fn knows(&self, repo: &str, number: u64) -> bool {
        self.known.contains(&(repo.to_ascii_lowercase(), number))
    }

    /// How many pull requests there are.
    pub(super) fn pulls(&self) -> usize {
        self.known.len()
    }

    /// Adds a pull request; once this returns, it is never collected again.
    pub(super) fn add(&mut self, repo: &str, number: u64, row: &Value) -> Result<(), GithubError> {
        let path = self.dir.join(PULLS_FILE);
        let line = format!("{row}\n");
        let written = self.pulls.write_all(line.as_bytes()).and_then(|()| self.pulls.sync_data());
        written.map_err(at(&path))?;
        self.cursor.bytes += line.len() as u64;
        self.known.insert((repo.to_ascii_lowercase(), number));
        self.save()
    }

    /// Goes on to the next page of the repository.
    pub(super) fn next_page(&mut self, after: String) -> Result<(), GithubError> {
        self.cursor.after = Some(after);
        self.save()
    }

    /// What the server called the state of a repository that was collected to its end.
    pub(super) fn etag(&self, repo: &str) -> Option<&str> {
        self.etags.get(&self.key(repo)).map(String::as_str)
    }

    /// Goes on to the next repository, remembering the state that this one was in when it was begun.
    pub(super) fn next_repository(&mut self, etag: Option<(&str, String)>) -> Result<(), GithubError> {
        if let Some((repo, etag)) = etag {
            self.etags.insert(self.key(repo), etag);
            write(&self.dir.join(ETAGS_FILE), &self.etags)?;
        }
        self.cursor.repository += 1;
        self.cursor.after = None;
        self.save()
    }

    /// What is new to one question may be old to another, which asked for less.
    fn key(&self, repo: &str) -> String {
        let since = self.cursor.question.rsplit(' ').next().unwrap_or_default();
        format!("{repo} {since}")
    }

    fn save(&self) -> Result<(), GithubError> {
        write(&self.dir.join(CURSOR_FILE), &self.cursor)
    }
}

fn known(path: &Path) -> Result<HashSet<(String, u64)>, GithubError> {
    /// What is needed of a row.
    #[derive(Deserialize)]
    struct Pull {
        repo: String,
        pull_number: u64,
    }
    let mut known = HashSet::new();
    for line in BufReader::new(File::open(path).map_err(at(path))?).lines() {
        let pull = line.and_then(|line| serde_json::from_str::<Pull>(&line).map_err(io::Error::from));
        let pull = pull.map_err(at(path))?;
        known.insert((pull.repo.to_ascii_lowercase(), pull.pull_number));
    }
    Ok(known)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, GithubError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| at(path)(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

/// Replaces a file as a whole.
fn write(path: &Path, value: &impl Serialize) -> Result<(), GithubError> {
    let write = || {
        let dir = path.parent().unwrap_or(path);
        let mut file = NamedTempFile::new_in(dir)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.as_file().sync_data()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    write().map_err(at(path))
}

fn at(path: &Path) -> impl Fn(io::Error) -> GithubError + '_ {
    |source| GithubError::Store { path: path.to_owned(), source }
}
