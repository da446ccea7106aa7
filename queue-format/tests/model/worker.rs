//! What a worker does, and what it makes of the answers it hears.

use crate::protocol::Mutant;
use crate::state::{Aim, Inc, LeaseDir, Life, Phase, Place, Rename, State, Task, Ticket, Violation};

impl State {
    /// `Lease::bring_in`, first half: makes the class directory, never the lease directory.
    pub(crate) fn make_class_dir(&mut self, inc: Inc, mutant: Mutant) {
        if self.workers[inc].lease == LeaseDir::Missing && mutant != Mutant::RemakesLease {
            // LeaseClosed: the process ends.
            self.end(inc);
            return;
        }
        self.workers[inc].lease = LeaseDir::WithClass;
        self.workers[inc].made = true;
        self.workers[inc].has_sent_mkdir = true;
    }

    /// `Lease::bring_in`, second half: sends the claim of a name that was listed.
    pub(crate) fn send_claim(&mut self, inc: Inc, task: Task) {
        let Some(file) = self.file(task) else { return };
        let seen = Ticket { token: file.token, claims: file.claims };
        let stale = self.workers[inc].lease != LeaseDir::WithClass;
        self.workers[inc].work[task] = Phase::Claiming { seen, stale };
        if !stale {
            self.send(Rename { task, by: inc, aim: Aim::Claim, seen });
        }
    }

    /// `Claim::conclude` and `Claim::release`: sends the rename that ends a claim.
    pub(crate) fn send_end(&mut self, inc: Inc, task: Task, aim: Aim) {
        let Phase::Holds { claim, tried } = self.workers[inc].work[task] else { return };
        self.workers[inc].work[task] = Phase::Ending { claim, aim, tried };
        self.send(Rename { task, by: inc, aim, seen: claim });
    }

    /// The server executes the rename that a worker waits for, and the worker hears the answer.
    pub(crate) fn deliver(&mut self, inc: Inc, task: Task, mutant: Mutant) {
        match self.workers[inc].work[task] {
            Phase::Claiming { seen, stale } => {
                let rename = Rename { task, by: inc, aim: Aim::Claim, seen };
                if !stale && self.execute(&rename, mutant) {
                    let claim = Ticket { token: mutant.raised(seen.token), claims: seen.claims + 1 };
                    self.workers[inc].work[task] = Phase::Holds { claim, tried: false };
                } else {
                    self.doubt(inc, task, Phase::DoubtsClaim { seen, stale }, mutant);
                }
            }
            Phase::Ending { claim, aim, tried } => {
                if self.execute(&Rename { task, by: inc, aim, seen: claim }, mutant) {
                    self.is_ended(inc, task, aim, claim);
                } else {
                    self.doubt(inc, task, Phase::DoubtsEnd { claim, aim, tried, gone: true }, mutant);
                }
            }
            _ => {}
        }
    }

    /// The worker hears an error that says nothing: EIO, ETIMEDOUT, EINTR, EREMOTEIO.
    pub(crate) fn fail(&mut self, inc: Inc, task: Task, mutant: Mutant) {
        match self.workers[inc].work[task] {
            Phase::Claiming { seen, .. } => {
                self.doubt(inc, task, Phase::DoubtsClaim { seen, stale: false }, mutant);
            }
            Phase::Ending { claim, aim, tried } => {
                self.doubt(inc, task, Phase::DoubtsEnd { claim, aim, tried, gone: false }, mutant);
            }
            _ => {}
        }
    }

    fn doubt(&mut self, inc: Inc, task: Task, doubt: Phase, mutant: Mutant) {
        self.workers[inc].work[task] = doubt;
        match mutant {
            Mutant::TrustErrno => self.decide(inc, task, false, mutant),
            Mutant::GoneIsDone if matches!(doubt, Phase::DoubtsEnd { gone: true, .. }) => {
                self.decide(inc, task, true, mutant);
            }
            _ => {}
        }
    }

