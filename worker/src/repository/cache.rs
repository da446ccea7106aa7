use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ProvisionError;
use crate::git::Git;

/// Bare repositories on this node: those that an operator keeps, and copies of those named by URL.
#[derive(Clone, Debug)]
pub struct RepositoryCache {
    dir: PathBuf,
    timeout: Duration,
}

impl RepositoryCache {
    /// A cache whose copies of URLs lie in `dir`; each git command may take `timeout`.
    #[must_use]
    pub fn new(dir: &Path, timeout: Duration) -> Self {
        Self { dir: dir.to_owned(), timeout }
    }

    /// The time that each git command may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A local bare repository that holds `commit`.
    ///
    /// # Errors
    /// There is no such repository, or it lacks the commit.
    pub async fn locate(&self, repository: &str, commit: &str) -> Result<PathBuf, ProvisionError> {
        if is_url(repository) {
            return self.mirror(repository, commit).await;
        }
        let path = PathBuf::from(repository.strip_prefix("file://").unwrap_or(repository));
        let git_dir = if path.join(".git").is_dir() { path.join(".git") } else { path };
        if !git_dir.is_absolute() || !git_dir.join("HEAD").is_file() {
            return Err(ProvisionError::NoRepository { repository: repository.to_owned() });
        }
        if !has_commit(&git_dir, commit, self.timeout).await {
            return Err(no_commit(repository, commit, "the mirror does not have it".to_owned()));
        }
        Ok(git_dir)
    }

    /// The copy of a URL, brought up to date only if it lacks the commit.
    async fn mirror(&self, url: &str, commit: &str) -> Result<PathBuf, ProvisionError> {
        let name = blake3::hash(url.as_bytes()).to_hex()[..24].to_owned();
        let dir = self.dir.join(format!("{name}.git"));
        let unwritable = |source| ProvisionError::Disk { path: dir.clone(), source };
        std::fs::create_dir_all(&self.dir).map_err(unwritable)?;
        // One fetch a repository at a time; the kernel drops the lock with the process.
        let lock_path = dir.with_extension("lock");
        let lock = std::fs::File::create(&lock_path).map_err(unwritable)?;
        let _held = tokio::task::spawn_blocking(move || fs2::FileExt::lock_exclusive(&lock).map(|()| lock))
            .await
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(unwritable)?;
        // The janitor may have removed it until now.
        std::fs::create_dir_all(&dir).map_err(unwritable)?;
        let git = Git::new(&dir, self.timeout);
        if !dir.join("HEAD").is_file() {
            git.run(&["init", "--quiet", "--bare", "--template="]).await?;
        }
        if has_commit(&dir, commit, self.timeout).await {
            return Ok(dir);
        }
        let all = [
            "fetch",
            "--quiet",
            "--force",
            "--no-auto-maintenance",
            "--",
            url,
            "+refs/heads/*:refs/heads/*",
            "+refs/tags/*:refs/tags/*",
        ];
        let fetched = git.run(&all).await;
        if !has_commit(&dir, commit, self.timeout).await {
            // A commit of a pull request may be reachable from no branch.
            let one = git.run(&["fetch", "--quiet", "--no-auto-maintenance", "--", url, commit]).await;
            if let Err(error) = fetched.and(one) {
                return Err(no_commit(url, commit, error.to_string()));
            }
        }
        if has_commit(&dir, commit, self.timeout).await {
            Ok(dir)
        } else {
            Err(no_commit(url, commit, "it was fetched without it".to_owned()))
        }
    }
}

fn is_url(repository: &str) -> bool {
    ["https://", "http://", "ssh://", "git://"].iter().any(|scheme| repository.starts_with(scheme))
}

async fn has_commit(git_dir: &Path, commit: &str, timeout: Duration) -> bool {
    Git::new(git_dir, timeout).run(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).await.is_ok()
}

fn no_commit(repository: &str, commit: &str, why: String) -> ProvisionError {
    ProvisionError::NoCommit { repository: repository.to_owned(), commit: commit.to_owned(), why }
}
