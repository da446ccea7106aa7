use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::connect::{Inner, failed, is_missing};
use super::{EngineError, FileIn};

/// What an archive of one file may take beyond the file: headers, long names and padding.
const ARCHIVE_OVERHEAD_BYTES: usize = 1 << 16;

impl Inner {
    /// Puts files into a container that has not started, with the directories that are not there yet.
    pub(super) async fn put_files(&self, id: &str, user: &str, files: &[FileIn]) -> Result<(), EngineError> {
        if files.is_empty() {
            return Ok(());
        }
        let owner = numeric_owner(user)?;
        let mut missing_dirs = BTreeSet::new();
        for dir in files.iter().flat_map(|file| Path::new(&file.path).ancestors().skip(1)) {
            let path = dir.to_string_lossy().into_owned();
            if path != "/" && !missing_dirs.contains(&path) && !self.has_path(id, &path).await? {
                missing_dirs.insert(path);
            }
        }
        let packed = pack(&missing_dirs, files, owner)
            .map_err(|source| failed("pack files for a container", source))?;
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let sent =
            self.client.upload_to_container(id, Some(options), bollard::body_full(packed.into())).await;
        sent.map_err(|source| failed("put files into a container", source))
    }

    async fn has_path(&self, id: &str, path: &str) -> Result<bool, EngineError> {
        let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        match self.client.get_container_archive_info(id, Some(options)).await {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(failed("look into a container", error)),
        }
    }

    /// The content of a regular file of at most `bytes_max` bytes; whatever else is there counts as absent, and no
    /// more than that is ever read.
    pub(super) async fn get_file(&self, id: &str, path: &str, bytes_max: usize) -> Option<Vec<u8>> {
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let mut pieces = std::pin::pin!(self.client.download_from_container(id, Some(options)));
        let mut archive = Vec::new();
        while let Some(piece) = pieces.next().await {
            archive.extend_from_slice(&piece.ok()?);
            if archive.len() > bytes_max + ARCHIVE_OVERHEAD_BYTES {
                return None;
            }
        }
        regular_file(&archive, bytes_max)
    }
}

/// `uid:gid` as numbers: names would have to be looked up in the image, which is not trusted.
fn numeric_owner(user: &str) -> Result<(u64, u64), EngineError> {
    let parsed = user.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    parsed.ok_or_else(|| {
        failed("put files into a container", format!("user {user:?} is not <uid>:<gid> in numbers"))
    })
}

fn pack(dirs: &BTreeSet<String>, files: &[FileIn], (uid, gid): (u64, u64)) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut append = |path: &str, kind, mode, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path.trim_start_matches('/'), bytes)
    };
    for dir in dirs {
        append(dir, tar::EntryType::Directory, 0o755, &[])?;
    }
    for file in files {
        append(&file.path, tar::EntryType::Regular, file.mode, &file.bytes)?;
    }
    tar.into_inner()
}

/// The one file of an archive, if it is no link, device, directory or sparse file.
fn regular_file(archive: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let entry = archive.entries().ok()?.next()?.ok()?;
    if entry.header().entry_type() != tar::EntryType::Regular || entry.size() > bytes_max as u64 {
        return None;
    }
    let size = entry.size();
    let mut bytes = Vec::new();
    entry.take(size).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == size).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(kind: tar::EntryType, claimed_bytes: u64, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(claimed_bytes);
        header.set_path("x").unwrap();
        header.set_link_name("/etc/passwd").unwrap();
        header.set_cksum();
        let mut tar = tar::Builder::new(Vec::new());
        tar.append(&header, content).unwrap();
        tar.into_inner().unwrap()
    }

    #[test]
    fn only_regular_files_within_their_size_come_out() {
        use tar::EntryType::{Char, Directory, Fifo, GNUSparse, Link, Regular, Symlink};
        for (kind, claimed, content, expected) in [
            (Regular, 3, "abc", Some("abc")),
            (Regular, 4, "abcd", Some("abcd")),
            (Regular, 0, "", Some("")),
            (Regular, 5, "abcde", None),
            (Regular, u64::MAX >> 2, "abc", None),
            (Symlink, 0, "", None),
            (Link, 0, "", None),
            (Directory, 0, "", None),
            (Char, 0, "", None),
            (Fifo, 0, "", None),
            (GNUSparse, 3, "abc", None),
        ] {
            let found = regular_file(&archive(kind, claimed, content.as_bytes()), 4);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{kind:?} {claimed}");
        }
        assert_eq!(regular_file(b"not an archive", 4), None);
        assert_eq!(regular_file(&archive(Regular, 3, b"abc")[..513], 4), None);
    }

    #[test]
    fn users_are_numbers() {
        assert_eq!(numeric_owner("1000:100").unwrap(), (1000, 100));
        for bad in ["1000", "root:root", ":", "-1:0"] {
            assert!(numeric_owner(bad).is_err(), "{bad}");
        }
    }
}
