use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use bollard::errors::Error;
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::connect::{Inner, failed, is_missing, refused};
use super::context::stream_of;
use super::{Content, EngineError, FileIn, Output};

/// What an archive of one file may take beyond the file: headers, long names and padding.
const ARCHIVE_OVERHEAD_BYTES: usize = 1 << 16;
/// What the engine is asked to do with inputs.
const PUT: &str = "put files into a container";
/// Bits of a path's mode as the engine writes it: <https://pkg.go.dev/io/fs#FileMode>.
const MODE_DIR: u32 = 1 << 31;
const MODE_LINK: u32 = 1 << 27;

impl Inner {
    /// Puts files and directories into a container that has not started, with the directories above that are not there
    /// yet.
    pub(super) async fn put_files(
        &self,
        id: &str,
        user: &str,
        dirs: &[String],
        files: &[FileIn],
    ) -> Result<(), EngineError> {
        if files.is_empty() && dirs.is_empty() {
            return Ok(());
        }
        let owner = numeric_owner(user)?;
        let parents = files.iter().flat_map(|file| Path::new(&file.path).ancestors().skip(1));
        let above = parents.chain(dirs.iter().flat_map(|dir| Path::new(dir).ancestors()));
        let mut missing_dirs = BTreeSet::new();
        // Each once, and those above first: below what is missing nothing is there.
        for dir in above.filter(|dir| dir.parent().is_some()).collect::<BTreeSet<&Path>>() {
            let parent = dir.parent().unwrap_or(dir).to_string_lossy();
            let path = dir.to_string_lossy().into_owned();
            if missing_dirs.contains(parent.as_ref()) || !self.has_dir(id, &path).await? {
                missing_dirs.insert(path);
            }
        }
        let files = files.to_vec();
        let packed = stream_of(move |pieces| pack(&missing_dirs, &files, owner, pieces));
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let sent = self.client.upload_to_container(id, Some(options), bollard::body_try_stream(packed)).await;
        sent.map_err(|source| refused(PUT, source))
    }

    /// Whether a directory, or a link that may lead to one, is there.
    async fn has_dir(&self, id: &str, path: &str) -> Result<bool, EngineError> {
        let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        match self.client.get_container_archive_info(id, Some(options)).await {
            Ok(found) if found.file_mode & (MODE_DIR | MODE_LINK) != 0 => Ok(true),
            Ok(_) => {
                let detail = format!("{path} is no directory in the image");
                Err(EngineError::Refused { action: PUT, detail })
            }
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(failed("look into a container", error)),
        }
    }

    /// Whether a path is a symbolic link, which Podman would follow.
    async fn is_link(&self, id: &str, path: &str) -> Result<bool, EngineError> {
        let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        match self.client.get_container_archive_info(id, Some(options)).await {
            Ok(found) => Ok(found.file_mode & MODE_LINK != 0),
            // What is wrong with it is told when it is asked for.
            Err(Error::DockerResponseServerError { .. }) => Ok(false),
            Err(error) => Err(failed("look into a container", error)),
        }
    }

    /// The content of a regular file of at most `bytes_max` bytes; whatever else is there counts as absent, and no
    /// more than that is ever read.
    pub(super) async fn get_file(
        &self,
        id: &str,
        path: &str,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let archive = self.get_archive(id, path, bytes_max + ARCHIVE_OVERHEAD_BYTES).await?;
        Ok(archive.ok().and_then(|archive| regular_file(&archive, bytes_max)))
    }

    /// What a container left at each path, `bytes_max` bytes of all together.
    pub(super) async fn get_outputs(
        &self,
        id: &str,
        paths: &[String],
        bytes_max: usize,
    ) -> Result<BTreeMap<String, Output>, EngineError> {
        let mut left = bytes_max;
        let mut outputs = BTreeMap::new();
        for path in paths {
            let output = match self.get_archive(id, path, left + ARCHIVE_OVERHEAD_BYTES).await? {
                Ok(archive) => output_of(archive, left),
                Err(why) => Output::None(why),
            };
            if let Output::File(bytes) | Output::Directory(bytes) = &output {
                left = left.saturating_sub(bytes.len());
            }
            outputs.insert(path.clone(), output);
        }
        Ok(outputs)
    }

    /// The engine's archive of a path; where there is none, why not, in words.
    async fn get_archive(
        &self,
        id: &str,
        path: &str,
        bytes_max: usize,
    ) -> Result<Result<Vec<u8>, String>, EngineError> {
        if self.facts.is_podman && self.is_link(id, path).await? {
            return Ok(Err(NO_FILE.to_owned()));
        }
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let mut pieces = std::pin::pin!(self.client.download_from_container(id, Some(options)));
        let mut archive = Vec::new();
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => archive.extend_from_slice(&piece),
                Err(error) => return not_given(error).map(Err),
            }
            if archive.len() > bytes_max {
                return Ok(Err(too_large()));
            }
        }
        if !is_whole(&archive) {
            return Err(failed("copy files out of a container", format!("its archive of {path} is cut off")));
        }
        Ok(Ok(archive))
    }
}

/// Whether an archive has something in it, and its end: two blocks of zeros. An engine that fails in the middle of one
/// ends its answer as if it were done.
fn is_whole(archive: &[u8]) -> bool {
    const BLOCK_BYTES: usize = 512;
    archive.len() > 2 * BLOCK_BYTES
        && archive.len().is_multiple_of(BLOCK_BYTES)
        && archive.ends_with(&[0; 2 * BLOCK_BYTES])
}

