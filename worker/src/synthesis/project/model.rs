use base_images::PythonVersion;

use super::PytestConfig;
use crate::synthesis::text::normalise;

/// What a tree's files say.
#[derive(Debug, Default)]
pub(in crate::synthesis) struct Project {
    /// The distribution's name.
    pub(in crate::synthesis) name: Option<String>,
    /// How it is built.
    pub(in crate::synthesis) build: Build,
    /// `requires-python` and its like, with the file each stands in.
    pub(in crate::synthesis) python_specs: Vec<(String, &'static str)>,
    /// Pythons that files name, the most authoritative file first.
    pub(in crate::synthesis) python_lists: Vec<(Vec<PythonVersion>, &'static str)>,
    /// Where requirements for tests stand, as found.
    pub(in crate::synthesis) sources: Vec<Source>,
    /// What the package itself needs, for when it cannot be installed.
    pub(in crate::synthesis) runtime: Vec<String>,
    /// The versions of a lock file, `name==version`.
    pub(in crate::synthesis) locked: Vec<String>,
    /// Which lock file that is.
    pub(in crate::synthesis) lock_file: Option<&'static str>,
    /// pytest's configuration.
    pub(in crate::synthesis) pytest: PytestConfig,
    /// Commands that run tests, as tox or CI have them.
    pub(in crate::synthesis) commands: Vec<String>,
}

/// How a project is built.
#[derive(Debug, Default)]
pub(in crate::synthesis) struct Build {
    /// `pyproject.toml` has a `[build-system]` or a `[project]`.
    pub(in crate::synthesis) has_pyproject: bool,
    /// `setup.py` is there.
    pub(in crate::synthesis) has_setup_py: bool,
    /// `setup.cfg` has metadata.
    pub(in crate::synthesis) has_setup_cfg: bool,
    /// `build-backend`.
    pub(in crate::synthesis) backend: Option<String>,
    /// `build-system.requires` and `setup_requires`.
    pub(in crate::synthesis) requires: Vec<String>,
    /// The setup script asks for what new setuptools no longer has, so that it must be older than this.
    pub(in crate::synthesis) setuptools_below: Option<&'static str>,
    /// Packages lie below `src/`.
    pub(in crate::synthesis) has_src: bool,
}

/// A place where requirements for tests stand.
#[derive(Clone, Debug)]
pub(in crate::synthesis) struct Source {
    /// Which, for people: `extra test`, `requirements-dev.txt`.
    pub(in crate::synthesis) label: String,
    /// How likely it is meant for tests.
    pub(in crate::synthesis) tier: Tier,
    /// What stands there.
    pub(in crate::synthesis) content: Content,
}

/// What a [`Source`] gives.
#[derive(Clone, Debug)]
pub(in crate::synthesis) enum Content {
    /// An extra of the project: its name, and its requirements as far as they can be read.
    Extra(String, Vec<String>),
    /// Requirement lines.
    Lines(Vec<String>),
}

/// How likely requirements are meant for tests; better ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::synthesis) enum Tier {
    /// Named after tests.
    Test,
    /// Named after development.
    Development,
    /// What CI or another tool installs on its way.
    Incidental,
}

impl Tier {
    /// What a name of an extra, a group or a file promises; `None` for documentation and the like.
    pub(in crate::synthesis) fn of_name(name: &str) -> Option<Self> {
        let name = normalise(name);
        let words: Vec<&str> = name.split('-').collect();
        let has = |list: &[&str]| words.iter().any(|word| list.contains(word));
        if has(&[
            "doc",
            "docs",
            "lint",
            "linting",
            "typing",
            "types",
            "mypy",
            "release",
            "benchmark",
            "benchmarks",
            "rtd",
        ]) {
            return None;
        }
        if has(&["test", "tests", "testing", "pytest", "unittest", "unittests", "tester"]) {
            Some(Self::Test)
        } else if has(&["dev", "develop", "development", "devel", "developer"]) {
            Some(Self::Development)
        } else if has(&["ci", "all", "full", "check", "checks", "qa"]) {
            Some(Self::Incidental)
        } else {
            None
        }
    }
}

impl Source {
    /// Whether a test runner is among its requirements.
    pub(in crate::synthesis) fn has_runner(&self) -> bool {
        self.lists("pytest")
    }

    /// Whether a distribution is among its requirements; `name` is normalised.
    pub(in crate::synthesis) fn lists(&self, name: &str) -> bool {
        let (Content::Extra(_, lines) | Content::Lines(lines)) = &self.content;
        lines.iter().any(|line| {
            let line =
                normalise(line.split([' ', '<', '>', '=', '~', '!', '[', ';', '(']).next().unwrap_or(line));
            line == name
        })
    }
}

impl Project {
    /// Adds a source whose name says what it is for; others are of no use.
    pub(super) fn add_named(&mut self, name: &str, label: String, content: Content) {
        if let Some(tier) = Tier::of_name(name) {
            self.sources.push(Source { label, tier, content });
        }
    }

    /// Adds what a file says about Pythons.
    pub(super) fn add_pythons(&mut self, pythons: Vec<PythonVersion>, file: &'static str) {
        if !pythons.is_empty() {
            self.python_lists.push((pythons, file));
        }
    }

    /// Whether there is something to install.
    pub(in crate::synthesis) fn is_installable(&self) -> bool {
        self.build.has_pyproject || self.build.has_setup_py || self.build.has_setup_cfg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_from_a_name_what_requirements_are_for() {
        let check = |name: &str, expected: Option<Tier>| assert_eq!(Tier::of_name(name), expected, "{name}");
        check("tests", Some(Tier::Test));
        check("requirements_test_min", Some(Tier::Test));
        check("dev", Some(Tier::Development));
        check("dev-requirements", Some(Tier::Development));
        check("docs", None);
        check("test-docs", None);
        check("socks", None);
        check("attest", None);
        check("all", Some(Tier::Incidental));
    }
}
