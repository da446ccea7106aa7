use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::BrainError;
use crate::repository::{Blobs, FileKind, SourceTree};

/// The most files of a tree that are looked at.
const FILES_MAX: usize = 50_000;
/// How deep directories are followed.
const DEPTH_MAX: usize = 24;
/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How often a file is asked for, each time of another git.
const TRIES: u32 = 2;

/// A repository's files at the base commit, as far as they may be read: regular files below the root, within
/// limits. Symbolic links are never followed, since the tree is not trusted.
#[derive(Debug)]
pub(crate) struct Tree {
    source: Source,
    directory: String,
    files: Vec<String>,
}

/// Where the texts are.
#[derive(Debug)]
enum Source {
    Directory(PathBuf),
    Git(Box<Unwritten>),
}

/// Files that only git has.
#[derive(Debug)]
struct Unwritten {
    tree: SourceTree,
    /// The names of the contents, by path from the top.
    objects: HashMap<String, String>,
    /// One git for all that is read; `None` before and after it.
    blobs: Mutex<Option<Blobs>>,
}

impl Tree {
    /// Lists a tree, wherever its files are.
    pub(crate) fn of_source(tree: &SourceTree) -> Result<Self, BrainError> {
        let Some(files) = tree.files() else { return Self::open(tree.dir()) };
        let is_regular = |kind| matches!(kind, FileKind::Regular | FileKind::Executable);
        let objects: HashMap<String, String> = files
            .iter()
            .filter(|file| is_regular(file.kind) && file.path.components().count() <= DEPTH_MAX + 1)
            .filter_map(|file| Some((file.path.to_str()?.to_owned(), file.object.clone())))
            .take(FILES_MAX)
            .collect();
        let mut files: Vec<String> = objects.keys().cloned().collect();
        files.sort();
        let unwritten = Unwritten { tree: tree.clone(), objects, blobs: Mutex::new(None) };
        Ok(Self { source: Source::Git(Box::new(unwritten)), directory: String::new(), files })
    }

    /// Lists the files in a directory.
    pub(crate) fn open(root: &Path) -> Result<Self, BrainError> {
        let mut files = Vec::new();
        let mut pending = vec![(PathBuf::new(), 0)];
        while let Some((directory, depth)) = pending.pop() {
            let at = root.join(&directory);
            let entries = match std::fs::read_dir(&at) {
                Ok(entries) => entries,
                // Only the root has to be readable: a directory that is not is none of ours to mend.
                Err(source) if depth == 0 => return Err(BrainError::Tree { path: at, source }),
                Err(_) => continue,
            };
            for entry in entries.flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                let name = entry.file_name();
                let Some(name) = name.to_str() else { continue };
                let path = directory.join(name);
                if kind.is_dir() && name != ".git" && depth < DEPTH_MAX {
                    pending.push((path, depth + 1));
                } else if kind.is_file() && files.len() < FILES_MAX {
                    files.extend(path.to_str().map(str::to_owned));
                }
            }
        }
        files.sort();
        Ok(Self { source: Source::Directory(root.to_owned()), directory: String::new(), files })
    }

    /// The part of it below a directory, with paths relative to that.
    pub(crate) fn below(self, directory: &str) -> Self {
        let prefix = format!("{directory}/");
        let files =
            self.files.iter().filter_map(|file| file.strip_prefix(&prefix)).map(str::to_owned).collect();
        let directory = match self.directory.as_str() {
            "" => directory.to_owned(),
            above => format!("{above}/{directory}"),
        };
        Self { source: self.source, directory, files }
    }

    /// The directory that it was cut down to; empty for a whole tree.
    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    /// Every file, sorted, relative to the root.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// Whether this file is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.binary_search_by(|file| file.as_str().cmp(path)).is_ok()
    }

    /// Whether anything lies in this directory.
    pub(crate) fn has_directory(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        let at = self.files.partition_point(|file| file.as_str() < prefix.as_str());
        self.files.get(at).is_some_and(|file| file.starts_with(&prefix))
    }

    /// A file's text; what is not UTF-8 in it is replaced. `None` where it is missing or too large.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        if !self.has(path) {
            return None;
        }
        let bytes = self.source.read(&match self.directory.as_str() {
            "" => path.to_owned(),
            above => format!("{above}/{path}"),
        })?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }
}

