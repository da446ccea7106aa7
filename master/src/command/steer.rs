//! `cancel`, `hold`, `pause`, `resume`, `drain`: what people could do with `mv` and `touch`.

use std::collections::BTreeSet;
use std::io::Write;

use queue_format::{Cancelled, FailureReason, Located, Owner, Spool, State, TaskId, node_name};

use super::operate::{DrainArguments, PauseArguments, ResumeArguments, TasksArguments};
use super::show::unknown;
use super::{CommandError, Success};
use crate::show::find_id;
use crate::text::{clean_line, plural};

/// Looks for a task that is to be cancelled and lay nowhere: it may have been on its way from one directory to the next.
const LOOKS_MAX: usize = 3;

/// Sets tasks aside.
pub(super) fn cancel(arguments: &TasksArguments, out: &mut dyn Write) -> Result<Success, CommandError> {
    let spool = Spool::open(&arguments.spool.spool)?;
    let ids: BTreeSet<TaskId> =
        find_all(&spool, &arguments.ids)?.into_iter().map(|task| task.name.id).collect();
    for id in &ids {
        spool.cancel(id)?;
    }
    let mut became = spool.carry_out(&ids)?;
    for _ in 1..LOOKS_MAX {
        let unseen = became.iter().filter(|(_, what)| **what == Cancelled::NotSeen);
        let unseen: BTreeSet<TaskId> = unseen.map(|(id, _)| id.clone()).collect();
        became.extend(spool.carry_out(&unseen)?);
    }
    let mut is_success = true;
    for (id, what) in became {
        match what {
            Cancelled::SetAside => writeln!(out, "{id}: cancelled, it lies in failed/cancelled/ now")?,
            Cancelled::AtWork(owner) => {
                let seconds = spool.timing().beat_seconds;
                writeln!(
                    out,
                    "{id}: {owner} has it, and sets it aside with its next heartbeat (every {seconds} s)"
                )?;
            }
            Cancelled::Settled(State::Failed(FailureReason::Cancelled)) => {
                writeln!(out, "{id}: cancelled already")?;
            }
            Cancelled::Settled(state) => {
                is_success = false;
                writeln!(out, "{id}: not cancelled, {}", said(&state))?;
            }
            Cancelled::NotSeen => {
                is_success = false;
                writeln!(out, "{id}: on the move; whoever sees it next sets it aside (control/cancel/{id})")?;
            }
        }
    }
    Ok(is_success.into())
}

/// Parks tasks.
pub(super) fn hold(arguments: &TasksArguments, out: &mut dyn Write) -> Result<Success, CommandError> {
    let spool = Spool::open(&arguments.spool.spool)?;
    let mut is_success = true;
    for task in find_all(&spool, &arguments.ids)? {
        let id = &task.name.id;
        let place = spool.hold(&task)?;
        match (&task.state, place) {
            (State::Claimed(owner), Some(place)) => {
                writeln!(out, "{id}: on hold at {}; {owner} gives it up", place.display())?;
            }
            (_, Some(place)) => writeln!(out, "{id}: on hold at {}", place.display())?,
            (State::Hold, None) => writeln!(out, "{id}: on hold already")?,
            (state @ (State::Done(_) | State::Failed(_)), None) => {
                is_success = false;
                writeln!(out, "{id}: not put on hold, {}", said(state))?;
            }
            (_, None) => {
                is_success = false;
                writeln!(out, "{id}: somebody else has just moved it; try again")?;
            }
        }
    }
    Ok(is_success.into())
}

/// Keeps everybody from claiming.
pub(super) fn pause(arguments: &PauseArguments, out: &mut dyn Write) -> Result<Success, CommandError> {
    let spool = Spool::open(&arguments.spool.spool)?;
    spool.pause(&clean_line(&arguments.reason))?;
    let beat = spool.timing().beat_seconds;
    writeln!(
        out,
        "paused: workers see it with their next heartbeat (every {beat} s), and then nobody claims; what has begun goes on \
         to its end; to go on: bottega resume"
    )?;
    Ok(Success::Yes)
}

