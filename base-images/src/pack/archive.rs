//! Writes tar archives for an image, owned by root.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::pack::{ImageFile, Keep, Relocation};

/// The most files that a tree may bring.
const MAX_FILES: usize = 200_000;

/// The most bytes that a tree may bring.
const MAX_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// How deep a tree may be.
const MAX_DEPTH: usize = 40;

/// What an archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// Appends files of our own, with the directories above them.
pub(crate) fn write_files(archive: &mut tar::Builder<impl Write>, files: &[ImageFile]) -> io::Result<()> {
    let mut directories = BTreeSet::new();
    for file in files {
        let above = Path::new(file.path).ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
        directories.extend(above.map(Path::to_path_buf));
    }
    // The sticky bit of /tmp is the root's own business.
    directories.remove(Path::new("tmp"));
    for directory in directories {
        write_directory(archive, &directory)?;
    }
    for file in files {
        let mut header = header(tar::EntryType::Regular, file.mode, file.content.len() as u64);
        archive.append_data(&mut header, file.path, file.content.as_bytes())?;
    }
    Ok(())
}

/// Appends what `keep` takes of the tree at `source`, placed beneath `destination`.
pub(crate) fn write_tree(
    archive: &mut tar::Builder<impl Write>,
    source: &Path,
    destination: &Path,
    keep: Keep,
    relocation: &Relocation,
) -> io::Result<Packed> {
    let mut packed = Packed::default();
    write_directory(archive, destination)?;
    for (path, size_bytes) in list_tree(source, keep)? {
        let (from, to) = (source.join(&path), destination.join(&path));
        let metadata = from.symlink_metadata()?;
        if metadata.is_dir() {
            write_directory(archive, &to)?;
            continue;
        }
        packed.files += 1;
        packed.bytes += size_bytes;
        if metadata.is_symlink() {
            let target = relocation.target(&fs::read_link(&from)?);
            // A link that leaves the tree would dangle in the image: its content goes along instead.
            if !target.is_absolute() || target.starts_with(Path::new("/").join(destination)) {
                let mut header = header(tar::EntryType::Symlink, 0o777, 0);
                archive.append_link(&mut header, &to, &target)?;
                continue;
            }
        }
        let Some(content) = read_file(&from)? else { continue };
        let content = relocation.content(&content);
        let mode = if from.metadata()?.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
        archive.append_data(&mut header, &to, content.as_ref())?;
    }
    Ok(packed)
}

/// What `keep` takes of a tree, in order of path, with sizes in bytes.
pub(crate) fn list_tree(source: &Path, keep: Keep) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut level = vec![PathBuf::new()];
    let (mut list, mut total_bytes) = (Vec::new(), 0);
    for _ in 0..MAX_DEPTH {
        let mut below = Vec::new();
        for directory in level {
            for entry in fs::read_dir(source.join(&directory))? {
                let entry = entry?;
                let path = directory.join(entry.file_name());
                let metadata = entry.metadata()?;
                if !keep.takes(&path) {
                    continue;
                }
                if metadata.is_dir() {
                    below.push(path.clone());
                } else if metadata.is_file() {
                    total_bytes += metadata.len();
                }
                list.push((path, if metadata.is_file() { metadata.len() } else { 0 }));
                if list.len() > MAX_FILES || total_bytes > MAX_BYTES {
                    return Err(io::Error::other(format!(
                        "the tree holds more than {MAX_FILES} files or {MAX_BYTES} bytes; give a smaller one"
                    )));
                }
            }
        }
        level = below;
    }
    list.sort();
    Ok(list)
}

/// The content of a regular file; `None` for a dangling link, a directory behind a link, a socket.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => fs::read(path).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_directory(archive: &mut tar::Builder<impl Write>, path: &Path) -> io::Result<()> {
    let mut header = header(tar::EntryType::Directory, 0o755, 0);
    archive.append_data(&mut header, path, io::empty())
}

fn header(kind: tar::EntryType, mode: u32, size_bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size_bytes);
    // One time for all: a layer does not change because its files were copied again.
    header.set_mtime(FILE_TIME_SECONDS);
    header
}

/// 2020-01-01: old enough for every tool, and after 1980, which zip archives need.
const FILE_TIME_SECONDS: u64 = 1_577_836_800;

/// An archive in a new file.
pub(crate) fn create(path: &Path) -> io::Result<tar::Builder<File>> {
    File::create(path).map(tar::Builder::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::PythonVersion;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    fn entries(archive: Vec<u8>) -> Vec<String> {
        let mut archive = tar::Archive::new(io::Cursor::new(archive));
        let describe = |entry: io::Result<tar::Entry<'_, io::Cursor<Vec<u8>>>>| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let link = entry.link_name().unwrap().map(|target| format!(" -> {}", target.display()));
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            format!("{:o} {path}{} {content}", entry.header().mode().unwrap(), link.unwrap_or_default())
        };
        archive.entries().unwrap().map(describe).collect()
    }

    #[test]
    fn writes_directories_before_their_files() {
        let file = |path, content: &str| ImageFile { path, mode: 0o755, content: content.to_owned() };
        let mut archive = tar::Builder::new(Vec::new());
        write_files(&mut archive, &[file("opt/conda/bin/conda", "x"), file("tmp/root.sh", "y")]).unwrap();
        assert_eq!(
            entries(archive.into_inner().unwrap()),
            [
                "755 opt ",
                "755 opt/conda ",
                "755 opt/conda/bin ",
                "755 opt/conda/bin/conda x",
                "755 tmp/root.sh y"
            ]
        );
    }

    #[test]
    fn writes_a_tree_with_its_links_rewritten() {
        let root = tempfile::tempdir().unwrap();
        let (tree, outside) = (root.path().join("tree"), root.path().join("outside"));
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::create_dir_all(tree.join("share")).unwrap();
        fs::write(tree.join("bin/python3.8"), format!("#!{}/bin/sh", tree.display())).unwrap();
        fs::write(&outside, "content").unwrap();
        symlink("python3.8", tree.join("bin/python3")).unwrap();
        symlink(tree.join("bin/python3.8"), tree.join("bin/python")).unwrap();
        symlink(&outside, tree.join("bin/pip")).unwrap();
        symlink("/no/such/file", tree.join("bin/pip3")).unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        let relocation = Relocation::of_texts([tree.as_path()], "/opt/env");
        let keep = Keep::Interpreter(PythonVersion::new(3, 8));
        let packed = write_tree(&mut archive, &tree, Path::new("opt/env"), keep, &relocation).unwrap();
        assert_eq!(
            entries(archive.into_inner().unwrap()),
            [
                "755 opt/env ",
                "755 opt/env/bin ",
                "644 opt/env/bin/pip content",
                "777 opt/env/bin/python -> /opt/env/bin/python3.8 ",
                "777 opt/env/bin/python3 -> python3.8 ",
                "644 opt/env/bin/python3.8 #!/opt/env/bin/sh",
            ]
        );
        assert_eq!(packed.files, 5);
    }
}
