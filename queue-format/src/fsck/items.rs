use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::PathError;
use crate::error::OnPath;
use crate::files::is_gone;

/// What lies in a directory.
pub(super) struct Item {
    /// Its path.
    pub(super) path: PathBuf,
    /// Its name, made readable where it is not UTF-8.
    pub(super) name: String,
    /// Whether daemons can see it at all: listings leave other names out.
    pub(super) is_utf8: bool,
    pub(super) is_dir: bool,
    pub(super) is_file: bool,
}

/// What lies in a directory, one after the other, dot files too; nothing where it is gone.
pub(super) fn items(dir: &Path) -> Result<impl Iterator<Item = Result<Item, PathError>> + use<>, PathError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if is_gone(&e) || e.kind() == std::io::ErrorKind::NotADirectory => None,
        opened => Some(opened.on_path("list", dir)?),
    };
    let dir = dir.to_owned();
    Ok(entries.into_iter().flatten().map(move |entry| {
        let entry = entry.on_path("list", &dir)?;
        let kind = entry.file_type().on_path("look at", &entry.path())?;
        let name = entry.file_name();
        Ok(Item {
            path: entry.path(),
            is_utf8: name.to_str().is_some(),
            name: name.to_string_lossy().into_owned(),
            is_dir: kind.is_dir(),
            is_file: kind.is_file(),
        })
    }))
}

/// What is known of a path, a symbolic link not followed; `None` where nothing lies there (any more).
pub(super) fn look(path: &Path) -> Option<Metadata> {
    fs::symlink_metadata(path).ok()
}

/// When a path was last written, renamed or linked, by the server's clock.
pub(super) fn changed(found: &Metadata) -> SystemTime {
    let (seconds, nanoseconds) =
        (found.ctime().max(0).unsigned_abs(), found.ctime_nsec().clamp(0, 999_999_999));
    SystemTime::UNIX_EPOCH + Duration::new(seconds, u32::try_from(nanoseconds).unwrap_or(0))
}
