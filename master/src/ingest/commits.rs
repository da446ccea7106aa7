use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::scratch::Scratch;

/// In which repositories the commits of rows are looked for, before anybody waits for a worker to miss them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Looking {
    /// In none.
    None,
    /// In those that lie where this program runs.
    #[default]
    Here,
    /// In those that are named by URL, too: their servers are asked.
    All,
}

/// Whether a repository has a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    There,
    Missing,
    /// Nobody here can tell.
    Unseen,
}

/// Looks for commits.
#[derive(Debug)]
pub(super) struct Commits {
    looking: Looking,
    opened: Option<Opened>,
    scratch: Option<Scratch>,
}

/// The repository of the row before: those of one usually follow each other.
#[derive(Debug)]
struct Opened {
    dir: PathBuf,
    git: Child,
    asked: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Commits {
    pub(super) fn new(looking: Looking) -> Self {
        Self { looking, opened: None, scratch: None }
    }

    /// Looks for commits, each in a repository.
    pub(super) fn look(&mut self, asked: &[(&str, &str)]) -> Vec<Found> {
        let mut remote: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut found = Vec::new();
        for (repository, commit) in asked {
            found.push(match (self.looking, dir_of(repository)) {
                (Looking::None, _) | (Looking::Here, None) => Found::Unseen,
                // A git that cannot be asked knows nothing against it.
                (Looking::Here | Looking::All, Some(dir)) => match self.has(&dir, commit) {
                    Ok(true) => Found::There,
                    Ok(false) => Found::Missing,
                    Err(_) => Found::Unseen,
                },
                (Looking::All, None) => {
                    if !Path::new(repository).is_absolute() {
                        remote.entry(repository).or_default().insert(commit);
                    }
                    Found::Unseen
                }
            });
        }
        for (url, commits) in remote {
            let Some(missing) = self.scratch().and_then(|scratch| scratch.missing(url, &commits)) else {
                continue;
            };
            for ((repository, commit), found) in asked.iter().zip(&mut found) {
                if *repository == url {
                    *found = if missing.contains(*commit) { Found::Missing } else { Found::There };
                }
            }
        }
        found
    }

    fn scratch(&mut self) -> Option<&mut Scratch> {
        if self.scratch.is_none() {
            self.scratch = Scratch::new().ok();
        }
        self.scratch.as_mut()
    }

    fn has(&mut self, dir: &Path, commit: &str) -> io::Result<bool> {
        if self.opened.as_ref().is_none_or(|opened| opened.dir != dir) {
            self.opened = Some(Opened::new(dir)?);
        }
        let Some(opened) = &mut self.opened else { return Err(io::ErrorKind::NotFound.into()) };
        writeln!(opened.asked, "{commit}^{{commit}}")?;
        opened.asked.flush()?;
        let mut line = String::new();
        if opened.told.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(!line.ends_with(" missing\n"))
    }
}

/// Where a repository lies on this machine, if it does.
pub(super) fn dir_of(repository: &str) -> Option<PathBuf> {
    let path = Path::new(repository.strip_prefix("file://").unwrap_or(repository));
    let dir = if path.join(".git").is_dir() { path.join(".git") } else { path.to_owned() };
    (dir.is_absolute() && dir.join("HEAD").is_file()).then_some(dir)
}

impl Opened {
    fn new(dir: &Path) -> io::Result<Self> {
        let mut git = Command::new("git")
            .args(["-c", "safe.directory=*", "--git-dir"])
            .arg(dir)
            .args(["cat-file", "--batch-check"])
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (asked, told) = (git.stdin.take(), git.stdout.take());
        let (Some(asked), Some(told)) = (asked, told) else { return Err(io::ErrorKind::BrokenPipe.into()) };
        Ok(Self { dir: dir.to_owned(), git, asked, told: BufReader::new(told) })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // It only reads.
        let _ = self.git.kill();
        let _ = self.git.wait();
    }
}
