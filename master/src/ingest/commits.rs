use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::Refusal;

/// Looks for commits in repositories that lie where this program runs, before anybody waits for a worker to miss them.
///
/// Those named by URL, bundles, and those that only workers see, are not looked at; nor are end commits: a task is made of its base
/// and its patches, and a mirror of branches has no heads of pull requests that were squashed.
#[derive(Debug, Default)]
pub(super) struct Commits(Option<Opened>);

/// The repository of the row before: those of one usually follow each other.
#[derive(Debug)]
struct Opened {
    dir: PathBuf,
    git: Child,
    asked: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Commits {
    /// Checks that a repository has a commit, as far as anybody here can tell.
    pub(super) fn check(&mut self, repository: &str, commit: &str) -> Result<(), Refusal> {
        let path = Path::new(repository.strip_prefix("file://").unwrap_or(repository));
        let dir = if path.join(".git").is_dir() { path.join(".git") } else { path.to_owned() };
        if !dir.is_absolute() || !dir.join("HEAD").is_file() {
            return Ok(());
        }
        // A git that cannot be asked knows nothing against it.
        if self.has(&dir, commit).unwrap_or(true) {
            return Ok(());
        }
        let why = format!("{commit} is not in {repository}; fetch the mirror there, or correct it");
        Err(Refusal::of("base_commit", &why))
    }

    fn has(&mut self, dir: &Path, commit: &str) -> io::Result<bool> {
        if self.0.as_ref().is_none_or(|opened| opened.dir != dir) {
            self.0 = Some(Opened::new(dir)?);
        }
        let Some(opened) = &mut self.0 else { return Ok(true) };
        writeln!(opened.asked, "{commit}^{{commit}}")?;
        opened.asked.flush()?;
        let mut line = String::new();
        if opened.told.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(!line.ends_with(" missing\n"))
    }
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
