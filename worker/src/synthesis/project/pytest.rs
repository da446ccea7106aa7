use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::synthesis::text::Ini;
use crate::synthesis::tree::Tree;

/// What pytest collects where nothing else is configured.
const DEFAULT_PATTERNS: &[&str] = &["test_*.py", "*_test.py"];

/// pytest's configuration, from the one file that pytest itself would take.
#[derive(Debug, Default)]
pub(in crate::synthesis) struct PytestConfig {
    /// Which file; `None` where there is no configuration.
    pub(in crate::synthesis) file: Option<String>,
    values: BTreeMap<String, Vec<String>>,
}

impl PytestConfig {
    /// The words of `addopts`.
    pub(in crate::synthesis) fn addopts(&self) -> Vec<String> {
        self.words("addopts")
    }

    /// Whether a key is set at all.
    pub(in crate::synthesis) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// A key's words, as a shell would split them.
    pub(in crate::synthesis) fn words(&self, key: &str) -> Vec<String> {
        let values = self.values.get(key).into_iter().flatten();
        values.flat_map(|value| shlex::split(value).unwrap_or_else(|| vec![value.clone()])).collect()
    }

    /// Whether pytest would collect this file as a module of tests when it finds it by itself.
    pub(in crate::synthesis) fn collects(&self, path: &str) -> bool {
        let configured = self.words("python_files");
        let name = path.rsplit('/').next().unwrap_or(path);
        let matches = |pattern: &str| {
            if pattern.contains('/') {
                glob(pattern, path) || glob(&format!("*/{pattern}"), path)
            } else {
                glob(pattern, name)
            }
        };
        if configured.is_empty() {
            DEFAULT_PATTERNS.iter().any(|pattern| matches(pattern))
        } else {
            configured.iter().any(|pattern| matches(pattern))
        }
    }

    /// Whether pytest runs this text file as doctests.
    pub(in crate::synthesis) fn collects_text(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        let addopts = self.addopts();
        let globs = addopts.iter().filter_map(|word| word.strip_prefix("--doctest-glob="));
        globs.into_iter().any(|pattern| glob(pattern, name) || glob(pattern, path))
    }
}

/// Reads the file that pytest would take: the first of its list that has a section for it.
pub(super) fn read(tree: &Tree) -> PytestConfig {
    for file in ["pytest.ini", ".pytest.ini"] {
        if let Some(text) = tree.read(file) {
            return from_ini(file, &text, "pytest")
                .unwrap_or(PytestConfig { file: Some(file.to_owned()), ..PytestConfig::default() });
        }
    }
    let sections = [("tox.ini", "pytest"), ("setup.cfg", "tool:pytest"), ("setup.cfg", "pytest")];
    let pyproject = tree.read("pyproject.toml").and_then(|text| from_pyproject(&text));
    let ini = || sections.iter().find_map(|(file, section)| from_ini(file, &tree.read(file)?, section));
    pyproject.or_else(ini).unwrap_or_default()
}

fn from_ini(file: &str, text: &str, section: &str) -> Option<PytestConfig> {
    let ini = Ini::parse(text);
    ini.names().any(|name| name == section).then(|| PytestConfig {
        file: Some(file.to_owned()),
        values: ini
            .section(section)
            .map(|(key, value)| (key.to_owned(), value.lines().map(str::to_owned).collect()))
            .collect(),
    })
}

fn from_pyproject(text: &str) -> Option<PytestConfig> {
    let root = text.parse::<Table>().ok()?;
    let pytest = root.get("tool")?.get("pytest")?.as_table()?;
    // `ini_options` is the section of pytest 6 to 8, the plain table that of pytest 9.
    let options = pytest.get("ini_options").and_then(Value::as_table).unwrap_or(pytest);
    let values = options.iter().map(|(key, value)| {
        let words = match value {
            Value::String(text) => vec![text.clone()],
            Value::Array(items) => items
                .iter()
                .filter_map(|item| shlex::try_quote(item.as_str()?).ok().map(std::borrow::Cow::into_owned))
                .collect(),
            other => vec![other.to_string()],
        };
        (key.clone(), words)
    });
    Some(PytestConfig { file: Some("pyproject.toml".to_owned()), values: values.collect() })
}

/// `*` and `?` as in a shell; everything else stands for itself.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            (p, t) = (star_p + 1, star_t + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_file_that_pytest_takes() {
        let check = |files: &[(&str, &str)], expected: Option<&str>, addopts: &[&str]| {
            let (_root, tree) = Tree::of(files);
            let config = read(&tree);
            assert_eq!(config.file.as_deref(), expected, "{files:?}");
            assert_eq!(config.addopts(), addopts, "{files:?}");
        };
        check(&[("pytest.ini", ""), ("setup.cfg", "[tool:pytest]\naddopts=-v")], Some("pytest.ini"), &[]);
        check(
            &[("tox.ini", "[tox]\n"), ("setup.cfg", "[tool:pytest]\naddopts=-v -m 'not slow'")],
            Some("setup.cfg"),
            &["-v", "-m", "not slow"],
        );
        check(
            &[("pyproject.toml", "[tool.pytest.ini_options]\naddopts=['-m', 'not slow']")],
            Some("pyproject.toml"),
            &["-m", "not slow"],
        );
        check(&[("pyproject.toml", "[tool.pytest]\naddopts=['-v']")], Some("pyproject.toml"), &["-v"]);
        check(&[("setup.py", "")], None, &[]);
    }

    #[test]
    fn knows_what_is_collected() {
        let check = |ini: &str, path: &str, expected: bool| {
            let (_root, tree) = Tree::of(&[("pytest.ini", ini)]);
            assert_eq!(read(&tree).collects(path), expected, "{ini} {path}");
        };
        check("[pytest]\n", "tests/test_a.py", true);
        check("[pytest]\n", "tests/a_test.py", true);
        check("[pytest]\n", "tests/data/a.py", false);
        check("[pytest]\npython_files = *test_*.py\n", "tests/unittest_a.py", true);
        check("[pytest]\npython_files = pkg/tests/*.py\n", "pkg/tests/helpers.py", true);
        check("[pytest]\npython_files = tests.py\n", "pkg/tests/test_a.py", false);
    }
}
