use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use comfy_table::CellAlignment;
use queue_format::{DoneClass, Located, Manifest, Spool, SpoolError, State, TaskName, Verdict};

use crate::show::stage_sums;
use crate::text::{clean_line, duration, ellipsis, list_of, plural, table};

/// Rows of the table; more are counted only.
const ROWS_MAX: usize = 300;

/// Narrower terminals see no columns of stages: their words would be broken.
const COLUMNS_WITH_STAGES: usize = 120;

/// Characters of the explanation of a failure.
const DETAIL_CHARS_MAX: usize = 120;

/// Manifests that are read for the time that each stage took; where more were settled, that is not told.
const MANIFESTS_MAX: usize = 20_000;

/// What was settled.
#[derive(Debug, Default)]
pub struct Results {
    /// The first ones in order of id.
    rows: BTreeMap<TaskName, (Located, Option<Manifest>)>,
    accepted: BTreeMap<String, usize>,
    failed: BTreeMap<String, usize>,
    /// Runs that ended well.
    completed: usize,
    /// What is said of those that came to no verdict.
    errors: BTreeMap<TaskName, String>,
    /// Wall time by stage.
    seconds: Vec<(String, f64)>,
}

/// What was settled before: a number for each attempt, so that a million fit.
#[derive(Debug, Default)]
pub struct Before(HashSet<u64>);

impl Before {
    /// What is settled now, to tell it from what will be.
    ///
    /// # Errors
    /// The spool cannot be listed.
    pub fn look(spool: &Spool) -> Result<Self, SpoolError> {
        let mut before = HashSet::new();
        spool.visit_settled(|task| {
            before.insert(number(&task.name));
        })?;
        Ok(Self(before))
    }
}

impl Results {
    /// What is settled and not in `before`.
    ///
    /// # Errors
    /// The spool cannot be listed.
    pub fn gather(spool: &Spool, before: &Before) -> Result<Self, SpoolError> {
        let mut results = Self::default();
        spool.visit_settled(|task| {
            if !before.0.contains(&number(&task.name)) {
                results.add(spool, task);
            }
        })?;
        let is_partial = results.len() > MANIFESTS_MAX;
        if is_partial {
            results.seconds.clear();
        }
        for (task, manifest) in results.rows.values_mut().filter(|(_, manifest)| manifest.is_none()) {
            if is_partial {
                *manifest = spool.manifest(&task.name.id, task.name.token).ok().flatten();
            }
            if manifest.is_none()
                && let Some(why) = spool.attempt_error(&task.name.id, task.name.token)
            {
                results.errors.insert(task.name.clone(), why);
            }
        }
        Ok(results)
    }

    fn add(&mut self, spool: &Spool, task: Located) {
        match &task.state {
            State::Done(DoneClass::Accepted(class)) => {
                *self.accepted.entry(class.to_string()).or_default() += 1;
            }
            State::Done(DoneClass::Completed) => self.completed += 1,
            State::Failed(reason) => *self.failed.entry(reason.to_string()).or_default() += 1,
            _ => {}
        }
        let manifest = if self.len() <= MANIFESTS_MAX {
            spool.manifest(&task.name.id, task.name.token).ok().flatten()
        } else {
            None
        };
        for (stage, spent, _) in manifest.iter().flat_map(stage_sums) {
            match self.seconds.iter_mut().find(|(known, _)| *known == stage) {
                Some((_, sum)) => *sum += spent,
                None => self.seconds.push((stage, spent)),
            }
        }
        self.rows.insert(task.name.clone(), (task, manifest));
        if self.rows.len() > ROWS_MAX {
            self.rows.pop_last();
        }
    }

    fn len(&self) -> usize {
        self.completed + self.accepted.values().chain(self.failed.values()).sum::<usize>()
    }

