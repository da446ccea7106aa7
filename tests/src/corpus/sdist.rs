//! Source distributions: verified before they are opened, and unpacked without trust.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::CorpusError;

/// More entries than any package of the corpus has; the largest has about 600.
const ENTRIES_MAX: usize = 20_000;
/// Unpacked size that stops a decompression bomb; the largest tree of the corpus has about 6 MB.
const UNPACKED_BYTES_MAX: u64 = 128 << 20;

/// The SHA-256 of a file, in hex.
pub(super) fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Checks that an archive is the one that the table was written for.
pub(super) fn verify(package: &str, path: &Path, expected: &str) -> Result<(), CorpusError> {
    let seen = sha256(path).map_err(CorpusError::io("read", path))?;
    if seen == expected {
        return Ok(());
    }
    let (package, path, expected) = (package.to_owned(), path.to_owned(), expected.to_owned());
    Err(CorpusError::Digest { package, path, seen, expected })
}

/// Unpacks a verified archive into an empty directory: the content of its one top directory, without what
/// building the distribution added (`PKG-INFO`, `*.egg-info`), as a checkout of the project would look.
pub(super) fn unpack(package: &str, archive: &Path, into: &Path) -> Result<(), CorpusError> {
    let refuse =
        |why: String| CorpusError::Archive { package: package.to_owned(), path: archive.to_owned(), why };
    let file = File::open(archive).map_err(CorpusError::io("open", archive))?;
    fs::create_dir_all(into).map_err(CorpusError::io("create", into))?;
    let mut tar = tar::Archive::new(GzDecoder::new(file).take(UNPACKED_BYTES_MAX));
    let mut bytes_left = UNPACKED_BYTES_MAX;
    let entries = tar.entries().map_err(|error| refuse(error.to_string()))?;
    for (index, entry) in entries.enumerate() {
        let mut entry = entry.map_err(|error| refuse(format!("it ends early or is damaged ({error})")))?;
        let name = entry.path().map_err(|error| refuse(error.to_string()))?.into_owned();
        if index >= ENTRIES_MAX {
            return Err(refuse(format!("more than {ENTRIES_MAX} entries")));
        }
        let Some(inside) = inside_of_top(&name) else {
            return Err(refuse(format!("{} leads out of the archive", name.display())));
        };
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() || made_by_build(&inside) {
            continue;
        }
        if !kind.is_file() || inside.as_os_str().is_empty() {
            return Err(refuse(format!("{} is neither a file nor a directory", name.display())));
        }
        bytes_left = bytes_left
            .checked_sub(entry.size())
            .ok_or_else(|| refuse(format!("larger than {UNPACKED_BYTES_MAX} bytes unpacked")))?;
        let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
        write_file(&into.join(&inside), executable, &mut entry)?;
    }
    Ok(())
}

/// The path below the archive's top directory; `None` where it would leave it.
fn inside_of_top(name: &Path) -> Option<PathBuf> {
    let mut parts = Vec::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.into_iter().skip(1).collect())
}

fn made_by_build(path: &Path) -> bool {
    path == Path::new("PKG-INFO")
        || path.components().any(|part| part.as_os_str().as_encoded_bytes().ends_with(b".egg-info"))
}

fn write_file(path: &Path, executable: bool, content: &mut impl Read) -> Result<(), CorpusError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(CorpusError::io("create", parent))?;
    }
    let mode = if executable { 0o755 } else { 0o644 };
    // `create_new` follows no link and replaces nothing: a second entry of one name is an error.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(CorpusError::io("create", path))?;
    io::copy(content, &mut file).and_then(|_| file.flush()).map_err(CorpusError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use tar::{Builder, EntryType, Header};

    /// An archive of entries as `(name, kind, content)`, names written without any check.
    fn archive(directory: &Path, entries: &[(&str, EntryType, &str)]) -> PathBuf {
        let path = directory.join("ham-1.0.tar.gz");
        let mut tar = Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::fast()));
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(if name.ends_with(".sh") { 0o4755 } else { 0o600 });
            if kind.is_symlink() {
                header.set_link_name(content).unwrap();
            }
            let content = if kind.is_file() { content.as_bytes() } else { b"" };
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append(&header, content).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        path
    }

    #[test]
    fn unpacks_what_a_checkout_would_have() {
        let scratch = tempfile::tempdir().unwrap();
        let file = EntryType::Regular;
        let path = archive(
            scratch.path(),
            &[
                ("ham-1.0", EntryType::Directory, ""),
                ("ham-1.0/PKG-INFO", file, "made"),
                ("ham-1.0/src/ham.egg-info/SOURCES.txt", file, "made"),
                ("ham-1.0/src/ham.py", file, "colour = 'pink'\n"),
                ("./ham-1.0/run.sh", file, "#!/bin/sh\n"),
            ],
        );
        let into = scratch.path().join("tree");
        unpack("ham", &path, &into).unwrap();
        assert_eq!(fs::read_to_string(into.join("src/ham.py")).unwrap(), "colour = 'pink'\n");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&into.join("run.sh").metadata().unwrap().permissions());
        assert_eq!(mode & 0o7100, 0o100, "executable, and no setuid bit");
        assert!(!into.join("PKG-INFO").exists() && !into.join("src/ham.egg-info").exists());
        assert_eq!(fs::read_dir(&into).unwrap().count(), 2);
    }

    #[test]
    fn refuses_hostile_archives() {
        let check = |entries: &[(&str, EntryType, &str)], expected: &str| {
            let scratch = tempfile::tempdir().unwrap();
            let path = archive(scratch.path(), entries);
            let error = unpack("ham", &path, &scratch.path().join("tree")).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!scratch.path().join("evil").exists());
        };
        check(&[("ham/../../evil", EntryType::Regular, "x")], "leads out");
        check(&[("/evil", EntryType::Regular, "x")], "leads out");
        check(&[("ham/link", EntryType::Symlink, "/etc")], "neither a file nor a directory");
        check(&[("ham/fifo", EntryType::Fifo, "")], "neither a file nor a directory");
        check(&[("ham/device", EntryType::Block, "")], "neither a file nor a directory");
        check(&[("evil", EntryType::Regular, "x")], "neither a file nor a directory");
        check(&[("ham/a", EntryType::Regular, "x"), ("ham/a", EntryType::Regular, "y")], "cannot create");
    }

    #[test]
    fn refuses_another_digest_and_a_truncated_archive() {
        let scratch = tempfile::tempdir().unwrap();
        let path = archive(scratch.path(), &[("ham/a.py", EntryType::Regular, &"x = 1\n".repeat(9000))]);
        let digest = sha256(&path).unwrap();
        verify("ham", &path, &digest).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = verify("ham", &path, &digest).expect_err("changed").to_string();
        assert!(error.contains("ham") && error.contains("delete it and run again"), "{error}");
        unpack("ham", &path, &scratch.path().join("tree")).expect_err("truncated");
    }
}
