use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::TaskId;

/// A pull request as the researcher hands it in: the OpenSWE row, unknown fields carried through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// As written in the row; the task's id is its lower-case form.
    pub instance_id: String,
    /// `owner/name`.
    pub repo: String,
    /// The commit before the fix, 40 hex digits.
    pub base_commit: String,
    /// The commit with the fix; may be empty where the source does not know it.
    #[serde(default)]
    pub end_commit: String,
    /// What an agent is told.
    pub problem_statement: String,
    /// The fix, without tests.
    pub patch: String,
    /// The tests that show it.
    pub test_patch: String,
    /// `python`, in any case.
    #[serde(default = "python")]
    pub language: String,
    /// The project's version at the base, `0.0` where unknown.
    #[serde(default = "no_version")]
    pub version: String,
    /// 0 where unknown.
    #[serde(default)]
    pub pull_number: u64,
    /// 0 where unknown.
    #[serde(default)]
    pub repo_id: u64,
    /// ISO 8601, or empty: then the base commit's own date counts.
    #[serde(default)]
    pub created_at: String,
    /// Comments made before the first commit of the fix.
    #[serde(default)]
    pub hints_text: String,
    /// Whatever else the row had.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn python() -> String {
    "python".to_owned()
}

fn no_version() -> String {
    "0.0".to_owned()
}

/// A field of a row that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {field:?}: {why}")]
pub struct InvalidInstance {
    /// The field.
    pub field: &'static str,
    /// What is wrong, and what is expected.
    pub why: String,
}

impl Instance {
    /// Checks every field that later stages rely on, and gives the task's id.
    ///
    /// # Errors
    /// The first field that is not as documented.
    pub fn validate(&self) -> Result<TaskId, InvalidInstance> {
        let refuse = |field, why: &str| Err(InvalidInstance { field, why: why.to_owned() });
        let id: TaskId = self
            .instance_id
            .to_ascii_lowercase()
            .parse()
            .map_err(|e: crate::InvalidId| InvalidInstance { field: "instance_id", why: e.to_string() })?;
        let Some((owner, name)) = self.repo.split_once('/') else {
            return refuse("repo", "expected owner/name");
        };
        if !(is_repository_part(owner) && is_repository_part(name)) {
            return refuse("repo", "expected owner/name of letters, digits, '.', '_' and '-'");
        }
        if !is_commit(&self.base_commit) {
            return refuse("base_commit", "expected a full commit id of 40 hex digits");
        }
        if !self.end_commit.is_empty() && !is_commit(&self.end_commit) {
            return refuse("end_commit", "expected a full commit id of 40 hex digits, or nothing");
        }
        if !self.language.eq_ignore_ascii_case("python") {
            return refuse("language", "only python is built so far");
        }
        if !self.created_at.is_empty() && self.created().is_none() {
            return refuse(
                "created_at",
                "expected an ISO 8601 time such as 2024-05-01T12:00:00Z, or nothing",
            );
        }
        if self.problem_statement.trim().is_empty() {
            return refuse("problem_statement", "it is empty: say in words what the fix is for");
        }
        if self.patch.trim().is_empty() {
            return refuse("patch", "it is empty: a task needs a fix outside the tests");
        }
        if self.test_patch.trim().is_empty() {
            return refuse(
                "test_patch",
                "it is empty: without tests that show the fix there is nothing to verify",
            );
        }
        Ok(id)
    }

    /// When the pull request was made.
    #[must_use]
    pub fn created(&self) -> Option<jiff::Timestamp> {
        let text = self.created_at.trim();
        let day = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
        let naive = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
        text.parse().ok().or_else(|| naive().or_else(day).map(|zoned| zoned.timestamp()))
    }
}

fn is_repository_part(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with(['.', '-'])
        && part.len() <= 100
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(change: impl FnOnce(&mut Value)) -> Value {
        let mut row = serde_json::json!({
            "instance_id": "Pallets__click-1", "repo": "pallets/click",
            "base_commit": "0123456789abcdef0123456789abcdef01234567", "end_commit": "",
            "problem_statement": "broken", "patch": "diff", "test_patch": "diff", "language": "Python",
            "created_at": "2024-05-01T12:00:00Z", "stars": 7,
        });
        change(&mut row);
        row
    }

    #[test]
    fn keeps_unknown_fields_and_fills_defaults() {
        let instance: Instance = serde_json::from_value(row(|_| ())).expect("valid");
        assert_eq!(instance.validate().expect("valid").as_str(), "pallets__click-1");
        assert_eq!((instance.version.as_str(), instance.extra["stars"].as_i64()), ("0.0", Some(7)));
        assert_eq!(serde_json::to_value(&instance).expect("serializable")["stars"], 7);
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        let check = |field: &str, value: &str| {
            let instance: Instance =
                serde_json::from_value(row(|r| r[field] = Value::from(value))).expect("still a row");
            assert_eq!(instance.validate().expect_err(value).field, field);
        };
        check("instance_id", "../x");
        check("instance_id", "a\u{1b}[31m");
        check("instance_id", &"x".repeat(300));
        check("repo", "click");
        check("repo", "../etc/passwd");
        check("base_commit", "main");
        check("end_commit", "--upload-pack=x");
        check("language", "rust");
        check("created_at", "yesterday");
        check("problem_statement", "\n");
        check("patch", " \n");
        check("test_patch", "");
    }

    #[test]
    fn reads_the_times_that_datasets_write() {
        for text in ["2024-05-01T12:00:00Z", "2024-05-01T14:00:00+02:00", "2024-05-01 12:00:00", "2024-05-01"]
        {
            let instance: Instance =
                serde_json::from_value(row(|r| r["created_at"] = Value::from(text))).expect("a row");
            let created = instance.created().expect(text).to_string();
            assert!(created.starts_with("2024-05-01T"), "{text} → {created}");
        }
    }
}
