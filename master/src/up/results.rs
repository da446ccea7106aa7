use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use comfy_table::CellAlignment;
use queue_format::{Located, Manifest, Spool, SpoolError, State, TaskId, Token, Verdict};

use crate::show::stage_sums;
use crate::text::{clean_line, duration, ellipsis, list_of, plural, table};

/// Rows of the table; more are counted only.
const ROWS_MAX: usize = 300;

/// Narrower terminals see no columns of stages: their words would be broken.
const COLUMNS_WITH_STAGES: usize = 120;

/// Characters of the explanation of a failure.
const DETAIL_CHARS_MAX: usize = 120;

/// What was settled.
#[derive(Debug)]
pub struct Results {
    tasks: Vec<(Located, Option<Manifest>)>,
    /// What is said of those that came to no verdict, by where they lie.
    errors: HashMap<PathBuf, String>,
}

impl Results {
    /// What is settled and not in `before`, in order of id.
    ///
    /// # Errors
    /// The spool cannot be listed.
    pub fn gather(spool: &Spool, before: &HashSet<(TaskId, Token)>) -> Result<Self, SpoolError> {
        let mut found = settled(spool)?;
        found.retain(|task| !before.contains(&(task.name.id.clone(), task.name.token)));
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let mut errors = HashMap::new();
        let read = |task: Located| {
            let manifest = spool.manifest(&task.name.id, task.name.token).ok().flatten();
            if manifest.is_none()
                && let Some(why) = spool.attempt_error(&task.name.id, task.name.token)
            {
                errors.insert(task.path.clone(), why);
            }
            (task, manifest)
        };
        Ok(Self { tasks: found.into_iter().map(read).collect(), errors })
    }

    /// What is settled now, to tell it from what will be.
    ///
    /// # Errors
    /// The spool cannot be listed.
    pub fn before(spool: &Spool) -> Result<HashSet<(TaskId, Token)>, SpoolError> {
        Ok(settled(spool)?.into_iter().map(|task| (task.name.id, task.name.token)).collect())
    }

    /// True where nothing was settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
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
        for (task, manifest) in self.tasks.iter().take(ROWS_MAX) {
            table.add_row(row(task, manifest.as_ref(), self.errors.get(&task.path), &stages));
        }
        for column in 2..5 + stages.len() {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = table.trim_fmt();
        if self.tasks.len() > ROWS_MAX {
            let rest = plural(self.tasks.len() - ROWS_MAX, "more task");
            text.push_str(&format!(
                "\n… and {rest}: bottega status counts them, bottega show ID tells of one"
            ));
        }
        text
    }

    /// One line: how many, of which class, for which reasons.
    #[must_use]
    pub fn totals(&self) -> String {
        let (mut accepted, mut failed) = (BTreeMap::new(), BTreeMap::new());
        let (mut done, mut completed, mut lost) = (0, 0, 0);
        let mut seconds: Vec<(String, f64)> = Vec::new();
        for (task, manifest) in &self.tasks {
            match (&task.state, manifest.as_ref().map(|manifest| &manifest.verdict)) {
                (State::Failed(reason), _) => {
                    lost += 1;
                    *failed.entry(reason.to_string()).or_default() += 1;
                }
                (_, Some(Verdict::Accepted { class })) => {
                    done += 1;
                    *accepted.entry(class.to_string()).or_default() += 1;
                }
                (_, Some(Verdict::Completed)) => completed += 1,
                _ => done += 1,
            }
            for (stage, spent, _) in manifest.iter().flat_map(stage_sums) {
                match seconds.iter_mut().find(|(known, _)| *known == stage) {
                    Some((_, sum)) => *sum += spent,
                    None => seconds.push((stage, spent)),
                }
            }
        }
        let of = |counts: &BTreeMap<String, usize>| {
            if counts.is_empty() { String::new() } else { format!(" ({})", list_of(counts)) }
        };
        let spent: Vec<String> =
            seconds.iter().map(|(stage, s)| format!("{} {}", clean_line(stage), duration(*s))).collect();
        let spent = if spent.is_empty() { String::new() } else { format!("; {}", spent.join(", ")) };
        let completed = if completed > 0 { format!(", {completed} completed") } else { String::new() };
        format!(
            "{}: {done} accepted{}{completed}, {lost} failed{}{spent}",
            plural(self.tasks.len(), "task"),
            of(&accepted),
            of(&failed)
        )
    }

    fn stages(&self) -> Vec<String> {
        let mut stages: Vec<String> = Vec::new();
        for (stage, ..) in self.tasks.iter().flat_map(|(_, manifest)| manifest.iter().flat_map(stage_sums)) {
            if !stages.contains(&stage) {
                stages.push(stage);
            }
        }
        stages
    }
}

fn settled(spool: &Spool) -> Result<Vec<Located>, SpoolError> {
    let mut found = spool.all()?;
    found.retain(|task| matches!(task.state, State::Done | State::Failed(_)));
    Ok(found)
}

fn row(
    task: &Located,
    manifest: Option<&Manifest>,
    error: Option<&String>,
    stages: &[String],
) -> Vec<String> {
    let verdict = manifest.map(|manifest| &manifest.verdict);
    let (verdict, why) = match (&task.state, verdict) {
        (State::Failed(reason), Some(Verdict::Failed { detail, .. })) => {
            ("failed".to_owned(), format!("{reason}: {detail}"))
        }
        (State::Failed(reason), _) => {
            let why = error.map_or(reason.meaning(), String::as_str);
            ("failed".to_owned(), format!("{reason}: {why}"))
        }
        (_, Some(Verdict::Accepted { class })) => (class.to_string(), String::new()),
        (_, Some(Verdict::Completed)) => ("completed".to_owned(), String::new()),
        _ => ("accepted".to_owned(), "its results are missing".to_owned()),
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
