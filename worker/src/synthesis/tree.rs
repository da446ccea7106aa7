use std::path::{Path, PathBuf};

use super::BrainError;

/// The most files of a tree that are looked at.
const FILES_MAX: usize = 50_000;
/// How deep directories are followed.
const DEPTH_MAX: usize = 24;
/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A repository's files at the base commit, as far as they may be read: regular files below the root, within
/// limits. Symbolic links are never followed, since the tree is not trusted.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    directory: String,
    files: Vec<String>,
}

impl Tree {
    /// Lists the tree.
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
        Ok(Self { root: root.to_owned(), directory: String::new(), files })
    }

    /// The part of it below a directory, with paths relative to that.
    pub(crate) fn below(self, directory: &str) -> Self {
        let prefix = format!("{directory}/");
        let files =
            self.files.iter().filter_map(|file| file.strip_prefix(&prefix)).map(str::to_owned).collect();
        Self { root: self.root.join(directory), directory: directory.to_owned(), files }
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
        let at = self.root.join(path);
        let size = std::fs::symlink_metadata(&at).ok()?;
        if !size.is_file() || size.len() > FILE_BYTES_MAX {
            return None;
        }
        let bytes = std::fs::read(&at).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
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

    #[test]
    fn leaves_large_files_alone() {
        let large = "x".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1);
        let (_root, tree) = Tree::of(&[("large.py", &large), ("small.py", "\u{feff}x = 1")]);
        assert_eq!(tree.read("large.py"), None);
        assert_eq!(tree.read("small.py").as_deref(), Some("x = 1"));
    }
}
