//! Small files in the state directory of a node.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// What the owner of a directory may do who may do everything.
const OWNERS: u32 = 0o700;

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

/// Removes a directory with all that is in it, following no link. Directories that their owner may not write, as tasks leave
/// them and caches of modules are, are made writable first.
///
/// # Errors
/// Something in it cannot be removed, or is mounted there: that is somebody's, and all of it stays.
pub fn remove_tree(root: &Path) -> io::Result<()> {
    if let Some(mount) = mounted_in(root)? {
        let why = format!("{} is mounted there; unmount it", mount.display());
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
    }
    match std::fs::remove_dir_all(root) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(root);
            std::fs::remove_dir_all(root)
        }
        removed => removed,
    }
}

/// What is mounted on a directory or in it.
///
/// # Errors
/// It is not there, or nobody can tell.
pub fn mounted_in(root: &Path) -> io::Result<Option<PathBuf>> {
    let (root, mounts) = (root.canonicalize()?, std::fs::read_to_string("/proc/self/mountinfo")?);
    // proc_pid_mountinfo(5): the fifth field, in which these stand as octal numbers.
    let unescape = |field: &str| {
        let text = field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
        PathBuf::from(text.replace("\\134", "\\"))
    };
    Ok(mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4).map(unescape))
        .find(|mount| mount.starts_with(&root)))
}

/// Whose it is may make it writable: of what somebody else has, removal tells.
fn make_writable(root: &Path) {
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        // Never through a link.
        let Some(found) = dir.symlink_metadata().ok().filter(std::fs::Metadata::is_dir) else { continue };
        let mode = found.permissions().mode();
        if mode & OWNERS != OWNERS {
            let _ = std::fs::set_permissions(&dir, Permissions::from_mode(mode & 0o7777 | OWNERS));
        }
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        dirs.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Uid, setfsuid};

    use super::*;

    #[test]
    fn a_tree_goes_whatever_its_directories_allow_and_nothing_outside_of_it() {
        let dir = tempfile::tempdir().expect("dir");
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        for path in [tree.join("a/b"), tree.join("closed"), outside.join("c")] {
            std::fs::create_dir_all(&path).expect("made");
            std::fs::write(path.join("file"), "x").expect("written");
        }
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).expect("linked");
        let user = 12345;
        let ours = ["", "outside", "outside/c", "tree", "tree/a", "tree/a/b", "tree/closed"];
        for name in ours {
            // Only root can be somebody else.
            let _ = std::os::unix::fs::chown(dir.path().join(name), Some(user), Some(user));
        }
        for (name, mode) in [("a/b", 0o555), ("a", 0o555), ("closed", 0), ("../outside", 0o555)] {
            std::fs::set_permissions(tree.join(name), Permissions::from_mode(mode)).expect("set");
        }
        // Of this thread alone, and with it goes what root may.
        let removed = std::thread::spawn({
            let tree = tree.clone();
            move || {
                setfsuid(Uid::from_raw(user));
                (std::fs::remove_dir_all(&tree).map_err(|error| error.kind()), remove_tree(&tree))
            }
        });
        let (plainly, removed) = removed.join().expect("it ends");
        assert_eq!(plainly, Err(io::ErrorKind::PermissionDenied), "else this shows nothing");
        removed.expect("removed");
        assert!(!tree.exists() && outside.join("c/file").exists());
        assert_eq!(outside.metadata().expect("there").permissions().mode() & 0o777, 0o555);
    }

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

    #[test]
    fn what_is_mounted_in_a_tree_is_somebodys() {
        assert_eq!(mounted_in(Path::new("/proc/self")).expect("there"), None);
        assert_eq!(mounted_in(Path::new("/proc")).expect("there").as_deref(), Some(Path::new("/proc")));
        assert!(mounted_in(Path::new("/")).expect("there").is_some());
        let gone = mounted_in(Path::new("/nonexistent"));
        assert_eq!(gone.map_err(|error| error.kind()), Err(io::ErrorKind::NotFound));
    }
}
