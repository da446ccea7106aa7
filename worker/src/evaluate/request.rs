use std::collections::BTreeSet;
use std::time::Duration;

use queue_format::{AcceptanceClass, Condition, Evidence, Labels, Verdict};
use uuid::Uuid;

use crate::engine::Limits;
use crate::synthesis::EvalScript;

/// How much evidence is asked for, and what it must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Runs of each condition: tests that differ between them are flaky.
    pub repeats: u32,
    /// The classes of environments that are accepted.
    pub accept: BTreeSet<AcceptanceClass>,
    /// Wall time of one run.
    pub run_timeout: Duration,
    /// What is kept of one run's output.
    pub log_bytes_max: usize,
    /// The largest report that is read.
    pub report_bytes_max: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            repeats: 3,
            accept: AcceptanceClass::ALL.iter().copied().collect(),
            run_timeout: Duration::from_mins(30),
            log_bytes_max: 2 << 20,
            report_bytes_max: 32 << 20,
        }
    }
}

/// An environment, and the patches whose effect its tests are to show.
#[derive(Clone)]
pub struct EvaluationRequest<'a> {
    /// The image's full id.
    pub image_id: &'a str,
    /// What the image was built from, for the evidence.
    pub dockerfile: &'a str,
    /// How the tests are run.
    pub script: &'a EvalScript,
    /// The tests that show the fix.
    pub test_patch: &'a str,
    /// The fix.
    pub fix_patch: &'a str,
    /// Labels of the containers; each gets an object of its own.
    pub labels: &'a Labels,
    /// What the slot has. Two containers at once share its memory, disk and processes.
    pub limits: &'a Limits,
    /// What is asked for.
    pub policy: &'a Policy,
    /// Fresh and unguessable names: of the containers, and of the nonces that vouch for exit statuses.
    pub unique: &'a (dyn Fn() -> Uuid + Send + Sync),
}

/// What an evaluation came to.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// All runs.
    pub evidence: Evidence,
    /// What they say.
    pub verdict: Verdict,
    /// The output of the first run of each condition.
    pub logs: Vec<(Condition, String)>,
    /// What a person should know beside the verdict: flaky tests left out, limits that did not hold.
    pub notes: Vec<String>,
}
