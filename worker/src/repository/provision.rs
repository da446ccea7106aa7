use std::path::{Path, PathBuf};

use queue_format::{BuildTask, FailureReason};

use super::{RepositoryCache, incomplete};
use crate::evaluate::normalise_patch;
use crate::git::{Git, GitError};

/// A clean tree in a build context.
#[derive(Clone, Debug)]
pub struct Checkout {
    /// The context: `repo/` lies in it, the Dockerfile will.
    pub context_dir: PathBuf,
    /// The tree, with a `.git` that holds the base commit and nothing else.
    pub tree_dir: PathBuf,
    /// When the base commit was made, or the pull request, whichever is later.
    pub date: jiff::Timestamp,
    /// What had to be left out.
    pub notes: Vec<String>,
}

/// Why there is no clean tree.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// No bare repository there.
    #[error(
        "no git repository at {repository}; fetch the mirror there, or submit again with another --repositories template"
    )]
    NoRepository {
        /// As the task names it.
        repository: String,
    },
    /// The base commit is missing.
    #[error("commit {commit} is not in {repository}: {why}; fetch the mirror again, or correct base_commit")]
    NoCommit {
        /// As the task names it.
        repository: String,
        /// The commit.
        commit: String,
        /// What was said.
        why: String,
    },
    /// The network is too slow for it, or the limit too tight.
    #[error(
        "{repository} was not fetched within {seconds} s; raise fetch_timeout_seconds in [worker], or keep a mirror of it \
         where the nodes see it"
    )]
    FetchTimedOut {
        /// As the task names it.
        repository: String,
        /// The limit.
        seconds: u64,
    },
    /// A patch does not apply.
    #[error("field {field:?} does not apply to {commit}: {why}")]
    Patch {
        /// `patch` or `test_patch`.
        field: &'static str,
        /// The base commit.
        commit: String,
        /// What git said, in one line.
        why: String,
    },
    /// git failed otherwise.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The node's disk.
    #[error("cannot write {}: {source}", path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ProvisionError {
    /// The reason under which the task fails; `None` where the node is at fault.
    #[must_use]
    pub fn reason(&self) -> Option<FailureReason> {
        match self {
            Self::NoRepository { .. } | Self::NoCommit { .. } => Some(FailureReason::Repository),
            Self::Patch { .. } => Some(FailureReason::Patch),
            Self::FetchTimedOut { .. } | Self::Git(_) | Self::Disk { .. } => None,
        }
    }
}

/// Puts the base commit of a task into `context_dir`, which exists and is empty.
///
/// The repository in it is one commit deep: it has no remote, no reflog, and one tag, the nearest that the base
/// descends from, so that builds which ask git for a version get a plausible one.
///
/// # Errors
/// The repository, the commit or a patch is not as the task says, or the node fails.
pub async fn provision(
    cache: &RepositoryCache,
    task: &BuildTask,
    context_dir: &Path,
) -> Result<Checkout, ProvisionError> {
    let commit = task.instance.base_commit.as_str();
    let bare = cache.locate(&task.repository, commit).await?;
    let source = &bare.dir;
    let tree_dir = context_dir.join("repo");
    std::fs::create_dir_all(&tree_dir)
        .map_err(|source| ProvisionError::Disk { path: tree_dir.clone(), source })?;
    let git = cache.git(&tree_dir);
    git.run(&["init", "--quiet", "--template=", "--initial-branch=main"]).await?;
    let mirror = cache.git(source);
    let mut notes = bare.notes.clone();
    if let Err(error) = fetch(&git, source, commit).await {
        notes.push(incomplete::take(&git, &mirror, &source.join("objects"), commit).await?.ok_or(error)?);
        git.run(&["checkout", "--quiet", "--force", "main"]).await?;
    } else {
        git.run(&["checkout", "--quiet", "-B", "main", commit]).await?;
    }
    if let Ok(tag) = mirror.run(&["describe", "--tags", "--abbrev=0", "--match=*[0-9]*", commit]).await {
        // A nicety: a mirror may have tags of names that git takes from nobody.
        let _ = git.run(&["tag", "--", &tag]).await;
    }
    forget_the_fetch(&tree_dir);
    notes.extend(missing_submodules(&tree_dir));
    check_patches(&git, task, context_dir).await?;
    let date = date(&git, task).await?;
    Ok(Checkout { context_dir: context_dir.to_owned(), tree_dir, date, notes })
}

/// One commit and nothing else, under its own id.
async fn fetch(git: &Git, source: &Path, commit: &str) -> Result<String, GitError> {
    // A bare repository serves only what its refs reach, unless it is told otherwise.
    let upload = "--upload-pack=git -c safe.directory=* -c uploadpack.allowAnySHA1InWant=true upload-pack";
    let options = ["--quiet", "--depth=1", "--no-tags", "--no-auto-maintenance", upload, "--"];
    let from = source.to_string_lossy();
    git.run(&[&["fetch"], &options[..], &[&from, commit]].concat()).await
}

/// Applies the test patch, then the fix, to an index and an object store of their own: the tree stays as it is,
/// and no blob of the fix gets into its repository.
async fn check_patches(git: &Git, task: &BuildTask, context_dir: &Path) -> Result<(), ProvisionError> {
    let unwritable = |source| ProvisionError::Disk { path: context_dir.to_owned(), source };
    let scratch = tempfile::tempdir_in(context_dir).map_err(unwritable)?;
    let git = git.writing_to(scratch.path());
    git.run(&["read-tree", "HEAD"]).await?;
    for (field, patch) in [("test_patch", &task.instance.test_patch), ("patch", &task.instance.patch)] {
        if let Err(error) =
            git.run_with_input(&["apply", "--cached", "-"], normalise_patch(patch).as_bytes()).await
        {
            let Some(said) = error.refusal() else { return Err(error.into()) };
            let (commit, why) = (task.instance.base_commit.clone(), said.replace('\n', "; "));
            return Err(ProvisionError::Patch { field, commit, why });
        }
    }
    scratch.close().map_err(unwritable)
}

async fn date(git: &Git, task: &BuildTask) -> Result<jiff::Timestamp, ProvisionError> {
    let seconds = git.run(&["show", "--no-patch", "--format=%ct", "HEAD"]).await?;
    let base = seconds.parse().ok().and_then(|s| jiff::Timestamp::from_second(s).ok()).unwrap_or_default();
    Ok(task.instance.created().map_or(base, |created| created.max(base)))
}

/// What a fetch writes about where it fetched from.
fn forget_the_fetch(tree_dir: &Path) {
    for trace in ["FETCH_HEAD", "ORIG_HEAD"] {
        let _ = std::fs::remove_file(tree_dir.join(".git").join(trace));
    }
    let _ = std::fs::remove_dir_all(tree_dir.join(".git/logs"));
}

fn missing_submodules(tree_dir: &Path) -> Vec<String> {
    let Ok(modules) = std::fs::read_to_string(tree_dir.join(".gitmodules")) else { return Vec::new() };
    let paths = modules.lines().filter_map(|line| line.trim().strip_prefix("path")?.trim().strip_prefix('='));
    paths
        .map(|path| format!("the submodule {} is empty: the cache has no mirror of it", path.trim()))
        .collect()
}
