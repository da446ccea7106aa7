use std::future::Future;
use std::path::PathBuf;

use base_images::PythonVersion;
use queue_format::{BuildTask, Condition, Evidence, FailureReason, PythonRecord, Verdict};
use serde::Serialize;

use crate::agents::Told;
use crate::repository::SourceTree;

/// What a brain is shown of a task.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The task.
    pub task: BuildTask,
    /// The clean tree at the base commit; only ever read, never run.
    pub tree: SourceTree,
    /// When the base commit was made, or the pull request, whichever is later.
    pub date: jiff::Timestamp,
    /// The Pythons this node has base images for, ascending.
    pub pythons: Vec<PythonVersion>,
    /// What provisioning had to leave out, such as submodules that the cache does not have.
    pub notes: Vec<String>,
}

/// What exploration found; shown to people, kept with the result.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Which Python, and why.
    pub python: PythonRecord,
    /// What else was found, a sentence each, with the file it stands in.
    pub facts: Vec<String>,
    /// The test files that will be given to the runner.
    pub targets: Vec<String>,
}

/// The environment's recipe. `COPY repo /testbed` takes the tree from the context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile(pub String);

impl Dockerfile {
    /// The Python of the base image that its last stage begins with.
    #[must_use]
    pub fn python(&self) -> Option<PythonVersion> {
        let last = self.0.lines().rev().filter_map(|line| line.strip_prefix("FROM "));
        last.filter_map(|rest| PythonVersion::from_image(rest.split_whitespace().next()?)).next()
    }
}

/// How the tests are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalScript {
    /// The whole script with [`TEST_PATCH_PLACEHOLDER`] where the test patch goes.
    pub skeleton: String,
    /// Where its test command reports each test.
    pub report: ReportKind,
    /// The test files given to the runner.
    pub targets: Vec<String>,
}

/// Stands in an [`EvalScript`]'s skeleton for the test patch.
pub const TEST_PATCH_PLACEHOLDER: &str = "[CONTENT OF TEST PATCH]";

/// The environment variable that tells a test command where to write its report; scripts default it to a path
/// under /tmp, so that they run without Bottega too.
pub const REPORT_VARIABLE: &str = "BOTTEGA_REPORT";

/// How a test command tells the status of each test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// JUnit XML (xunit1 family: with `file` attributes) at `$BOTTEGA_REPORT`.
    JUnit,
    /// Nothing but its exit status: a project's own runner.
    ExitStatus,
}

/// What an iteration came to.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one lives at a time, and it is only lent")]
pub enum Observation {
    /// A step of the Dockerfile failed, or the build's time was up.
    BuildFailed {
        /// What it ends as where nobody goes on.
        reason: FailureReason,
        /// The engine's own sentence.
        error: String,
        /// The build's output.
        log: String,
    },
    /// The environment was evaluated.
    Evaluated {
        /// All runs.
        evidence: Evidence,
        /// What they say.
        verdict: Verdict,
        /// The output of the first run of each condition.
        logs: Vec<(Condition, String)>,
    },
}

/// What a brain makes of an observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "analysis", rename_all = "kebab-case")]
pub enum Analysis {
    /// The verdict stands, accepted or not.
    Final,
    /// Try again: one of the stages has learnt something.
    Feedback {
        /// Who is to act on it.
        to: Role,
        /// What was learnt, in one sentence.
        text: String,
    },
    /// No environment can be made.
    Unsolvable {
        /// The reason.
        reason: FailureReason,
        /// The telling line.
        detail: String,
    },
}

/// The stages that feedback can go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look at more of the tree, or choose another Python.
    Explore,
    /// Change the Dockerfile.
    Dockerfile,
    /// Change the evaluation script; the image is kept.
    EvalScript,
}

/// Why a brain cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum BrainError {
    /// The tree cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Tree {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No environment can be made of this tree.
    #[error("{detail}")]
    Unsolvable {
        /// The reason.
        reason: FailureReason,
        /// Why.
        detail: String,
    },
    /// What a model answered cannot be kept; the node is at fault.
    #[error("cannot keep the attempt's journal: {0}")]
    Unkept(std::io::Error),
    /// No model answers; the task is not at fault.
    #[error("no model answers: {0}")]
    Away(String),
    /// Models answer others, and never this task: it is at fault, or they are with it alone.
    #[error("no model answers this task: {0}")]
    Alone(String),
}

/// One attempt's brain: made fresh for each attempt, it remembers what it learnt in it.
pub trait Brain: Send {
    /// Looks at the tree; again after feedback to [`Role::Explore`].
    fn explore(&mut self, subject: &Subject) -> impl Future<Output = Result<Findings, BrainError>> + Send;

    /// Writes the Dockerfile from what is known by now.
    fn dockerfile(
        &mut self,
        subject: &Subject,
    ) -> impl Future<Output = Result<Dockerfile, BrainError>> + Send;

    /// Writes the evaluation script from what is known by now.
    fn eval_script(
        &mut self,
        subject: &Subject,
    ) -> impl Future<Output = Result<EvalScript, BrainError>> + Send;

    /// Judges an iteration, and learns from it.
    fn analyse(
        &mut self,
        subject: &Subject,
        observation: &Observation,
    ) -> impl Future<Output = Result<Analysis, BrainError>> + Send;

    /// Whether another round may follow after so many, of which there are to be at most `rounds_max`.
    fn may_go_on(&self, rounds: u32, rounds_max: u32) -> bool {
        rounds < rounds_max
    }

    /// What was asked of models, where any was.
    fn told(&self) -> Option<&Told> {
        None
    }

    /// Who did it.
    fn name(&self) -> &'static str;
}
