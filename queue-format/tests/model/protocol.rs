//! Who may do what, and when.

use stateright::{Model, Property};

use crate::properties;
use crate::state::{
    Aim, Came, File, INCARNATIONS_MAX, Inc, LeaseDir, Life, Phase, Place, State, TASKS_MAX, Task, Worker,
};

/// The part of the protocol that is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The whole protocol.
    None,
    /// A claim does not raise the token.
    NoToken,
    /// A reaper that has seen a lease directory empty is done with it, and does not remove it.
    NoRmdirFence,
    /// A rename that failed was not done.
    TrustErrno,
    /// A source that is gone was moved by the worker itself.
    GoneIsDone,
    /// A target that is absent at one look, which a cache may answer, is absent.
    TrustOneLook,
    /// A claim whose file is gone is void, also when an Accept was sent for it before.
    VoidUnlooked,
    /// A task in the own lease directory that no claim knows is left there.
    IgnoreStrays,
    /// A lease directory without a heartbeat is nobody's business: its reaper may have died.
    JudgeHeartbeatsOnly,
    /// A lease directory that was removed is gone for ever: nobody looks whether a late MKDIR made it again.
    TrustRmdirFence,
    /// A lease directory is removed with all that is in it.
    RemoveTree,
    /// A person gives a task in pending a name without its token.
    PersonDropsToken,
    /// A person takes a task out of `done/`.
    PersonUndoes,
    /// A claim makes its lease directory again. Not caught: it costs a zombie's work and no more.
    RemakesLease,
}

/// One step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A worker starts: `Lease::open`, `Heartbeat::begin`.
    Start(Inc),
    /// A worker ends, by a crash or because its heartbeat is gone.
    End(Inc),
    MakeClassDir(Inc),
    Claim(Inc, Task),
    Conclude(Inc, Task, Aim),
    /// The server executes what a worker waits for, and the worker hears its answer.
    Answer(Inc, Task),
    /// The worker hears an error that says nothing about what was or will be done.
    Unclear(Inc, Task),
    /// The worker in doubt looks at the target and sees what is there.
    Look(Inc, Task),
    /// The worker in doubt looks at the target, which is there, and a cache says it is not.
    LookStale(Inc, Task),
    /// A worker sees that a claim's file is gone.
    Notice(Inc, Task),
    ReturnStray(Inc, Task),
    /// The server executes a RENAME, and nobody hears its answer: the answer is lost, the sender dead, the RENAME
    /// late or executed before.
    Late(usize),
    /// The server executes the MKDIR of a lease directory once more.
    LateMakeLease(Inc),
    /// The server executes the MKDIR of a class directory once more.
    LateMakeClass(Inc),
    /// A daemon takes a living worker for dead: `Spool::stop_heartbeat`.
    Suspect(Inc),
    ReapTask(Inc, Task),
    ReapClassDir(Inc),
    ReapLease(Inc),
    /// The last daemon that looks at a lease directory stops doing so; mutants only.
    Forget(Inc),
    /// A person's `mv`.
    Move(Task, Place),
}

/// The protocol, and how large a world is searched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    /// Workers that ever live.
    pub(crate) incarnations: usize,
    /// Workers that live at once.
    pub(crate) at_once: usize,
    pub(crate) tasks: usize,
    /// Claims of all tasks together.
    pub(crate) claims: u8,
    /// A worker may also find that a task failed.
    pub(crate) fails: bool,
    /// How each file last came into pending is part of the state.
    pub(crate) remembers: bool,
    pub(crate) reduction: Reduction,
    pub(crate) mutant: Mutant,
}

/// What is left out of the search since it cannot make a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reduction {
    /// Nothing.
    None,
    /// Renames whose source can never be there again ([`State::forget_dead`]), and what others do between a worker's
    /// hearing an error and its look: they might as well have done it before the one or after the other.
    Steps,
    /// Also states that differ by who is who.
    Symmetry,
}

impl Mutant {
    /// The token of a claim.
    pub(crate) fn raised(self, token: u8) -> u8 {
        if self == Self::NoToken { token } else { token + 1 }
    }
}

