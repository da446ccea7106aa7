use queue_format::{BuildReport, FailureReason, RunReport, Verdict, Work, WorkReport};

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

    /// The verdict in one line, for the log.
    #[must_use]
    pub fn outcome(&self) -> String {
        match &self.verdict {
            Verdict::Failed { detail, .. } => format!("{}: {detail}", self.verdict),
            verdict => verdict.to_string(),
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
        queue_format::Manifest {
            format: 1,
            id: name.id.clone(),
            token: name.token,
            owner: owner.clone(),
            verdict: self.verdict.clone(),
            started_at,
            finished_at,
            stages: self.stages.clone(),
            work: self.work.clone(),
            peak_memory_bytes: self.peak_memory_bytes,
            notes: self.notes.clone(),
            files: std::collections::BTreeMap::new(),
        }
    }
}
