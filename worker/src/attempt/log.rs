use std::time::Instant;

use queue_format::StageRecord;
use serde::Serialize;

use crate::synthesis::Analysis;

/// What an attempt did, as it does it: wall time by stage, and what each round came to.
#[derive(Debug, Default)]
pub(super) struct AttemptLog {
    pub(super) stages: Vec<StageRecord>,
    pub(super) rounds: Vec<Round>,
    pub(super) notes: Vec<String>,
}

/// One round: what was tried and what was learnt.
#[derive(Debug, Serialize)]
pub(super) struct Round {
    pub(super) iteration: u32,
    pub(super) rebuilt: bool,
    pub(super) outcome: String,
    /// How many questions models had been asked by its end, where any was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) asked: Option<usize>,
    #[serde(flatten)]
    pub(super) analysis: Analysis,
}

impl AttemptLog {
    /// Adds the time since `started` to a stage.
    pub(super) fn took(&mut self, stage: &str, started: Instant) {
        self.stages.push(took(stage, started));
    }
}

/// The wall time of a stage since `started`, in whole milliseconds.
pub(crate) fn took(stage: &str, started: Instant) -> StageRecord {
    let seconds = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    StageRecord { stage: stage.to_owned(), seconds }
}
