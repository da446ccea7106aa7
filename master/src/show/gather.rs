use std::path::PathBuf;

use queue_format::{
    CONVERSATION_FILE, EVIDENCE_FILE, Evidence, Located, Manifest, OUTPUT_FILE, PathError, Spool, SpoolError,
    State, TaskId, TaskSpec, Token, WorkerStatus,
};

/// All that is known of one task.
#[derive(Debug)]
pub struct Page {
    /// Its id.
    pub id: TaskId,
    /// The spool's directory.
    pub spool: PathBuf,
    /// Where its file lies; in two places only after a person copied it, nowhere after one removed it.
    pub places: Vec<Located>,
    /// What its file says, or why it cannot be read.
    pub spec: Option<Result<TaskSpec, String>>,
    /// Its attempts, in order.
    pub attempts: Vec<Attempt>,
    /// Workers that say they are at it.
    pub workers: Vec<WorkerStatus>,
}

/// One attempt at a task.
#[derive(Debug)]
pub struct Attempt {
    /// Which claim.
    pub token: Token,
    /// Its results.
    pub dir: PathBuf,
    /// Its summary; `None` where it never came to a verdict.
    pub manifest: Option<Manifest>,
    /// What the runs showed, where there were any and it was read.
    pub evidence: Option<Evidence>,
    /// Why there is no manifest, or none that can be read.
    pub error: Option<String>,
}

/// A log of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// The image's build.
    Build,
    /// The tests before the fix.
    TestOnly,
    /// The tests with the fix.
    WithFix,
    /// What a run printed.
    Output,
    /// What agents were told and answered.
    Conversation,
}

/// The largest log or evidence that is read: what a worker keeps is far less.
const FILE_BYTES_MAX: u64 = 256 << 20;

impl Log {
    /// The name of its file among an attempt's results.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Build => "build.log",
            Self::TestOnly => "test_output_testOnly.txt",
            Self::WithFix => "test_output_testWithFix.txt",
            Self::Output => OUTPUT_FILE,
            Self::Conversation => CONVERSATION_FILE,
        }
    }

    /// Reads it, of an attempt.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(self, spool: &Spool, id: &TaskId, token: Token) -> Result<Option<String>, PathError> {
        let bytes = spool.attempt_file(id, token, self.file_name(), FILE_BYTES_MAX)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

impl Page {
    /// Gathers what the spool has of a task, but for the evidence; `workers` is what every worker last said.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn gather(spool: &Spool, id: &TaskId, workers: &[WorkerStatus]) -> Result<Self, SpoolError> {
        let places = spool.settle_find(&[id.clone()].into())?;
        let spec = places.first().map(|place| spool.read_task(place).map_err(|e| e.to_string()));
        let tokens = spool.attempts(id)?;
        let attempts = tokens.into_iter().map(|token| Attempt::read(spool, id, token)).collect();
        let holder = places.iter().find_map(|place| match &place.state {
            State::Claimed(owner) => Some(owner.clone()),
            _ => None,
        });
        let mut workers: Vec<WorkerStatus> =
            workers.iter().filter(|worker| Some(&worker.owner) == holder.as_ref()).cloned().collect();
        for worker in &mut workers {
            worker.slots.retain(|slot| slot.activity.as_ref().is_some_and(|activity| activity.task == *id));
        }
        workers.retain(|worker| !worker.slots.is_empty());
        let root = spool.layout().root().to_owned();
        Ok(Self { id: id.clone(), spool: root, places, spec, attempts, workers })
    }

    /// Reads what the runs of the wanted attempts showed; where it cannot be read, there is none.
    pub fn read_evidence(&mut self, spool: &Spool, is_wanted: impl Fn(Token) -> bool) {
        for attempt in self.attempts.iter_mut().filter(|attempt| is_wanted(attempt.token)) {
            let read = spool.attempt_file(&self.id, attempt.token, EVIDENCE_FILE, FILE_BYTES_MAX);
            attempt.evidence = read.ok().flatten().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        }
    }

    /// The attempt whose result counts: the one that a name in `done/` carries.
    #[must_use]
    pub fn official(&self) -> Option<Token> {
        let done = self.places.iter().find(|place| matches!(place.state, State::Done(_)));
        done.map(|place| place.name.token)
    }

    /// The attempt that tells most: the official one, else the last with a verdict, else the last.
    #[must_use]
    pub fn telling(&self) -> Option<&Attempt> {
        let official = self.official();
        let counts = self.attempts.iter().find(|attempt| Some(attempt.token) == official);
        let judged = || self.attempts.iter().rfind(|attempt| attempt.manifest.is_some());
        counts.or_else(judged).or(self.attempts.last())
    }
}

impl Attempt {
    fn read(spool: &Spool, id: &TaskId, token: Token) -> Self {
        let dir = spool.layout().attempt(id, token);
        let (manifest, error) = match spool.manifest(id, token) {
            Ok(manifest) => (manifest, None),
            Err(e) => (None, Some(e.to_string())),
        };
        let told = || spool.attempt_error(id, token);
        Self { token, dir, manifest, evidence: None, error: error.or_else(told) }
    }
}
