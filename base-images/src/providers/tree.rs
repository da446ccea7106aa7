//! Interpreter trees of the host: a directory with `bin/python3.8` and the library that belongs to it.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::providers::{Interpreter, Offer, ProviderKind, Suite};
use crate::settings::HostSettings;
use crate::version::PythonVersion;

/// How deep below a configured directory a tree may lie, as in `python/3.8/gcc-11`.
const MAX_DEPTH: usize = 3;

/// How many directories are looked at below one configured directory.
const MAX_DIRECTORIES: usize = 2000;

/// How much of an interpreter or library is read; its version needs lie near the start.
const MAX_BINARY_BYTES: u64 = 4 * 1024 * 1024;

/// The largest `_sysconfigdata*.py` that is read.
const MAX_RECORD_BYTES: u64 = 1024 * 1024;

/// Directories that are nobody's own.
const SYSTEM_PREFIXES: [&str; 3] = ["/", "/usr", "/usr/local"];

/// A Python as it was installed somewhere on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterpreterTree {
    /// The directory that has `bin` and `lib`, without symbolic links in its path.
    pub(crate) prefix: PathBuf,
    /// The same as it was found, where that differs.
    pub(crate) found_at: PathBuf,
    /// Where it was built for, as it recorded itself; a tree may have been moved since.
    pub(crate) built_for: Option<PathBuf>,
}

/// The newest tree of that Python, or why there is none.
pub(super) fn offer(version: PythonVersion, settings: &HostSettings) -> Result<Offer, String> {
    let directories: Vec<String> =
        settings.prefix_directories.iter().map(|directory| directory.display().to_string()).collect();
    let tree = find(version, &settings.prefix_directories).ok_or_else(|| {
        format!(
            "no interpreter tree in {}; name its directory in BOTTEGA_PYTHON_PREFIXES",
            if directories.is_empty() { "any directory".to_owned() } else { directories.join(", ") }
        )
    })?;
    let needed = tree.glibc_minor(version);
    let suite = [Suite::Bookworm, Suite::Trixie].into_iter().find(|suite| needed <= suite.glibc_minor());
    let suite = suite.ok_or_else(|| {
        format!("{} needs glibc 2.{needed}, which no Debian release here has", tree.prefix.display())
    })?;
    Ok(Offer {
        version,
        provider: ProviderKind::Prefix,
        suite,
        origin: tree.prefix.display().to_string(),
        interpreter: Interpreter::Tree(tree),
    })
}

impl InterpreterTree {
    fn at(path: &Path, version: PythonVersion) -> Option<Self> {
        let interpreter = path.join("bin").join(format!("python{version}"));
        let library = path.join("lib").join(format!("python{version}")).join("os.py");
        if !interpreter.is_file() || !library.is_file() {
            return None;
        }
        let prefix = path.canonicalize().ok()?;
        // The system's own Python is Debian's business.
        let of_system = SYSTEM_PREFIXES.iter().any(|system| prefix == Path::new(system));
        let built_for = recorded_prefix(&path.join("lib").join(format!("python{version}")));
        (!of_system).then(|| Self { prefix, found_at: path.to_path_buf(), built_for })
    }

    /// Every directory that its files may name as its own.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.prefix), Some(&self.found_at), self.built_for.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    /// The `36` of the newest glibc 2.36 symbol that the interpreter and its library ask for.
    fn glibc_minor(&self, version: PythonVersion) -> u32 {
        let libraries =
            std::fs::read_dir(self.prefix.join("lib")).into_iter().flatten().filter_map(Result::ok);
        let libraries = libraries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("libpython"))
            .map(|entry| entry.path());
        let interpreter = self.prefix.join("bin").join(format!("python{version}"));
        libraries.chain([interpreter]).filter_map(|path| glibc_minor_of(&path)).max().unwrap_or(0)
    }
}

/// The prefix in the library's `_sysconfigdata*.py`, unless it is one that many things share.
fn recorded_prefix(library: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(library).ok()?.filter_map(Result::ok);
    let data = entries.map(|entry| entry.path()).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("_sysconfigdata"))
    })?;
    let mut text = String::new();
    std::fs::File::open(data).ok()?.take(MAX_RECORD_BYTES).read_to_string(&mut text).ok()?;
    let value = text.split_once("'prefix': '")?.1.split_once('\'')?.0;
    let prefix = PathBuf::from(value);
    (prefix.is_absolute() && !SYSTEM_PREFIXES.contains(&value)).then_some(prefix)
}