    /// Whether the target of the rename in doubt is there.
    pub(crate) fn is_target_there(&self, inc: Inc, task: Task, mutant: Mutant) -> bool {
        match self.workers[inc].work[task] {
            Phase::DoubtsClaim { seen, .. } => self.has(task, Place::Claimed(inc), mutant.raised(seen.token)),
            Phase::DoubtsEnd { claim, aim, .. } => self.has(task, aim.target(inc), claim.token),
            _ => false,
        }
    }

    /// What a worker in doubt makes of its look at the target: `Files::rename`, `Files::rename_cheaply`.
    pub(crate) fn decide(&mut self, inc: Inc, task: Task, is_there: bool, mutant: Mutant) {
        match self.workers[inc].work[task] {
            Phase::DoubtsClaim { seen, stale } => {
                let token = mutant.raised(seen.token);
                let claims = self.file(task).map_or(0, |file| file.claims);
                self.workers[inc].work[task] = match is_there {
                    true => Phase::Holds { claim: Ticket { token, claims }, tried: false },
                    false => Phase::Idle,
                };
                // The next claim makes the class directory anew, or learns that the lease is closed.
                self.workers[inc].made &= is_there || !stale;
            }
            Phase::DoubtsEnd { claim, aim, tried, gone } => match (is_there, gone) {
                (true, _) => self.is_ended(inc, task, aim, claim),
                (false, true) if tried && aim != Aim::Accept => self.is_gone(inc, task, claim, tried, mutant),
                (false, true) => self.is_void(inc, task, claim),
                (false, false) => {
                    let tried = tried || aim == Aim::Accept;
                    self.workers[inc].work[task] = Phase::Holds { claim, tried };
                }
            },
            _ => {}
        }
    }

    /// `Lease::look_after`: a claim's file is no longer in the lease directory.
    pub(crate) fn notice(&mut self, inc: Inc, task: Task, mutant: Mutant) {
        if let Phase::Holds { claim, tried } = self.workers[inc].work[task] {
            self.is_gone(inc, task, claim, tried, mutant);
        }
    }

    /// `Lease::look_after`: hands back a task in the lease directory that no claim knows.
    pub(crate) fn return_stray(&mut self, inc: Inc, task: Task, mutant: Mutant) {
        let Some(file) = self.file(task) else { return };
        let seen = Ticket { token: file.token, claims: file.claims };
        let rename = Rename { task, by: inc, aim: Aim::Release, seen };
        self.send(rename);
        self.execute(&rename, mutant);
    }

    /// The process ends: by a crash, or since its heartbeat or its lease is gone. What it sent stays sent.
    pub(crate) fn end(&mut self, inc: Inc) {
        let worker = &mut self.workers[inc];
        worker.life = Life::Dead;
        worker.made = false;
        worker.work.fill(Phase::Idle);
    }

    fn send(&mut self, rename: Rename) {
        if let Err(at) = self.sent.binary_search(&rename) {
            self.sent.insert(at, rename);
        }
    }

    /// Its file is gone from the lease directory; by the worker's own Accept, perhaps.
    fn is_gone(&mut self, inc: Inc, task: Task, claim: Ticket, tried: bool, mutant: Mutant) {
        let is_accepted = self.has(task, Place::Done(inc), claim.token);
        if tried && is_accepted && !matches!(mutant, Mutant::VoidUnlooked | Mutant::TrustErrno) {
            self.is_ended(inc, task, Aim::Accept, claim);
        } else {
            self.is_void(inc, task, claim);
        }
    }

    fn is_ended(&mut self, inc: Inc, task: Task, aim: Aim, claim: Ticket) {
        self.workers[inc].work[task] = Phase::Idle;
        if aim == Aim::Accept {
            self.believers[task] |= 1 << inc;
            if !self.has(task, Place::Done(inc), claim.token) {
                self.violation = Some(Violation::WronglyAccepted);
            }
        }
    }

    fn is_void(&mut self, inc: Inc, task: Task, claim: Ticket) {
        self.workers[inc].work[task] = Phase::Idle;
        if self.has(task, Place::Done(inc), claim.token) {
            self.violation = Some(Violation::WronglyVoid);
        }
    }
}
