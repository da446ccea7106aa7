use std::any::Any;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use queue_format::{Entry, EntryKind, Filesystem, NewFile, OpenFile};
use uuid::Uuid;

use crate::broken;
use crate::server::{Attributes, Call, Ino, Name, ROOT, Reply};
use crate::world::{self, send, with};

/// Where every node mounts the server.
pub(crate) const MOUNT: &str = "/spool";

/// The mount of whichever process runs: paths become handles here, through the caches of its node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mount;

#[derive(Debug)]
struct Unwritten {
    ino: Ino,
    bytes: Vec<u8>,
}

/// Content that is asked for when it is first read.
struct Unread {
    ino: Ino,
    bytes: Option<Cursor<Vec<u8>>>,
}

/// A name in a directory that is known by its handle.
type Place = (Ino, Name);

impl Filesystem for Mount {
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        again(&[from, to], || {
            let (from, to) = (place(from)?, place(to)?);
            let ino = lookup(from.0, &from.1)?;
            let reply = send(&Call::Rename { from: from.clone(), to: to.clone() });
            settle(&[&from, &to], &reply, |client, now, rng| {
                client.saw_name(from.0, &from.1, None, now, rng);
                client.saw_name(to.0, &to.1, Some(ino), now, rng);
            });
            reply.map(drop)
        })
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        if broken::leaves_out(path) {
            return Ok(Box::new(Unwritten { ino: ROOT, bytes: Vec::new() }));
        }
        let ino = again(&[path], || make(path, |(dir, name)| Call::Create { dir, name }))?;
        Ok(Box::new(Unwritten { ino, bytes: Vec::new() }))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let ino = again(&[path], || match place(path).and_then(|(dir, name)| lookup(dir, &name)) {
            Err(Errno::ENOENT) => make(path, |(dir, name)| Call::Create { dir, name }),
            found => found,
        })?;
        let mut all = Vec::new();
        Unread { ino, bytes: None }.read_to_end(&mut all)?;
        all.extend(bytes);
        send(&Call::Write { ino, bytes: all })?;
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<OpenFile> {
        let (ino, attributes) = again(&[path], || revalidate(&place(path)?))?;
        if attributes.is_dir {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
        }
        Ok(OpenFile { links: 1, content: Box::new(Unread { ino, bytes: None }) })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = again(&[dir], || {
            let ino = handle(dir)?;
            if let Some(names) = with(|world| {
                let (client, now, _) = world.client();
                client.list(ino, now)
            }) {
                return Ok(names);
            }
            let Reply::Names(names) = send(&Call::List { dir: ino })? else { return Err(Errno::EIO) };
            with(|world| {
                let (client, now, rng) = world.client();
                client.saw_list(ino, &names, now, rng);
            });
            Ok(names)
        })?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    fn look(&self, path: &Path) -> io::Result<Entry> {
        let found = again(&[path], || {
            let ino = handle(path)?;
            if let Some(known) = with(|world| {
                let (client, now, _) = world.client();
                client.attributes(ino, now)
            }) {
                return Ok(known);
            }
            let reply = send(&Call::Attributes { ino })?;
            remember(&reply);
            let Reply::Found(_, attributes) = reply else { return Err(Errno::EIO) };
            Ok(attributes)
        })?;
        let kind = if found.is_dir { EntryKind::Dir } else { EntryKind::File };
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(found.modified_ms);
        Ok(Entry { kind, bytes: found.bytes, modified })
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        again(&[dir], || make(dir, |(dir, name)| Call::MakeDir { dir, name }).map(drop))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        again(&[dir], || take_away(dir, |(dir, name)| Call::RemoveDir { dir, name }))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if broken::leaves_out(path) {
            return Ok(());
        }
        again(&[path], || take_away(path, |(dir, name)| Call::Remove { dir, name }))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        again(&[dir], || send(&Call::Attributes { ino: handle(dir)? }).map(drop))
    }

    fn take_turn(&self, dir: &Path) -> io::Result<Box<dyn Any + Send>> {
        Ok(Box::new(world::take_turn(&dir.to_string_lossy())))
    }

    fn unique(&self) -> Uuid {
        with(|world| world.rng.uuid())
    }
}

impl Mount {
    /// A new file that its writer keeps open.
    pub(crate) fn open_for_writing(path: &Path) -> io::Result<Ino> {
        again(&[path], || make(path, |(dir, name)| Call::Create { dir, name }))
    }

