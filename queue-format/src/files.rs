//! The only place that creates, renames and removes files of a spool, and that decides what an answer of the
//! file system is worth.

use std::any::Any;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::error::{OnPath, PathError, SpoolError};
use crate::filesystem::{Disk, Entry, EntryKind, Filesystem, NewFile, OpenFile};

/// How often a path is looked up anew after a stale handle, as when the server swapped what lies there.
const LOOKS_MAX: usize = 10;

/// A spool's hands: a file system, with the rules that NFS asks for.
#[derive(Clone)]
pub(crate) struct Files(Arc<dyn Filesystem>);

/// Bytes kept of a name that others are put before and after: a name has room for 255.
const KEPT_BYTES_MAX: usize = 150;

/// As much of the end of a name as leaves room for more.
pub(crate) fn end_of(name: &str) -> &str {
    let from = (name.len().saturating_sub(KEPT_BYTES_MAX)..).find(|at| name.is_char_boundary(*at));
    &name[from.unwrap_or(name.len())..]
}

/// A file that readers pass over until it is given its name; dropped before that, it is removed.
#[derive(Debug)]
pub(crate) struct Staged {
    files: Files,
    path: PathBuf,
    file: Option<Box<dyn NewFile>>,
    is_settled: bool,
}

/// What a rename that may have been lost, repeated or overtaken came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// The file is at the target.
    Yes,
    /// Somebody else moved it first.
    Gone,
}

impl Files {
    pub(crate) fn new(filesystem: Arc<dyn Filesystem>) -> Self {
        Self(filesystem)
    }

    /// The file system of this machine: what lies on the node itself is never simulated.
    pub(crate) fn of_this_machine() -> Self {
        Self::new(Arc::new(Disk))
    }

    pub(crate) fn unique(&self) -> Uuid {
        self.0.unique()
    }

    /// Waits for this node's turn at a directory; it ends when what is given is dropped.
    pub(crate) fn take_turn(&self, dir: &Path) -> Result<Box<dyn Any + Send>, PathError> {
        self.0.take_turn(dir).on_path("lock", dir)
    }

