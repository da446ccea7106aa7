use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempPath;

use super::GithubError;
use super::journal::Journal;
use super::waiting::Waiting;

/// The pull requests that were collected, a row each.
pub const PULLS_FILE: &str = "pulls.jsonl";
/// The repositories of which nothing was collected, each with the reason.
pub const SKIPPED_FILE: &str = "skipped.jsonl";
/// The pull requests that could not be read, each with the reason.
pub const PASSED_FILE: &str = "passed.jsonl";
/// The pull requests whose diffs are asked for again.
const AGAIN_FILE: &str = "again.jsonl";
const CURSOR_FILE: &str = "cursor.json";
const ETAGS_FILE: &str = "etags.jsonl";
const REPOSITORIES_FILE: &str = "repositories.json";

/// What was collected so far, and how far that is.
///
/// Any file of it may go: without the cursor the rows that stand there whole are kept and the repositories are gone
/// through again, without the rows all begins anew, without the others more is asked again.
pub(super) struct Store {
    dir: PathBuf,
    pulls: File,
    cursor: Cursor,
    repositories: Vec<String>,
    /// What each repository's state was called, by repository and time since when.
    etags: BTreeMap<String, String>,
    etags_file: Journal,
    skipped: BTreeMap<String, String>,
    skipped_file: Journal,
    passed: BTreeMap<(String, u64), String>,
    passed_file: Journal,
    /// By repository in lower case, and number.
    waiting: BTreeMap<(String, u64), Waiting>,
    waiting_file: Journal,
    /// Repository in lower case, and number.
    known: HashSet<(String, u64)>,
}

/// How far it came: all that a successor needs to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Cursor {
    /// The API that was asked: numbers mean something else to another.
    server: String,
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

