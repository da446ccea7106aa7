//! Small files in the state directory of a node.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Writes one so that a reader, and who comes after a crash or found the disk full, has the whole of it or what was there
/// before.
///
/// # Errors
/// Its directory cannot be written.
pub fn replace(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut staged = tempfile::NamedTempFile::new_in(dir)?;
    staged.write_all(text)?;
    staged.as_file().set_permissions(Permissions::from_mode(mode))?;
    staged.persist(path).map(drop).map_err(|error| error.error)
}
