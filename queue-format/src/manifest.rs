use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{NodeRecord, Owner, TaskId, Token, Verdict};

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
    /// Wall time by stage, in order; a stage that ran twice stands twice.
    pub stages: Vec<StageRecord>,
    /// What only this kind of work has to tell.
    #[serde(flatten)]
    pub work: WorkReport,
    /// Highest memory use of a run.
    pub peak_memory_bytes: Option<u64>,
    /// What was changed or left out on the way, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// BLAKE3 of every other file of the attempt, by name.
    pub files: BTreeMap<String, String>,
}

/// What an attempt tells of its own kind of work; the fields stand among the manifest's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WorkReport {
    /// Of a build.
    Build(BuildReport),
    /// Of a run, all in one field.
    Run {
        /// That field.
        run: RunReport,
    },
}

/// What a build tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildReport {
    /// Rounds of Dockerfile, script and evaluation.
    pub iterations: u32,
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
    /// What agents had part in it, where any had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentsRecord>,
}

/// What agents had part in an attempt, and what that cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentsRecord {
    /// Who made the environment: `agents`, or `rules, then agents`.
    pub brain: String,
    /// Answers of models.
    pub answers: u32,
    /// Tokens that they read, of which caches had some.
    pub tokens_read: u64,
    /// Tokens that they wrote.
    pub tokens_written: u64,
    /// The price, in millionths of a dollar.
    pub micro_dollars: u64,
    /// The models that answered, in the order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// BLAKE3 of the prompts, and of the tools that they speak of.
    pub prompts_blake3: String,
}

/// The name of an attempt's file with what was asked of models, and answered.
pub const CONVERSATION_FILE: &str = "conversation.json";

/// The name of an attempt's file that it can be run again from.
pub const JOURNAL_FILE: &str = "journal.jsonl";

/// What a run tells; of each command, `commands.json` among its files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Commands that ended with status 0.
    pub succeeded: usize,
    /// Commands that ended otherwise, or never began.
    pub failed: usize,
    /// Cores that it ran on, as the kernel writes sets.
    pub cpuset: String,
    /// Memory that it could use; what limited it stands in the notes where that is not the kernel's own accounting.
    pub memory_bytes: u64,
    /// What the kernel held its container to, and what it had to wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeRecord>,
    /// Its outputs that are kept: path, and the name of the file among the results.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
}

/// The name of the file that tells of each command of a run.
pub const COMMANDS_FILE: &str = "commands.json";

/// The name of the file with what a run printed.
pub const OUTPUT_FILE: &str = "output.log";

/// What became of one command of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandRecord {
    /// Its exit status, 128 and the signal's number where one killed it; `None` where it never ended by itself.
    pub status: Option<i32>,
    /// Wall time.
    pub seconds: Option<f64>,
}

impl Manifest {
    /// What a build tells; `None` of other work.
    #[must_use]
    pub fn build(&self) -> Option<&BuildReport> {
        match &self.work {
            WorkReport::Build(build) => Some(build),
            WorkReport::Run { .. } => None,
        }
    }

    /// What a run tells; `None` of other work.
    #[must_use]
    pub fn run(&self) -> Option<&RunReport> {
        match &self.work {
            WorkReport::Run { run } => Some(run),
            WorkReport::Build(_) => None,
        }
    }
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
