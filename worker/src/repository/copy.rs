use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::cache::{exclusive, no_commit};
use super::commit::{Commit, find};
use super::{BareRepository, ProvisionError, RepositoryCache, partial};
use crate::git::{Git, GitError};

/// What git writes last into a lock or a pack is no older than this while it runs.
const STALE_AGE: Duration = Duration::from_secs(60);

/// How bundles begin.
const BUNDLE_SIGNATURES: [&[u8; 16]; 2] = [b"# v2 git bundle\n", b"# v3 git bundle\n"];

/// What a copy is made of.
#[derive(Debug)]
pub(super) struct Origin {
    url: String,
    /// The same for equal contents, as far as that can be told without reading them.
    key: String,
    kind: OriginKind,
}

#[derive(Debug, PartialEq)]
enum OriginKind {
    Server,
    /// A file with branches, tags and all their objects, as `git bundle` makes them.
    Bundle,
}

impl Origin {
    pub(super) fn server(url: &str) -> Self {
        Self { url: url.to_owned(), key: url.to_owned(), kind: OriginKind::Server }
    }

    /// A bundle, if that is what lies there; one that is replaced is another.
    pub(super) fn bundle(path: &Path) -> Option<Self> {
        let found = path.metadata().ok().filter(Metadata::is_file)?;
        let mut signature = [0; 16];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut signature));
        let is_signed = read.is_ok() && BUNDLE_SIGNATURES.contains(&&signature);
        let is_bundle = is_signed || path.extension().is_some_and(|end| end == "bundle");
        let url = path.to_str().filter(|_| is_bundle)?.to_owned();
        let key = format!("{url}\n{} {} {}", found.len(), found.mtime(), found.mtime_nsec());
        Some(Self { url, key, kind: OriginKind::Bundle })
    }

    /// Why it gave nothing; a limit that was too tight is told by its name.
    fn not_fetched(&self, commit: &str, error: GitError) -> ProvisionError {
        match error {
            GitError::TimedOut { seconds, .. } => {
                ProvisionError::FetchTimedOut { repository: self.url.clone(), seconds }
            }
            // A file that is torn, or builds on commits that it does not have, stays so.
            error if self.kind == OriginKind::Bundle && error.refusal().is_some() => {
                let said = error.refusal().unwrap_or_default().replace('\n', "; ");
                no_commit(&self.url, commit, said)
            }
            error => error.into(),
        }
    }
}

