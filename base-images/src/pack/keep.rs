//! Which files of an interpreter tree go into an image.

use std::path::Path;

use crate::version::PythonVersion;

/// What to take from a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The interpreter, its library and headers, pip and setuptools: none of what the host installed into it.
    Interpreter(PythonVersion),
    /// All but byte code, static libraries and the standard library's own tests.
    Everything(PythonVersion),
}

/// What of site-packages belongs to an empty environment.
const SEED_PACKAGES: [&str; 7] = [
    "_distutils_hack",
    "distutils-precedence",
    "easy_install",
    "pip",
    "pkg_resources",
    "setuptools",
    "wheel",
];

/// Programs that are CPython's own or pip's.
const PROGRAMS: [&str; 5] = ["2to3", "idle", "pip", "pydoc", "python"];

/// The standard library's own tests, beneath `lib/python3.x`.
const STANDARD_TESTS: [&str; 12] = [
    "bsddb/test",
    "ctypes/test",
    "ctypes/tests",
    "distutils/tests",
    "email/test",
    "idlelib/idle_test",
    "json/tests",
    "lib2to3/tests",
    "sqlite3/test",
    "tkinter/test",
    "unittest/test",
    "turtledemo",
];

impl Keep {
    /// Whether a file or directory, by its path inside of the tree, is taken.
    pub(crate) fn takes(self, path: &Path) -> bool {
        let text = path.to_string_lossy();
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let bulk =
            name == "__pycache__" || [".pyc", ".pyo", ".a", ".o"].iter().any(|end| name.ends_with(end));
        let version = match self {
            Self::Interpreter(version) | Self::Everything(version) => version,
        };
        let library = format!("lib/python{version}/");
        if bulk || text.strip_prefix(library.as_str()).is_some_and(is_standard_test) {
            return false;
        }
        match self {
            Self::Everything(_) => true,
            Self::Interpreter(_) => takes_for_interpreter(&text, &library),
        }
    }
}

fn is_standard_test(path: &str) -> bool {
    // Projects do import test.support.
    let own = path.strip_prefix("test/").is_some_and(|rest| {
        let first = rest.split('/').next().unwrap_or_default();
        first != "__init__.py" && !first.starts_with("support")
    });
    own || STANDARD_TESTS
        .iter()
        .any(|test| path.strip_prefix(test).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn takes_for_interpreter(path: &str, library: &str) -> bool {
    let (top, rest) = path.split_once('/').unwrap_or((path, ""));
    if !matches!(top, "bin" | "include" | "lib" | "lib64") {
        return false;
    }
    if top == "bin" {
        return rest.is_empty() || PROGRAMS.iter().any(|program| rest.starts_with(program));
    }
    if let Some(rest) = path.strip_prefix(library) {
        let package =
            rest.strip_prefix("site-packages/").map(|package| package.split(['/', '-', '.']).next());
        return package.is_none_or(|package| {
            let package = package.unwrap_or_default();
            SEED_PACKAGES.contains(&package) || rest.starts_with("site-packages/distutils-precedence")
        });
    }
    let other_python = top != "include" && rest.starts_with("python") && format!("{path}/") != library;
    !other_python
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_an_interpreter_and_nothing_installed_into_it() {
        let check = |path: &str, interpreter: bool, everything: bool| {
            let version = PythonVersion::new(3, 8);
            assert_eq!(Keep::Interpreter(version).takes(Path::new(path)), interpreter, "{path}");
            assert_eq!(Keep::Everything(version).takes(Path::new(path)), everything, "{path}");
        };
        check("bin", true, true);
        check("bin/python3.8", true, true);
        check("bin/pip3", true, true);
        check("bin/black", false, true);
        check("share", false, true);
        check("share/man/man1/python3.8.1", false, true);
        check("include/python3.8/Python.h", true, true);
        check("lib", true, true);
        check("lib/libpython3.8.so.1.0", true, true);
        check("lib/libpython3.8.a", false, false);
        check("lib/python3.8", true, true);
        check("lib/python3.7", false, true);
        check("lib/python3.8/os.py", true, true);
        check("lib/python3.8/os.pyc", false, false);
        check("lib/python3.8/__pycache__", false, false);
        check("lib/python3.8/unittest/test", false, false);
        check("lib/python3.8/unittest/tests.py", true, true);
        check("lib/python3.8/test", true, true);
        check("lib/python3.8/test/__init__.py", true, true);
        check("lib/python3.8/test/support/socket_helper.py", true, true);
        check("lib/python3.8/test/test_os.py", false, false);
        check("lib/python3.8/site-packages", true, true);
        check("lib/python3.8/site-packages/pip/__init__.py", true, true);
        check("lib/python3.8/site-packages/pip-21.1.dist-info", true, true);
        check("lib/python3.8/site-packages/distutils-precedence.pth", true, true);
        check("lib/python3.8/site-packages/pipenv", false, true);
        check("lib/python3.8/site-packages/requests/api.py", false, true);
        check("lib/python3.8/site-packages/requests/test/test_api.py", false, true);
    }
}
