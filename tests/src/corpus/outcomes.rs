//! What a spool made of its tasks.

use queue_format::{EVIDENCE_FILE, Evidence, Located, Spool, SpoolError, State, Verdict};

use super::compare::{Outcome, Outcomes};
use super::table::ACCEPTED;

/// The largest evidence that is read; one of 10,000 tests and six runs has about 8 MB.
const EVIDENCE_BYTES_MAX: u64 = 64 << 20;

/// The outcome of every task of a spool.
///
/// # Errors
/// A directory cannot be listed, or an attempt's files are damaged.
pub fn outcomes(spool: &Spool) -> Result<Outcomes, SpoolError> {
    spool.all()?.iter().map(|task| Ok((task.name.id.to_string(), outcome(spool, task)?))).collect()
}

fn outcome(spool: &Spool, task: &Located) -> Result<Outcome, SpoolError> {
    let (id, token) = (&task.name.id, task.name.token);
    let outcome = match &task.state {
        State::Done(_) => ACCEPTED.to_owned(),
        State::Failed(reason) => reason.to_string(),
        State::Pending(_) => "pending".to_owned(),
        State::Delayed { .. } => "delayed".to_owned(),
        State::Hold => "hold".to_owned(),
        State::Claimed(_) => "claimed".to_owned(),
    };
    let detail = match spool.manifest(id, token)?.map(|manifest| manifest.verdict) {
        Some(Verdict::Failed { detail, .. }) => detail,
        Some(Verdict::Accepted { class }) => class.to_string(),
        Some(Verdict::Completed) => "completed".to_owned(),
        None => String::new(),
    };
    let evidence = spool.attempt_file(id, token, EVIDENCE_FILE, EVIDENCE_BYTES_MAX)?;
    let damaged = |error: serde_json::Error| SpoolError::Damaged {
        path: spool.layout().attempt(id, token).join(EVIDENCE_FILE),
        why: error.to_string(),
    };
    let fail_to_pass = match evidence {
        Some(bytes) => {
            let evidence: Evidence = serde_json::from_slice(&bytes).map_err(damaged)?;
            Some(evidence.transitions.fail_to_pass)
        }
        None => None,
    };
    Ok(Outcome { outcome, detail, fail_to_pass })
}