impl Protocol {
    /// Does a step, which is possible.
    pub(crate) fn apply(&self, state: &mut State, action: Action) {
        let mutant = self.mutant;
        match action {
            Action::Start(inc) => state.workers[inc] = Worker::NEW,
            Action::End(inc) => state.end(inc),
            Action::MakeClassDir(inc) => state.make_class_dir(inc, mutant),
            Action::Claim(inc, task) => state.send_claim(inc, task),
            Action::Conclude(inc, task, aim) => state.send_end(inc, task, aim),
            Action::Answer(inc, task) => state.deliver(inc, task, mutant),
            Action::Unclear(inc, task) => state.fail(inc, task, mutant),
            Action::Look(inc, task) => {
                let is_there = state.is_target_there(inc, task, mutant);
                state.decide(inc, task, is_there, mutant);
            }
            Action::LookStale(inc, task) => state.decide(inc, task, false, mutant),
            Action::Notice(inc, task) => state.notice(inc, task, mutant),
            Action::ReturnStray(inc, task) => state.return_stray(inc, task, mutant),
            Action::Late(at) => {
                let rename = state.sent[at];
                state.execute(&rename, mutant);
            }
            Action::LateMakeLease(inc) => state.workers[inc].lease = LeaseDir::Bare,
            Action::LateMakeClass(inc) => state.workers[inc].lease = LeaseDir::WithClass,
            Action::Suspect(inc) => state.workers[inc].life = Life::Suspected,
            Action::ReapTask(_, task) => state.move_file(task, Place::Pending, Came::Reaped, true),
            Action::ReapClassDir(inc) => state.remove_class_dir(inc),
            Action::ReapLease(inc) => {
                state.workers[inc].lease = LeaseDir::Missing;
                state.files.retain(|file| file.place != Place::Claimed(inc));
                state.workers[inc].has_sent_mkdir = false;
                state.workers[inc].forgotten = mutant == Mutant::TrustRmdirFence;
            }
            Action::Forget(inc) => state.workers[inc].forgotten = true,
            Action::Move(task, place) => {
                let keeps = mutant != Mutant::PersonDropsToken || place != Place::Pending;
                state.move_file(task, place, Came::ByHand, keeps);
            }
        }
        if !self.remembers {
            state.files.iter_mut().for_each(|file| file.came = Came::Published);
        }
        if self.reduction >= Reduction::Steps {
            state.forget_dead(mutant);
        }
    }

    /// What a worker may do.
    fn worker_actions(&self, state: &State, inc: Inc, actions: &mut Vec<Action>) {
        let worker = &state.workers[inc];
        if worker.life == Life::Unborn {
            // Incarnations are alike: they start in order.
            let is_next = inc == 0 || state.workers[inc - 1].life != Life::Unborn;
            let living = state.workers.iter().filter(|worker| worker.is_alive()).count();
            if is_next && living < self.at_once {
                actions.push(Action::Start(inc));
            }
        }
        if !worker.is_alive() {
            return;
        }
        actions.push(Action::End(inc));
        let mut wants_class_dir = false;
        for task in 0..self.tasks {
            let Some(file) = state.file(task) else { continue };
            match worker.work[task] {
                Phase::Idle => {
                    let is_claimable = file.place == Place::Pending
                        && state.files.iter().map(|file| file.claims).sum::<u8>() < self.claims
                        && !worker.is_claiming();
                    wants_class_dir |= is_claimable && !worker.made;
                    if is_claimable && worker.made {
                        actions.push(Action::Claim(inc, task));
                    }
                    if file.place == Place::Claimed(inc) && self.mutant != Mutant::IgnoreStrays {
                        actions.push(Action::ReturnStray(inc, task));
                    }
                }
                Phase::Claiming { .. } | Phase::Ending { .. } => {
                    actions.extend([Action::Answer(inc, task), Action::Unclear(inc, task)]);
                }
                Phase::DoubtsClaim { .. } | Phase::DoubtsEnd { .. } => {
                    self.looks(state, inc, task, actions);
                }
                Phase::Holds { claim, .. } => {
                    let aims = [Aim::Accept, Aim::Release, Aim::Fail];
                    let aims = &aims[..if self.fails { 3 } else { 2 }];
                    actions.extend(aims.iter().map(|aim| Action::Conclude(inc, task, *aim)));
                    if !state.has(task, Place::Claimed(inc), claim.token) {
                        actions.push(Action::Notice(inc, task));
                    }
                }
            }
        }
        if wants_class_dir {
            actions.push(Action::MakeClassDir(inc));
        }
    }