    /// Makes a directory and its parents; an existing one is fine.
    pub(crate) fn make_dirs(&self, path: &Path) -> Result<(), PathError> {
        match self.make_dir(path) {
            Err(e) if e.source.kind() == ErrorKind::NotFound => {
                let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
                    return Err(e);
                };
                self.make_dirs(parent)?;
                self.make_dir(path)
            }
            made => made,
        }
    }

    /// Makes one directory; an existing one is fine, a missing parent is an error.
    pub(crate) fn make_dir(&self, path: &Path) -> Result<(), PathError> {
        match self.0.make_dir(path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && self.is_dir(path) => Ok(()),
            made => made.on_path("make directory", path),
        }
    }

    /// Removes a directory that is empty, or holds only what scanners pass over: a probe or a half-written file that
    /// a crash or a late call left there. A full or missing one is left as it is.
    pub(crate) fn remove_if_empty(&self, path: &Path) -> Result<bool, PathError> {
        let removed = match self.0.remove_dir(path) {
            Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty && self.remove_litter(path) => {
                self.0.remove_dir(path)
            }
            removed => removed,
        };
        match removed {
            Ok(()) => Ok(true),
            Err(e) if is_gone(&e) => Ok(false),
            // What people drop among directories is left where it is.
            Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(e) => Err(e).on_path("remove directory", path),
        }
    }

    /// Removes all that scanners pass over, where there is nothing else; false where there is.
    fn remove_litter(&self, dir: &Path) -> bool {
        let Ok(names) = self.0.list(dir) else { return false };
        if names.is_empty() || !names.iter().all(|name| name.starts_with('.')) {
            return false;
        }
        for name in names {
            self.remove_any(&dir.join(name));
        }
        true
    }

    /// Removes one file; a missing one is fine.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<(), PathError> {
        match self.0.remove_file(path) {
            Err(e) if !is_gone(&e) => Err(e).on_path("remove", path),
            _ => Ok(()),
        }
    }

    /// Throws a staged directory away, as far as it goes: a leftover is never scanned. It loses its name first, so
    /// that a rename still on its way finds the whole of it or nothing.
    pub(crate) fn discard_dir(&self, path: &Path) {
        let nameless = path.with_file_name(format!(".gone-{}", self.unique().simple()));
        if matches!(self.rename(path, &nameless), Ok(Moved::Yes)) {
            self.remove_tree(&nameless);
        }
    }

    /// Removes a directory with all that is in it; it loses its name first.
    ///
    /// # Errors
    /// Something of it stays, perhaps under a name that nobody looks at: [`Spool::litter`](crate::Spool::litter) finds it.
    pub(crate) fn remove_dir(&self, path: &Path) -> Result<(), PathError> {
        let nameless = path.with_file_name(format!(".gone-{}", self.unique().simple()));
        if self.rename(path, &nameless)? == Moved::Gone {
            return Ok(());
        }
        self.remove_tree(&nameless);
        match self.is_there(&nameless) {
            true => Err(io::Error::from(ErrorKind::DirectoryNotEmpty)).on_path("remove", &nameless),
            false => Ok(()),
        }
    }

    fn remove_tree(&self, path: &Path) {
        for name in self.0.list(path).unwrap_or_default() {
            self.remove_any(&path.join(name));
        }
        let _ = self.0.remove_dir(path);
    }

    fn remove_any(&self, path: &Path) {
        match self.0.look(path) {
            Ok(Entry { kind: EntryKind::Dir, .. }) => self.remove_tree(path),
            _ => drop(self.0.remove_file(path)),
        }
    }

    /// Creates a file that is not there yet, writes it and waits until it is on disk.
    pub(crate) fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<(), PathError> {
        let mut file = self.0.create(path).on_path("create", path)?;
        file.write_all(bytes).on_path("write", path)?;
        file.finish().on_path("write", path)
    }

    /// A new file in `dir` that scanners pass over.
    pub(crate) fn stage(&self, dir: &Path) -> Result<Staged, PathError> {
        let path = dir.join(format!(".new-{}", self.unique().simple()));
        let file = Some(self.0.create(&path).on_path("create", &path)?);
        Ok(Staged { files: self.clone(), path, file, is_settled: false })
    }

    /// Replaces a file as a whole, by way of a temporary neighbour; readers see the old or the new one.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), PathError> {
        let mut staged = self.stage(path.parent().unwrap_or(Path::new(".")))?;
        staged.write_all(bytes).on_path("write", path)?;
        staged.settle(path)
    }

    /// [`Files::replace`], by a value as JSON that people can read.
    pub(crate) fn replace_json(&self, path: &Path, value: &impl Serialize) -> Result<(), SpoolError> {
        Ok(self.replace(path, &json(path, value)?)?)
    }

    /// Adds to a file that this process alone writes.
    pub(crate) fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), PathError> {
        self.0.append(path, bytes).on_path("write", path)
    }

    /// Waits until a directory's names are on disk.
    pub(crate) fn sync_dir(&self, path: &Path) -> Result<(), PathError> {
        self.0.sync_dir(path).on_path("sync", path)
    }

    /// Renames one file or directory. The target's name must be one that only the caller can make: the system's
    /// answer is not trusted, the target is looked at instead, since the answer may be lost although the rename
    /// was done.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<Moved, PathError> {
        let mut looks = 0;
        loop {
            let Err(error) = self.0.rename(from, to) else { return Ok(Moved::Yes) };
            looks += 1;
            if self.is_there_now(to)? {
                return Ok(Moved::Yes);
            }
            // The target's directory took a change just now: what is missing is the source, or its directory.
            match error.kind() {
                ErrorKind::NotFound => return Ok(Moved::Gone),
                ErrorKind::StaleNetworkFileHandle if looks < LOOKS_MAX => {}
                _ => return Err(error).on_path("rename", from),
            }
        }
    }

    /// [`Files::rename`] into a directory that is made where it is not there: somebody may remove it while it is empty.
    pub(crate) fn bring(&self, from: &Path, to: &Path) -> Result<Moved, PathError> {
        for _ in 1..LOOKS_MAX {
            match self.rename(from, to) {
                Err(e) if e.source.kind() == ErrorKind::NotFound => {
                    self.make_dirs(to.parent().unwrap_or(Path::new(".")))?;
                }
                // Somebody else made the directory just after the rename had found none.
                Ok(Moved::Gone) if self.is_left(from)? => {}
                renamed => return renamed,
            }
        }
        self.rename(from, to)
    }

    /// [`Files::is_there_now`], where nothing is in a directory that is gone.
    pub(crate) fn is_left(&self, path: &Path) -> Result<bool, PathError> {
        match self.is_there_now(path) {
            Err(e) if e.source.kind() == ErrorKind::NotFound => Ok(false),
            looked => looked,
        }
    }

    /// Renames a directory that has something in it to a name that others may have taken. [`Moved::Gone`] where they
    /// have, or where the directory is no longer there: perhaps since this very rename was done and its answer lost.
    ///
    /// # Errors
    /// The rename failed, as far as is known; it may still be done.
    pub(crate) fn rename_dir(&self, from: &Path, to: &Path) -> Result<Moved, PathError> {
        match self.0.rename(from, to) {
            Ok(()) => Ok(Moved::Yes),
            Err(e) if is_gone(&e) && to.parent().is_some_and(|dir| self.is_dir(dir)) => Ok(Moved::Gone),
            Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                Ok(Moved::Gone)
            }
            Err(e) => Err(e).on_path("rename", from),
        }
    }

    /// Renames one file to a name that only the caller can make, at the least cost. [`Moved::Gone`] may be untrue
    /// here, where the answer was lost: the file is at the target then, and found there later.
    ///
    /// # Errors
    /// The error's kind is `NotFound` where the target's directory is gone.
    pub(crate) fn rename_cheaply(&self, from: &Path, to: &Path) -> Result<Moved, PathError> {
        let Err(error) = self.0.rename(from, to) else { return Ok(Moved::Yes) };
        if self.is_there(to) {
            return Ok(Moved::Yes);
        }
        match is_gone(&error) {
            true if to.parent().is_some_and(|dir| self.is_dir(dir)) => Ok(Moved::Gone),
            true => Err(io::Error::from(ErrorKind::NotFound)).on_path("rename", from),
            false => Err(error).on_path("rename", from),
        }
    }

    /// What lies at a path, as far as this node can see; absence may be 60 seconds old.
    pub(crate) fn look(&self, path: &Path) -> Result<Option<Entry>, PathError> {
        match self.afresh(|| self.0.look(path)) {
            Err(e) if is_gone(&e) || e.kind() == ErrorKind::NotADirectory => Ok(None),
            looked => looked.map(Some).on_path("look at", path),
        }
    }

    pub(crate) fn is_there(&self, path: &Path) -> bool {
        self.look(path).is_ok_and(|found| found.is_some())
    }

    pub(crate) fn is_dir(&self, path: &Path) -> bool {
        matches!(self.look(path), Ok(Some(Entry { kind: EntryKind::Dir, .. })))
    }

    pub(crate) fn is_file(&self, path: &Path) -> bool {
        matches!(self.look(path), Ok(Some(Entry { kind: EntryKind::File, .. })))
    }

    /// Whether a path is there, on the server and now: absence counts only when it is seen again after a change
    /// of our own in that directory, which makes the client forget what it remembers of it.
    ///
    /// # Errors
    /// The directory takes no change, its error's kind is `NotFound` where it is gone; or nobody can tell.
    pub(crate) fn is_there_now(&self, path: &Path) -> Result<bool, PathError> {
        if self.is_there(path) {
            return Ok(true);
        }
        self.refresh(path.parent().unwrap_or(Path::new(".")))?;
        Ok(self.look(path)?.is_some())
    }

    /// Makes this node forget what it remembers of a directory, by a change of its own.
    ///
    /// # Errors
    /// The directory takes no change; the error's kind is `NotFound` where it is gone.
    pub(crate) fn refresh(&self, dir: &Path) -> Result<(), PathError> {
        let probe = dir.join(format!(".look-{}", self.unique().simple()));
        match self.afresh(|| self.0.create(&probe)) {
            Err(e) if is_gone(&e) => {
                return Err(io::Error::from(ErrorKind::NotFound)).on_path("create", &probe);
            }
            made => drop(made.on_path("create", &probe)?),
        }
        self.remove_file(&probe)
    }

    /// Opens a regular file for reading, following no symbolic link and waiting for no pipe.
    pub(crate) fn open_regular(&self, path: &Path) -> Result<OpenFile, PathError> {
        self.afresh(|| self.0.open(path)).on_path("open", path)
    }

    /// Reads a regular file with one link, following no symbolic link, of at most `bytes_max` bytes.
    pub(crate) fn read_regular(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, PathError> {
        let refuse = |why: String| Err(io::Error::new(ErrorKind::InvalidData, why)).on_path("read", path);
        let file = self.open_regular(path)?;
        if file.links > 1 {
            return refuse(format!("it has {} hard links, expected one", file.links));
        }
        let mut bytes = Vec::new();
        file.content.take(bytes_max + 1).read_to_end(&mut bytes).on_path("read", path)?;
        if bytes.len() as u64 > bytes_max {
            return refuse(format!("it is larger than {bytes_max} bytes"));
        }
        Ok(bytes)
    }

    /// The names in a directory, dot files left out; a missing directory has none.
    pub(crate) fn list(&self, path: &Path) -> Result<Vec<String>, PathError> {
        let mut names = self.list_all(path)?;
        names.retain(|name| !name.starts_with('.'));
        Ok(names)
    }

    /// The names that [`Files::list`] leaves out.
    pub(crate) fn list_hidden(&self, path: &Path) -> Result<Vec<String>, PathError> {
        let mut names = self.list_all(path)?;
        names.retain(|name| name.starts_with('.'));
        Ok(names)
    }

    fn list_all(&self, path: &Path) -> Result<Vec<String>, PathError> {
        match self.afresh(|| self.0.list(path)) {
            Err(e) if is_gone(&e) || e.kind() == ErrorKind::NotADirectory => Ok(Vec::new()),
            listed => listed.on_path("list", path),
        }
    }

    /// Again while a handle is stale: the next look begins at the root.
    fn afresh<T>(&self, look: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut looks = 1;
        loop {
            match look() {
                Err(e) if e.kind() == ErrorKind::StaleNetworkFileHandle && looks < LOOKS_MAX => looks += 1,
                looked => return looked,
            }
        }
    }
}

impl Staged {
    /// Where it lies until it has its name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name, once its content is on disk.
    pub(crate) fn settle(mut self, path: &Path) -> Result<(), PathError> {
        if let Some(file) = self.file.take() {
            file.finish().on_path("write", path)?;
        }
        if let Err(error) = self.files.0.rename(&self.path, path) {
            // What lies at the target may be older: it was done if the name is gone that is ours alone.
            let is_done = self.files.is_left(path)? && !self.files.is_left(&self.path)?;
            if !is_done {
                return Err(error).on_path("replace", path);
            }
        }
        self.is_settled = true;
        Ok(())
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Err(ErrorKind::BrokenPipe.into()), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_settled {
            let _ = self.files.remove_file(&self.path);
        }
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value as JSON that people can read, for the file at `path`.
pub(crate) fn json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, SpoolError> {
    serde_json::to_vec_pretty(value).map_err(|source| SpoolError::Json { path: path.to_owned(), source })
}

/// Nothing lies there any more; a handle that stays stale says the same.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::StaleNetworkFileHandle)
}
