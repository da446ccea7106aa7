use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use jiff::Timestamp;
use queue_format::{FailureReason, TaskId};
use serde::{Deserialize, Serialize};

use super::CorpusError;

/// What a task is expected to come to when it is not a reason of failure.
pub(super) const ACCEPTED: &str = "accepted";

/// The table `tests/corpus/tasks.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// By the name that its source distributions carry.
    pub packages: BTreeMap<String, Package>,
    /// In the order of the file.
    pub tasks: Vec<Task>,
}

/// A package of the index.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its home, `owner/name`.
    pub repository: String,
    /// By version.
    pub releases: BTreeMap<String, Release>,
}

/// One source distribution, `<package>-<version>.tar.gz`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Of the archive, in hex.
    pub sha256: String,
    /// When it was uploaded to the index.
    pub released_at: Timestamp,
}

/// A base release, what the next one fixes, and what a verifier must make of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Also the row's `instance_id`.
    pub id: String,
    /// A key of [`Table::packages`].
    pub package: String,
    /// The version with the fault.
    pub base: String,
    /// The version without.
    pub fixed: String,
    /// Files of the fixed release that become the test patch.
    pub tests: Vec<String>,
    /// Files of the fixed release that become the fix.
    pub fix: Vec<String>,
    /// What goes wrong, in our own words.
    pub problem_statement: String,
    /// `accepted`, or a [`FailureReason`].
    pub expected: String,
    /// Some tests that fail before and pass after, as pytest names them; of accepted tasks only.
    #[serde(default)]
    pub fail_to_pass: Vec<String>,
    /// Belongs to the handful of `make demo`.
    #[serde(default)]
    pub demo: bool,
    /// Belongs to the few of `make test`.
    #[serde(default)]
    pub ci: bool,
    /// How the real change is spoilt, in tasks that are meant to fail.
    #[serde(default)]
    pub edits: Vec<Edit>,
}

/// A deliberate change to a tree or to a patch.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Where in the task it is made.
    pub at: EditAt,
    /// The file of the tree; not for patches.
    #[serde(default)]
    pub path: String,
    /// Text that must be there exactly once; without it `text` goes to the end of the file.
    pub find: Option<String>,
    /// What it becomes.
    pub text: String,
}

/// Where an [`Edit`] is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EditAt {
    /// The tree before the fix.
    Base,
    /// The tree after the fix; the file belongs to the fix.
    Fix,
    /// The tree after the fix; the file belongs to the test patch.
    Tests,
    /// The text of the test patch.
    TestPatch,
}

impl Table {
    /// The table that this repository carries.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn shipped() -> Result<Self, CorpusError> {
        Self::parse(include_str!("../../corpus/tasks.toml"))
    }

    /// Reads a table and checks every entry.
    ///
    /// # Errors
    /// The first entry that is not usable.
    pub fn parse(text: &str) -> Result<Self, CorpusError> {
        let table: Self = toml::from_str(text).map_err(CorpusError::TableSyntax)?;
        for (name, package) in &table.packages {
            package
                .check()
                .map_err(|why| CorpusError::TableEntry { entry: format!("package {name}"), why })?;
        }
        let mut ids = BTreeSet::new();
        for task in &table.tasks {
            let checked =
                if ids.insert(&task.id) { task.check(&table) } else { Err("the id is taken".into()) };
            checked.map_err(|why| CorpusError::TableEntry { entry: format!("task {}", task.id), why })?;
        }
        Ok(table)
    }

    /// The package, and the base and fixed releases of a task.
    #[must_use]
    pub fn releases(&self, task: &Task) -> Option<(&Package, &Release, &Release)> {
        let package = self.packages.get(&task.package)?;
        Some((package, package.releases.get(&task.base)?, package.releases.get(&task.fixed)?))
    }
}

impl Package {
    fn check(&self) -> Result<(), String> {
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if !self.repository.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name)) {
            return Err(format!("repository {:?} is not owner/name", self.repository));
        }
        for (version, release) in &self.releases {
            if release.sha256.len() != 64 || !release.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(format!("the sha256 of {version} is not 64 hex digits"));
            }
        }
        Ok(())
    }
}

impl Task {
    /// The file name of one of the two releases.
    #[must_use]
    pub fn archive(&self, version: &str) -> String {
        format!("{}-{version}.tar.gz", self.package)
    }

