use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use queue_format::{Condition, RunRecord, TestStatus, Transitions};
use regex::Regex;

static NO_MODULE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"No module named ['"]?([A-Za-z_]\w*)"#).ok());

/// How every test's status moved, and what no list of [`Transitions`] can hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    pub(super) transitions: Transitions,
    /// Flaky tests that passed in some run without the fix and failed in some run with it.
    pub(super) maybe_broken: BTreeSet<String>,
    /// Flaky tests that failed in some run without the fix and passed in some run with it.
    pub(super) maybe_fixed: BTreeSet<String>,
    /// Pass after the fix, but before it their file missed a module that is not the project's: the environment's
    /// fault, which proves nothing.
    pub(super) without_dependency: BTreeSet<String>,
    /// Pass before the fix, and are skipped or not there with it.
    pub(super) gone: BTreeSet<String>,
    /// Fail before the fix, and are skipped or not there with it.
    pub(super) evaded: BTreeSet<String>,
    /// Others that are known to one condition only, or skipped in one.
    pub(super) in_one_condition: BTreeSet<String>,
}

/// What one condition's runs say of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Passed,
    Failed,
    Skipped,
    Missing,
    /// Its file could not be imported, for want of this project's own or through an error of its own.
    NotImported,
    /// Its file could not be imported for want of a module of somebody else.
    NoDependency,
    /// It differs between the runs.
    Mixed {
        passed: bool,
        failed: bool,
    },
}

impl Seen {
    fn in_run(run: &RunRecord, test: &str, own_names: &BTreeSet<String>) -> Self {
        match run.tests.get(test) {
            Some(TestStatus::Passed) => Self::Passed,
            Some(TestStatus::Failed | TestStatus::Error) => Self::Failed,
            Some(TestStatus::Skipped) => Self::Skipped,
            None => match run.collection_errors.iter().find(|(path, _)| covers(path, test)) {
                Some((_, line)) if misses_dependency(line, own_names) => Self::NoDependency,
                Some(_) => Self::NotImported,
                None => Self::Missing,
            },
        }
    }

    fn in_runs(runs: &[&RunRecord], test: &str, own_names: &BTreeSet<String>) -> Self {
        let seen: Vec<Self> = runs.iter().map(|run| Self::in_run(run, test, own_names)).collect();
        match seen.split_first() {
            None => Self::Missing,
            Some((first, rest)) if rest.iter().all(|other| other == first) => *first,
            Some(_) => Self::Mixed {
                passed: seen.contains(&Self::Passed),
                failed: seen.iter().any(|seen| seen.may_fail()),
            },
        }
    }

    fn may_pass(self) -> bool {
        matches!(self, Self::Passed | Self::Mixed { passed: true, .. })
    }

    fn may_fail(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::NotImported | Self::NoDependency | Self::Mixed { failed: true, .. }
        )
    }
}

/// Compares the two conditions, test by test.
pub(super) fn moves(runs: &[RunRecord], own_names: &BTreeSet<String>) -> Moves {
    let of = |condition| runs.iter().filter(|run| run.condition == condition).collect::<Vec<_>>();
    let (before_runs, after_runs) = (of(Condition::TestOnly), of(Condition::WithFix));
    let tests: BTreeSet<&String> = runs.iter().flat_map(|run| run.tests.keys()).collect();
    let mut moves = Moves::default();
    for test in tests {
        let before = Seen::in_runs(&before_runs, test, own_names);
        let after = Seen::in_runs(&after_runs, test, own_names);
        moves.take(test, before, after);
    }
    moves
}

