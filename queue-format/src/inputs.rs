//! `inputs/`: files that tasks begin with, each kept once under the digest of its content.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::OnPath;
use crate::filesystem::{Entry, EntryKind};
use crate::{PathError, Spool};

/// Bytes that are read, hashed and written at once.
const PIECE_BYTES: usize = 1 << 16;

/// The largest input, in bytes.
pub const INPUT_BYTES_MAX: u64 = 64 << 30;

/// The BLAKE3 digest of a file's content, as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Why a string is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no BLAKE3 digest, expected 64 digits of 0-9 and a-f")]
pub struct InvalidDigest;

/// Why an input cannot be kept in the spool, or had from it.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The task is at fault, or who removed its file: another try finds the same.
    #[error("{path} {what}; publish the task again with the file that it was made with", path = path.display())]
    Damaged {
        /// Where it should be.
        path: std::path::PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The spool cannot be read now.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The content that was given to be kept is at fault, and not the spool.
    #[error("it cannot be kept: {0}")]
    Given(io::Error),
    /// The copy cannot be written.
    #[error("cannot write the copy of an input: {0}")]
    Write(io::Error),
}

impl Digest {
    /// Of some content.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().to_string())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its directory in `inputs/`.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.0[..2]
    }
}

impl Spool {
    /// Keeps a file that tasks will begin with. Gives its digest and its size. One with the same content that is there
    /// already stays.
    ///
    /// # Errors
    /// The content cannot be read or is too large, or the spool cannot be written.
    pub fn keep_input(&self, content: &mut dyn Read) -> Result<(Digest, u64), InputError> {
        let (files, dir) = (self.files(), self.layout().inputs());
        files.make_dirs(&dir)?;
        let mut staged = files.stage(&dir)?;
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = content.read(&mut piece).map_err(InputError::Given)?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            if bytes > INPUT_BYTES_MAX {
                let why = io::Error::other(format!("it is larger than {INPUT_BYTES_MAX} bytes"));
                return Err(InputError::Given(why));
            }
            hasher.update(&piece[..read]);
            staged.write_all(&piece[..read]).on_path("write", staged.path())?;
        }
        let digest = Digest(hasher.finalize().to_hex().to_string());
        let path = self.layout().input(&digest);
        let is_there = |found: Entry| found.kind == EntryKind::File && found.bytes == bytes;
        if !files.look(&path)?.is_some_and(is_there) {
            let bucket = self.layout().inputs().join(digest.bucket());
            files.make_dirs(&bucket)?;
            staged.settle(&path)?;
            files.sync_dir(&bucket)?;
        }
        Ok((digest, bytes))
    }

    /// Copies an input to `copy`, and checks that it is what it is called.
    ///
    /// # Errors
    /// It is missing or damaged, or cannot be read or written just now.
    pub fn read_input(&self, digest: &Digest, copy: &mut dyn Write) -> Result<u64, InputError> {
        let path = self.layout().input(digest);
        let damaged = |what: &str| InputError::Damaged { path: path.clone(), what: what.to_owned() };
        let file = match self.files().open_regular(&path) {
            // A look at a directory that was listed before may be a minute old.
            Err(e) if e.source.kind() == io::ErrorKind::NotFound => {
                let bucket = path.parent().unwrap_or(&path);
                if !self.files().is_left(bucket)? || !self.files().is_left(&path)? {
                    return Err(damaged("is missing"));
                }
                self.files().open_regular(&path)?
            }
            Err(e) if e.source.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged("is no regular file"));
            }
            opened => opened?,
        };
        let mut content = file.content.take(INPUT_BYTES_MAX);
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = content.read(&mut piece).on_path("read", &path)?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            hasher.update(&piece[..read]);
            copy.write_all(&piece[..read]).map_err(InputError::Write)?;
        }
        if hasher.finalize().to_hex().as_str() != digest.as_str() {
            return Err(damaged("is not what its name says (BLAKE3)"));
        }
        Ok(bytes)
    }
}

impl InputError {
    /// True where another try, or another node, would find the same.
    #[must_use]
    pub fn is_of_task(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let is_legal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(is_legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidDigest)
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
