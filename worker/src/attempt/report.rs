use std::collections::BTreeMap;

use jiff::Timestamp;
use queue_format::{
    BuildReport, FailureReason, Manifest, Owner, RunReport, TaskName, Verdict, Work, WorkReport,
};
use serde::{Deserialize, Serialize};

use crate::engine::plain_bytes;

/// All that an attempt leaves: the manifest's facts and the files beside it.
#[derive(Debug)]
pub struct Attempt {
    /// What it came to.
    pub verdict: Verdict,
    /// Wall time by stage.
    pub stages: Vec<queue_format::StageRecord>,
    /// What only this kind of work has to tell.
    pub work: WorkReport,
    /// Highest memory use of a run.
    pub peak_memory_bytes: Option<u64>,
    /// What was left out or changed, in words.
    pub notes: Vec<String>,
    /// Files for `results/`, by name.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Attempt {
    /// An attempt that failed before it left anything.
    #[must_use]
    pub fn failed(work: &Work, reason: FailureReason, detail: String) -> Self {
        Self {
            verdict: Verdict::failed(reason, detail, Vec::new()),
            stages: Vec::new(),
            work: match work {
                Work::Build(_) => WorkReport::Build(BuildReport::default()),
                Work::Run(_) => WorkReport::Run { run: RunReport::default() },
            },
            peak_memory_bytes: None,
            notes: Vec::new(),
            files: Vec::new(),
        }
    }

    /// What is published of this attempt under a claim.
    #[must_use]
    pub fn conclusion(
        self,
        name: &TaskName,
        owner: &Owner,
        started_at: Timestamp,
        finished_at: Timestamp,
    ) -> Conclusion {
        let manifest = Manifest {
            format: 1,
            id: name.id.clone(),
            token: name.token,
            owner: owner.clone(),
            verdict: self.verdict,
            started_at,
            finished_at,
            stages: self.stages,
            work: self.work,
            peak_memory_bytes: self.peak_memory_bytes,
            notes: self.notes,
            files: BTreeMap::new(),
        };
        Conclusion { manifest, files: self.files }
    }
}

/// What is published of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conclusion {
    /// Its facts.
    pub manifest: Manifest,
    /// The files beside it.
    #[serde(with = "plain_bytes::files")]
    pub files: Vec<(String, Vec<u8>)>,
}

impl Conclusion {
    /// The verdict in one line, for the log.
    #[must_use]
    pub fn outcome(&self) -> String {
        match &self.manifest.verdict {
            Verdict::Failed { detail, .. } => format!("{}: {detail}", self.manifest.verdict),
            verdict => verdict.to_string(),
        }
    }
}