    fn check(&self, table: &Table) -> Result<(), String> {
        self.id.parse::<TaskId>().map_err(|error| error.to_string())?;
        let (_, base, fixed) = table.releases(self).ok_or_else(|| {
            format!("{} {} or {} is not under [packages]", self.package, self.base, self.fixed)
        })?;
        if base.released_at >= fixed.released_at {
            return Err("the base was not released before the fix".into());
        }
        if self.problem_statement.trim().is_empty() {
            return Err("problem_statement is empty".into());
        }
        if self.expected != ACCEPTED {
            self.expected.parse::<FailureReason>().map_err(|error| format!("expected: {error}"))?;
        }
        if (self.expected == ACCEPTED) == self.fail_to_pass.is_empty() {
            return Err("fail_to_pass goes with expected = \"accepted\", and with that alone".into());
        }
        self.check_files()
    }

    fn check_files(&self) -> Result<(), String> {
        let edited = |at| self.edits.iter().any(|edit| edit.at == at);
        if self.tests.is_empty() && !edited(EditAt::Tests) {
            return Err("tests names no file".into());
        }
        if self.fix.is_empty() && !edited(EditAt::Fix) {
            return Err("fix names no file".into());
        }
        if let Some(path) = self.fix.iter().find(|path| self.tests.contains(path)) {
            return Err(format!("{path} is both of the tests and of the fix"));
        }
        let in_trees = self.edits.iter().filter(|edit| edit.at != EditAt::TestPatch).map(|edit| &edit.path);
        for path in self.tests.iter().chain(&self.fix).chain(in_trees) {
            if path.is_empty()
                || !Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
            {
                return Err(format!("{path:?} is not a path inside the tree"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = r#"
        [packages.ham]
        repository = "spam/ham"
        [packages.ham.releases]
        "1.0" = { sha256 = "0000000000000000000000000000000000000000000000000000000000000000", released_at = "2020-01-01T00:00:00Z" }
        "1.1" = { sha256 = "1111111111111111111111111111111111111111111111111111111111111111", released_at = "2020-02-01T00:00:00Z" }
        [[tasks]]
        id = "ham-1.1"
        package = "ham"
        base = "1.0"
        fixed = "1.1"
        tests = ["tests/test_ham.py"]
        fix = ["ham.py"]
        problem_statement = "Ham is green."
        expected = "accepted"
        fail_to_pass = ["tests/test_ham.py::test_colour"]
    "#;

    #[test]
    fn refuses_entries_that_are_not_usable() {
        let check = |find: &str, replace: &str, expected: &str| {
            assert!(VALID.contains(find), "{find}");
            let error = Table::parse(&VALID.replace(find, replace)).expect_err(expected);
            let text = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
            assert!(text.contains(expected), "{text}");
        };
        Table::parse(VALID).expect("valid");
        check("ham-1.1", "../ham", "task ../ham");
        check("ham-1.1", "Ham-1.1", "Ham-1.1");
        check("spam/ham", "../../ham", "is not owner/name");
        check("\"accepted\"", "\"no-idea\"", "no-idea");
        check("\"accepted\"", "\"flaky\"", "fail_to_pass goes with");
        check("[\"tests/test_ham.py::test_colour\"]", "[]", "fail_to_pass goes with");
        check("base = \"1.0\"", "base = \"0.9\"", "not under [packages]");
        check("2020-02-01", "2019-02-01", "not released before");
        check("Ham is green.", " ", "problem_statement");
        check("[\"ham.py\"]", "[]", "fix names no file");
        check("[\"ham.py\"]", "[\"/etc/passwd\"]", "not a path inside the tree");
        check("[\"ham.py\"]", "[\"../ham.py\"]", "not a path inside the tree");
        check("[\"ham.py\"]", "[\"tests/test_ham.py\"]", "both of the tests and of the fix");
        check("1111111111111111", "1111", "64 hex digits");
        check("fix = ", "fixes = ", "unknown field");
        let twice = VALID.split("[[tasks]]").nth(1).expect("one task");
        let error = Table::parse(&format!("{VALID}\n[[tasks]]{twice}")).expect_err("twice");
        assert!(error.to_string().contains("taken"), "{error}");
    }

    #[test]
    fn the_shipped_table_is_wide_enough() {
        let table = Table::shipped().expect("valid");
        let packages: BTreeSet<_> = table.tasks.iter().map(|task| &task.package).collect();
        let refused: BTreeSet<_> = table.tasks.iter().map(|task| &task.expected).collect();
        assert!(
            table.tasks.len() >= 12 && packages.len() >= 8,
            "{} of {}",
            table.tasks.len(),
            packages.len()
        );
        assert!(refused.len() >= 4, "accepted and three reasons: {refused:?}");
        let demo: Vec<_> = table.tasks.iter().filter(|task| task.demo).collect();
        assert!((5..=6).contains(&demo.len()), "{}", demo.len());
        assert!(demo.iter().any(|task| task.expected != ACCEPTED));
        assert!(table.tasks.iter().any(|task| task.ci));
    }
}
