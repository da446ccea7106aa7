use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::ProvisionError;
use crate::git::{Git, GitError};

/// What git writes last into a lock or a pack is no older than this while it runs.
const STALE_AGE: Duration = Duration::from_secs(60);

/// A server that sends fewer bytes a second, for so long, has stopped sending.
const SPEED_BYTES_MIN: u32 = 1000;
const SLOW_SECONDS_MAX: u32 = 60;

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
    /// The lock on a copy's directory; an operator's own are nobody's to remove.
    _reader: Option<File>,
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
            return self.mirror(repository, commit).await;
        }
        let path = PathBuf::from(repository.strip_prefix("file://").unwrap_or(repository));
        let git_dir = if path.join(".git").is_dir() { path.join(".git") } else { path };
        if !git_dir.is_absolute() || !git_dir.join("HEAD").is_file() {
            return Err(ProvisionError::NoRepository { repository: repository.to_owned() });
        }
        if !has_commit(&self.git(&git_dir), commit).await? {
            return Err(no_commit(repository, commit, "the mirror does not have it".to_owned()));
        }
        Ok(BareRepository { dir: git_dir, _reader: None })
    }

    /// The copy of a URL, brought up to date only if it lacks the commit.
    async fn mirror(&self, url: &str, commit: &str) -> Result<BareRepository, ProvisionError> {
        let name = blake3::hash(url.as_bytes()).to_hex()[..24].to_owned();
        let dir = self.dir.join(format!("{name}.git"));
        let unwritable = |source| ProvisionError::Disk { path: dir.clone(), source };
        std::fs::create_dir_all(&self.dir).map_err(unwritable)?;
        // One fetch a repository at a time; the kernel drops the lock with the process.
        let lock_path = dir.with_extension("lock");
        let lock = File::create(&lock_path).map_err(unwritable)?;
        let _held = tokio::task::spawn_blocking(move || fs2::FileExt::lock_exclusive(&lock).map(|()| lock))
            .await
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(unwritable)?;
        // The janitor may have removed it until now.
        if !is_repository(&dir) {
            self.make_anew(&dir).await?;
        }
        self.bring_up_to_date(&dir, url, commit).await?;
        // Whoever removes it has the lock above first.
        let read = File::open(&dir).and_then(|dir| fs2::FileExt::lock_shared(&dir).map(|()| dir));
        let reader = read.map_err(unwritable)?;
        Ok(BareRepository { dir, _reader: Some(reader) })
    }

    /// An empty repository, whatever was there.
    async fn make_anew(&self, dir: &Path) -> Result<(), ProvisionError> {
        let unwritable = |source| ProvisionError::Disk { path: dir.to_owned(), source };
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unwritable(error)),
            _ => std::fs::create_dir_all(dir).map_err(unwritable)?,
        }
        self.git(dir).run(&["init", "--quiet", "--bare", "--template="]).await?;
        Ok(())
    }

    /// Fetches, unless the commit is there.
    async fn bring_up_to_date(&self, dir: &Path, url: &str, commit: &str) -> Result<(), ProvisionError> {
        let git = self.git(dir);
        if has_commit(&git, commit).await? {
            return Ok(());
        }
        remove_stale_locks(dir, SystemTime::now());
        // A branch that is gone may be in the way of one below its name.
        let all = ["--force", "--prune", "--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        let mut fetched = self.fetch(&git, &all).await;
        if fetched.is_err() && has_lost_objects(&git).await {
            self.make_anew(dir).await?;
            fetched = self.fetch(&git, &all).await;
        }
        if has_commit(&git, commit).await? {
            return Ok(());
        }
        if let Err(error @ GitError::TimedOut { .. }) = fetched {
            return Err(not_fetched(url, error));
        }
        // A commit of a pull request may be reachable from no branch.
        let one = self.fetch(&git, &["--", url, commit]).await;
        if has_commit(&git, commit).await? {
            return Ok(());
        }
        // Only who has answered can lack it: a node without network knows nothing of a repository.
        match (fetched, one) {
            (Err(error), _) if is_denied(&error) => {
                Err(ProvisionError::NoRepository { repository: url.to_owned() })
            }
            (Err(error), _) => Err(not_fetched(url, error)),
            (Ok(()), Err(error)) if error.refusal().is_none() => Err(not_fetched(url, error)),
            (Ok(()), Err(error)) => Err(no_commit(url, commit, error.to_string())),
            (Ok(()), Ok(())) => Err(no_commit(url, commit, "it was fetched without it".to_owned())),
        }
    }

    /// Fetches, which is given up where nothing comes any more.
    async fn fetch(&self, git: &Git, args: &[&str]) -> Result<(), GitError> {
        let (least, most) = (
            format!("http.lowSpeedLimit={SPEED_BYTES_MIN}"),
            format!("http.lowSpeedTime={SLOW_SECONDS_MAX}"),
        );
        let fetch = ["-c", &least, "-c", &most, "fetch", "--quiet", "--no-auto-maintenance"];
        git.with_timeout(self.timeouts.fetch).run(&[&fetch, args].concat()).await.map(drop)
    }
}

