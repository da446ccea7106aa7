use queue_format::{Evidence, FailureReason, PythonRecord, Verdict};

use super::verdict;

/// All that an attempt leaves: the manifest's facts and the files beside it.
#[derive(Debug)]
pub struct Attempt {
    /// What it came to.
    pub verdict: Verdict,
    /// Rounds.
    pub iterations: u32,
    /// Wall time by stage.
    pub stages: Vec<queue_format::StageRecord>,
    /// Which Python.
    pub python: Option<PythonRecord>,
    /// The kept image.
    pub image_name: Option<String>,
    /// Its size beyond its base image's.
    pub image_bytes: Option<u64>,
    /// The evidence of the last evaluation.
    pub evidence: Option<Evidence>,
    /// What was left out or changed, in words.
    pub notes: Vec<String>,
    /// Files for `results/`, by name.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Attempt {
    /// An attempt that failed before it left anything.
    #[must_use]
    pub fn failed(reason: FailureReason, detail: String) -> Self {
        Self {
            verdict: verdict::failed(reason, detail, Vec::new()),
            iterations: 0,
            stages: Vec::new(),
            python: None,
            image_name: None,
            image_bytes: None,
            evidence: None,
            notes: Vec::new(),
            files: Vec::new(),
        }
    }

    /// The verdict in one line, for the log.
    #[must_use]
    pub fn outcome(&self) -> String {
        match &self.verdict {
            Verdict::Accepted { class } => format!("accepted ({class})"),
            Verdict::Failed { reason, detail, .. } => format!("failed ({reason}): {detail}"),
        }
    }

    /// The manifest of this attempt under a claim.
    #[must_use]
    pub fn manifest(
        &self,
        name: &queue_format::TaskName,
        owner: &queue_format::Owner,
        started_at: jiff::Timestamp,
        finished_at: jiff::Timestamp,
    ) -> queue_format::Manifest {
        let runs = self.evidence.iter().flat_map(|evidence| &evidence.runs);
        let transitions = self.evidence.as_ref().map(|evidence| &evidence.transitions);
        queue_format::Manifest {
            format: 1,
            id: name.id.clone(),
            token: name.token,
            owner: owner.clone(),
            verdict: self.verdict.clone(),
            started_at,
            finished_at,
            iterations: self.iterations,
            stages: self.stages.clone(),
            python: self.python.clone(),
            image_name: self.image_name.clone(),
            image_bytes: self.image_bytes,
            fail_to_pass: transitions.map_or(0, |t| t.fail_to_pass.len()),
            pass_to_pass: transitions.map_or(0, |t| t.pass_to_pass.len()),
            peak_memory_bytes: runs.filter_map(|run| run.peak_memory_bytes).max(),
            notes: self.notes.clone(),
            files: std::collections::BTreeMap::new(),
        }
    }
}
