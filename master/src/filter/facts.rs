use serde_json::{Map, Value};

use crate::ingest::{kind, whole_number};

type Row = Map<String, Value>;

/// The first of these fields that says something.
fn first<'a>(row: &'a Row, fields: &[&str]) -> Option<&'a Value> {
    fields.iter().find_map(|field| row.get(*field).filter(|value| !is_nothing(value)))
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty())
}

/// What a row says, where it says something; or why that is not what was expected.
type Fact<T> = Result<Option<T>, String>;

fn unexpected<T>(expected: &str, found: &Value) -> Fact<T> {
    Err(format!("expected {expected}, found {}", kind(found)))
}

/// The stars of the repository.
pub(super) fn stars(row: &Row) -> Fact<u64> {
    match first(row, &["stars", "stargazers_count", "repo_stars"]) {
        None => Ok(None),
        Some(found) => match whole_number(found) {
            Some(stars) => Ok(Some(stars)),
            None => unexpected("a whole number", found),
        },
    }
}

/// Its primary language.
pub(super) fn language(row: &Row) -> Fact<&str> {
    match first(row, &["language", "lang", "repo_language"]) {
        None => Ok(None),
        Some(Value::String(language)) => Ok(Some(language)),
        Some(found) => unexpected("a language", found),
    }
}

/// The SPDX name of its licence, as text or as GitHub's object.
pub(super) fn licence(row: &Row) -> Fact<&str> {
    match first(row, &["license", "licence", "license_name", "repo_license"]) {
        None => Ok(None),
        Some(Value::String(licence)) => Ok(Some(licence)),
        Some(Value::Object(found)) => {
            Ok(["spdx_id", "key", "name"].iter().find_map(|field| found.get(*field).and_then(Value::as_str)))
        }
        Some(found) => unexpected("a licence", found),
    }
}

/// Whether an issue that it resolves has a description; a dataset without issues has them in its statement.
pub(super) fn has_issue(row: &Row) -> bool {
    let is_said = |value: &Value| value.as_str().is_some_and(|text| !text.trim().is_empty());
    match first(row, &["resolved_issues", "issues"]).and_then(Value::as_array) {
        Some(issues) => issues.iter().filter_map(|issue| issue.get("body")).any(is_said),
        None => row.get("problem_statement").is_some_and(is_said),
    }
}

/// The names of the fields that hold the patch, and the tests.
pub(super) fn patch_fields(row: &Row) -> (&'static str, &'static str) {
    (if row.contains_key("fix_patch") { "fix_patch" } else { "patch" }, "test_patch")
}

/// Repository in lower case, number (0: not known) and base commit in lower case of a row that may be of any dataset.
pub(super) fn identity(row: &Row) -> (String, u64, String) {
    let text = |field| row.get(field).and_then(Value::as_str).unwrap_or_default();
    let repo = match text("org") {
        "" => text("repo").to_owned(),
        org => format!("{org}/{}", text("repo")),
    };
    let trailing = || text("instance_id").rsplit_once('-').and_then(|(_, digits)| digits.parse().ok());
    // OpenSWE writes 0 where it does not know it.
    let known = |field: &&str| row.get(*field).and_then(whole_number).filter(|number| *number > 0);
    let number = ["pull_number", "number"].iter().find_map(known).or_else(trailing);
    let base = row.get("base").and_then(|base| base.get("sha")).and_then(Value::as_str);
    let base = base.unwrap_or_else(|| text("base_commit"));
    (repo.to_ascii_lowercase(), number.unwrap_or(0), base.to_ascii_lowercase())
}
