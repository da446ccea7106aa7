use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::NodeRecord;

/// The name of an attempt's evidence under `results/`.
pub const EVIDENCE_FILE: &str = "evidence.json";

/// Which of the two conditions a run shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// The base with the test patch.
    TestOnly,
    /// The base with the test patch and the fix.
    WithFix,
}

/// What one test came to in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestStatus {
    /// Passed, or failed as expected.
    Passed,
    /// An assertion or an exception of the test's own call.
    Failed,
    /// Set-up, tear-down or the import of its file failed.
    Error,
    /// Did not run.
    Skipped,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunEnd {
    /// The test command returned, and the run's nonce vouches for its exit status.
    Exited,
    /// Killed at its deadline.
    TimedOut,
    /// Killed at its memory limit.
    OutOfMemory,
    /// The patch did not apply.
    PatchFailed,
    /// The wrapper never reported: the container died, or the code under test ended it.
    Lost,
}

/// One run of one condition in a fresh container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Which condition.
    pub condition: Condition,
    /// 1, 2, 3 …
    pub repeat: u32,
    /// How it ended.
    pub end: RunEnd,
    /// The test command's exit status, where it returned.
    pub exit_code: Option<i32>,
    /// Wall time.
    pub seconds: f64,
    /// The container's highest memory use, where the engine told it.
    pub peak_memory_bytes: Option<u64>,
    /// What the kernel held the container to, and what it had to wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeRecord>,
    /// Each test's status by its node id.
    pub tests: BTreeMap<String, TestStatus>,
    /// Files whose import failed, with the exception's line.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub collection_errors: BTreeMap<String, String>,
}

/// What the runs say together: every test that both conditions know, by how its status moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Transitions {
    /// Failed before the fix, pass after it.
    pub fail_to_pass: BTreeSet<String>,
    /// Pass in both.
    pub pass_to_pass: BTreeSet<String>,
    /// Broken by the fix.
    pub pass_to_fail: BTreeSet<String>,
    /// Fail in both.
    pub fail_to_fail: BTreeSet<String>,
    /// Differ between repeats of one condition.
    pub flaky: BTreeSet<String>,
    /// Those of `fail_to_pass` that did not even import before the fix.
    pub error_to_pass: BTreeSet<String>,
}

/// All that a verdict rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The image's full id.
    pub image_id: String,
    /// BLAKE3 of the Dockerfile.
    pub dockerfile_blake3: String,
    /// BLAKE3 of the evaluation script.
    pub eval_script_blake3: String,
    /// The test files given to the runner.
    pub targets: Vec<String>,
    /// The runs.
    pub runs: Vec<RunRecord>,
    /// Their sum.
    pub transitions: Transitions,
}
