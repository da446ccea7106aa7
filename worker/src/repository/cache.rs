use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::commit::{Commit, find};
use super::copy::Origin;
use super::{ProvisionError, partial};
use crate::git::{Git, GitError};

/// An HTTP server that sends fewer bytes a second, for so long, has stopped sending. While it counts what it is going to send,
/// it sends a few bytes now and then.
const SPEED_BYTES_MIN: u32 = 1;
const SLOW_SECONDS_MAX: u32 = 900;

/// How long git may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GitTimeouts {
    /// Each command on what lies here.
    pub command: Duration,
    /// Each fetch over the network: the first one of a large repository takes hours.
    pub fetch: Duration,
}

/// Bare repositories on this node: those that an operator keeps, and copies of those named by URL.
#[derive(Clone, Debug)]
pub struct RepositoryCache {
    dir: PathBuf,
    timeouts: GitTimeouts,
}

/// A bare repository, which is there as long as this is held: the janitor removes no copy that somebody reads.
#[derive(Debug)]
pub struct BareRepository {
    /// Where.
    pub dir: PathBuf,
    /// The commit that was asked for.
    pub(super) commit: Commit,
    /// What is wrong with it.
    pub(super) notes: Vec<String>,
    /// The lock on a copy's directory; an operator's own are nobody's to remove.
    #[expect(dead_code, reason = "its lock counts")]
    pub(super) reader: Option<File>,
}

impl RepositoryCache {
    /// A cache whose copies of URLs lie in `dir`.
    #[must_use]
    pub fn new(dir: &Path, timeouts: GitTimeouts) -> Self {
        Self { dir: dir.to_owned(), timeouts }
    }

    /// Commands in a directory, each for as long as it may take.
    pub(super) fn git(&self, dir: &Path) -> Git {
        Git::new(dir, self.timeouts.command)
    }

    /// A local bare repository that holds `commit`.
    ///
    /// # Errors
    /// There is no such repository, or it lacks the commit.
    pub async fn locate(&self, repository: &str, commit: &str) -> Result<BareRepository, ProvisionError> {
        if is_url(repository) {
            return self.mirror(&Origin::server(repository), commit).await;
        }
        let path = PathBuf::from(repository.strip_prefix("file://").unwrap_or(repository));
        if path.is_absolute()
            && let Some(bundle) = Origin::bundle(&path)
        {
            return self.mirror(&bundle, commit).await;
        }
        let git_dir = if path.join(".git").is_dir() { path.join(".git") } else { path };
        if !git_dir.is_absolute() || !git_dir.join("HEAD").is_file() {
            return Err(ProvisionError::NoRepository { repository: repository.to_owned() });
        }
        let Some(found) = find(&self.git(&git_dir), commit).await? else {
            return Err(no_commit(repository, commit, "the mirror does not have it".to_owned()));
        };
        let notes = match partial::is_partial(&git_dir) {
            true => self.complete_mirror(&git_dir, &found.id).await?.into_iter().collect(),
            false => Vec::new(),
        };
        Ok(BareRepository { dir: git_dir, commit: found, notes, reader: None })
    }

    /// Completes a commit in an operator's partial clone, as far as that can be: nodes may have no network, or may not
    /// write there. Gives a note of what was in the way.
    async fn complete_mirror(&self, git_dir: &Path, commit: &str) -> Result<Option<String>, ProvisionError> {
        let _held = self.lock(&self.copy_of(git_dir.to_string_lossy().as_bytes())).await?;
        let git = self.git(git_dir);
        let why = match partial::complete(&git, &self.fetching(&git), commit).await {
            Ok(_) => return Ok(None),
            Err(GitError::Refused { stderr, .. }) => stderr,
            Err(error @ GitError::TimedOut { .. }) => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        let why = why.replace('\n', "; ");
        Ok(Some(format!("the mirror is a partial clone, and what it lacks could not be fetched: {why}")))
    }

    /// Where the copy lies of what is named so.
    pub(super) fn copy_of(&self, key: &[u8]) -> PathBuf {
        let name = blake3::hash(key).to_hex()[..24].to_owned();
        self.dir.join(format!("{name}.git"))
    }

    /// One fetch into a repository at a time; the kernel drops the lock with the process.
    pub(super) async fn lock(&self, copy: &Path) -> Result<File, ProvisionError> {
        let path = copy.with_extension("lock");
        let unwritable = |source| ProvisionError::Disk { path: path.clone(), source };
        std::fs::create_dir_all(&self.dir).map_err(unwritable)?;
        let lock = File::create(&path).map_err(unwritable)?;
        exclusive(lock, &path).await
    }

    /// The same with a fetch's time, which gives up where nothing comes any more.
    pub(super) fn fetching(&self, git: &Git) -> Git {
        git.with_timeout(self.timeouts.fetch)
            .set("http.lowSpeedLimit", &SPEED_BYTES_MIN.to_string())
            .set("http.lowSpeedTime", &SLOW_SECONDS_MAX.to_string())
    }
}

/// Waits for everybody else who holds a lock on this file.
pub(super) async fn exclusive(file: File, path: &Path) -> Result<File, ProvisionError> {
    tokio::task::spawn_blocking(move || fs2::FileExt::lock_exclusive(&file).map(|()| file))
        .await
        .map_err(std::io::Error::other)
        .flatten()
        .map_err(|source| ProvisionError::Disk { path: path.to_owned(), source })
}

fn is_url(repository: &str) -> bool {
    ["https://", "http://", "ssh://", "git://"].iter().any(|scheme| repository.starts_with(scheme))
}

pub(super) fn no_commit(repository: &str, commit: &str, why: String) -> ProvisionError {
    ProvisionError::NoCommit { repository: repository.to_owned(), commit: commit.to_owned(), why }
}