impl RepositoryCache {
    /// The copy of a repository, brought up to date only if it lacks the commit.
    pub(super) async fn mirror(
        &self,
        origin: &Origin,
        commit: &str,
    ) -> Result<BareRepository, ProvisionError> {
        let dir = self.copy_of(origin.key.as_bytes());
        let unwritable = |source| ProvisionError::Disk { path: dir.clone(), source };
        let _held = self.lock(&dir).await?;
        // The janitor may have removed it until now.
        if !is_repository(&dir) {
            self.make_anew(&dir).await?;
        }
        let found = self.bring_up_to_date(&dir, origin, commit).await?;
        self.complete_copy(&dir, origin, &found.id).await?;
        // Whoever removes it has the lock above first.
        let read = File::open(&dir).and_then(|dir| fs2::FileExt::lock_shared(&dir).map(|()| dir));
        let reader = read.map_err(unwritable)?;
        Ok(BareRepository { dir, commit: found, notes: Vec::new(), reader: Some(reader) })
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
    async fn bring_up_to_date(
        &self,
        dir: &Path,
        origin: &Origin,
        commit: &str,
    ) -> Result<Commit, ProvisionError> {
        let git = self.git(dir);
        if let Some(found) = find(&git, commit).await? {
            return Ok(found);
        }
        remove_stale_locks(dir, SystemTime::now());
        // A remote of this name, fetched from with a filter, is what makes a partial clone.
        git.run(&["config", "remote.origin.url", &origin.url]).await?;
        // A branch that is gone may be in the way of one below its name.
        let all: &[&str] = match origin.kind {
            // One may have been made of any ref.
            OriginKind::Bundle => &["--force", "--prune", "--", "origin", "+refs/*:refs/*"],
            OriginKind::Server => &[
                "--force",
                "--prune",
                "--",
                "origin",
                "+refs/heads/*:refs/heads/*",
                "+refs/tags/*:refs/tags/*",
            ],
        };
        let mut fetched = self.fetch(&git, origin, all).await;
        let is_refused = fetched.as_ref().is_err_and(|error| error.refusal().is_some());
        if is_refused && has_lost_objects(&git).await {
            // Another attempt may still read what there is.
            let read =
                File::open(dir).map_err(|source| ProvisionError::Disk { path: dir.to_owned(), source })?;
            let _alone = exclusive(read, dir).await?;
            self.make_anew(dir).await?;
            git.run(&["config", "remote.origin.url", &origin.url]).await?;
            fetched = self.fetch(&git, origin, all).await;
        }
        if let Some(found) = find(&git, commit).await? {
            return Ok(found);
        }
        if let Err(error @ GitError::TimedOut { .. }) = fetched {
            return Err(origin.not_fetched(commit, error));
        }
        // A commit of a pull request may be reachable from no branch, and a bundle may have no branches at all.
        let other = if origin.kind == OriginKind::Bundle { "HEAD" } else { commit };
        let one = self.fetch(&git, origin, &["--", "origin", other]).await;
        if let Some(found) = find(&git, commit).await? {
            return Ok(found);
        }
        // Only who has answered can lack it: a node without network knows nothing of a repository.
        match (fetched, one) {
            (Err(error), _) if says(&error, &DENIALS) => {
                Err(ProvisionError::NoRepository { repository: origin.url.clone() })
            }
            (Err(error), _) => Err(origin.not_fetched(commit, error)),
            (Ok(()), Err(error)) if error.refusal().is_none() => Err(origin.not_fetched(commit, error)),
            (Ok(()), Err(error)) => Err(no_commit(&origin.url, commit, error.to_string())),
            (Ok(()), Ok(())) => Err(no_commit(&origin.url, commit, "it was fetched without it".to_owned())),
        }
    }

    /// Fetches the blobs of this commit. Where its server has lost some, the other files are still of use.
    async fn complete_copy(&self, dir: &Path, origin: &Origin, commit: &str) -> Result<(), ProvisionError> {
        let git = self.git(dir);
        match partial::complete(&git, &self.fetching(&git), commit).await {
            Ok(_) => Ok(()),
            Err(error) if says(&error, &DENIALS) => {
                Err(ProvisionError::NoRepository { repository: origin.url.clone() })
            }
            Err(error) => Err(origin.not_fetched(commit, error)),
        }
    }

    /// Fetches commits and trees; a server that knows no filters sends the blobs too.
    async fn fetch(&self, git: &Git, origin: &Origin, args: &[&str]) -> Result<(), GitError> {
        let mut fetch = vec!["fetch", "--quiet", "--no-auto-maintenance"];
        // A file cannot be asked for the rest later.
        fetch.extend((origin.kind == OriginKind::Server).then_some("--filter=blob:none"));
        self.fetching(git).run(&[&fetch, args].concat()).await.map(drop)
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

/// Whether a server has answered, and said one of these.
fn says(error: &GitError, words: &[&str]) -> bool {
    error.refusal().is_some_and(|said| {
        let said = said.to_ascii_lowercase();
        words.iter().any(|words| said.contains(words))
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

/// Whether git takes a directory for a repository: one that was removed half-way is none.
fn is_repository(dir: &Path) -> bool {
    dir.join("HEAD").is_file() && dir.join("objects").is_dir() && dir.join("refs").is_dir()
}

/// Whether refs name commits that are not there.
async fn has_lost_objects(git: &Git) -> bool {
    let walked = git.run(&["rev-list", "--all", "--max-count=1"]).await;
    walked.is_err_and(|error| error.refusal().is_some())
}
