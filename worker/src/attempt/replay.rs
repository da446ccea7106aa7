//! An attempt made again from its journal: without a model, without an engine, and with the same bytes in the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use queue_format::{
    CONVERSATION_FILE, JOURNAL_FILE, Labels, Manifest, PathError, Spool, SpoolError, TaskId, TaskSpec, Token,
    Verdict, Work,
};

use super::journal::{Circumstances, Journal};
use super::recorded::Recorded;
use super::run::{AttemptError, Job, Workshop, attempt};
use crate::agents::{Asker, Brains, Budget, Model};
use crate::engine::{BuildOutcome, BuildRequest, Engine, EngineError, RunOutcome, RunRequest};
use crate::repository::RepositoryCache;
use crate::slots::Slot;
use crate::topology::CpuSet;

/// The largest file of an attempt that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Tells wall time, which is never the same.
const TIMES_FILE: &str = "cost.json";

/// What a replay came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// What the attempt came to, this time.
    pub verdict: Verdict,
    /// Whether that is what it came to then.
    pub is_same_verdict: bool,
    /// Each file, and whether its bytes are the same.
    pub files: BTreeMap<String, bool>,
    /// Answers of models that were taken from the journal.
    pub answers: usize,
}

/// Why an attempt cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The spool.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Its results.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// There is no journal.
    #[error(
        "attempt {0} has no journal that can be read: only attempts with brain = \"agents\" or \"auto\" keep one"
    )]
    NoJournal(Token),
    /// There is no attempt.
    #[error("the task has no attempt with a verdict")]
    NoAttempt,
    /// It goes another way than it went.
    #[error("it goes another way than it went: {0}")]
    Astray(#[from] AttemptError),
}

impl Replayed {
    /// Whether everything is as it was.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.is_same_verdict && self.files.values().all(|is_same| *is_same)
    }
}

/// Makes an attempt again; `dir` is empty, and `repositories` has the task's.
///
/// # Errors
/// It was not recorded, or what was recorded does not lead to its end.
pub async fn replay(
    spool: &Spool,
    task: &TaskSpec,
    token: Token,
    repositories: RepositoryCache,
    dir: &Path,
) -> Result<Replayed, ReplayError> {
    let id = &task.id;
    let manifest = spool.manifest(id, token)?.ok_or(ReplayError::NoAttempt)?;
    let bytes = spool.attempt_file(id, token, JOURNAL_FILE, FILE_BYTES_MAX)?;
    let journal = bytes.and_then(|bytes| Journal::recorded(&bytes)).ok_or(ReplayError::NoJournal(token))?;
    let then = journal.circumstances().ok_or(ReplayError::NoJournal(token))?;
    let engine = Offline::of(&journal);
    let made = remake(task, &manifest, then, &journal, &engine, Model::Recorded, repositories, dir).await?;
    let mut files = BTreeMap::new();
    for (name, bytes) in made.files.iter().filter(|(name, _)| name != TIMES_FILE) {
        let then = spool.attempt_file(id, token, name, FILE_BYTES_MAX)?;
        files.insert(name.clone(), then.as_ref() == Some(bytes));
    }
    for name in manifest.files.keys().filter(|name| ![TIMES_FILE, JOURNAL_FILE].contains(&name.as_str())) {
        files.entry(name.clone()).or_insert(false);
    }
    let is_same_verdict = made.verdict == manifest.verdict;
    let conversation = made.files.iter().find(|(name, _)| name == CONVERSATION_FILE);
    let answers = conversation.map_or(0, |(_, bytes)| exchanges(bytes));
    Ok(Replayed { verdict: made.verdict, is_same_verdict, files, answers })
}

/// Makes an attempt under circumstances that were: what its journal does not know is asked of `engine` and `model`.
///
/// # Errors
/// They cannot do it.
#[expect(clippy::too_many_arguments, reason = "all that an attempt takes")]
pub async fn remake<E: Engine>(
    task: &TaskSpec,
    manifest: &Manifest,
    then: &Circumstances,
    journal: &Journal,
    engine: &E,
    model: Model,
    repositories: RepositoryCache,
    dir: &Path,
) -> Result<super::Attempt, ReplayError> {
    let Work::Build(build) = &task.work else { return Err(ReplayError::NoJournal(manifest.token)) };
    let labels = Labels {
        spool: journal.begun().spool,
        owner: manifest.owner.clone(),
        task: TaskId::clone(&task.id),
        token: manifest.token,
        object: journal.draw(),
    };
    let shop = Workshop {
        engine: Recorded::new(engine, journal),
        repositories,
        config: then.config.clone(),
        build_network: then.build_network,
        pythons: then.pythons.clone(),
    };
    let begun = journal.begun();
    let siblings: CpuSet = begun.cpus.iter().copied().collect();
    let mut slot =
        Slot { number: 0, group: 0, cpus: begun.cpus.clone(), siblings, limits: begun.limits.clone() };
    if let Some(memory) = task.resources.memory_bytes {
        slot.limits.memory_bytes = slot.limits.memory_bytes.min(memory);
    }
    let timeout = task.resources.timeout_seconds.unwrap_or(then.config.run_timeout_seconds);
    let unique = || journal.draw();
    let job = Job {
        shop: &shop,
        task: build,
        slot: &slot,
        context_dir: dir,
        run_timeout: Duration::from_secs(timeout),
        labels: &labels,
        unique: &unique,
        say: &|_| (),
    };
    let agents = &then.config.agents;
    let asker = Asker::new(journal, model, Budget::of(agents));
    let mut brain =
        Brains::new(then.config.brain, agents, then.config.iterations_max, asker, then.reference.clone());
    Ok(attempt(&job, &mut brain).await?)
}

fn exchanges(conversation: &[u8]) -> usize {
    let read: serde_json::Value = serde_json::from_slice(conversation).unwrap_or_default();
    read["exchanges"].as_array().map_or(0, Vec::len)
}

/// No engine: it has the images that a journal knows, and does nothing.
pub struct Offline<'a>(&'a Journal);

impl<'a> Offline<'a> {
    /// With the images of this journal.
    #[must_use]
    pub fn of(journal: &'a Journal) -> Self {
        Self(journal)
    }

    fn nothing<T>(action: &'static str) -> Result<T, EngineError> {
        let detail =
            "the journal does not have it: the attempt was made by another version, or of other files";
        Err(EngineError::Failed { action, detail: detail.to_owned() })
    }
}

impl Engine for Offline<'_> {
    async fn ping(&self) -> Result<(), EngineError> {
        Ok(())
    }

    async fn build(&self, _request: &BuildRequest) -> Result<BuildOutcome, EngineError> {
        Self::nothing("replay a build")
    }

    async fn run(&self, _request: &RunRequest) -> Result<RunOutcome, EngineError> {
        Self::nothing("replay a run")
    }

    async fn adopt(&self, _request: &RunRequest) -> Result<Option<RunOutcome>, EngineError> {
        Ok(None)
    }

    async fn images(&self, _prefix: &str) -> Result<BTreeMap<String, String>, EngineError> {
        Ok(self.0.images().map(|id| (id.clone(), id.clone())).collect())
    }

    async fn tag_image(&self, _id: &str, _name: &str) -> Result<(), EngineError> {
        Ok(())
    }

    async fn pull_image(&self, _name: &str) -> Result<(), EngineError> {
        Self::nothing("replay a pull")
    }

    async fn remove_image(&self, _name: &str) -> Result<(), EngineError> {
        Ok(())
    }
}