    /// True where nothing was settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table; at most `columns` wide where that is known.
    #[must_use]
    pub fn table(&self, columns: Option<usize>) -> String {
        let is_narrow = columns.is_some_and(|columns| columns < COLUMNS_WITH_STAGES);
        let stages = if is_narrow { Vec::new() } else { self.stages() };
        let mut table = table(columns);
        let mut header = vec!["task".to_owned(), "verdict".to_owned(), "F2P".to_owned(), "P2P".to_owned()];
        header.extend(stages.iter().map(|stage| format!("{} s", clean_line(stage))));
        header.extend(["in all".to_owned(), "reason".to_owned()]);
        table.set_header(header);
        for (task, manifest) in self.rows.values() {
            table.add_row(row(task, manifest.as_ref(), self.errors.get(&task.name), &stages));
        }
        for column in 2..5 + stages.len() {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = table.trim_fmt();
        if self.len() > ROWS_MAX {
            let rest = plural(self.len() - ROWS_MAX, "more task");
            text.push_str(&format!(
                "\n… and {rest}: bottega status counts them, bottega show ID tells of one"
            ));
        }
        text
    }

    /// One line: how many, of which class, for which reasons.
    #[must_use]
    pub fn totals(&self) -> String {
        let sum = |counts: &BTreeMap<String, usize>| counts.values().sum::<usize>();
        let of = |counts: &BTreeMap<String, usize>| {
            if counts.is_empty() { String::new() } else { format!(" ({})", list_of(counts)) }
        };
        let spent: Vec<String> =
            self.seconds.iter().map(|(stage, s)| format!("{} {}", clean_line(stage), duration(*s))).collect();
        let spent = if spent.is_empty() { String::new() } else { format!("; {}", spent.join(", ")) };
        let completed = match self.completed {
            0 => String::new(),
            completed => format!(", {completed} completed"),
        };
        format!(
            "{}: {} accepted{}{completed}, {} failed{}{spent}",
            plural(self.len(), "task"),
            sum(&self.accepted),
            of(&self.accepted),
            sum(&self.failed),
            of(&self.failed)
        )
    }

    fn stages(&self) -> Vec<String> {
        let mut stages: Vec<String> = Vec::new();
        for (stage, ..) in self.rows.values().flat_map(|(_, manifest)| manifest.iter().flat_map(stage_sums)) {
            if !stages.contains(&stage) {
                stages.push(stage);
            }
        }
        stages
    }
}

fn number(name: &TaskName) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&name.id, name.token).hash(&mut hasher);
    hasher.finish()
}

fn row(
    task: &Located,
    manifest: Option<&Manifest>,
    error: Option<&String>,
    stages: &[String],
) -> Vec<String> {
    let verdict = manifest.map(|manifest| &manifest.verdict);
    let why = match (&task.state, verdict) {
        (State::Failed(reason), Some(Verdict::Failed { detail, .. })) => format!("{reason}: {detail}"),
        (State::Failed(reason), _) => {
            format!("{reason}: {}", error.map_or(reason.meaning(), String::as_str))
        }
        (_, Some(_)) => String::new(),
        (_, None) => "its results are missing".to_owned(),
    };
    let verdict = match &task.state {
        State::Done(class) => class.to_string(),
        _ => "failed".to_owned(),
    };
    let build = manifest.and_then(Manifest::build);
    let count = |n: Option<usize>| n.map_or_else(|| "–".to_owned(), |n| n.to_string());
    let mut row = vec![
        task.name.id.to_string(),
        verdict,
        count(build.map(|build| build.fail_to_pass)),
        count(build.map(|build| build.pass_to_pass)),
    ];
    let sums = manifest.map(stage_sums).unwrap_or_default();
    row.extend(stages.iter().map(|stage| {
        let spent = sums.iter().find(|(known, ..)| known == stage);
        spent.map_or_else(|| "–".to_owned(), |(_, seconds, _)| format!("{seconds:.1}"))
    }));
    row.push(manifest.map_or_else(
        || "–".to_owned(),
        |manifest| duration(manifest.finished_at.duration_since(manifest.started_at).as_secs_f64()),
    ));
    row.push(ellipsis(&clean_line(&why), DETAIL_CHARS_MAX));
    row
}

#[cfg(test)]
mod tests {
    use queue_format::{AcceptanceClass, FailureReason};

    use super::*;

    #[test]
    fn the_state_tells_the_verdict_where_there_are_no_results() {
        let check = |state: State, verdict: &str, why: &str| {
            let name: TaskName = "a.a001.r0.json".parse().expect("a name");
            let row = row(&Located { state, name, path: "a".into() }, None, None, &[]);
            assert_eq!((row[1].as_str(), row[5].starts_with(why)), (verdict, true), "{row:?}");
        };
        check(State::Done(DoneClass::Completed), "completed", "its results are missing");
        check(
            State::Done(DoneClass::Accepted(AcceptanceClass::PerTest)),
            "per-test",
            "its results are missing",
        );
        check(State::Failed(FailureReason::Build), "failed", "build: ");
    }
}
