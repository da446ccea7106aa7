//! What was expected of the corpus, and what a run made of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::{ACCEPTED, Task};

/// By task id; what `expected.json` holds.
pub type Expectations = BTreeMap<String, Expectation>;

/// By task id: `accepted`, or a reason of failure.
pub type Outcomes = BTreeMap<String, String>;

/// What a verifier must make of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// `accepted`, or a [`queue_format::FailureReason`].
    pub expected: String,
    /// Some tests that must be among those that fail before and pass after.
    pub fail_to_pass: Vec<String>,
    /// Belongs to the handful of `make demo`.
    pub demo: bool,
    /// Belongs to the few of `make test`.
    pub ci: bool,
}

impl From<&Task> for Expectation {
    fn from(task: &Task) -> Self {
        let (expected, fail_to_pass) = (task.expected.clone(), task.fail_to_pass.clone());
        Self { expected, fail_to_pass, demo: task.demo, ci: task.ci }
    }
}

/// Expectation against outcome, a line a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    id: String,
    expected: String,
    got: String,
}

/// Holds outcomes against expectations. A task without an outcome got `missing`, one that nobody expected is
/// expected to be `missing`: neither is in order.
#[must_use]
pub fn compare(expectations: &Expectations, outcomes: &Outcomes) -> Comparison {
    let missing = || "missing".to_owned();
    let mut lines: Vec<_> = expectations
        .iter()
        .map(|(id, expectation)| Line {
            id: id.clone(),
            expected: expectation.expected.clone(),
            got: outcomes.get(id).cloned().unwrap_or_else(missing),
        })
        .collect();
    let unexpected = outcomes.iter().filter(|(id, _)| !expectations.contains_key(*id));
    lines.extend(unexpected.map(|(id, got)| Line { id: id.clone(), expected: missing(), got: got.clone() }));
    Comparison { lines }
}

impl Comparison {
    /// Whether every task came to what was expected.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.lines.iter().all(Line::is_ok)
    }

    /// Tasks that were accepted and must never have been: the gravest kind of error.
    pub fn wrongly_accepted(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter(|line| line.got == ACCEPTED && !line.is_ok()).map(|line| line.id.as_str())
    }
}

impl Line {
    fn is_ok(&self) -> bool {
        self.expected == self.got
    }
}

impl fmt::Display for Comparison {
    /// A table: id, expected, got, ok; then a sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|line| line.id.len()).max().unwrap_or_default().max(2);
        writeln!(f, "{:width$}  {:16}  {:16}  ok", "id", "expected", "got")?;
        for line in &self.lines {
            let ok = if line.is_ok() { "yes" } else { "NO" };
            writeln!(f, "{:width$}  {:16}  {:16}  {ok}", line.id, line.expected, line.got)?;
        }
        let met = self.lines.iter().filter(|line| line.is_ok()).count();
        write!(f, "{met} of {} as expected", self.lines.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_outcomes_against_expectations() {
        let check =
            |expected: &[(&str, &str)], got: &[(&str, &str)], ok: bool, wrong: &[&str], shown: &str| {
                let expectation = |expected: &str| Expectation {
                    expected: expected.into(),
                    fail_to_pass: vec![],
                    demo: false,
                    ci: false,
                };
                let expectations = expected.iter().map(|(id, e)| ((*id).into(), expectation(e))).collect();
                let outcomes = got.iter().map(|(id, got)| ((*id).into(), (*got).into())).collect();
                let comparison = compare(&expectations, &outcomes);
                assert_eq!(comparison.is_ok(), ok, "{comparison}");
                assert_eq!(comparison.wrongly_accepted().collect::<Vec<_>>(), wrong, "{comparison}");
                assert!(comparison.to_string().contains(shown), "{comparison}");
            };
        check(&[("a", "accepted")], &[("a", "accepted")], true, &[], "1 of 1 as expected");
        check(&[("a", "flaky")], &[("a", "flaky")], true, &[], "yes");
        check(&[("a", "flaky")], &[("a", "accepted")], false, &["a"], "NO");
        check(&[("a", "accepted")], &[("a", "build")], false, &[], "build");
        check(&[("a", "accepted")], &[], false, &[], "missing");
        check(&[], &[("b", "accepted")], false, &["b"], "0 of 1");
    }
}