impl Moves {
    fn take(&mut self, test: &str, before: Seen, after: Seen) {
        use Seen::{Failed, Missing, Mixed, NoDependency, NotImported, Passed, Skipped};
        let lists = &mut self.transitions;
        let put = |list: &mut BTreeSet<String>| list.insert(test.to_owned());
        match (before, after) {
            (Mixed { .. }, _) | (_, Mixed { .. }) => {
                put(&mut lists.flaky);
                if before.may_pass() && after.may_fail() {
                    put(&mut self.maybe_broken);
                }
                if before.may_fail() && after.may_pass() {
                    put(&mut self.maybe_fixed);
                }
            }
            (Failed, Passed) => {
                put(&mut lists.fail_to_pass);
            }
            (NotImported, Passed) => {
                put(&mut lists.fail_to_pass);
                put(&mut lists.error_to_pass);
            }
            (NoDependency, Passed) => {
                put(&mut self.without_dependency);
            }
            (Passed, Passed) => {
                put(&mut lists.pass_to_pass);
            }
            (Passed, Failed | NotImported | NoDependency) => {
                put(&mut lists.pass_to_fail);
            }
            (Failed | NotImported | NoDependency, Failed | NotImported | NoDependency) => {
                put(&mut lists.fail_to_fail);
            }
            (Passed, Skipped | Missing) => {
                put(&mut self.gone);
            }
            (Failed | NotImported | NoDependency, Skipped | Missing) => {
                put(&mut self.evaded);
            }
            (Skipped | Missing, _) => {
                put(&mut self.in_one_condition);
            }
        }
    }
}

/// Whether a collection error at `path` keeps `test` from being collected.
fn covers(path: &str, test: &str) -> bool {
    let file = test.split("::").next().unwrap_or(test);
    let dir = ["conftest.py", "__init__.py"].iter().find_map(|name| path.strip_suffix(name)).unwrap_or(path);
    file == path
        || (dir != path && (dir.is_empty() || dir.ends_with('/')) && file.starts_with(dir))
        || file.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether an exception's line is about a missing module that is not the project's own.
pub(super) fn misses_dependency(line: &str, own_names: &BTreeSet<String>) -> bool {
    let captures = NO_MODULE.as_ref().and_then(|pattern| pattern.captures(line));
    captures.is_some_and(|captures| !own_names.contains(&captures[1]))
}

/// The first collection error of the runs that is about a missing dependency, with its file.
pub(super) fn missing_dependency<'a>(
    runs: impl Iterator<Item = &'a RunRecord>,
    own_names: &BTreeSet<String>,
) -> Option<(&'a String, &'a String)> {
    let mut errors: BTreeMap<&String, &String> = BTreeMap::new();
    for run in runs {
        errors.extend(run.collection_errors.iter().filter(|(_, line)| misses_dependency(line, own_names)));
    }
    errors.pop_first()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_error_covers_what_it_keeps_away() {
        for (path, test, expected) in [
            ("t/a.py", "t/a.py::x", true),
            ("t/a.py", "t/ab.py::x", false),
            ("t/a.py", "t/a.py", true),
            ("t/conftest.py", "t/deep/a.py::x", true),
            ("t/conftest.py", "u/a.py::x", false),
            ("conftest.py", "u/a.py::x", true),
            ("myconftest.py", "u/a.py::x", false),
            ("t/__init__.py", "t/a.py::x", true),
            ("t", "t/a.py::x", true),
            ("t", "ta/a.py::x", false),
        ] {
            assert_eq!(covers(path, test), expected, "{path} {test}");
        }
    }

    #[test]
    fn a_dependency_is_what_the_project_has_not() {
        let own = BTreeSet::from(["pkg".to_owned(), "newmod".to_owned()]);
        for (line, expected) in [
            ("ModuleNotFoundError: No module named 'six'", true),
            ("ImportError: No module named six.moves", true),
            ("ModuleNotFoundError: No module named 'pkg.deep'", false),
            ("ImportError: No module named newmod", false),
            ("ImportError: cannot import name 'x' from 'six' (/opt/six.py)", false),
            ("AttributeError: module 'pkg' has no attribute 'x'", false),
        ] {
            assert_eq!(misses_dependency(line, &own), expected, "{line}");
        }
    }
}
