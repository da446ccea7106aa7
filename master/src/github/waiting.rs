use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::compare::Diff;
use crate::filter::MISSING_FIELD;

/// Runs that ask for a diff in vain before there is held to be none.
const RUNS_MAX: u32 = 3;

/// A pull request of which all is read but its diff.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) repo: String,
    pub(super) number: u64,
    /// Where the branch was to be merged, and its last commit.
    pub(super) base: String,
    pub(super) head: String,
    /// Runs that asked in vain.
    pub(super) runs: u32,
    /// All else of its row.
    pub(super) row: Value,
    /// Whether the run that is under way has asked in vain.
    #[serde(skip)]
    pub(super) is_counted: bool,
}

impl Waiting {
    /// The row with what the server said of its diff, or what still waits.
    pub(super) fn with(mut self, diff: Diff) -> Result<Value, Box<Self>> {
        match diff {
            Diff::Read { base, patch } => {
                (self.row["base_commit"], self.row["patch"]) = (base.into(), patch.into());
                Ok(self.row)
            }
            Diff::Missing(why) => Ok(self.without(why)),
            Diff::Later(_) if self.is_counted => Err(Box::new(self)),
            Diff::Later(why) if self.runs + 1 >= RUNS_MAX => Ok(self.without(why)),
            Diff::Later(_) => Err(Box::new(Self { runs: self.runs + 1, is_counted: true, ..self })),
        }
    }

    /// The row of a pull request that has no diff.
    pub(super) fn without(mut self, why: String) -> Value {
        self.row[MISSING_FIELD] = why.into();
        self.row
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_diff_is_held_to_be_missing_after_three_runs_or_when_the_server_says_so() {
        let check = |runs: u32, is_counted: bool, diff: Diff, expected: Result<Value, u32>| {
            let (repo, base, head) = ("o/n".to_owned(), "b".to_owned(), "h".to_owned());
            let waiting = Waiting { repo, number: 1, base, head, runs, row: json!({}), is_counted };
            assert_eq!(waiting.with(diff).map_err(|waiting| waiting.runs), expected, "{runs} {is_counted}");
        };
        let later = || Diff::Later("503".to_owned());
        let missing = || Ok(json!({ "patch_missing": "503" }));
        check(0, false, later(), Err(1));
        check(1, true, later(), Err(1));
        check(1, false, later(), Err(2));
        check(2, false, later(), missing());
        check(0, false, Diff::Missing("503".to_owned()), missing());
        let read = Diff::Read { base: "m".to_owned(), patch: "p".to_owned() };
        check(2, true, read, Ok(json!({ "base_commit": "m", "patch": "p" })));
    }
}
