//! What was expected of the corpus, and what a run made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::{ACCEPTED, Task};

/// By task id; what `expected.json` holds.
pub type Expectations = BTreeMap<String, Expectation>;

/// By task id.
pub type Outcomes = BTreeMap<String, Outcome>;

/// What a run made of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// `accepted`, a [`queue_format::FailureReason`], or the state of a task that has no verdict yet.
    pub outcome: String,
    /// What exactly, in one line; empty where nobody said.
    pub detail: String,
    /// The tests that failed before and passed after, where that is known.
    pub fail_to_pass: Option<BTreeSet<String>>,
}

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
    /// What is not as expected; empty where everything is.
    amiss: String,
}

/// Holds outcomes against expectations. A task without an outcome got `missing`, one that nobody expected is
/// expected to be `missing`: neither is in order.
#[must_use]
pub fn compare(expectations: &Expectations, outcomes: &Outcomes) -> Comparison {
    let missing = Outcome { outcome: "missing".to_owned(), ..Outcome::default() };
    let mut lines: Vec<_> = expectations
        .iter()
        .map(|(id, expectation)| Line::new(id, expectation, outcomes.get(id).unwrap_or(&missing)))
        .collect();
    for (id, outcome) in outcomes.iter().filter(|(id, _)| !expectations.contains_key(*id)) {
        let (expected, got) = (missing.outcome.clone(), outcome.outcome.clone());
        lines.push(Line { id: id.clone(), expected, got, amiss: "nobody expected this task".to_owned() });
    }
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
        let wrong = |line: &&Line| line.got == ACCEPTED && line.expected != ACCEPTED;
        self.lines.iter().filter(wrong).map(|line| line.id.as_str())
    }
}

impl Line {
    fn new(id: &str, expectation: &Expectation, outcome: &Outcome) -> Self {
        let (expected, got) = (expectation.expected.clone(), outcome.outcome.clone());
        let unseen = outcome
            .fail_to_pass
            .as_ref()
            .and_then(|seen| expectation.fail_to_pass.iter().find(|test| !seen.contains(*test)));
        let amiss = match unseen {
            _ if expected != got && outcome.detail.is_empty() => "another outcome".to_owned(),
            _ if expected != got => outcome.detail.clone(),
            Some(test) => format!("not among fail to pass: {test}"),
            None => String::new(),
        };
        Self { id: id.to_owned(), expected, got, amiss }
    }

    fn is_ok(&self) -> bool {
        self.amiss.is_empty()
    }
}

impl fmt::Display for Comparison {
    /// A table: id, expected, got, ok, what is amiss; then a sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|line| line.id.len()).max().unwrap_or_default().max(2);
        writeln!(f, "{:width$}  {:16}  {:16}  ok", "id", "expected", "got")?;
        for line in &self.lines {
            let ok = if line.is_ok() { "yes" } else { "NO" };
            let text =
                format!("{:width$}  {:16}  {:16}  {ok}   {}", line.id, line.expected, line.got, line.amiss);
            writeln!(f, "{}", text.trim_end())?;
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
                    fail_to_pass: if expected == ACCEPTED { vec!["t.py::one".into()] } else { vec![] },
                    demo: false,
                    ci: false,
                };
                let outcome = |got: &str| match got.split_once(' ') {
                    Some((got, tests)) => {
                        let tests = tests.split(' ').map(str::to_owned).collect();
                        Outcome { outcome: got.into(), detail: String::new(), fail_to_pass: Some(tests) }
                    }
                    None => Outcome { outcome: got.into(), detail: "told".into(), fail_to_pass: None },
                };
                let expectations = expected.iter().map(|(id, e)| ((*id).into(), expectation(e))).collect();
                let outcomes = got.iter().map(|(id, got)| ((*id).into(), outcome(got))).collect();
                let comparison = compare(&expectations, &outcomes);
                assert_eq!(comparison.is_ok(), ok, "{comparison}");
                assert_eq!(comparison.wrongly_accepted().collect::<Vec<_>>(), wrong, "{comparison}");
                assert!(comparison.to_string().contains(shown), "{comparison}");
            };
        check(&[("a", "accepted")], &[("a", "accepted")], true, &[], "1 of 1 as expected");
        check(&[("a", "accepted")], &[("a", "accepted t.py::one t.py::two")], true, &[], "yes");
        check(
            &[("a", "accepted")],
            &[("a", "accepted t.py::two")],
            false,
            &[],
            "not among fail to pass: t.py::one",
        );
        check(&[("a", "flaky")], &[("a", "flaky")], true, &[], "yes");
        check(&[("a", "flaky")], &[("a", "accepted")], false, &["a"], "NO");
        check(&[("a", "accepted")], &[("a", "build")], false, &[], "told");
        check(&[("a", "accepted")], &[], false, &[], "missing");
        check(&[], &[("b", "accepted")], false, &["b"], "0 of 1");
    }
}
