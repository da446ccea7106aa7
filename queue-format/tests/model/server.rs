//! What the server does with the operations that reach it.

use crate::protocol::Mutant;
use crate::state::{Aim, Came, File, Inc, LeaseDir, Life, Phase, Place, Rename, State, Task, Violation};

impl State {
    /// Whether a rename would find its source and, at its target, the directory that it was sent to.
    pub(crate) fn would_move(&self, rename: &Rename) -> bool {
        let Rename { task, by, aim, seen } = *rename;
        self.has(task, aim.source(by), seen.token)
            && (aim != Aim::Claim || self.workers[by].lease == LeaseDir::WithClass)
    }

    /// Executes a RENAME. Gives whether it did anything: if not, the server's answer is an error.
    pub(crate) fn execute(&mut self, rename: &Rename, mutant: Mutant) -> bool {
        if !self.would_move(rename) {
            return false;
        }
        let Rename { task, by, aim, seen } = *rename;
        let is_source =
            |file: &File| file.task == task && file.place == aim.source(by) && file.token == seen.token;
        let Some(at) = self.files.iter().position(is_source) else { return false };
        let old = self.files.remove(at);
        let mut new = File { place: aim.target(by), ..old };
        match aim {
            Aim::Claim => {
                new.token = mutant.raised(old.token);
                new.claims += 1;
            }
            Aim::Release => new.came = Came::HandedBack,
            Aim::Accept | Aim::Fail => {}
        }
        if old.claims != seen.claims {
            self.violation = Some(Violation::Overtaken);
        }
        if aim == Aim::Accept && self.has_given_up(by, task, seen.token) {
            self.violation = Some(Violation::WronglyVoid);
        }
        self.put(old, new);
        true
    }

    /// A person's `mv`, or a reaper's.
    pub(crate) fn move_file(&mut self, task: Task, place: Place, came: Came, keeps_token: bool) {
        let Some(at) = self.files.iter().position(|file| file.task == task) else { return };
        let old = self.files.remove(at);
        let came = if place == Place::Pending { came } else { old.came };
        let token = if keeps_token { old.token } else { 0 };
        self.put(old, File { place, came, token, ..old });
    }

    /// RMDIR of the class directory: what was sent to its handle fails from now on.
    pub(crate) fn remove_class_dir(&mut self, inc: Inc) {
        self.workers[inc].lease = LeaseDir::Bare;
        self.sent.retain(|rename| rename.by != inc);
        for phase in &mut self.workers[inc].work {
            if let Phase::Claiming { stale, .. } = phase {
                *stale = true;
            }
        }
    }

    /// Forgets the renames whose source can never be there again. `NoToken` may forget nothing by its token.
    pub(crate) fn forget_dead(&mut self, mutant: Mutant) {
        let files = &self.files;
        self.sent.retain(|rename| {
            let Some(file) = files.iter().find(|file| file.task == rename.task) else { return false };
            let source = rename.aim.source(rename.by);
            // Nothing leads out of done/, a token never falls (both are checked), and into a lease directory
            // leads only a claim, which raises the token.
            let is_passed = file.token > rename.seen.token;
            let has_left = mutant != Mutant::NoToken && rename.aim != Aim::Claim && file.place != source;
            !matches!(file.place, Place::Done(_)) && !is_passed && !has_left
        });
    }

    /// A rename over a name that is there replaces it: that file is lost.
    fn put(&mut self, old: File, new: File) {
        if new.token < old.token {
            self.violation = Some(Violation::TokenFell);
        }
        if matches!(old.place, Place::Done(_)) {
            self.violation = Some(Violation::LeftDone);
        }
        self.files.retain(|file| (file.task, file.place, file.token) != (new.task, new.place, new.token));
        self.files.push(new);
        self.files.sort_unstable();
    }

    /// The sender lives and no longer waits to learn whether its result was accepted.
    fn has_given_up(&self, by: Inc, task: Task, token: u8) -> bool {
        let worker = &self.workers[by];
        let phase = worker.work[task];
        let waits = phase.awaits_acceptance() && phase.claim().is_some_and(|claim| claim.token == token);
        matches!(worker.life, Life::Beating | Life::Suspected) && !waits
    }
}
