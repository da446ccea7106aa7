//! From any state, without further faults, every task comes to rest.

use crate::protocol::{Action, Mutant, Protocol};
use crate::state::{Aim, Inc, LeaseDir, Life, Phase, Place, State};

/// More steps than any world of this size needs to come to rest.
const STEPS_MAX: usize = 200;

impl Protocol {
    /// Lets the living work and the dead be reaped, with no fault from now on, and whatever was sent and not executed
    /// lost. (A state in which it is executed is a state of its own, and checked as well.) Gives whether every task
    /// is settled then, or waits in pending for a worker that is yet to start.
    pub(crate) fn comes_to_rest(&self, state: &State) -> bool {
        let mut state = state.clone();
        state.sent.clear();
        for _ in 0..STEPS_MAX {
            let Some(action) = (0..self.incarnations).find_map(|inc| self.next_of(&state, inc)) else {
                let is_worked = state.workers.iter().any(|worker| worker.life == Life::Beating);
                return state.files.iter().all(|file| match file.place {
                    Place::Done(_) | Place::Aside => true,
                    Place::Pending => !is_worked,
                    Place::Claimed(_) => false,
                });
            };
            self.apply(&mut state, action);
        }
        false
    }

    /// The next step of a worker, or of a reaper with its directory, where all goes well.
    fn next_of(&self, state: &State, inc: Inc) -> Option<Action> {
        let worker = &state.workers[inc];
        match worker.life {
            Life::Unborn => None,
            Life::Suspected => Some(Action::End(inc)),
            Life::Dead => self.next_reap(state, inc),
            Life::Beating => (0..self.tasks).find_map(|task| {
                let file = state.file(task)?;
                let is_here = file.place == Place::Claimed(inc);
                match worker.work[task] {
                    Phase::Claiming { .. } | Phase::Ending { .. } => Some(Action::Answer(inc, task)),
                    Phase::DoubtsClaim { .. } | Phase::DoubtsEnd { .. } => Some(Action::Look(inc, task)),
                    Phase::Holds { .. } if is_here => Some(Action::Conclude(inc, task, Aim::Accept)),
                    Phase::Holds { .. } => Some(Action::Notice(inc, task)),
                    Phase::Idle if is_here && self.mutant != Mutant::IgnoreStrays => {
                        Some(Action::ReturnStray(inc, task))
                    }
                    Phase::Idle if file.place == Place::Pending && !worker.is_claiming() => {
                        Some(if worker.made { Action::Claim(inc, task) } else { Action::MakeClassDir(inc) })
                    }
                    Phase::Idle => None,
                }
            }),
        }
    }

    fn next_reap(&self, state: &State, inc: Inc) -> Option<Action> {
        if !state.workers[inc].is_reapable() {
            return None;
        }
        let is_here = |task: &usize| state.file(*task).is_some_and(|file| file.place == Place::Claimed(inc));
        if let Some(task) = (0..self.tasks).find(is_here) {
            return Some(Action::ReapTask(inc, task));
        }
        match state.workers[inc].lease {
            _ if self.mutant == Mutant::NoRmdirFence => Some(Action::Forget(inc)),
            LeaseDir::WithClass => Some(Action::ReapClassDir(inc)),
            LeaseDir::Bare => Some(Action::ReapLease(inc)),
            LeaseDir::Missing => None,
        }
    }
}
