use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blobs::Blobs;
use crate::git::{Git, GitError};

/// The files of a base commit, below a directory with a `.git` of its own. Nobody has to write them to read them: they
/// lie there only where a checkout would give some of them another content than git has.
#[derive(Clone, Debug)]
pub struct SourceTree {
    dir: PathBuf,
    unwritten: Option<Unwritten>,
}

#[derive(Clone, Debug)]
struct Unwritten {
    git: Git,
    files: Arc<[TreeFile]>,
}

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeFile {
    /// What it is.
    pub(crate) kind: FileKind,
    /// The name of its content.
    pub(crate) object: String,
    /// Where, below the root.
    pub(crate) path: PathBuf,
}

/// What git knows of a file's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Regular,
    Executable,
    /// Its content is where it points.
    Link,
    /// A commit of another repository: an empty directory.
    Submodule,
}

impl SourceTree {
    /// Files that lie in a directory.
    #[must_use]
    pub fn written(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), unwritten: None }
    }

    /// Files that only a repository has; `git` runs in it.
    pub(super) fn unwritten(dir: &Path, git: &Git, files: Vec<TreeFile>) -> Self {
        Self { dir: dir.to_owned(), unwritten: Some(Unwritten { git: git.clone(), files: files.into() }) }
    }

    /// The files of a repository's last commit.
    #[cfg(test)]
    pub(crate) async fn of_head(dir: &Path) -> Self {
        let git = Git::new(dir, std::time::Duration::from_secs(60));
        Self::unwritten(dir, &git, list(&git, "HEAD").await.unwrap().files)
    }

    /// Where they lie, or would lie.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The files that have to be read from git: none where they are written. In the order in which a walk finds them
    /// that takes what is in a directory by name.
    pub(crate) fn files(&self) -> Option<&[TreeFile]> {
        Some(&self.unwritten.as_ref()?.files)
    }

    /// The contents of all of these that have one, in their order.
    pub(crate) fn contents(&self) -> io::Result<Blobs> {
        let unwritten = self.unwritten.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let with_content = unwritten.files.iter().filter(|file| file.kind != FileKind::Submodule);
        Blobs::of(&unwritten.git, with_content.map(|file| format!("{}\n", file.object)).collect())
    }

    /// The contents of single files.
    pub(crate) fn blobs(&self) -> io::Result<Blobs> {
        Blobs::open(&self.unwritten.as_ref().ok_or(io::ErrorKind::NotFound)?.git)
    }
}

/// What a commit is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    /// The names of its trees below the root.
    pub(super) trees: Vec<String>,
    /// Its files, in the order of a walk.
    pub(super) files: Vec<TreeFile>,
}

/// Lists a commit.
pub(super) async fn list(git: &Git, commit: &str) -> Result<Listing, GitError> {
    let listed = git.bytes(&["ls-tree", "-r", "-t", "-z", "--full-tree", commit], b"").await?;
    let mut listing = Listing::default();
    for entry in listed.split(|byte| *byte == 0) {
        // `<mode> <type> <object>\t<path>`
        let Some(tab) = entry.iter().position(|byte| *byte == b'\t') else { continue };
        let head = String::from_utf8_lossy(&entry[..tab]);
        let mut words = head.split(' ');
        let (Some(mode), Some(_), Some(object)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let kind = match mode {
            "040000" => {
                listing.trees.push(object.to_owned());
                continue;
            }
            "120000" => FileKind::Link,
            "160000" => FileKind::Submodule,
            "100755" => FileKind::Executable,
            _ => FileKind::Regular,
        };
        let path = PathBuf::from(OsStr::from_bytes(&entry[tab + 1..]));
        listing.files.push(TreeFile { kind, object: object.to_owned(), path });
    }
    listing.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(listing)
}