    /// One look at a claim's target is enough, since a stray is handed back; what ends a claim is looked for twice,
    /// with a change of the worker's own in between (`Files::is_there_now`), so that no cache answers.
    fn looks(&self, state: &State, inc: Inc, task: Task, actions: &mut Vec<Action>) {
        actions.push(Action::Look(inc, task));
        let may_be_stale = match state.workers[inc].work[task] {
            Phase::DoubtsClaim { .. } => true,
            Phase::DoubtsEnd { .. } => self.mutant == Mutant::TrustOneLook,
            _ => false,
        };
        if may_be_stale && state.is_target_there(inc, task, self.mutant) {
            actions.push(Action::LookStale(inc, task));
        }
    }

    /// What other daemons may do about a worker, and the server with old MKDIRs.
    fn reaper_actions(&self, state: &State, inc: Inc, actions: &mut Vec<Action>) {
        let worker = &state.workers[inc];
        match worker.life {
            Life::Unborn => return,
            Life::Beating => {
                actions.push(Action::Suspect(inc));
                return;
            }
            Life::Suspected | Life::Dead => {}
        }
        match worker.lease {
            LeaseDir::Missing => actions.push(Action::LateMakeLease(inc)),
            LeaseDir::Bare if worker.has_sent_mkdir => actions.push(Action::LateMakeClass(inc)),
            LeaseDir::Bare | LeaseDir::WithClass => {}
        }
        if !worker.is_reapable() {
            return;
        }
        let occupied = (0..self.tasks)
            .filter(|task| state.file(*task).is_some_and(|file| file.place == Place::Claimed(inc)));
        actions.extend(occupied.map(|task| Action::ReapTask(inc, task)));
        let is_empty = !state.is_occupied(inc);
        match self.mutant {
            Mutant::NoRmdirFence if is_empty => actions.push(Action::Forget(inc)),
            Mutant::JudgeHeartbeatsOnly if !is_empty => actions.push(Action::Forget(inc)),
            _ => {}
        }
        match worker.lease {
            _ if self.mutant == Mutant::NoRmdirFence => {}
            LeaseDir::WithClass if is_empty => actions.push(Action::ReapClassDir(inc)),
            LeaseDir::Bare => actions.push(Action::ReapLease(inc)),
            LeaseDir::WithClass if self.mutant == Mutant::RemoveTree => actions.push(Action::ReapLease(inc)),
            _ => {}
        }
    }

    /// What a person may do.
    fn human_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let is_free =
            |file: &File| self.mutant == Mutant::PersonUndoes || !matches!(file.place, Place::Done(_));
        for file in state.files.iter().filter(|file| is_free(file)) {
            let places = [Place::Pending, Place::Aside];
            actions
                .extend(places.iter().filter(|to| **to != file.place).map(|to| Action::Move(file.task, *to)));
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        assert!(self.incarnations <= INCARNATIONS_MAX && self.tasks <= TASKS_MAX, "larger than the state");
        let mut workers = [Worker::UNBORN; INCARNATIONS_MAX];
        workers[..self.at_once].fill(Worker::NEW);
        let fresh = |task| File { task, place: Place::Pending, token: 0, claims: 0, came: Came::Published };
        vec![State {
            files: (0..self.tasks).map(fresh).collect(),
            sent: Vec::new(),
            workers,
            believers: [0; TASKS_MAX],
            violation: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_some() {
            return;
        }
        let doubt = (0..self.incarnations).find_map(|inc| Some((inc, state.workers[inc].doubt()?)));
        if let Some((inc, task)) = doubt.filter(|_| self.reduction >= Reduction::Steps) {
            self.looks(state, inc, task, actions);
            return;
        }
        for inc in 0..self.incarnations {
            self.worker_actions(state, inc, actions);
            self.reaper_actions(state, inc, actions);
        }
        let late = state.sent.iter().enumerate().filter(|(_, rename)| state.would_move(rename));
        actions.extend(late.map(|(at, _)| Action::Late(at)));
        self.human_actions(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.apply(&mut next, action);
        if self.reduction == Reduction::Symmetry {
            next = next.representative();
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
