use std::thread;

use serde_json::Value;

use super::event::{Event, event};
use super::head::head;
use super::{Filter, Judged, Stage};
use crate::ingest::RawRow;

/// Threads that judge rows at most: what is left, reading and writing, is one's.
const THREADS_MAX: usize = 8;

/// What one row is by itself, whatever came before it.
pub(super) struct Sight {
    pub(super) place: String,
    /// `None`: it is one of GitHub's events, and tells of no pull request that was merged.
    pub(super) judged: Option<(String, Judged)>,
    /// Whether it is an event.
    pub(super) is_event: bool,
    /// The repository of a pull request that an event tells of, if its stars and its language are as they must be.
    pub(super) repository: Option<String>,
}

impl Filter {
    /// Looks at rows on a few threads; what they are comes in their order.
    pub(super) fn look(&self, rows: Vec<RawRow>) -> Vec<Sight> {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let share = rows.len().div_ceil(threads).max(1);
        let mut rows = rows.into_iter();
        let shares: Vec<Vec<RawRow>> =
            std::iter::from_fn(|| Some(rows.by_ref().take(share).collect::<Vec<_>>()))
                .take_while(|share| !share.is_empty())
                .collect();
        let look = |share: Vec<RawRow>| share.into_iter().map(|row| self.sight(row)).collect::<Vec<_>>();
        thread::scope(|scope| {
            let looking: Vec<_> = shares.into_iter().map(|share| scope.spawn(move || look(share))).collect();
            let seen = looking.into_iter().flat_map(|share| match share.join() {
                Ok(seen) => seen,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            seen.collect()
        })
    }

    fn sight(&self, row: RawRow) -> Sight {
        if let Some(head) = row.unread().and_then(head)
            && let Some(rejected) = self.judge_head(&head)
        {
            let judged = Some((id_of(&Value::Object(head)), rejected));
            return Sight { place: row.place, judged, is_event: false, repository: None };
        }
        let row = row.read();
        let (value, is_event) = match row.value.map(event) {
            Ok(Event::Other) => {
                return Sight { place: row.place, judged: None, is_event: true, repository: None };
            }
            Ok(Event::Merged(value)) => (Ok(value), true),
            Ok(Event::No(value)) => (Ok(value), false),
            Err(refusal) => (Err(refusal), false),
        };
        match value {
            Ok(value) => {
                let (id, repo) = (id_of(&value), value["repo"].as_str().map(str::to_owned));
                let judged = self.judge(value);
                // Its pull requests are worth collecting if stars and language are.
                let is_wanted =
                    is_event && !matches!(judged, Judged::Rejected { stage, .. } if stage < Stage::Issue);
                let repository = repo.filter(|repo| is_wanted && repo.contains('/'));
                Sight { place: row.place, judged: Some((id, judged)), is_event, repository }
            }
            Err(refusal) => {
                let reason = refusal.to_string();
                let rejected = Judged::Rejected { stage: Stage::Row, reason, unknown: Vec::new() };
                let judged = Some((String::new(), rejected));
                Sight { place: row.place, judged, is_event, repository: None }
            }
        }
    }
}

/// What a row calls itself, as far as it does.
fn id_of(row: &Value) -> String {
    let text = |field: &str| row.get(field).and_then(Value::as_str);
    let multi = || Some(format!("{}__{}-{}", text("org")?, text("repo")?, row.get("number")?));
    text("instance_id").map(str::to_owned).or_else(multi).unwrap_or_default()
}
