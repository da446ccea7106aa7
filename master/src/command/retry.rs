use std::io::Write;

use queue_format::{FailureReason, Retried, Spool, State};

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
    let mut chosen = find_all(&spool, &arguments.ids)?;
    if reason.is_some() || arguments.all_failed {
        let mut failed = spool.all()?;
        failed.retain(|task| match task.state {
            State::Failed(why) => reason.is_none_or(|reason| reason == why),
            _ => false,
        });
        failed.retain(|task| chosen.iter().all(|named| named.path != task.path));
        chosen.extend(failed);
    }
    let wishes = spool.control()?;
    let mut is_success = true;
    let mut pending = 0;
    for task in chosen {
        let id = &task.name.id;
        if wishes.cancelled().contains(id) {
            // A wish that was carried out, but is still there, would set it aside again.
            spool.uncancel(id)?;
        }
        let is_pending = match &task.state {
            State::Failed(_) => spool.retry(&task)? == Retried::Pending,
            State::Hold | State::Delayed { .. } => spool.release(&task)?.is_some(),
            State::Pending(_) | State::Claimed(_) | State::Done => {
                is_success = false;
                writeln!(out, "{id}: not failed, it lies at {}", task.path.display())?;
                continue;
            }
        };
        if is_pending {
            pending += 1;
        } else {
            is_success = false;
            writeln!(out, "{id}: somebody else has just moved it")?;
        }
    }
    writeln!(out, "{} pending again", plural(pending, "task"))?;
    Ok(is_success.into())
}
