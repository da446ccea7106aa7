use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Owner, TaskId, Token, Verdict};

/// The name of an attempt's manifest under `results/`; written last.
pub const MANIFEST_FILE: &str = "manifest.json";

/// The summary of one attempt: what `status`, `show` and `export` read first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this file's format; 1.
    pub format: u32,
    /// Which task.
    pub id: TaskId,
    /// Which claim of it.
    pub token: Token,
    /// Who worked on it.
    pub owner: Owner,
    /// What it came to.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// When the claim was made.
    pub started_at: jiff::Timestamp,
    /// When the verdict was reached.
    pub finished_at: jiff::Timestamp,
    /// Rounds of Dockerfile, script and evaluation.
    pub iterations: u32,
    /// Wall time by stage, in order; a stage that ran twice stands twice.
    pub stages: Vec<StageRecord>,
    /// Which Python, and why that one.
    pub python: Option<PythonRecord>,
    /// The environment's image, where one was kept.
    pub image_name: Option<String>,
    /// Its size in bytes beyond the base image's.
    pub image_bytes: Option<u64>,
    /// Tests that fail before the fix and pass after it.
    pub fail_to_pass: usize,
    /// Tests that pass in both.
    pub pass_to_pass: usize,
    /// Highest memory use of a run.
    pub peak_memory_bytes: Option<u64>,
    /// What was changed or left out on the way, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// BLAKE3 of every other file of the attempt, by name.
    pub files: BTreeMap<String, String>,
}

/// One stage's wall time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// `provision`, `explore`, `build`, `evaluate`, …
    pub stage: String,
    /// Wall time.
    pub seconds: f64,
}

/// Which Python an environment has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonRecord {
    /// What the rules would have taken, were every base image there.
    pub wanted: String,
    /// What was taken.
    pub used: String,
    /// Which file or date decided.
    pub why: String,
}
