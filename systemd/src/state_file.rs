//! Small files in the state directory of a node.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// Writes one so that a reader, and who comes after a crash or found the disk full, has the whole of it or what was there
/// before.
///
/// # Errors
/// Its directory cannot be written.
pub fn replace(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut staged = tempfile::NamedTempFile::new_in(dir)?;
    staged.write_all(text)?;
    staged.as_file().set_permissions(Permissions::from_mode(mode))?;
    hand_over(staged.as_file(), dir);
    staged.persist(path).map(drop).map_err(|error| error.error)
}

/// Gives a file that was just made to whom its directory belongs: what root makes there, for once and by hand, the daemons
/// must be able to read and write later. Who is not root can give nothing away.
pub fn hand_over(made: &File, dir: &Path) {
    if let (Ok(dir), Ok(found)) = (dir.metadata(), made.metadata())
        && dir.uid() != found.uid()
    {
        let _ = fchown(made, Some(dir.uid()), Some(dir.gid()));
    }
}

/// Runs `make`, and gives whichever of these directories it made in the state directory to whom that belongs: else root's
/// first call would lock the daemons out.
pub fn making_dirs<T>(state_dir: &Path, names: &[&str], make: impl FnOnce() -> T) -> T {
    let dirs = names.iter().map(|name| state_dir.join(name));
    let missing: Vec<PathBuf> = dirs.filter(|dir| dir.symlink_metadata().is_err()).collect();
    let made = make();
    for dir in missing {
        if let Ok(dir) = File::open(dir) {
            hand_over(&dir, state_dir);
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_whom_its_directory_does_and_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().expect("dir");
        // Only root can be somebody else.
        let _ = std::os::unix::fs::chown(dir.path(), Some(12345), Some(12346));
        let owner = dir.path().metadata().expect("a directory");
        let path = dir.path().join("file");
        for text in ["one", "two"] {
            replace(&path, text.as_bytes(), 0o640).expect("written");
            let found = path.metadata().expect("a file");
            assert_eq!((found.uid(), found.gid()), (owner.uid(), owner.gid()));
            assert_eq!(found.permissions().mode() & 0o777, 0o640);
            assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
        }
    }
}
