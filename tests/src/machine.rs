//! What machines for tests have in common, whatever they run on: a disk made once, and scripts handed in through a
//! directory that they share with their host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::harness::{printed, wait_for};

/// The status of a script that did not end in time.
pub const NO_END: i32 = -1;
/// Lines of a console that an error has.
const CONSOLE_LINES: usize = 40;

/// What a script on a machine said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit status; -1 where it did not end in time.
    pub status: i32,
    /// Both its streams.
    pub text: String,
}

/// What machines begin with: made by the first of these files of `tests/lab` and kept in `cache`, under a name that
/// changes with what is in them.
///
/// # Errors
/// It cannot be made.
pub(crate) fn image(cache: &Path, kind: &str, recipe: &[&str]) -> io::Result<PathBuf> {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab");
    let mut texts = Vec::new();
    for name in recipe {
        texts.extend(fs::read(lab.join(name))?);
    }
    let digest: String = Sha256::digest(&texts)[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let path = cache.join(format!("{kind}-{digest}"));
    if !path.exists() {
        fs::create_dir_all(cache)?;
        let made = Command::new(lab.join(recipe[0])).arg(&path).stdin(Stdio::null()).output()?;
        if !made.status.success() {
            return Err(io::Error::other(format!("no disk for machines: {}", printed(&made))));
        }
    }
    Ok(path)
}

/// Runs a shell script as root on the machine that sees `share` as /lab. Others can be run meanwhile, and afterwards.
pub(crate) fn run(share: &Path, script: &str, at_most: Duration) -> Said {
    let name = Uuid::now_v7().simple().to_string();
    let path = |end: &str| share.join(format!("{name}.{end}"));
    // The agent there runs what is called .sh: it appears whole.
    let handed_in = tempfile::NamedTempFile::new_in(share).and_then(|new| {
        fs::write(new.path(), script)?;
        Ok(new.persist(path("sh"))?)
    });
    if let Err(error) = handed_in {
        return Said { status: NO_END, text: format!("cannot hand in a script: {error}") };
    }
    let ended = wait_for(at_most, || fs::read_to_string(path("rc")).ok()?.trim().parse().ok());
    let text = String::from_utf8_lossy(&fs::read(path("out")).unwrap_or_default()).into_owned();
    if ended.is_some() {
        for end in ["run", "out", "rc"] {
            let _ = fs::remove_file(path(end));
        }
    }
    Said { status: ended.unwrap_or(NO_END), text }
}

/// The end of what a machine printed.
pub(crate) fn last_lines(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n")
}