    /// Adds to a file by its handle, wherever it lies by now.
    pub(crate) fn write_on(ino: Ino, text: &str) -> io::Result<()> {
        let mut all = Vec::new();
        Unread { ino, bytes: None }.read_to_end(&mut all)?;
        // A write that seemed to fail is done again at the same place.
        if !all.ends_with(text.as_bytes()) {
            all.extend(text.as_bytes());
        }
        send(&Call::Write { ino, bytes: all })?;
        Ok(())
    }
}

impl Write for Unwritten {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for Unwritten {
    /// A client keeps what is written until now, and hears now what the server thinks of it.
    fn finish(self: Box<Self>) -> io::Result<()> {
        if !self.bytes.is_empty() {
            send(&Call::Write { ino: self.ino, bytes: self.bytes })?;
        }
        Ok(())
    }
}

impl Read for Unread {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_none() {
            let Reply::Bytes(bytes) = send(&Call::Read { ino: self.ino })? else {
                return Err(Errno::EIO.into());
            };
            self.bytes = Some(Cursor::new(bytes));
        }
        self.bytes.as_mut().map_or(Ok(0), |bytes| bytes.read(into))
    }
}

/// A system call: after a stale handle the kernel goes the whole way once more, as far as it can.
fn again<T>(paths: &[&Path], call: impl Fn() -> Result<T, Errno>) -> io::Result<T> {
    match call() {
        Err(Errno::ESTALE) => {
            for path in paths {
                forget(path);
            }
            if with(|world| world.rng.chance(700)) {
                return Ok(call()?);
            }
            Err(Errno::ESTALE.into())
        }
        answer => Ok(answer?),
    }
}

fn parts(path: &Path) -> impl Iterator<Item = &str> {
    let path = path.to_str().unwrap_or_default();
    let below = path.strip_prefix(MOUNT).expect("a path of the spool");
    below.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// The directory of a path, and the last name in it.
fn place(path: &Path) -> Result<Place, Errno> {
    let mut dir = ROOT;
    let mut parts = parts(path);
    // Over the mount point itself there is nothing to be done.
    let mut last = parts.next().ok_or(Errno::EBUSY)?;
    for part in parts {
        dir = lookup(dir, last)?;
        last = part;
    }
    Ok((dir, last.into()))
}

fn handle(path: &Path) -> Result<Ino, Errno> {
    parts(path).try_fold(ROOT, lookup)
}

/// The cache's word, while it lasts; else the server's.
fn lookup(dir: Ino, name: &str) -> Result<Ino, Errno> {
    match remembered(dir, name) {
        Some(ino) => ino.ok_or(Errno::ENOENT),
        None => ask(&(dir, name.into())).map(|(ino, _)| ino),
    }
}

fn remembered(dir: Ino, name: &str) -> Option<Option<Ino>> {
    with(|world| {
        let (client, now, _) = world.client();
        client.name(dir, name, now)
    })
}

fn ask(place: &Place) -> Result<(Ino, Attributes), Errno> {
    let reply = send(&Call::Lookup { dir: place.0, name: place.1.clone() });
    with(|world| {
        let (client, now, rng) = world.client();
        match &reply {
            Ok(Reply::Found(ino, _)) => client.saw_name(place.0, &place.1, Some(*ino), now, rng),
            Err(Errno::ENOENT) => client.saw_name(place.0, &place.1, None, now, rng),
            _ => {}
        }
    });
    let reply = reply?;
    remember(&reply);
    let Reply::Found(ino, attributes) = reply else { return Err(Errno::EIO) };
    Ok((ino, attributes))
}

/// What opening a file does: its handle is tried, whatever the cache says of its attributes.
fn revalidate(place: &Place) -> Result<(Ino, Attributes), Errno> {
    let Some(known) = remembered(place.0, &place.1) else { return ask(place) };
    let ino = known.ok_or(Errno::ENOENT)?;
    let reply = send(&Call::Attributes { ino })?;
    remember(&reply);
    let Reply::Found(ino, attributes) = reply else { return Err(Errno::EIO) };
    Ok((ino, attributes))
}

fn remember(reply: &Reply) {
    if let Reply::Found(ino, attributes) = reply {
        with(|world| {
            let (client, now, rng) = world.client();
            client.saw_attributes(*ino, *attributes, now, rng);
        });
    }
}

fn make(path: &Path, call: impl Fn(Place) -> Call) -> Result<Ino, Errno> {
    let place = place(path).map_err(|e| if e == Errno::EBUSY { Errno::EEXIST } else { e })?;
    if remembered(place.0, &place.1).flatten().is_some() {
        return Err(Errno::EEXIST);
    }
    let reply = send(&call(place.clone()));
    settle(&[&place], &reply, |client, now, rng| {
        if let Ok(Reply::Found(ino, _)) = &reply {
            client.saw_name(place.0, &place.1, Some(*ino), now, rng);
        }
    });
    let Reply::Found(ino, _) = reply? else { return Err(Errno::EIO) };
    Ok(ino)
}

fn take_away(path: &Path, call: impl Fn(Place) -> Call) -> Result<(), Errno> {
    let place = place(path)?;
    let ino = lookup(place.0, &place.1)?;
    let reply = send(&call(place.clone()));
    settle(&[&place], &reply, |client, now, rng| {
        client.saw_name(place.0, &place.1, None, now, rng);
        client.forget_attributes(ino);
    });
    reply.map(drop)
}

/// What a client learns from the answer to a change: a failure may or may not tell it that a directory changed.
fn settle(
    places: &[&Place],
    reply: &Result<Reply, Errno>,
    done: impl FnOnce(&mut crate::client::Client, u64, &mut crate::rng::Rng),
) {
    with(|world| {
        let tells = reply.is_ok() || world.rng.chance(500);
        let (client, now, rng) = world.client();
        for (dir, name) in places {
            if tells {
                client.changed(*dir);
            }
            if matches!(reply, Err(Errno::ENOENT | Errno::EEXIST)) {
                client.forget_name(*dir, name);
            }
        }
        if reply.is_ok() {
            done(client, now, rng);
        }
    });
}

fn forget(path: &Path) {
    with(|world| {
        let (client, _, _) = world.client();
        let mut dir = ROOT;
        for part in parts(path) {
            let Some(next) = client.forget_name(dir, part) else { return };
            client.forget_attributes(next);
            dir = next;
        }
    });
}
