use std::fs::{self, OpenOptions};
use std::io::BufWriter;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use queue_format::{InputError, InputFile, Spool};

use super::RunError;

/// Bytes of a copy that are written at once.
const BUFFER_BYTES: usize = 1 << 16;

/// Copies inputs to this node's disk, each to its path, and checks them; with their modes where they are not copied any
/// further. `Some` says which one is at fault.
pub(super) async fn fetch(
    spool: &Spool,
    inputs: Vec<(InputFile, PathBuf)>,
    has_modes: bool,
) -> Result<Option<String>, RunError> {
    let spool = spool.clone();
    let fetched = tokio::task::spawn_blocking(move || {
        for (input, path) in &inputs {
            match fetch_one(&spool, input, path) {
                Ok(()) if has_modes => set_mode(input, path)?,
                Ok(()) => {}
                Err(RunError::Input(error)) if error.is_of_task() => {
                    return Ok(Some(format!("{}: {error}", input.path)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    });
    fetched.await.unwrap_or_else(|error| Err(RunError::Worker(error.to_string())))
}

fn fetch_one(spool: &Spool, input: &InputFile, path: &Path) -> Result<(), RunError> {
    let disk = |source| RunError::Disk { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(disk)?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(disk)?;
    let mut copy = BufWriter::with_capacity(BUFFER_BYTES, file);
    spool.read_input(&input.digest, &mut copy)?;
    copy.flush().map_err(|source| RunError::Input(InputError::Write(source)))
}

fn set_mode(input: &InputFile, path: &Path) -> Result<(), RunError> {
    let set = fs::set_permissions(path, fs::Permissions::from_mode(input.mode));
    set.map_err(|source| RunError::Disk { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn a_copy_that_goes_on_into_a_container_stays_readable() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::init(&dir.path().join("spool"), Uuid::now_v7()).unwrap();
        let (digest, bytes) = spool.keep_input(&mut b"x".as_slice()).unwrap();
        let input = InputFile { path: "/x".to_owned(), digest, bytes, mode: 0 };
        for (has_modes, expected) in [(false, 0o600), (true, 0)] {
            let path = dir.path().join(has_modes.to_string());
            let at_fault = fetch(&spool, vec![(input.clone(), path.clone())], has_modes).await.unwrap();
            assert_eq!(at_fault, None);
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, expected);
        }
    }
}