impl Source {
    /// The content of a file, by its path from the top.
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        match self {
            Self::Directory(root) => {
                let at = root.join(path);
                let found = std::fs::symlink_metadata(&at).ok()?;
                let is_fit = found.is_file() && found.len() <= FILE_BYTES_MAX;
                if is_fit { std::fs::read(&at).ok() } else { None }
            }
            Self::Git(unwritten) => unwritten.read(path),
        }
    }
}

impl Unwritten {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let object = self.objects.get(path)?;
        let mut running = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        // The one that runs may have been killed since: another one knows as much.
        for _ in 0..TRIES {
            let Ok(mut git) = running.take().map_or_else(|| self.tree.blobs(), Ok) else { continue };
            let read = git.ask(object).and_then(|()| {
                git.next(|size, content| {
                    if size > FILE_BYTES_MAX {
                        return Err(io::ErrorKind::FileTooLarge.into());
                    }
                    let mut bytes = Vec::new();
                    content.read_to_end(&mut bytes).map(|_| bytes)
                })
            });
            match read {
                Ok(bytes) => {
                    *running = Some(git);
                    return Some(bytes);
                }
                // One that has not said all it has to say is of no more use.
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return None,
                Err(error) => tracing::warn!(%error, path, "git does not give a file"),
            }
        }
        None
    }
}

#[cfg(test)]
impl Tree {
    /// A tree of these files in a directory that lives as long as the guard.
    pub(crate) fn of(files: &[(&str, &str)]) -> (tempfile::TempDir, Self) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let tree = Self::open(root.path()).unwrap();
        (root, tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_follows_a_link_out_of_the_tree() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "key").unwrap();
        let (root, _) = Tree::of(&[("setup.py", "x"), ("a/b.py", "y"), (".git/config", "z")]);
        std::os::unix::fs::symlink(outside.path().join("secret"), root.path().join("setup.cfg")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("tests")).unwrap();
        let tree = Tree::open(root.path()).unwrap();
        assert_eq!(tree.files().collect::<Vec<_>>(), ["a/b.py", "setup.py"]);
        assert_eq!(tree.read("setup.cfg"), None);
        assert_eq!(tree.read("tests/secret"), None);
        assert_eq!(tree.read("../secret"), None);
        assert!(tree.has_directory("a") && !tree.has_directory("tests"));
    }

    #[tokio::test]
    async fn reads_from_git_what_it_would_read_from_a_directory() {
        let large = "x".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1);
        let deep = format!("{}x.py", "d/".repeat(DEPTH_MAX));
        let deeper = format!("{}x.py", "e/".repeat(DEPTH_MAX + 1));
        let files = [("a.py", "a"), ("a/b.py", "\u{feff}b"), ("a-b.py", ""), ("large.py", large.as_str())];
        let (root, _) =
            Tree::of(&[&files[..], &[(deep.as_str(), "deep"), (deeper.as_str(), "deeper")]].concat());
        std::os::unix::fs::symlink("a.py", root.path().join("link.py")).unwrap();
        let who = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        for args in [&["init", "--quiet"][..], &["add", "--all"], &["commit", "--quiet", "-m", "x"]] {
            let git =
                std::process::Command::new("git").current_dir(root.path()).args(who).args(args).status();
            assert!(git.unwrap().success());
        }
        let source = SourceTree::of_head(root.path()).await;
        let check = |written: Tree, unwritten: Tree| {
            assert_eq!(unwritten.files().collect::<Vec<_>>(), written.files().collect::<Vec<_>>());
            for file in written.files() {
                // After one that is too large, too.
                assert_eq!(unwritten.read(file), written.read(file), "{file}");
            }
            assert_eq!(unwritten.read("link.py"), None);
            assert_eq!(unwritten.has_directory("a"), written.has_directory("a"));
        };
        let both = || (Tree::open(root.path()).unwrap(), Tree::of_source(&source).unwrap());
        let (written, unwritten) = both();
        assert!(written.has(&deep) && !written.has(&deeper));
        check(written, unwritten);
        let (written, unwritten) = both();
        check(written.below("a"), unwritten.below("a"));
    }

    #[test]
    fn leaves_large_files_alone() {
        let large = "x".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1);
        let (_root, tree) = Tree::of(&[("large.py", &large), ("small.py", "\u{feff}x = 1")]);
        assert_eq!(tree.read("large.py"), None);
        assert_eq!(tree.read("small.py").as_deref(), Some("x = 1"));
    }
}
