use std::collections::HashMap;

use jiff::Timestamp;
use queue_format::{Located, Spool, State, TaskId, Token, Verdict};

/// What is known of settled tasks; remembered between looks, for a manifest never changes.
#[derive(Debug, Default)]
pub struct Manifests {
    seen: HashMap<(TaskId, Token), Outcome>,
}

/// What a settled task's manifest says, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it counts as where it is done: an acceptance class, or `completed`.
    pub class: Option<&'static str>,
    /// When its claim was made.
    pub started_at: Timestamp,
    /// When its verdict was reached.
    pub finished_at: Timestamp,
}

impl Manifests {
    /// The outcome of each settled task among `tasks`; `None` where its manifest is missing or damaged.
    pub fn outcomes<'a>(
        &mut self,
        spool: &Spool,
        tasks: &'a [Located],
    ) -> Vec<(&'a Located, Option<Outcome>)> {
        let settled = tasks.iter().filter(|task| matches!(task.state, State::Done | State::Failed(_)));
        settled.map(|task| (task, self.outcome(spool, task))).collect()
    }

    fn outcome(&mut self, spool: &Spool, task: &Located) -> Option<Outcome> {
        let key = (task.name.id.clone(), task.name.token);
        if let Some(known) = self.seen.get(&key) {
            return Some(*known);
        }
        let manifest = spool.manifest(&task.name.id, task.name.token).ok()??;
        let class = match manifest.verdict {
            Verdict::Accepted { class } => Some(class.as_str()),
            Verdict::Completed => Some("completed"),
            Verdict::Failed { .. } => None,
        };
        let outcome = Outcome { class, started_at: manifest.started_at, finished_at: manifest.finished_at };
        self.seen.insert(key, outcome);
        Some(outcome)
    }
}
