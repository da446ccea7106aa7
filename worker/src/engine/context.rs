use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::sync::mpsc;

use crate::repository::{FileKind, SourceTree};

/// What is read ahead of the connection: pieces of so many bytes, and so many of them.
const PIECE_BYTES: usize = 1 << 16;
const PIECES_AHEAD: usize = 8;
/// The time stamp of everything (2001-09-09): equal trees give equal layers, and zip files, which wheels are, know
/// no time before 1980.
const MTIME_SECONDS: u64 = 1_000_000_000;

/// A directory as a tar stream: sorted, owned by root, time stamps normalised, symbolic links as such, and
/// `dockerfile` in place of the directory's own; the files of `tree`, which lies in it, from git where they are not written.
pub fn context_stream(
    dir: PathBuf,
    tree: Option<SourceTree>,
    dockerfile: String,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream_of(move |pieces| pack(&dir, tree.as_ref(), &dockerfile, pieces))
}

/// What `pack` writes, as a stream.
pub(super) fn stream_of(
    pack: impl FnOnce(&mut Pieces) -> io::Result<()> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { sender, piece: BytesMut::new() };
        // A context that ends early must not look whole.
        let whole = AssertUnwindSafe(|| pack(&mut pieces).and_then(|()| pieces.flush()));
        let packed =
            catch_unwind(whole).unwrap_or_else(|_| Err(io::Error::other("packing it failed within itself")));
        if let Err(error) = packed {
            // Nobody listens any more where the connection is closed.
            let _ = pieces.sender.blocking_send(Err(error));
        }
    });
    futures_util::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) })
}

/// Hands on what is written, piece by piece.
pub(super) struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = self.piece.split().freeze();
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn pack(dir: &Path, tree: Option<&SourceTree>, dockerfile: &str, output: impl Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(output);
    let text = dockerfile.as_bytes();
    pack_file(Path::new("Dockerfile"), 0o644, text.len() as u64, text, &mut tar)?;
    let mut left = children(dir)?;
    while let Some(path) = left.pop() {
        let name = path.strip_prefix(dir).map_err(io::Error::other)?;
        if name == Path::new("Dockerfile") {
            continue;
        }
        let found = fs::symlink_metadata(&path)?;
        let mode = found.permissions().mode() & 0o7777;
        // Of a tree, as git knows them, whatever the worker's umask is.
        let mode = match tree {
            Some(_) if found.is_symlink() => 0o777,
            Some(_) if found.is_dir() || mode & 0o100 != 0 => 0o755,
            Some(_) => 0o644,
            None => mode,
        };
        if found.is_dir() {
            pack_directory(name, mode, &mut tar)?;
            left.extend(children(&path)?);
        } else if found.is_symlink() {
            pack_link(name, &fs::read_link(&path)?, mode, &mut tar)?;
        } else if found.is_file() {
            pack_file(name, mode, found.len(), fs::File::open(&path)?, &mut tar)?;
        } else {
            return Err(io::Error::other(format!("{} is neither file, directory nor link", path.display())));
        }
    }
    if let Some(tree) = tree {
        let name = tree.dir().strip_prefix(dir).map_err(io::Error::other)?;
        pack_unwritten(tree, name, &mut tar)?;
    }
    tar.into_inner()?.flush()
}

/// What a checkout would have written, byte for byte, with the modes that it gives to everybody.
fn pack_unwritten(tree: &SourceTree, root: &Path, tar: &mut tar::Builder<impl Write>) -> io::Result<()> {
    let Some(files) = tree.files() else { return Ok(()) };
    let mut contents = tree.contents()?;
    let mut above = PathBuf::new();
    for file in files {
        let parent = file.path.parent().unwrap_or(Path::new(""));
        let new: Vec<&Path> = parent.ancestors().take_while(|dir| !above.starts_with(dir)).collect();
        for dir in new.into_iter().rev() {
            pack_directory(&root.join(dir), 0o755, tar)?;
        }
        above = parent.to_owned();
        let name = root.join(&file.path);
        let mode = if file.kind == FileKind::Executable { 0o755 } else { 0o644 };
        match file.kind {
            FileKind::Submodule => pack_directory(&name, 0o755, tar)?,
            FileKind::Link => contents.next(|_, content| {
                let mut target = Vec::new();
                content.read_to_end(&mut target)?;
                pack_link(&name, OsStr::from_bytes(&target).as_ref(), 0o777, tar)
            })?,
            FileKind::Regular | FileKind::Executable => {
                contents.next(|size, content| pack_file(&name, mode, size, content, tar))?;
            }
        }
    }
    Ok(())
}

fn pack_directory(name: &Path, mode: u32, tar: &mut tar::Builder<impl Write>) -> io::Result<()> {
    let mut header = header_of(mode);
    header.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut header, name, io::empty())
}

fn pack_link(name: &Path, target: &Path, mode: u32, tar: &mut tar::Builder<impl Write>) -> io::Result<()> {
    let mut header = header_of(mode);
    header.set_entry_type(tar::EntryType::Symlink);
    // To the byte; what is too long for that is in a header of its own, to the byte too.
    match header.set_link_name_literal(target.as_os_str().as_bytes()) {
        Ok(()) => tar.append_data(&mut header, name, io::empty()),
        Err(_) => tar.append_link(&mut header, name, target),
    }
}

fn pack_file(
    name: &Path,
    mode: u32,
    size: u64,
    content: impl Read,
    tar: &mut tar::Builder<impl Write>,
) -> io::Result<()> {
    let mut header = header_of(mode);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    tar.append_data(&mut header, name, content)
}

fn header_of(mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME_SECONDS);
    header.set_size(0);
    header
}

/// In reverse order, for a stack.
fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort_by(|a, b| b.cmp(a));
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("repo/.git")).unwrap();
        fs::write(dir.path().join("repo/.git/HEAD"), "ref").unwrap();
        fs::write(dir.path().join("repo/run.sh"), "#!").unwrap();
        fs::set_permissions(dir.path().join("repo/run.sh"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::write(dir.path().join("Dockerfile"), "own").unwrap();
        symlink("/nowhere", dir.path().join("repo/dangling")).unwrap();
        fs::write(dir.path().join("repo").join("n".repeat(200)), "long").unwrap();
        dir
    }

    #[test]
    fn packs_a_tree_the_same_way_each_time() {
        let packed = [tree(), tree()].map(|dir| {
            let mut bytes = Vec::new();
            pack(dir.path(), None, "FROM a\n", &mut bytes).unwrap();
            bytes
        });
        assert!(packed[0] == packed[1]);
        let rows: Vec<String> = tar::Archive::new(packed[0].as_slice())
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let path = entry.path().unwrap().display().to_string();
                format!(
                    "{:?} {:o} {} {}",
                    header.entry_type(),
                    header.mode().unwrap(),
                    header.uid().unwrap(),
                    path
                )
            })
            .map(|row| row.replace(&"n".repeat(200), "n…"))
            .collect();
        let expected = [
            "Regular 644 0 Dockerfile",
            "Directory 755 0 repo",
            "Directory 755 0 repo/.git",
            "Regular 644 0 repo/.git/HEAD",
            "Symlink 777 0 repo/dangling",
            "Regular 644 0 repo/n…",
            "Regular 750 0 repo/run.sh",
        ];
        assert_eq!(rows, expected);
    }

    #[tokio::test]
    async fn an_unreadable_tree_is_an_error_in_the_stream() {
        use futures_util::StreamExt;
        let pieces: Vec<_> = context_stream("/nonexistent".into(), None, String::new()).collect().await;
        assert!(pieces.last().unwrap().is_err());
    }
}
