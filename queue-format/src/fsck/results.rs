use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::finding::{Check, Severity, Step};
use super::index::key;
use super::items::look;
use super::run::{Depth, Run};
use crate::{Located, MANIFEST_FILE, PathError, Spool, State, TaskId, TaskName, Token};

/// Suspicions that are kept at once; the next check finds the others.
const SUSPICIONS_MAX: usize = 100_000;

/// What seemed wrong at the first look.
#[derive(Default)]
pub(super) struct Suspicions {
    /// By id, the highest token of an attempt that is higher than the task's own.
    behind: HashMap<TaskId, Token>,
    /// Ids with results that were not seen.
    orphans: HashSet<TaskId>,
}

impl Run<'_> {
    /// Every attempt: whether its task is there, and knows of it. What seems wrong is known to be so only once names
    /// are seen again, since tasks may have been published or claimed meanwhile.
    pub(super) fn results(&mut self) -> Result<Suspicions, PathError> {
        let mut suspicions = Suspicions::default();
        let Suspicions { behind, orphans } = &mut suspicions;
        let results = self.spool.layout().results();
        self.each_in(&results, &mut |run, bucket| {
            run.each_in(&bucket.path, &mut |run, item| {
                let id = match item.name.parse::<TaskId>() {
                    Ok(id) if item.is_dir && id.bucket() == bucket.name => id,
                    _ => {
                        let what = "no daemon looks here";
                        let remedy = "results lie in results/<hh>/<id>/<token>/: move or remove it";
                        run.say(Severity::Warning, Check::UnknownName, &item.path, what, remedy);
                        return Ok(());
                    }
                };
                let mut highest = None;
                run.each_in(&item.path, &mut |run, attempt| {
                    if let Ok(token) = attempt.name.parse::<Token>() {
                        run.checked.attempts += 1;
                        highest = highest.max(Some(token));
                    }
                    // A worker's staged files: what a crash left of them.
                    if run.depth == Depth::Contents && attempt.is_dir {
                        return run.each_in(&attempt.path, &mut |_, _| Ok(()));
                    }
                    Ok(())
                })?;
                match (run.index.token(&id), highest) {
                    (None, _) if orphans.len() < SUSPICIONS_MAX => drop(orphans.insert(id)),
                    (Some(known), Some(highest)) if highest > known && behind.len() < SUSPICIONS_MAX => {
                        behind.insert(id, highest);
                    }
                    _ => {}
                }
                Ok(())
            })
        })?;
        Ok(suspicions)
    }

    /// Looks again at what seemed wrong while daemons moved tasks.
    pub(super) fn suspicions(&mut self, suspicions: Suspicions) -> Result<(), PathError> {
        let Suspicions { behind, mut orphans } = suspicions;
        let repeated = std::mem::take(&mut self.repeated);
        if repeated.is_empty() && behind.is_empty() && orphans.is_empty() {
            return Ok(());
        }
        let mut places: BTreeMap<TaskId, Vec<Located>> = BTreeMap::new();
        self.spool.visit(|task| {
            orphans.remove(&task.name.id);
            let is_suspect = repeated.contains(&key(&task.name.id)) || behind.contains_key(&task.name.id);
            if is_suspect && (places.len() < SUSPICIONS_MAX || places.contains_key(&task.name.id)) {
                places.entry(task.name.id.clone()).or_default().push(task);
            }
        })?;
        for id in orphans {
            let path = self.spool.layout().attempts(&id);
            let what = "these results belong to no task of the spool";
            let remedy = "remove them if its file was removed on purpose, else submit the row again";
            self.say(Severity::Note, Check::ResultsOfNoTask, &path, what, remedy);
        }
        for (id, mut copies) in places {
            // Twice: between two looks a task may have gone from one of its places to the other.
            for _ in 0..2 {
                copies.retain(|task| look(&task.path).is_some());
            }
            copies.sort_by_key(|task| Reverse(rank(self.spool, task)));
            let Some((keeper, others)) = copies.split_first() else { continue };
            for other in others {
                let what = format!("{id} lies at {} too", keeper.path.display());
                let reason = format!("{what}; that one is kept");
                let repair = vec![self.aside(&other.path, &reason)];
                let remedy = "keep one of the two, and remove the other";
                self.plan(Severity::Error, Check::TwoPlaces, &other.path, what, remedy, repair);
            }
            if let Some(token) = behind.get(&id).filter(|token| **token > keeper.name.token) {
                self.token_behind(keeper, *token);
            }
        }
        Ok(())
    }

    fn token_behind(&mut self, task: &Located, highest: Token) {
        let what = format!("its token is {}, but there is an attempt {highest} already", task.name.token);
        let remedy = "a token is never lowered: rename it to carry the highest one";
        let repair = match task.state {
            // Renaming these would make another result count, or end an attempt.
            State::Done(_) | State::Claimed(_) => Vec::new(),
            _ => {
                let name = TaskName { token: highest, ..task.name.clone() };
                vec![Step::Move { from: task.path.clone(), to: task.path.with_file_name(name.to_string()) }]
            }
        };
        self.plan(Severity::Error, Check::TokenBehind, &task.path, what, remedy, repair);
    }
}

/// Which of several copies stays: one with a result, then one at work, then the one with the most claims.
fn rank(spool: &Spool, task: &Located) -> (u8, Token, bool) {
    let state = match task.state {
        State::Done(_) => {
            let dir = spool.layout().attempt(&task.name.id, task.name.token);
            if look(&dir.join(MANIFEST_FILE)).is_some() { 3 } else { 1 }
        }
        State::Claimed(_) => 2,
        _ => 1,
    };
    (state, task.name.token, !matches!(task.state, State::Failed(_)))
}
