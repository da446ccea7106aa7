use std::path::{Path, PathBuf};

use super::ProvisionError;
use super::commit::Commit;
use super::source_tree::{FileKind, Listing};
use crate::git::{Git, GitError};

/// A repository of one commit: its objects in a pack, its index, one branch. What came after it, and where it came from,
/// is not in it.
#[derive(Debug)]
pub(super) struct Snapshot {
    dir: PathBuf,
    git: Git,
    seeing: Git,
}

impl Snapshot {
    /// One that is to be in `dir`, made of `objects` of another repository; `git` runs in it.
    pub(super) fn new(dir: &Path, git: &Git, objects: &Path) -> Self {
        // It does not outlive its attempt, so that nothing has to reach the disk.
        let git = git.set("core.fsync", "none");
        Self { dir: dir.to_owned(), seeing: git.seeing(objects), git }
    }

    /// Commands in it.
    pub(super) fn git(&self) -> &Git {
        &self.git
    }

    /// Commands in it that read the other repository's objects too.
    pub(super) fn seeing(&self) -> &Git {
        &self.seeing
    }

    /// Makes it, empty.
    pub(super) async fn init(&self) -> Result<(), ProvisionError> {
        std::fs::create_dir_all(&self.dir).map_err(|source| self.unwritable(source))?;
        self.git.run(&["init", "--quiet", "--template=", "--initial-branch=main"]).await?;
        Ok(())
    }

    /// Packs what a commit is made of, as it lies there: nothing is compressed again to save a little.
    pub(super) async fn pack(&self, commit: &Commit, listing: &Listing) -> Result<(), GitError> {
        let blobs = listing.files.iter().filter(|file| file.kind != FileKind::Submodule);
        let names = [&commit.id, &commit.tree].into_iter().chain(&listing.trees);
        let names = names.chain(blobs.map(|file| &file.object));
        let input: String = names.map(|name| format!("{name}\n")).collect();
        let pack = ["pack-objects", "--quiet", "--window=0", ".git/objects/pack/pack"];
        self.seeing.run_with_input(&pack, input.as_bytes()).await.map(drop)
    }

    /// Removes what is left of a pack that could not be written.
    pub(super) fn forget_pack(&self) -> Result<(), ProvisionError> {
        let packs = self.dir.join(".git/objects/pack");
        std::fs::remove_dir_all(&packs)
            .and_then(|()| std::fs::create_dir(&packs))
            .map_err(|source| self.unwritable(source))
    }

    /// Names the commit, and a tag of it. `is_shallow`: commits came before it.
    pub(super) async fn finish(
        &self,
        head: &str,
        is_shallow: bool,
        tag: Option<&str>,
    ) -> Result<(), ProvisionError> {
        if is_shallow {
            let path = self.dir.join(".git/shallow");
            std::fs::write(&path, format!("{head}\n")).map_err(|source| self.unwritable(source))?;
        }
        let branch = format!("create refs/heads/main {head}\n");
        // A mirror may have tags of names that git takes from nobody.
        let tag = tag.filter(|tag| !tag.starts_with('-'));
        let update = ["update-ref", "--stdin"];
        if let Some(tag) = tag {
            let both = format!("{branch}create refs/tags/{tag} {head}\n");
            if self.git.run_with_input(&update, both.as_bytes()).await.is_ok() {
                return Ok(());
            }
        }
        self.git.run_with_input(&update, branch.as_bytes()).await?;
        Ok(())
    }

    fn unwritable(&self, source: std::io::Error) -> ProvisionError {
        ProvisionError::Disk { path: self.dir.clone(), source }
    }
}