/// What is said of links, devices and the like.
const NO_FILE: &str = "it is neither a file nor a directory";

/// What the engine says of a path that it cannot give for the path's own sake, beside 404.
const PATHS_SENTENCES: [&str; 3] = ["not a directory", "too many levels of symbolic links", "too many links"];

/// Why a path is not given, in words, where the engine has looked; whatever else went wrong tells nothing of the path.
fn not_given(error: Error) -> Result<String, EngineError> {
    match &error {
        Error::DockerResponseServerError { status_code: 404, message }
            if !["No such container", "no container with"].iter().any(|gone| message.starts_with(gone)) =>
        {
            Ok("it is not there".to_owned())
        }
        Error::DockerResponseServerError { message, .. }
            if PATHS_SENTENCES.iter().any(|known| message.contains(known)) =>
        {
            Ok("a part of its path is no directory".to_owned())
        }
        _ => Err(failed("copy files out of a container", error)),
    }
}

/// Why an output is not kept that is larger than the configuration allows.
pub(crate) fn too_large() -> String {
    "with it, the outputs are larger than [worker] output_bytes_max in the configuration".to_owned()
}

/// A file as it is, a directory as its archive.
fn output_of(archive: Vec<u8>, bytes_max: usize) -> Output {
    let first = tar::Archive::new(archive.as_slice())
        .entries()
        .ok()
        .and_then(|mut entries| Some(entries.next()?.ok()?.header().entry_type()));
    match first {
        Some(tar::EntryType::Regular) => match regular_file(&archive, bytes_max) {
            Some(bytes) => Output::File(bytes),
            None => Output::None(too_large()),
        },
        Some(tar::EntryType::Directory) => Output::Directory(archive),
        _ => Output::None(NO_FILE.to_owned()),
    }
}

/// `uid:gid` as numbers: names would have to be looked up in the image, which is not trusted.
fn numeric_owner(user: &str) -> Result<(u64, u64), EngineError> {
    let parsed = user.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    parsed.ok_or_else(|| failed(PUT, format!("user {user:?} is not <uid>:<gid> in numbers")))
}

fn pack(
    dirs: &BTreeSet<String>,
    files: &[FileIn],
    (uid, gid): (u64, u64),
    output: &mut dyn Write,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(output);
    let mut append = |path: &str, kind, mode, bytes: u64, content: &mut dyn Read| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_size(bytes);
        tar.append_data(&mut header, path.trim_start_matches('/'), content.take(bytes))
    };
    for dir in dirs {
        append(dir, tar::EntryType::Directory, 0o755, 0, &mut io::empty())?;
    }
    for file in files {
        let (kind, mode) = (tar::EntryType::Regular, file.mode);
        match &file.content {
            Content::Bytes(bytes) => {
                append(&file.path, kind, mode, bytes.len() as u64, &mut bytes.as_slice())?;
            }
            Content::File(path) => {
                let mut content = fs::File::open(path)?;
                append(&file.path, kind, mode, content.metadata()?.len(), &mut content)?;
            }
        }
    }
    tar.finish()
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
        let check = |kind, content: &str, expected: &Output| {
            let bytes = archive(kind, content.len() as u64, content.as_bytes());
            let got = output_of(bytes.clone(), 4);
            let expected = if kind == Directory { &Output::Directory(bytes) } else { expected };
            assert_eq!(&got, expected, "{kind:?}");
        };
        check(Regular, "abc", &Output::File(b"abc".to_vec()));
        check(Regular, "abcde", &Output::None(too_large()));
        check(Directory, "", &Output::Directory(Vec::new()));
        check(Symlink, "", &Output::None("it is neither a file nor a directory".to_owned()));
        let whole = archive(Regular, 3, b"abc");
        assert!(is_whole(&whole) && !is_whole(&whole[..whole.len() - 1]) && !is_whole(&whole[..512]));
        assert!(!is_whole(&[0; 1024]), "nothing is in it");
        assert_eq!(regular_file(b"not an archive", 4), None);
        assert_eq!(regular_file(&archive(Regular, 3, b"abc")[..513], 4), None);
    }

    #[test]
    fn only_what_the_engine_says_of_a_path_is_taken_for_its_state() {
        let said = |status_code, message: &str| Error::DockerResponseServerError {
            status_code,
            message: message.to_owned(),
        };
        let check = |error: Error, expected: Option<&str>| {
            let shown = error.to_string();
            assert_eq!(not_given(error).ok().as_deref(), expected, "{shown}");
        };
        check(said(404, "Could not find the file /x in container y"), Some("it is not there"));
        let no_dir = Some("a part of its path is no directory");
        check(said(500, "lstat /merged/etc/passwd/y: not a directory"), no_dir);
        check(said(404, "No such container: y"), None);
        check(said(500, "the daemon is shutting down"), None);
        check(Error::RequestTimeoutError, None);
        check(Error::IOError { err: io::ErrorKind::ConnectionReset.into() }, None);
    }

    #[test]
    fn users_are_numbers() {
        assert_eq!(numeric_owner("1000:100").unwrap(), (1000, 100));
        for bad in ["1000", "root:root", ":", "-1:0"] {
            assert!(numeric_owner(bad).is_err(), "{bad}");
        }
    }
}
