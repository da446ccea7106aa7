//! Makes files name the environment of the image where they named a directory of the host.

use std::borrow::Cow;
use std::path::Path;

use memchr::memmem;

/// Text files beyond this size name no prefix.
const MAX_TEXT_BYTES: usize = 8 * 1024 * 1024;

/// Replaces directories of the host by one of the image.
#[derive(Clone, Debug)]
pub(crate) struct Relocation {
    old: Vec<String>,
    new: String,
    binaries: bool,
}

impl Relocation {
    /// Rewrites text files only: shebangs, the build's own record in `_sysconfigdata`, `Makefile`, `*.pc`.
    pub(crate) fn of_texts<'a>(old: impl IntoIterator<Item = &'a Path>, new: &str) -> Self {
        let mut old: Vec<String> = old.into_iter().map(|path| path.to_string_lossy().into_owned()).collect();
        old.sort_by_key(|path| std::cmp::Reverse(path.len()));
        old.dedup();
        Self { old, new: new.to_owned(), binaries: false }
    }

    /// Rewrites the C strings of binaries too, as conda does when it installs: `old` must be at least as long as `new`.
    pub(crate) fn of_everything(old: &Path, new: &str) -> Self {
        Self { binaries: true, ..Self::of_texts([old], new) }
    }

    /// The target of a symbolic link.
    pub(crate) fn target(&self, target: &Path) -> std::path::PathBuf {
        let inside = self.old.iter().find_map(|old| target.strip_prefix(old).ok());
        inside.map_or_else(|| target.to_path_buf(), |inside| Path::new(&self.new).join(inside))
    }

    /// The content of a file.
    pub(crate) fn content<'a>(&self, content: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.old.iter().any(|old| memmem::find(content, old.as_bytes()).is_some()) {
            return Cow::Borrowed(content);
        }
        if memchr::memchr(0, content).is_some() {
            return if self.binaries { Cow::Owned(self.binary(content)) } else { Cow::Borrowed(content) };
        }
        match std::str::from_utf8(content) {
            Ok(text) if content.len() <= MAX_TEXT_BYTES => {
                let text =
                    self.old.iter().fold(text.to_owned(), |text, old| text.replace(old.as_str(), &self.new));
                Cow::Owned(text.into_bytes())
            }
            _ => Cow::Borrowed(content),
        }
    }

    /// Shortens every path in its C string and fills the string up with zeros, so that nothing moves.
    fn binary(&self, content: &[u8]) -> Vec<u8> {
        let mut result = content.to_vec();
        for old in self.old.iter().filter(|old| old.len() >= self.new.len()) {
            let starts: Vec<usize> = memmem::find_iter(&result, old.as_bytes()).collect();
            let saved = old.len() - self.new.len();
            // From the end, so that a second path in the same string is shortened before the first one moves it.
            for start in starts.into_iter().rev() {
                let end = memchr::memchr(0, &result[start..]).map_or(result.len(), |length| start + length);
                result[start..start + self.new.len()].copy_from_slice(self.new.as_bytes());
                result.copy_within(start + old.len()..end, start + self.new.len());
                result[end - saved..end].fill(0);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrites_texts() {
        let check = |text: &str, expected: &str| {
            let relocation =
                Relocation::of_texts([Path::new("/h/py"), Path::new("/h/py/3.8.18")], "/new/place");
            assert_eq!(std::str::from_utf8(&relocation.content(text.as_bytes())).unwrap(), expected);
        };
        check("#!/h/py/3.8.18/bin/python3.8\n", "#!/new/place/bin/python3.8\n");
        check("prefix=/h/py\nlib=/h/py/lib", "prefix=/new/place\nlib=/new/place/lib");
        check("nothing", "nothing");
        check("/h/py\0", "/h/py\0");
    }

    #[test]
    fn rewrites_strings_of_binaries_in_place() {
        let check = |content: &[u8], expected: &[u8]| {
            let relocation = Relocation::of_everything(Path::new("/host/env"), "/env");
            assert_eq!(relocation.content(content).as_ref(), expected);
        };
        check(b"\x01/host/env/lib\0rest", b"\x01/env/lib\0\0\0\0\0\0rest");
        check(b"\0/host/env:/host/env/b\0r", b"\0/env:/env/b\0\0\0\0\0\0\0\0\0\0\0r");
        check(b"\0a=/host/env", b"\0a=/env\0\0\0\0\0");
        check(b"\0other\0", b"\0other\0");
        check(b"#!/host/env/bin/python\n", b"#!/env/bin/python\n");
    }

    #[test]
    fn moves_targets_inside_of_the_tree_only() {
        let check = |target: &str, expected: &str| {
            let relocation = Relocation::of_texts([Path::new("/h/py")], "/new");
            assert_eq!(relocation.target(Path::new(target)), Path::new(expected));
        };
        check("/h/py/lib/libpython3.8.so.1.0", "/new/lib/libpython3.8.so.1.0");
        check("python3.8", "python3.8");
        check("/h/python/x", "/h/python/x");
    }
}
