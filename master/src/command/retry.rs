use std::io::Write;

use queue_format::{Control, FailureReason, Located, Retried, Spool, State};

use super::cli::RetryArguments;
use super::steer::find_all;
use super::{CommandError, Success};
use crate::text::plural;

/// Moves dead letters back to pending, and named tasks that are on hold or delayed too.
pub(super) fn run(arguments: &RetryArguments, out: &mut dyn Write) -> Result<Success, CommandError> {
    let reason = arguments.reason.as_deref().map(|text| {
        text.parse::<FailureReason>().map_err(|why| CommandError::usage(format!("--reason: {why}")))
    });
    let reason = reason.transpose()?;
    let spool = Spool::open(&arguments.spool.spool)?;
    let mut retry = Retry { spool: &spool, wishes: spool.control()?, pending: 0, is_success: true };
    for task in find_all(&spool, &arguments.ids)? {
        retry.one(&task, out)?;
    }
    if reason.is_some() || arguments.all_failed {
        // Each is moved as it is seen.
        let mut result = Ok(());
        spool.visit_settled(|task| {
            let is_chosen =
                matches!(task.state, State::Failed(why) if reason.is_none_or(|reason| reason == why));
            if is_chosen && result.is_ok() {
                result = retry.one(&task, out);
            }
        })?;
        result?;
    }
    writeln!(out, "{} pending again", plural(retry.pending, "task"))?;
    Ok(retry.is_success.into())
}

struct Retry<'a> {
    spool: &'a Spool,
    wishes: Control,
    pending: usize,
    is_success: bool,
}

impl Retry<'_> {
    fn one(&mut self, task: &Located, out: &mut dyn Write) -> Result<(), CommandError> {
        let id = &task.name.id;
        if matches!(task.state, State::Pending(_) | State::Claimed(_) | State::Done(_)) {
            self.is_success = false;
            writeln!(out, "{id}: not failed, it lies at {}", task.path.display())?;
            return Ok(());
        }
        if self.wishes.cancelled().contains(id) {
            // A wish that was carried out, but is still there, would set it aside again.
            self.spool.uncancel(id)?;
        }
        let is_pending = match &task.state {
            State::Failed(_) => self.spool.retry(task)? == Retried::Pending,
            _ => self.spool.release(task)?.is_some(),
        };
        if is_pending {
            self.pending += 1;
        } else {
            self.is_success = false;
            writeln!(out, "{id}: somebody else has just moved it")?;
        }
        Ok(())
    }
}
