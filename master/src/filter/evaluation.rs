use std::collections::HashSet;

use queue_format::Instance;
use serde_json::Value;

use super::facts::identity;

/// What must not be learnt from: the instances of evaluation sets, by repository and number, and by base commit.
#[derive(Clone, Debug, Default)]
pub struct EvaluationSet {
    pulls: HashSet<(String, u64)>,
    base_commits: HashSet<String>,
    repositories: HashSet<String>,
}

impl EvaluationSet {
    /// Adds a row of any dataset that is understood.
    ///
    /// # Errors
    /// It names no repository, or neither a number nor a base commit.
    pub fn insert(&mut self, row: &Value) -> Result<(), String> {
        let row = row.as_object().ok_or("expected an object with the fields of a task")?;
        let (repo, number, base_commit) = identity(row);
        if repo.is_empty() || (number == 0 && base_commit.is_empty()) {
            return Err("it names no repository, or neither a number nor a base commit".to_owned());
        }
        if number > 0 {
            self.pulls.insert((repo.clone(), number));
        }
        if !base_commit.is_empty() {
            self.base_commits.insert(base_commit);
        }
        self.repositories.insert(repo);
        Ok(())
    }

    /// Why an instance must be left out, if it must.
    pub(super) fn has(&self, instance: &Instance, by_repository: bool) -> Option<&'static str> {
        let repo = instance.repo.to_ascii_lowercase();
        if self.base_commits.contains(&instance.base_commit.to_ascii_lowercase()) {
            Some("an evaluation set has the base commit")
        } else if by_repository && self.repositories.contains(&repo) {
            Some("an evaluation set has the repository")
        } else if self.pulls.contains(&(repo, instance.pull_number)) {
            Some("an evaluation set has the pull request")
        } else {
            None
        }
    }
}
