//! Shared libraries of the host that an interpreter tree links.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::build::process;
use crate::error::BuildError;
use crate::pack::{self, Keep};
use crate::providers::InterpreterTree;
use crate::settings::HostSettings;

const LDD_LIMIT: Duration = Duration::from_secs(120);
const LDD_OUTPUT_LIMIT_BYTES: u64 = 4 * 1024 * 1024;

/// The C library itself is always the root's.
const C_LIBRARY: [&str; 10] = [
    "ld-linux",
    "libc.so",
    "libdl.so",
    "libm.so",
    "libnsl.so.1",
    "libpthread.so",
    "libresolv.so",
    "librt.so",
    "libthread_db",
    "libutil.so",
];

/// The libraries by soname, as the host's loader finds them; empty where the host has no `ldd`.
pub(super) async fn of_tree(
    tree: &InterpreterTree,
    keep: Keep,
    settings: &HostSettings,
) -> Result<BTreeMap<String, PathBuf>, BuildError> {
    let Some(ldd) = settings.program("ldd") else { return Ok(BTreeMap::new()) };
    let files = pack::list_tree(&tree.prefix, keep).map_err(BuildError::io(&tree.prefix))?;
    let paths = files.into_iter().map(|(path, _)| tree.prefix.join(path));
    let arguments: Vec<String> =
        paths.filter(|path| is_program(path)).map(|path| path.display().to_string()).collect();
    let path = std::env::join_paths(&settings.path).unwrap_or_default().to_string_lossy().into_owned();
    let environment = BTreeMap::from([("PATH".to_owned(), path)]);
    let output = process::output_of(&ldd, &arguments, &environment, LDD_LIMIT, LDD_OUTPUT_LIMIT_BYTES).await;
    match output {
        Ok(text) => Ok(parse(&text, &tree.prefix)),
        // ldd fails where one file is of another architecture; then the root's own libraries have to do.
        Err(BuildError::Program { .. }) => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// Whether a file is an ELF program or library.
fn is_program(path: &Path) -> bool {
    let mut magic = [0; 4];
    let named = path.extension().is_none_or(|extension| extension != "py" && extension != "h");
    let read =
        named && path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok();
    read && magic == *b"\x7fELF"
}

fn parse(text: &str, prefix: &Path) -> BTreeMap<String, PathBuf> {
    let found = text.lines().filter_map(|line| {
        let (soname, rest) = line.trim().split_once(" => ")?;
        let path = PathBuf::from(rest.split(" (").next()?);
        let wanted = path.is_absolute()
            && !path.starts_with(prefix)
            && !C_LIBRARY.iter().any(|start| soname.starts_with(start));
        wanted.then(|| (soname.to_owned(), path))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_libraries_from_outside_of_the_tree() {
        let text = "/h/py/lib-dynload/_ssl.so:\n\tlinux-vdso.so.1 (0x0)\n\
                    \tlibssl.so.3 => /opt/ssl/lib/libssl.so.3 (0x0)\n\
                    \tlibpython3.8.so.1.0 => /h/py/lib/libpython3.8.so.1.0 (0x0)\n\
                    \tlibtk8.6.so => not found\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x0)\n";
        let found = parse(text, Path::new("/h/py"));
        assert_eq!(
            found,
            BTreeMap::from([("libssl.so.3".to_owned(), PathBuf::from("/opt/ssl/lib/libssl.so.3"))])
        );
    }
}