/// How servers say that there is no such repository, or not for us; lower case.
const DENIALS: [&str; 9] = [
    "remote error:",
    "' not found",
    "does not appear to be a git repository",
    "could not read username",
    "authentication failed",
    "returned error: 401",
    "returned error: 403",
    "returned error: 404",
    "permission denied (publickey",
];

/// Whether a server has answered, and said no.
fn is_denied(error: &GitError) -> bool {
    error.refusal().is_some_and(|said| {
        let said = said.to_ascii_lowercase();
        DENIALS.iter().any(|denial| said.contains(denial))
    })
}

/// What git leaves where it is killed: locks on refs, and packs that it did not finish. Whoever calls holds the lock on
/// the copy, so that these are nobody's, but for a git whose worker was killed and which is just ending.
fn remove_stale_locks(git_dir: &Path, now: SystemTime) {
    let mut dirs = vec![(git_dir.to_owned(), false), (git_dir.join("objects/pack"), false)];
    dirs.push((git_dir.join("refs"), true));
    while let Some((dir, is_deep)) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if is_deep && path.is_dir() {
                dirs.push((path, true));
                continue;
            }
            let name = name.to_string_lossy();
            let is_left = name.ends_with(".lock") || name.starts_with("tmp_");
            let age = entry.metadata().and_then(|file| file.modified()).map(|at| now.duration_since(at));
            if is_left && age.is_ok_and(|age| age.is_ok_and(|age| age >= STALE_AGE)) {
                // What cannot be removed, git complains of.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

fn is_url(repository: &str) -> bool {
    ["https://", "http://", "ssh://", "git://"].iter().any(|scheme| repository.starts_with(scheme))
}

/// Whether git takes a directory for a repository: one that was removed half-way is none.
fn is_repository(dir: &Path) -> bool {
    dir.join("HEAD").is_file() && dir.join("objects").is_dir() && dir.join("refs").is_dir()
}

/// Whether refs name commits that are not there.
async fn has_lost_objects(git: &Git) -> bool {
    let walked = git.run(&["rev-list", "--all", "--max-count=1"]).await;
    walked.is_err_and(|error| error.refusal().is_some())
}

/// Whether a repository has a commit; a git that cannot look is an error, not a no.
async fn has_commit(git: &Git, commit: &str) -> Result<bool, GitError> {
    match git.run(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).await {
        Ok(_) => Ok(true),
        Err(error) if error.refusal().is_some() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Why the network gave nothing; a limit that was too tight is told by its name.
fn not_fetched(url: &str, error: GitError) -> ProvisionError {
    match error {
        GitError::TimedOut { seconds, .. } => {
            ProvisionError::FetchTimedOut { repository: url.to_owned(), seconds }
        }
        error => error.into(),
    }
}

fn no_commit(repository: &str, commit: &str, why: String) -> ProvisionError {
    ProvisionError::NoCommit { repository: repository.to_owned(), commit: commit.to_owned(), why }
}