/// What a repository's state was called when it had been collected to its end.
#[derive(Serialize, Deserialize)]
struct Etag {
    key: String,
    etag: String,
    /// What there were of pull requests then: with fewer it is no longer true that none is missing.
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Skipped {
    repo: String,
    why: String,
}

#[derive(Serialize, Deserialize)]
struct Passed {
    repo: String,
    number: u64,
    why: String,
}

impl Store {
    /// Opens what a directory holds of a server's pull requests, or begins there.
    pub(super) fn open(dir: &Path, server: &str) -> Result<Self, GithubError> {
        std::fs::create_dir_all(dir).map_err(at(dir))?;
        let path = dir.join(PULLS_FILE);
        let pulls = OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))?;
        // The kernel drops the lock with the process, however that ends.
        pulls.try_lock().map_err(|_| at(&path)(io::Error::other("another command collects into it")))?;
        let length = pulls.metadata().map_err(at(&path))?.len();
        let cursor: Option<Cursor> = read(&dir.join(CURSOR_FILE))?;
        let is_torn = |bytes: u64| GithubError::Torn { path: path.clone(), length, bytes };
        // The rows were removed, to begin anew.
        let is_anew = cursor.as_ref().is_some_and(|cursor| cursor.bytes > length) && length == 0;
        let (mut cursor, known) = match cursor {
            Some(cursor) if cursor.bytes <= length => {
                let (known, bytes) = known(&path, cursor.bytes)?;
                if bytes < cursor.bytes {
                    return Err(is_torn(cursor.bytes));
                }
                (cursor, known)
            }
            Some(_) if is_anew => Default::default(),
            Some(cursor) => return Err(is_torn(cursor.bytes)),
            None => {
                let (known, bytes) = known(&path, length)?;
                (Cursor { bytes, ..Cursor::default() }, known)
            }
        };
        let (mut waiting_file, lines) = Journal::open::<Waiting>(&dir.join(AGAIN_FILE))?;
        // Of several lines about one the last counts, and none once its row is written.
        let mut waiting: BTreeMap<_, _> =
            lines.into_iter().map(|line| (key_of(&line.repo, line.number), line)).collect();
        waiting.retain(|key, _| !is_anew && !known.contains(key));
        if waiting.is_empty() {
            waiting_file.clear()?;
        }
        let is_new = known.is_empty() && waiting.is_empty();
        if !is_new && !cursor.server.is_empty() && cursor.server != server {
            return Err(GithubError::OtherServer { dir: dir.to_owned(), server: cursor.server });
        }
        server.clone_into(&mut cursor.server);
        // What a predecessor wrote and did not note, it did not finish.
        pulls.set_len(cursor.bytes).map_err(at(&path))?;
        let (etags_file, etags) = Journal::open::<Etag>(&dir.join(ETAGS_FILE))?;
        let (skipped_file, skipped) = Journal::open::<Skipped>(&dir.join(SKIPPED_FILE))?;
        let (passed_file, passed) = Journal::open::<Passed>(&dir.join(PASSED_FILE))?;
        let mut store = Self {
            dir: dir.to_owned(),
            pulls,
            cursor,
            repositories: Vec::new(),
            etags: BTreeMap::new(),
            etags_file,
            skipped: skipped.into_iter().map(|skipped| (skipped.repo, skipped.why)).collect(),
            skipped_file,
            passed: passed.into_iter().map(|passed| ((passed.repo, passed.number), passed.why)).collect(),
            passed_file,
            waiting,
            waiting_file,
            known,
        };
        let is_true = |etag: &Etag| etag.bytes <= store.cursor.bytes;
        let (kept, stale): (Vec<Etag>, Vec<Etag>) = etags.into_iter().partition(is_true);
        if !stale.is_empty() {
            // With more rows again, they would look true.
            store.etags_file.clear()?;
            kept.iter().try_for_each(|etag| store.etags_file.append(etag))?;
        }
        store.etags = kept.into_iter().map(|etag| (etag.key, etag.etag)).collect();
        store.save()?;
        Ok(store)
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
        self.skipped.clear();
        self.skipped_file.clear()?;
        self.passed.clear();
        self.passed_file.clear()?;
        let Cursor { server, bytes, .. } = std::mem::take(&mut self.cursor);
        self.cursor = Cursor { server, question: question.to_owned(), bytes, ..Cursor::default() };
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
        let key = key_of(repo, number);
        self.known.contains(&key) || self.waiting.contains_key(&key)
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
        let key = key_of(repo, number);
        self.waiting.remove(&key);
        self.known.insert(key);
        self.save()
    }

    /// Keeps a pull request that waits for its diff; once this returns, the rest of it is never collected again.
    pub(super) fn wait_for(&mut self, waiting: Waiting) -> Result<(), GithubError> {
        self.waiting_file.append(&waiting)?;
        self.waiting_file.sync()?;
        self.waiting.insert(key_of(&waiting.repo, waiting.number), waiting);
        Ok(())
    }

    /// What waits for a diff.
    pub(super) fn waiting(&self) -> &BTreeMap<(String, u64), Waiting> {
        &self.waiting
    }

    /// Whether something of this repository does.
    pub(super) fn has_waiting(&self, repo: &str) -> bool {
        self.waiting.values().any(|waiting| waiting.repo.eq_ignore_ascii_case(repo))
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
            let etag = Etag { key: self.key(repo), etag, bytes: self.cursor.bytes };
            self.etags_file.append(&etag)?;
            self.etags.insert(etag.key, etag.etag);
        }
        self.cursor.repository += 1;
        self.cursor.after = None;
        self.save()
    }

    /// Goes on to the next repository, for this one cannot be read.
    pub(super) fn skip(&mut self, repo: &str, why: String) -> Result<(), GithubError> {
        let skipped = Skipped { repo: repo.to_owned(), why };
        self.skipped_file.append(&skipped)?;
        self.skipped.insert(skipped.repo, skipped.why);
        self.next_repository(None)
    }

    /// The repositories that could not be read, and why.
    pub(super) fn skipped(&self) -> &BTreeMap<String, String> {
        &self.skipped
    }

    /// Notes a pull request of which nothing can be read.
    pub(super) fn pass_over(&mut self, repo: &str, number: u64, why: String) -> Result<(), GithubError> {
        let passed = Passed { repo: repo.to_owned(), number, why };
        self.passed_file.append(&passed)?;
        self.passed.insert((passed.repo, number), passed.why);
        Ok(())
    }

    /// The pull requests that could not be read, and why, by repository and number.
    pub(super) fn passed_over(&self) -> &BTreeMap<(String, u64), String> {
        &self.passed
    }

    /// Whether there are some of this repository.
    pub(super) fn has_passed_over(&self, repo: &str) -> bool {
        self.passed.keys().any(|(passed, _)| passed == repo)
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

fn key_of(repo: &str, number: u64) -> (String, u64) {
    (repo.to_ascii_lowercase(), number)
}

/// The pull requests that a file holds in whole lines, from its beginning, and how many bytes these have.
fn known(path: &Path, bytes_max: u64) -> Result<(HashSet<(String, u64)>, u64), GithubError> {
    /// What is needed of a row.
    #[derive(Deserialize)]
    struct Pull {
        repo: String,
        pull_number: u64,
    }
    let mut reader = BufReader::new(File::open(path).map_err(at(path))?);
    let (mut known, mut bytes, mut line) = (HashSet::new(), 0, Vec::new());
    while bytes < bytes_max {
        line.clear();
        let length = reader.read_until(b'\n', &mut line).map_err(at(path))? as u64;
        let pull = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<Pull>(line).ok());
        let Some(pull) = pull.filter(|_| bytes + length <= bytes_max) else { break };
        known.insert(key_of(&pull.repo, pull.pull_number));
        bytes += length;
    }
    Ok((known, bytes))
}

/// A file of JSON; one that is no JSON counts as missing, for each can be.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, GithubError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

/// Replaces a file as a whole, by way of a neighbour that whoever is killed leaves for the next.
fn write(path: &Path, value: &impl Serialize) -> Result<(), GithubError> {
    let write = || {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let mut file = File::create(&part)?;
        let part = TempPath::try_from_path(part)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_data()?;
        part.persist(path).map_err(|error| error.error)
    };
    write().map_err(at(path))
}

pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> GithubError + '_ {
    |source| GithubError::Store { path: path.to_owned(), source }
}