/// Ends the pause, or lets tasks go on.
pub(super) fn resume(arguments: &ResumeArguments, out: &mut dyn Write) -> Result<Success, CommandError> {
    let spool = Spool::open(&arguments.spool.spool)?;
    if arguments.ids.is_empty() {
        let was_paused = spool.control()?.paused().is_some();
        spool.resume()?;
        writeln!(out, "{}", if was_paused { "the pause is over" } else { "there is no pause" })?;
        return Ok(Success::Yes);
    }
    let mut is_success = true;
    let mut pending = 0;
    for task in find_all(&spool, &arguments.ids)? {
        let id = &task.name.id;
        match (&task.state, spool.release(&task)?) {
            (_, Some(_)) => pending += 1,
            (State::Pending(_), None) => writeln!(out, "{id}: pending already")?,
            (State::Hold | State::Delayed { .. }, None) => {
                is_success = false;
                writeln!(out, "{id}: somebody else has just moved it")?;
            }
            (State::Failed(_), None) => {
                is_success = false;
                writeln!(out, "{id}: not on hold, {}: bottega retry {id}", said(&task.state))?;
            }
            (state, None) => {
                is_success = false;
                writeln!(out, "{id}: not on hold, {}", said(state))?;
            }
        }
    }
    writeln!(out, "{} pending again", plural(pending, "task"))?;
    if let Some(reason) = spool.control()?.paused() {
        writeln!(out, "note: the spool is paused{}; to go on: bottega resume", in_brackets(reason))?;
    }
    Ok(is_success.into())
}

/// Keeps nodes from claiming, or lets them claim again.
pub(super) fn drain(arguments: &DrainArguments, out: &mut dyn Write) -> Result<Success, CommandError> {
    let spool = Spool::open(&arguments.spool.spool)?;
    let known: BTreeSet<String> =
        spool.incarnations()?.into_keys().map(|owner: Owner| owner.node().to_owned()).collect();
    for node in &arguments.nodes {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        if node.is_empty() || node.starts_with('.') || !node.chars().all(is_name) {
            return Err(CommandError::usage(format!(
                "{node:?} is not a node's name: bottega status shows them"
            )));
        }
    }
    for node in arguments.nodes.iter().map(|node| node_name(node)) {
        let node = node.as_str();
        if arguments.undo {
            spool.undrain(node)?;
            writeln!(out, "{node}: claims again")?;
            continue;
        }
        spool.drain(node)?;
        let mut claims = 0;
        for owner in spool.owners_on(node)? {
            claims += spool.claims_of(&owner)?.len();
        }
        let beat = spool.timing().beat_seconds;
        let claims = plural(claims, "claim");
        writeln!(
            out,
            "{node}: claims no more from its next heartbeat on (every {beat} s); {claims} left to finish"
        )?;
        if !known.contains(node) {
            let near = systemd::nearest(node, known.iter().map(String::as_str));
            let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            writeln!(out, "note: no daemon of {node} is here just now{near}")?;
        }
    }
    Ok(Success::Yes)
}

/// Where the tasks are that a person named; an error before anything is done where one is not in the spool.
pub(super) fn find_all(spool: &Spool, texts: &[String]) -> Result<Vec<Located>, CommandError> {
    let mut ids = BTreeSet::new();
    for text in texts {
        match find_id(text) {
            Ok(id) => drop(ids.insert(id)),
            Err(_) => return Err(unknown(spool, text)?),
        }
    }
    let found = spool.settle_find(&ids)?;
    let seen: BTreeSet<&TaskId> = found.iter().map(|task| &task.name.id).collect();
    match ids.iter().find(|id| !seen.contains(id)) {
        Some(missing) => Err(unknown(spool, missing.as_str())?),
        None => Ok(found),
    }
}

fn said(state: &State) -> String {
    match state {
        State::Pending(_) => "it is pending".to_owned(),
        State::Delayed { .. } => "it is delayed".to_owned(),
        State::Hold => "it is on hold".to_owned(),
        State::Claimed(owner) => format!("{owner} works on it"),
        State::Done(_) => "it is done".to_owned(),
        State::Failed(reason) => format!("it has failed ({reason})"),
    }
}

fn in_brackets(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({})", clean_line(reason)) }
}