/// The tree of that Python with the highest path by number, so that 3.8.18 wins over 3.8.9.
fn find(version: PythonVersion, directories: &[PathBuf]) -> Option<InterpreterTree> {
    directories.iter().find_map(|directory| {
        let mut found: Vec<InterpreterTree> =
            subdirectories(directory).iter().filter_map(|path| InterpreterTree::at(path, version)).collect();
        found.sort_by_key(|tree| numbers(&tree.prefix.to_string_lossy()));
        found.pop()
    })
}

/// The directory itself and those below it, breadth first; not those inside of an interpreter tree.
fn subdirectories(directory: &Path) -> BTreeSet<PathBuf> {
    let mut level = vec![directory.to_path_buf()];
    let mut all = BTreeSet::new();
    for _ in 0..=MAX_DEPTH {
        let mut below = Vec::new();
        for path in level {
            let is_tree = is_interpreter_tree(&path);
            let entries = std::fs::read_dir(&path).into_iter().flatten().filter_map(Result::ok);
            all.insert(path);
            if !is_tree && all.len() < MAX_DIRECTORIES {
                below.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
            }
        }
        level = below;
    }
    all
}

fn is_interpreter_tree(path: &Path) -> bool {
    let libraries = std::fs::read_dir(path.join("lib")).into_iter().flatten().filter_map(Result::ok);
    path.join("bin").is_dir()
        && libraries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("python"))
}

fn numbers(text: &str) -> Vec<u64> {
    text.split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// Reads the version needs of a binary from its strings: `GLIBC_2.` followed by the number.
fn glibc_minor_of(path: &Path) -> Option<u32> {
    const NEED: &[u8] = b"GLIBC_2.";
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MAX_BINARY_BYTES).read_to_end(&mut bytes).ok()?;
    let needs = bytes.windows(NEED.len()).enumerate().filter(|(_, window)| *window == NEED);
    needs
        .filter_map(|(start, _)| {
            let rest = &bytes[start + NEED.len()..];
            let digits = rest.iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
            std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(root: &Path, path: &str, version: &str, binary: &[u8]) {
        let prefix = root.join(path);
        let library = prefix.join(format!("lib/python{version}"));
        std::fs::create_dir_all(prefix.join("bin")).unwrap();
        std::fs::create_dir_all(&library).unwrap();
        std::fs::write(prefix.join(format!("bin/python{version}")), binary).unwrap();
        std::fs::write(library.join("os.py"), "").unwrap();
    }

    #[test]
    fn finds_the_newest_tree_of_a_version() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), "versions/3.8.9", "3.8", b"");
        make(root.path(), "versions/3.8.18", "3.8", b"");
        make(root.path(), "apps/python/3.7/gcc-11", "3.7", b"");
        make(root.path(), "one/two/three/four/3.6", "3.6", b"");
        std::fs::create_dir_all(root.path().join("versions/3.9.1/bin")).unwrap();
        let check = |version: &str, directories: &[&str], expected: Option<&str>| {
            let directories: Vec<PathBuf> = directories.iter().map(|path| root.path().join(path)).collect();
            let found = find(version.parse().unwrap(), &directories).map(|tree| tree.found_at);
            assert_eq!(found, expected.map(|path| root.path().join(path)), "{version}");
        };
        check("3.8", &["missing", "versions"], Some("versions/3.8.18"));
        check("3.8", &["versions/3.8.9", "versions"], Some("versions/3.8.9"));
        check("3.7", &["versions", "apps"], Some("apps/python/3.7/gcc-11"));
        check("3.9", &["versions"], None);
        check("3.6", &["one"], None);
        check("3.6", &["one/two"], Some("one/two/three/four/3.6"));
    }

    #[test]
    fn reads_where_a_tree_was_built_for() {
        let check = |text: &str, expected: Option<&str>| {
            let library = tempfile::tempdir().unwrap();
            std::fs::write(library.path().join("_sysconfigdata_m_linux.py"), text).unwrap();
            assert_eq!(recorded_prefix(library.path()), expected.map(PathBuf::from), "{text}");
        };
        check(
            "build_time_vars = {'exec_prefix': '/b',\n 'prefix': '/apps/python/3.8',\n}",
            Some("/apps/python/3.8"),
        );
        check("{'prefix': '/usr'}", None);
        check("{'prefix': 'relative'}", None);
        check("", None);
    }

    #[test]
    fn reads_the_glibc_that_a_binary_needs() {
        let check = |binary: &[u8], expected: Option<u32>| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), binary).unwrap();
            assert_eq!(glibc_minor_of(file.path()), expected);
        };
        check(b"..GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.17\0", Some(34));
        check(b"GLIBC_2.", None);
        check(b"", None);
        check(b"GLIBC_PRIVATE", None);
    }
}
