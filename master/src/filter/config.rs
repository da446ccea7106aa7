use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::patch::TEST_WORDS;
#[cfg(doc)]
use crate::patch::TestPaths;

/// The `[ingest]` section: the thresholds of the filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilterConfig {
    /// The fewest stars of a repository.
    pub stars_min: u64,
    /// The primary languages that are taken, in any case.
    pub languages: Vec<String>,
    /// Paths with one of these words in them, in any case, are tests; [`TestPaths`] tells how.
    pub test_words: Vec<String>,
    /// Files of rows that must not be learnt from: what has the repository and number, or the base commit, of one.
    pub evaluation_sets: Vec<PathBuf>,
    /// Whether everything of a repository that is in an evaluation set is left out.
    pub evaluation_repositories: bool,
    /// SPDX names of the licences that are allowed, in any case; none: all are.
    pub licences: Vec<String>,
    /// Whether rows that name no licence pass where only some are allowed.
    pub licence_unknown: bool,
    /// The largest patch, fix and tests together.
    pub patch_bytes_max: usize,
    /// The most files that a patch may change.
    pub patch_files_max: usize,
    /// The longest problem statement.
    pub statement_bytes_max: usize,
    /// The most that the issue may quote of the fix, 0 to 1; unset: whatever it does.
    pub issue_quotes_patch_max: Option<f64>,
    /// The most that the issue may tell of where the fix goes, 0 to 1; unset: whatever it does.
    pub issue_names_place_max: Option<f64>,
    /// The most of what the issue names that the fix may leave alone, 0 to 1; unset: whatever it does.
    pub patch_misses_issue_max: Option<f64>,
}

impl Default for FilterConfig {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            stars_min: 5,
            languages: words(&["Python"]),
            test_words: words(&TEST_WORDS),
            evaluation_sets: Vec::new(),
            evaluation_repositories: false,
            licences: Vec::new(),
            licence_unknown: false,
            patch_bytes_max: 1 << 20,
            patch_files_max: 200,
            statement_bytes_max: 1 << 18,
            issue_quotes_patch_max: None,
            issue_names_place_max: None,
            patch_misses_issue_max: None,
        }
    }
}

impl FilterConfig {
    /// Checks what a type cannot express.
    ///
    /// # Errors
    /// The key that is wrong, and what is expected.
    pub fn check(&self) -> Result<(), String> {
        let lists = [("languages", &self.languages), ("test_words", &self.test_words)];
        for (key, words) in lists {
            if words.is_empty() || words.iter().any(|word| word.trim().is_empty()) {
                return Err(format!("ingest.{key} has no word, or one that is blank; expected at least one"));
            }
        }
        let shares = [
            ("issue_quotes_patch_max", self.issue_quotes_patch_max),
            ("issue_names_place_max", self.issue_names_place_max),
            ("patch_misses_issue_max", self.patch_misses_issue_max),
        ];
        for (key, share) in shares {
            if let Some(share) = share.filter(|share| !(0.0..=1.0).contains(share)) {
                return Err(format!("ingest.{key} is {share}, expected 0 to 1"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_key_that_is_wrong() {
        let check = |change: fn(&mut FilterConfig), expected: Result<(), &str>| {
            let mut config = FilterConfig::default();
            change(&mut config);
            let got = config.check().map_err(|why| why.split(' ').next().unwrap_or_default().to_owned());
            assert_eq!(got, expected.map_err(str::to_owned));
        };
        check(|_| (), Ok(()));
        check(|c| c.issue_quotes_patch_max = Some(0.5), Ok(()));
        check(|c| c.languages.clear(), Err("ingest.languages"));
        check(|c| c.test_words.push(" ".to_owned()), Err("ingest.test_words"));
        check(|c| c.patch_misses_issue_max = Some(1.5), Err("ingest.patch_misses_issue_max"));
        check(|c| c.issue_names_place_max = Some(f64::NAN), Err("ingest.issue_names_place_max"));
    }
}
