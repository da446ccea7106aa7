//! The only place that creates, renames and removes files of a spool.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{OnPath, PathError};

/// Makes a directory and its parents; an existing one is fine.
pub(crate) fn make_dir(path: &Path) -> Result<(), PathError> {
    fs::create_dir_all(path).on_path("make directory", path)
}

/// Removes an empty directory; a full or missing one is left as it is.
pub(crate) fn remove_if_empty(path: &Path) -> Result<bool, PathError> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Ok(false),
        Err(e) => Err(e).on_path("remove directory", path),
    }
}

/// Removes one file; a missing one is fine.
pub(crate) fn remove_file(path: &Path) -> Result<(), PathError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).on_path("remove", path),
        _ => Ok(()),
    }
}

/// Creates a file that is not there yet, writes it and waits until it is on disk.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o664).open(path).on_path("create", path)?;
    file.write_all(bytes).on_path("write", path)?;
    file.sync_all().on_path("sync", path)?;
    // Over NFS a write can fail as late as close, which dropping a File would hide.
    close(file).on_path("close", path)
}

/// A new file in `dir` that scanners pass over, to be given its name when it is complete. Like every file of a
/// spool it is for the group too, as far as the umask allows.
pub(crate) fn stage(dir: &Path) -> Result<tempfile::NamedTempFile, PathError> {
    let permissions = fs::Permissions::from_mode(0o664);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".new-").permissions(permissions).tempfile_in(dir).on_path("create in", dir)
}

/// Replaces a file as a whole, by way of a temporary neighbour; readers see the old or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut staged = stage(dir)?;
    staged.write_all(bytes).on_path("write", path)?;
    settle(staged, path)
}

/// Gives a staged file its name, once its content is on disk.
pub(crate) fn settle(staged: tempfile::NamedTempFile, path: &Path) -> Result<(), PathError> {
    staged.as_file().sync_all().on_path("sync", path)?;
    staged.persist(path).map_err(|e| e.error).on_path("replace", path)?;
    Ok(())
}

/// Waits until a directory's names are on disk.
pub(crate) fn sync_dir(path: &Path) -> Result<(), PathError> {
    File::open(path).and_then(|dir| dir.sync_all()).on_path("sync", path)
}

/// What a rename that may have been lost, repeated or overtaken came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// The file is at the target.
    Yes,
    /// Somebody else moved it first.
    Gone,
}

/// Renames one file. The target's name must be one that only the caller can make: the system's answer is not
/// trusted, the target is looked at instead (an NFS reply may be lost although the rename was done).
pub(crate) fn rename(from: &Path, to: &Path) -> Result<Moved, PathError> {
    let Err(error) = system_rename(from, to) else { return Ok(Moved::Yes) };
    match fs::symlink_metadata(to) {
        Ok(found) if found.is_file() && fs::symlink_metadata(from).is_err() => Ok(Moved::Yes),
        _ if error.kind() == io::ErrorKind::NotFound && to.parent().is_some_and(Path::is_dir) => {
            Ok(Moved::Gone)
        }
        _ => Err(error).on_path("rename", from),
    }
}

#[expect(clippy::disallowed_methods, reason = "the one call that everything else is kept from")]
fn system_rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Opens a regular file for reading, following no symbolic link and waiting for no pipe.
pub(crate) fn open_regular(path: &Path) -> Result<File, PathError> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).on_path("open", path)?;
    if !file.metadata().on_path("inspect", path)?.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file");
        return Err(source).on_path("read", path);
    }
    Ok(file)
}

/// Reads a regular file with one link, following no symbolic link, of at most `bytes_max` bytes.
pub(crate) fn read_regular(path: &Path, bytes_max: u64) -> Result<Vec<u8>, PathError> {
    let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why)).on_path("read", path);
    let file = open_regular(path)?;
    let links = file.metadata().on_path("inspect", path)?.nlink();
    if links > 1 {
        return refuse(format!("it has {links} hard links, expected one"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).on_path("read", path)?;
    if bytes.len() as u64 > bytes_max {
        return refuse(format!("it is larger than {bytes_max} bytes"));
    }
    Ok(bytes)
}

/// The names in a directory, dot files left out; a missing directory has none.
pub(crate) fn list(path: &Path) -> Result<Vec<String>, PathError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(e).on_path("list", path),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.on_path("list", path)?;
        names.extend(entry.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
    }
    Ok(names)
}

fn close(file: File) -> io::Result<()> {
    nix::unistd::close(file).map_err(io::Error::from)
}

/// Throws a staging directory away, as far as it goes: a leftover there is never scanned.
pub(crate) fn discard_dir(path: &Path) {
    let _ = fs::remove_dir_all(path);
}

/// Moves a whole staged directory to where it becomes visible.
pub(crate) fn move_dir(from: &Path, to: &Path) -> Result<(), PathError> {
    system_rename(from, to).on_path("publish", to)
}
