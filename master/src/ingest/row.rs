use queue_format::{Instance, InvalidInstance, TASK_FILE_BYTES_MAX, TaskId, TaskSpec, Work};
use serde_json::{Map, Value};

use super::fields::{Fields, kind};
use super::split::find_tests;
use super::{Template, check_repository};
use crate::patch::check_patch;

/// Why a row was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", field.as_ref().map(|field| format!("field {field:?}: ")).unwrap_or_default())]
pub struct Refusal {
    /// The field that is wrong, where it is one.
    pub field: Option<String>,
    /// What is wrong with it, and what is expected.
    pub why: String,
}

impl Refusal {
    pub(super) fn of(field: &str, why: &str) -> Self {
        Self { field: Some(field.to_owned()), why: why.to_owned() }
    }

    pub(super) fn whole(why: String) -> Self {
        Self { field: None, why }
    }
}

impl From<InvalidInstance> for Refusal {
    fn from(invalid: InvalidInstance) -> Self {
        Self { field: Some(invalid.field.to_owned()), why: invalid.why }
    }
}

/// A row of any dataset that is understood, made into a task: OpenSWE, SWE-bench, SWE-Gym, SWE-rebench,
/// Multi-SWE-bench, and task files as they lie in a spool.
///
/// # Errors
/// The first field that is not as it must be.
pub fn task_of(row: Value, repositories: Option<&Template>) -> Result<TaskSpec, Refusal> {
    let Value::Object(row) = row else {
        return Err(Refusal::whole(format!(
            "expected an object with the fields of a task, found {}",
            kind(&row)
        )));
    };
    let task = if row.contains_key("kind") && (row.contains_key("instance") || row.contains_key("commands")) {
        task_file(row)?
    } else {
        let own = ["repository", "repository_url"].map(|field| row.get(field).and_then(Value::as_str));
        let own = own.into_iter().flatten().next().map(str::to_owned);
        let instance = instance_of(row)?;
        let repository = match (repositories, own) {
            (Some(template), _) => template.fill(&instance.repo),
            (None, Some(own)) => own,
            (None, None) => {
                let why = "it is missing; say where repositories are: --repositories '/mirrors/{owner}+{name}/repo' \
                           (a path or URL), or name one in each row";
                return Err(Refusal::of("repository", why));
            }
        };
        TaskSpec::build(instance, repository)?
    };
    check(&task)?;
    Ok(task)
}

/// A row of any dataset, in OpenSWE's fields and valid; whether its patches are diffs is not asked.
///
/// # Errors
/// The first field that is not as it must be.
pub fn instance_of(row: Map<String, Value>) -> Result<Instance, Refusal> {
    let instance = if row.contains_key("fix_patch") { multi_swe_bench(row)? } else { swe_bench(row)? };
    let instance = find_tests(instance);
    instance.validate()?;
    Ok(instance)
}

/// What a well-formed row must fulfil before a worker sees it.
fn check(task: &TaskSpec) -> Result<(), Refusal> {
    let Work::Build(build) = &task.work else { return Ok(()) };
    check_repository(&build.repository).map_err(|why| Refusal::of("repository", &why))?;
    check_patch(&build.instance.patch).map_err(|why| Refusal::of("patch", &why))?;
    check_patch(&build.instance.test_patch).map_err(|why| Refusal::of("test_patch", &why))
}

/// OpenSWE's own fields; the other datasets leave out some of them.
fn swe_bench(row: Map<String, Value>) -> Result<Instance, Refusal> {
    let mut row = Fields(row);
    let instance_id = row.required("instance_id")?;
    let pull_number = match row.number("pull_number")? {
        0 => trailing_number(&instance_id),
        number => number,
    };
    Ok(Instance {
        repo: row.required("repo")?,
        base_commit: row.required("base_commit")?,
        end_commit: row.text("end_commit")?.unwrap_or_default(),
        problem_statement: row.required("problem_statement")?,
        patch: row.required("patch")?,
        test_patch: row.required("test_patch")?,
        language: row.text("language")?.unwrap_or_else(|| "python".to_owned()),
        version: row.loose_text("version")?.unwrap_or_else(|| "0.0".to_owned()),
        pull_number,
        repo_id: row.number("repo_id")?,
        created_at: row.time("created_at")?,
        hints_text: row.text("hints_text")?.unwrap_or_default(),
        instance_id,
        extra: row.0,
    })
}

/// `org, repo, number, base.sha, fix_patch, test_patch, resolved_issues`.
fn multi_swe_bench(row: Map<String, Value>) -> Result<Instance, Refusal> {
    let mut row = Fields(row);
    let (org, name, number) = (row.required("org")?, row.required("repo")?, row.number("number")?);
    let base_commit = row.0.get("base").and_then(|base| base.get("sha")).and_then(Value::as_str);
    let base_commit = base_commit.ok_or_else(|| Refusal::of("base.sha", "it is missing"))?.to_owned();
    let issues = row.0.get("resolved_issues").and_then(Value::as_array).cloned().unwrap_or_default();
    let told: Vec<String> = issues.iter().map(title_and_body).filter(|text| !text.is_empty()).collect();
    let told =
        if told.is_empty() { title_and_body(&Value::Object(row.0.clone())) } else { told.join("\n\n") };
    if told.is_empty() {
        return Err(Refusal::of(
            "resolved_issues",
            "none of them has a title or body, nor has the row itself",
        ));
    }
    let language = match row.text("language")? {
        Some(language) => language,
        None => row.text("lang")?.unwrap_or_else(|| "python".to_owned()),
    };
    Ok(Instance {
        instance_id: row.text("instance_id")?.unwrap_or_else(|| format!("{org}__{name}-{number}")),
        repo: format!("{org}/{name}"),
        base_commit,
        end_commit: row.text("end_commit")?.unwrap_or_default(),
        problem_statement: told,
        patch: row.required("fix_patch")?,
        test_patch: row.required("test_patch")?,
        language,
        version: row.loose_text("version")?.unwrap_or_else(|| "0.0".to_owned()),
        pull_number: number,
        repo_id: row.number("repo_id")?,
        created_at: row.time("created_at")?,
        hints_text: row.text("hints_text")?.unwrap_or_default(),
        extra: row.0,
    })
}

fn title_and_body(issue: &Value) -> String {
    let part =
        |field| issue.get(field).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    [part("title"), part("body")].into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

fn task_file(row: Map<String, Value>) -> Result<TaskSpec, Refusal> {
    let id = row.get("id").and_then(Value::as_str).unwrap_or_default();
    let id: TaskId = id.parse().map_err(|e: queue_format::InvalidId| Refusal::of("id", &e.to_string()))?;
    let bytes = serde_json::to_vec(&Value::Object(row)).map_err(|e| Refusal::whole(e.to_string()))?;
    TaskSpec::parse(&bytes, &id).map_err(|e| Refusal::whole(e.to_string()))
}

/// `owner__name-123` → 123, as all of these datasets name their instances.
fn trailing_number(id: &str) -> u64 {
    id.rsplit_once('-').and_then(|(_, digits)| digits.parse().ok()).unwrap_or(0)
}

/// Written out, a task must be readable by those that are to work on it.
pub(super) fn bytes_of(task: &TaskSpec) -> Result<Vec<u8>, Refusal> {
    let bytes = serde_json::to_vec_pretty(task).map_err(|e| Refusal::whole(e.to_string()))?;
    if bytes.len() as u64 > TASK_FILE_BYTES_MAX {
        return Err(Refusal::whole(format!("as a task file it has more than {TASK_FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
