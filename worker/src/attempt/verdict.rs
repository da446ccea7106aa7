use queue_format::{FailureReason, Verdict};

use super::run::AttemptError;
use crate::evaluate::strip_escapes;
use crate::synthesis::{BrainError, Observation};

/// A brain that cannot go on gives a verdict where it knows the reason; otherwise the node is at fault.
pub(super) fn hopeless(error: BrainError) -> Result<Verdict, AttemptError> {
    match error {
        BrainError::Unsolvable { reason, detail } => Ok(Verdict::failed(reason, detail, Vec::new())),
        error @ (BrainError::Tree { .. }
        | BrainError::Unkept(_)
        | BrainError::Away(_)
        | BrainError::Alone(_)) => Err(AttemptError::Brain(error)),
    }
}

pub(super) fn verdict_of(observation: &Observation) -> Verdict {
    match observation {
        Observation::BuildFailed { reason, error, log } => {
            Verdict::failed(*reason, error.clone(), last_lines(log))
        }
        Observation::Evaluated { verdict, .. } => verdict.clone(),
    }
}

pub(super) fn with_reason(verdict: Verdict, reason: FailureReason, detail: String) -> Verdict {
    match verdict {
        Verdict::Failed { log, .. } => Verdict::failed(reason, detail, log),
        Verdict::Accepted { .. } | Verdict::Completed => Verdict::failed(reason, detail, Vec::new()),
    }
}

pub(super) fn describe(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accepted { class } => format!("accepted ({class})"),
        Verdict::Completed => "completed".to_owned(),
        Verdict::Failed { reason, detail, .. } => format!("{reason}: {detail}"),
    }
}

/// The last lines of a log, as a terminal may show them: of a build's, those of the failing step.
pub(crate) fn last_lines(log: &str) -> Vec<String> {
    const LINES: usize = 12;
    const LINE_CHARS: usize = 300;
    let log = strip_escapes(log);
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(LINES)..];
    tail.iter().map(|line| line.chars().take(LINE_CHARS).collect()).collect()
}
