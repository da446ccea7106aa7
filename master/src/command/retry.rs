use std::io::Write;

use queue_format::{FailureReason, Located, Retried, Spool, State};

use super::cli::RetryArguments;
use super::show::unknown;
use super::{CommandError, Success};
use crate::show::find_id;
use crate::text::plural;

/// Moves dead letters back to pending.
pub(super) fn run(arguments: &RetryArguments, out: &mut dyn Write) -> Result<Success, CommandError> {
    let reason = arguments.reason.as_deref().map(|text| {
        text.parse::<FailureReason>().map_err(|why| CommandError::usage(format!("--reason: {why}")))
    });
    let reason = reason.transpose()?;
    let spool = Spool::open(&arguments.spool.spool)?;
    let all = spool.all()?;
    let mut chosen: Vec<&Located> = Vec::new();
    let mut is_success = true;
    for text in &arguments.ids {
        let id = find_id(text).ok();
        let mut places = all.iter().filter(|task| Some(&task.name.id) == id.as_ref());
        match places.clone().find(|task| matches!(task.state, State::Failed(_))).or_else(|| places.next()) {
            Some(task) if matches!(task.state, State::Failed(_)) => chosen.push(task),
            Some(task) => {
                is_success = false;
                writeln!(out, "{}: not failed, it lies at {}", task.name.id, task.path.display())?;
            }
            None => return Err(unknown(&spool, text)?),
        }
    }
    chosen.extend(all.iter().filter(|task| match task.state {
        State::Failed(why) => arguments.all_failed || reason == Some(why),
        _ => false,
    }));
    let mut pending = 0;
    for task in chosen {
        match spool.retry(task)? {
            Retried::Pending => pending += 1,
            Retried::NotFailed => {
                is_success = false;
                writeln!(out, "{}: somebody else has just moved it", task.name.id)?;
            }
        }
    }
    writeln!(out, "{} pending again", plural(pending, "task"))?;
    Ok(is_success.into())
}
