use std::any::Any;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use nix::fcntl::OFlag;
use uuid::Uuid;

/// The operations that a spool is made of, and no more: [`Disk`] is the real thing, and tests put an NFS client
/// of their own here that loses, delays and repeats them.
///
/// Every call may fail although it was done, as over NFS; what follows from that is decided above this line.
pub trait Filesystem: fmt::Debug + Send + Sync {
    /// Renames a file or a directory; a file at the target is replaced.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Creates a file that is not there yet.
    ///
    /// # Errors
    /// What the system says; `AlreadyExists` where it is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;

    /// Writes at the end of a file, which is made if it is not there. One process alone writes to it.
    ///
    /// # Errors
    /// What the system says.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Opens a file for reading, following no symbolic link and waiting for no pipe.
    ///
    /// # Errors
    /// What the system says; `InvalidData` where it is no regular file.
    fn open(&self, path: &Path) -> io::Result<OpenFile>;

    /// The names in a directory, in any order; those that are not UTF-8 are left out.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// What lies at a path, a symbolic link not followed.
    ///
    /// # Errors
    /// What the system says; `NotFound` where nothing does, as far as this node can see.
    fn look(&self, path: &Path) -> io::Result<Entry>;

    /// Makes one directory, not its parents.
    ///
    /// # Errors
    /// What the system says; `AlreadyExists` where it is there.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// What the system says.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Returns when a directory's names are on disk.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Waits until no other process of this node has its turn at a directory, and keeps the turn until what is
    /// given is dropped or this process ends. Other nodes are not kept out.
    ///
    /// # Errors
    /// What the system says.
    fn take_turn(&self, dir: &Path) -> io::Result<Box<dyn Any + Send>>;

    /// A number that no other call has given, on any node, as far as chance allows.
    fn unique(&self) -> Uuid;
}

/// A file that is being written.
pub trait NewFile: Write + Send + fmt::Debug {
    /// Returns when its content is on disk and it is closed: over NFS a write can fail as late as that.
    ///
    /// # Errors
    /// What the system says.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A regular file that is open for reading.
pub struct OpenFile {
    /// Its names.
    pub links: u64,
    /// Its content.
    pub content: Box<dyn Read + Send>,
}

/// What lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What kind of thing.
    pub kind: EntryKind,
    /// Its size.
    pub bytes: u64,
    /// When it was last written, by the server's clock.
    pub modified: SystemTime,
}

/// What kind of thing lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A link, a pipe, a device.
    Other,
}

/// The file system of this machine, whatever is mounted there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

#[derive(Debug)]
struct NewDiskFile(File);

impl Filesystem for Disk {
    #[expect(clippy::disallowed_methods, reason = "the one call that everything else is kept from")]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Like every file of a spool it is for the group too, as far as the umask allows.
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o664).open(path)?;
        Ok(Box::new(NewDiskFile(file)))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o664).open(path)?;
        file.write_all(bytes)?;
        close(file)
    }

    fn open(&self, path: &Path) -> io::Result<OpenFile> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
        }
        Ok(OpenFile { links: found.nlink(), content: Box::new(file) })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn look(&self, path: &Path) -> io::Result<Entry> {
        let found = fs::symlink_metadata(path)?;
        let kind = match found.file_type() {
            kind if kind.is_file() => EntryKind::File,
            kind if kind.is_dir() => EntryKind::Dir,
            _ => EntryKind::Other,
        };
        Ok(Entry { kind, bytes: found.len(), modified: found.modified()? })
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    /// The kernel keeps a lock on a directory to its node, over NFS too.
    fn take_turn(&self, dir: &Path) -> io::Result<Box<dyn Any + Send>> {
        let turn = File::open(dir)?;
        fs2::FileExt::lock_exclusive(&turn)?;
        Ok(Box::new(turn))
    }

    fn unique(&self) -> Uuid {
        Uuid::now_v7()
    }
}

impl Write for NewDiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl NewFile for NewDiskFile {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.0.sync_all()?;
        close(self.0)
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("links", &self.links).finish_non_exhaustive()
    }
}

/// Dropping a file would hide an error of its close.
fn close(file: File) -> io::Result<()> {
    nix::unistd::close(file).map_err(io::Error::from)
}
