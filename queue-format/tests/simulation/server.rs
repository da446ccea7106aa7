use std::collections::BTreeMap;
use std::sync::Arc;

use nix::errno::Errno;

/// A handle: it means one file or directory for ever, whatever takes its name later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ino(usize);

/// The handle that a client begins with.
pub(crate) const ROOT: Ino = Ino(0);

/// One name in a directory.
pub(crate) type Name = Arc<str>;

/// What a client asks of the server: handles and names, never paths.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Lookup { dir: Ino, name: Name },
    Attributes { ino: Ino },
    List { dir: Ino },
    Read { ino: Ino },
    Create { dir: Ino, name: Name },
    Write { ino: Ino, bytes: Vec<u8> },
    MakeDir { dir: Ino, name: Name },
    RemoveDir { dir: Ino, name: Name },
    Remove { dir: Ino, name: Name },
    Rename { from: (Ino, Name), to: (Ino, Name) },
}

/// What the server says.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Found(Ino, Attributes),
    Names(Vec<Name>),
    Bytes(Vec<u8>),
    Done,
}

/// What a client may remember of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    pub(crate) is_dir: bool,
    pub(crate) bytes: u64,
    pub(crate) modified_ms: u64,
}

#[derive(Clone, Debug)]
enum Body {
    Dir(BTreeMap<Name, Ino>),
    File(Vec<u8>),
    Removed,
}

#[derive(Clone, Debug)]
struct Inode {
    body: Body,
    /// Where it lies, for the checker and the log.
    place: (Ino, Name),
    modified_ms: u64,
}

/// The server's disk. Every call is atomic here; all trouble is between it and the clients.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    inodes: Vec<Inode>,
    pub(crate) now_ms: u64,
}

impl Call {
    /// Whether it changes anything.
    pub(crate) fn is_change(&self) -> bool {
        !matches!(self, Self::Lookup { .. } | Self::Attributes { .. } | Self::List { .. } | Self::Read { .. })
    }

    /// Whether it may take room.
    pub(crate) fn takes_room(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Write { .. } | Self::MakeDir { .. } | Self::Rename { .. })
    }
}

impl Server {
    pub(crate) fn new() -> Self {
        let root = Inode { body: Body::Dir(BTreeMap::new()), place: (ROOT, "".into()), modified_ms: 0 };
        Self { inodes: vec![root], now_ms: 0 }
    }

    pub(crate) fn execute(&mut self, call: &Call) -> Result<Reply, Errno> {
        match call {
            Call::Lookup { dir, name } => {
                let ino = self.child(*dir, name)?;
                Ok(Reply::Found(ino, self.attributes(ino)?))
            }
            Call::Attributes { ino } => Ok(Reply::Found(*ino, self.attributes(*ino)?)),
            Call::List { dir } => Ok(Reply::Names(self.entries(*dir)?.keys().cloned().collect())),
            Call::Read { ino } => self.content(*ino).map(|bytes| Reply::Bytes(bytes.to_vec())),
            Call::Create { dir, name } => self.make(*dir, name, Body::File(Vec::new())),
            Call::MakeDir { dir, name } => self.make(*dir, name, Body::Dir(BTreeMap::new())),
            Call::Write { ino, bytes } => self.write(*ino, bytes),
            Call::RemoveDir { dir, name } => self.remove_dir(*dir, name),
            Call::Remove { dir, name } => self.remove(*dir, name),
            Call::Rename { from, to } => self.rename(from, to),
        }
    }

    /// A file's content.
    pub(crate) fn content(&self, ino: Ino) -> Result<&[u8], Errno> {
        match &self.inodes[ino.0].body {
            Body::File(bytes) => Ok(bytes),
            Body::Dir(_) => Err(Errno::EISDIR),
            Body::Removed => Err(Errno::ESTALE),
        }
    }

    pub(crate) fn entries(&self, dir: Ino) -> Result<&BTreeMap<Name, Ino>, Errno> {
        match &self.inodes[dir.0].body {
            Body::Dir(entries) => Ok(entries),
            Body::File(_) => Err(Errno::ENOTDIR),
            Body::Removed => Err(Errno::ESTALE),
        }
    }

