use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use crate::engine::{Output, too_large};

/// What a native command left in its directory, `bytes_max` bytes of all together.
pub(super) fn collect(dir: &Path, paths: &[String], bytes_max: usize) -> BTreeMap<String, Output> {
    let mut left = bytes_max;
    let mut outputs = BTreeMap::new();
    for path in paths {
        let output = keep(&dir.join(path), left).unwrap_or_else(|error| {
            Output::None(match error.kind() {
                ErrorKind::NotFound => "it is not there".to_owned(),
                ErrorKind::FileTooLarge => too_large(),
                _ => error.to_string(),
            })
        });
        if let Output::File(bytes) | Output::Directory(bytes) = &output {
            left = left.saturating_sub(bytes.len());
        }
        outputs.insert(path.clone(), output);
    }
    outputs
}

fn keep(path: &Path, bytes_max: usize) -> io::Result<Output> {
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() {
        let mut tar = tar::Builder::new(Capped { bytes: Vec::new(), bytes_max });
        tar.follow_symlinks(false);
        tar.append_dir_all(path.file_name().unwrap_or_default(), path)?;
        return Ok(Output::Directory(tar.into_inner()?.bytes));
    }
    if !found.is_file() {
        return Ok(Output::None("it is neither a file nor a directory".to_owned()));
    }
    let mut content = Capped { bytes: Vec::new(), bytes_max };
    io::copy(&mut File::open(path)?, &mut content)?;
    Ok(Output::File(content.bytes))
}

/// Refuses to grow beyond its limit.
struct Capped {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Write for Capped {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > self.bytes_max {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_files_and_directories_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "hello").unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        fs::write(dir.path().join("dir/inner"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let check = |path: &str, bytes_max: usize, expected: &str| {
            let outputs = collect(dir.path(), &[path.to_owned()], bytes_max);
            let got = match &outputs[path] {
                Output::File(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Output::Directory(bytes) => {
                    let mut archive = tar::Archive::new(bytes.as_slice());
                    let entries = archive.entries().unwrap();
                    let paths: Vec<String> =
                        entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
                    paths.join(" ")
                }
                Output::None(why) => why.clone(),
            };
            assert_eq!(got, expected, "{path}");
        };
        check("file", 5, "hello");
        check("file", 4, &too_large());
        check("dir", 1 << 16, "dir/ dir/inner");
        check("dir", 100, &too_large());
        check("link", 100, "it is neither a file nor a directory");
        check("none", 100, "it is not there");
        let both = collect(dir.path(), &["file".to_owned(), "dir/inner".to_owned()], 5);
        assert_eq!(both["dir/inner"], Output::None(too_large()), "the limit is of all together");
    }
}
