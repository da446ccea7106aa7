//! What must hold in every state, and what must happen in some.

use stateright::Property;

use crate::protocol::Protocol;
use crate::state::{Came, File, LeaseDir, Life, Phase, Place, State, Task, Violation};

/// Broken where a task is lost.
pub(crate) const ONE_FILE: &str = "each task has exactly one file";
/// Broken by a worker that takes another's result for its own.
pub(crate) const ACCEPTED_IS_ACCEPTED: &str = "a worker that believes its result accepted is right";
/// Broken where two results of a task are accepted, or one is withdrawn.
pub(crate) const ONE_BELIEVER: &str = "at most one worker ever believes its result accepted, and for good";
/// Broken where two attempts write the same results.
pub(crate) const ONE_HOLDER: &str = "no two workers work under one token";
/// Broken by a task that is done and done again.
pub(crate) const DONE_IS_DONE: &str = "a task in done stays there";
/// Broken by a name that lost its token.
pub(crate) const TOKEN_RISES: &str = "a token never falls";
/// Broken by a worker that gives up a result that is accepted.
pub(crate) const VOID_IS_VOID: &str = "a worker that believes its attempt void is right";
/// Broken by a rename that comes late, or once more.
pub(crate) const NOT_OVERTAKEN: &str = "no rename moves a task that was claimed anew since it was sent";
/// Broken where a task is stuck.
pub(crate) const RESTS: &str = "without further faults every task is settled";

/// All of them: the first ones always, the others sometimes.
pub(crate) fn all(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut all = all_always();
    all.extend(all_sometimes());
    if protocol.remembers {
        all.extend(ways_back());
    }
    all
}

fn all_always() -> Vec<Property<Protocol>> {
    vec![
        always(ONE_FILE, |protocol, state| {
            state.files.len() == protocol.tasks && (0..protocol.tasks).all(|task| state.file(task).is_some())
        }),
        always(ACCEPTED_IS_ACCEPTED, |_, state| state.violation != Some(Violation::WronglyAccepted)),
        always(ONE_BELIEVER, |protocol, state| {
            (0..protocol.tasks).all(|task| match state.believers[task] {
                0 => true,
                believers => is_done_by(state, task).is_some_and(|inc| believers == 1 << inc),
            })
        }),
        always(VOID_IS_VOID, |_, state| state.violation != Some(Violation::WronglyVoid)),
        always(DONE_IS_DONE, |_, state| state.violation != Some(Violation::LeftDone)),
        always(TOKEN_RISES, |_, state| state.violation != Some(Violation::TokenFell)),
        always(NOT_OVERTAKEN, |_, state| state.violation != Some(Violation::Overtaken)),
        always(ONE_HOLDER, |protocol, state| {
            (0..protocol.tasks).all(|task| {
                let mut tokens: Vec<u8> = state
                    .workers
                    .iter()
                    .filter_map(|worker| Some(worker.work[task].claim()?.token))
                    .collect();
                let claims = tokens.len();
                tokens.sort_unstable();
                tokens.dedup();
                tokens.len() == claims
            })
        }),
        always(RESTS, |protocol, state| state.violation.is_some() || protocol.comes_to_rest(state)),
    ]
}

fn all_sometimes() -> Vec<Property<Protocol>> {
    vec![
        sometimes("the first worker has done all", |protocol, state| has_done_all(protocol, state, 0)),
        sometimes("the second worker has done all", |protocol, state| has_done_all(protocol, state, 1)),
        sometimes("done at the first claim", |_, state| any_done(state, |file| file.claims == 1)),
        sometimes("done by a worker that died before it knew", |_, state| is_done_unknown(state, Life::Dead)),
        sometimes("done by a zombie", |_, state| is_done_unknown(state, Life::Suspected)),
        sometimes("done while a zombie works under an older token", |_, state| {
            any_done(state, |file| {
                state.workers.iter().any(|worker| {
                    worker.work[file.task].claim().is_some_and(|claim| claim.token < file.token)
                })
            })
        }),
        sometimes("a task lies in the lease directory of a worker that does not know", |_, state| {
            state.files.iter().any(|file| match file.place {
                Place::Claimed(inc) => {
                    state.workers[inc].life == Life::Beating
                        && state.workers[inc].work[file.task] == Phase::Idle
                }
                _ => false,
            })
        }),
        sometimes("all are done, all workers are dead, nothing is left", |protocol, state| {
            let mut born = state.workers[..protocol.incarnations].iter();
            (0..protocol.tasks).all(|task| is_done_by(state, task).is_some())
                && born.all(|worker| worker.life == Life::Dead && worker.lease == LeaseDir::Missing)
        }),
    ]
}

/// How a task came back before it was done.
fn ways_back() -> Vec<Property<Protocol>> {
    vec![
        sometimes("done after a reap", |_, state| any_done(state, |file| file.came == Came::Reaped)),
        sometimes("done after a person's mv", |_, state| any_done(state, |file| file.came == Came::ByHand)),
        sometimes("done after it was handed back", |_, state| {
            any_done(state, |file| file.came == Came::HandedBack)
        }),
    ]
}

type Condition = fn(&Protocol, &State) -> bool;

fn always(name: &'static str, condition: Condition) -> Property<Protocol> {
    Property::always(name, condition)
}

fn sometimes(name: &'static str, condition: Condition) -> Property<Protocol> {
    Property::sometimes(name, condition)
}

fn is_done_by(state: &State, task: Task) -> Option<usize> {
    match state.file(task)?.place {
        Place::Done(inc) => Some(inc),
        _ => None,
    }
}

fn has_done_all(protocol: &Protocol, state: &State, inc: usize) -> bool {
    (0..protocol.tasks).all(|task| is_done_by(state, task) == Some(inc) && state.believers[task] != 0)
}

fn any_done(state: &State, is_so: impl Fn(&File) -> bool) -> bool {
    state.files.iter().any(|file| matches!(file.place, Place::Done(_)) && is_so(file))
}

fn is_done_unknown(state: &State, life: Life) -> bool {
    any_done(state, |file| match file.place {
        Place::Done(inc) => state.workers[inc].life == life && state.believers[file.task] == 0,
        _ => false,
    })
}