    pub(crate) fn child(&self, dir: Ino, name: &str) -> Result<Ino, Errno> {
        self.entries(dir)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// What lies at a path, as only the checker can know.
    pub(crate) fn at(&self, path: &str) -> Option<Ino> {
        path.split('/').filter(|part| !part.is_empty()).try_fold(ROOT, |dir, name| self.child(dir, name).ok())
    }

    /// The names in the directory at a path; none where there is no directory.
    pub(crate) fn names_at(&self, path: &str) -> Vec<Name> {
        let entries = self.at(path).and_then(|dir| self.entries(dir).ok());
        entries.map(|entries| entries.keys().cloned().collect()).unwrap_or_default()
    }

    /// The path of a file or directory; empty for the root.
    pub(crate) fn path(&self, ino: Ino) -> String {
        if ino == ROOT {
            return String::new();
        }
        let (dir, name) = &self.inodes[ino.0].place;
        let above = self.path(*dir);
        if above.is_empty() { name.to_string() } else { format!("{above}/{name}") }
    }

    pub(crate) fn is_dir(&self, ino: Ino) -> bool {
        matches!(self.inodes[ino.0].body, Body::Dir(_))
    }

    fn attributes(&self, ino: Ino) -> Result<Attributes, Errno> {
        let inode = &self.inodes[ino.0];
        let (is_dir, bytes) = match &inode.body {
            Body::Dir(_) => (true, 4096),
            Body::File(bytes) => (false, bytes.len() as u64),
            Body::Removed => return Err(Errno::ESTALE),
        };
        Ok(Attributes { is_dir, bytes, modified_ms: inode.modified_ms })
    }

    fn entries_mut(&mut self, dir: Ino) -> Result<&mut BTreeMap<Name, Ino>, Errno> {
        let inode = &mut self.inodes[dir.0];
        match &mut inode.body {
            Body::Dir(entries) => {
                inode.modified_ms = self.now_ms;
                Ok(entries)
            }
            Body::File(_) => Err(Errno::ENOTDIR),
            Body::Removed => Err(Errno::ESTALE),
        }
    }

    fn make(&mut self, dir: Ino, name: &Name, body: Body) -> Result<Reply, Errno> {
        if self.entries(dir)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let ino = Ino(self.inodes.len());
        self.inodes.push(Inode { body, place: (dir, name.clone()), modified_ms: self.now_ms });
        self.entries_mut(dir)?.insert(name.clone(), ino);
        Ok(Reply::Found(ino, self.attributes(ino)?))
    }

    fn write(&mut self, ino: Ino, new: &[u8]) -> Result<Reply, Errno> {
        let inode = &mut self.inodes[ino.0];
        match &mut inode.body {
            // From its beginning; what is behind stays.
            Body::File(bytes) => {
                let behind = bytes.get(new.len()..).unwrap_or_default();
                *bytes = [new, behind].concat();
            }
            Body::Dir(_) => return Err(Errno::EISDIR),
            Body::Removed => return Err(Errno::ESTALE),
        }
        inode.modified_ms = self.now_ms;
        Ok(Reply::Done)
    }

    fn remove_dir(&mut self, dir: Ino, name: &Name) -> Result<Reply, Errno> {
        let ino = self.child(dir, name)?;
        if !self.entries(ino)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.unlink(dir, name, ino)
    }

    fn remove(&mut self, dir: Ino, name: &Name) -> Result<Reply, Errno> {
        let ino = self.child(dir, name)?;
        self.content(ino)?;
        self.unlink(dir, name, ino)
    }

    fn unlink(&mut self, dir: Ino, name: &Name, ino: Ino) -> Result<Reply, Errno> {
        self.entries_mut(dir)?.remove(name);
        self.inodes[ino.0].body = Body::Removed;
        Ok(Reply::Done)
    }

    fn rename(&mut self, from: &(Ino, Name), to: &(Ino, Name)) -> Result<Reply, Errno> {
        self.entries(to.0)?;
        let ino = self.child(from.0, &from.1)?;
        match self.child(to.0, &to.1) {
            Ok(there) if there == ino => return Ok(Reply::Done),
            Ok(there) if self.is_dir(ino) => {
                if !self.entries(there)?.is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                self.inodes[there.0].body = Body::Removed;
            }
            Ok(there) => {
                self.content(there)?;
                self.inodes[there.0].body = Body::Removed;
            }
            Err(_) => {}
        }
        self.entries_mut(from.0)?.remove(&from.1);
        self.entries_mut(to.0)?.insert(to.1.clone(), ino);
        self.inodes[ino.0].place = to.clone();
        Ok(Reply::Done)
    }
}
