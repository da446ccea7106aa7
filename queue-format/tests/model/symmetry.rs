//! Workers are alike, and so are tasks: of the states that differ by who is who, one is searched.

use std::cmp::Ordering;

use crate::state::{INCARNATIONS_MAX, Inc, Life, Place, State, TASKS_MAX, Task, Worker};

impl State {
    /// A state that differs from this one by the order of workers and tasks alone; mostly the same one for all such
    /// states, which is as good as the search gets, while a wrong one would be unsound.
    pub(crate) fn representative(&self) -> Self {
        let tasks = self.files.len();
        let mut new_task: [Task; TASKS_MAX] = std::array::from_fn(|task| task);
        if tasks == 2 && self.compare_tasks(0, 1) == Ordering::Greater {
            new_task.swap(0, 1);
        }
        let mut order: [Inc; INCARNATIONS_MAX] = std::array::from_fn(|inc| inc);
        order.sort_by_cached_key(|inc| self.worker_key(*inc, &new_task));
        let mut new_inc = [0; INCARNATIONS_MAX];
        for (new, old) in order.iter().enumerate() {
            new_inc[*old] = new;
        }
        self.renamed(&new_task, &new_inc)
    }

    fn renamed(&self, new_task: &[Task; TASKS_MAX], new_inc: &[Inc; INCARNATIONS_MAX]) -> Self {
        let mut state = self.clone();
        for (old, worker) in self.workers.iter().enumerate() {
            let target = &mut state.workers[new_inc[old]];
            *target = *worker;
            for (task, phase) in worker.work.iter().enumerate() {
                target.work[new_task[task]] = *phase;
            }
        }
        for file in &mut state.files {
            file.task = new_task[file.task];
            file.place = match file.place {
                Place::Claimed(inc) => Place::Claimed(new_inc[inc]),
                Place::Done(inc) => Place::Done(new_inc[inc]),
                place => place,
            };
        }
        for rename in &mut state.sent {
            rename.task = new_task[rename.task];
            rename.by = new_inc[rename.by];
        }
        for (task, believers) in self.believers.iter().enumerate() {
            let bits = (0..INCARNATIONS_MAX).filter(|inc| believers & (1 << inc) != 0);
            state.believers[new_task[task]] = bits.map(|inc| 1 << new_inc[inc]).sum();
        }
        state.files.sort_unstable();
        state.sent.sort_unstable();
        state
    }

    /// Compares what of two tasks does not depend on the workers' order.
    fn compare_tasks(&self, a: Task, b: Task) -> Ordering {
        let key = |task: Task| {
            let file = self.file(task).map(|file| {
                let (kind, inc) = kind(file.place);
                (kind, file.token, file.claims, file.came, inc.map(|inc| self.workers[inc].life))
            });
            let mut phases = self.workers.map(|worker| (worker.life, worker.work[task]));
            phases.sort_unstable();
            let sent = self.sent.iter().filter(|rename| rename.task == task).count();
            (file, phases, sent, self.believers[task].count_ones())
        };
        key(a).cmp(&key(b))
    }

    /// What of a worker does not depend on the workers' order.
    fn worker_key(&self, inc: Inc, new_task: &[Task; TASKS_MAX]) -> impl Ord + use<> {
        let worker = self.workers[inc];
        let mut work = worker.work;
        let mut here = [0_u8; TASKS_MAX];
        let mut sent = [0_u8; TASKS_MAX];
        for task in 0..TASKS_MAX {
            work[new_task[task]] = worker.work[task];
        }
        for file in &self.files {
            let (kind, at) = kind(file.place);
            here[new_task[file.task]] = if at == Some(inc) { kind } else { 0 };
        }
        for rename in self.sent.iter().filter(|rename| rename.by == inc) {
            sent[new_task[rename.task]] |= 1 << rename.aim as u8;
        }
        // The unborn stay last: they start in order.
        (worker.life == Life::Unborn, Worker { work, ..worker }, here, sent)
    }
}

/// The place without whose it is, and whose.
fn kind(place: Place) -> (u8, Option<Inc>) {
    match place {
        Place::Pending => (0, None),
        Place::Aside => (1, None),
        Place::Claimed(inc) => (3, Some(inc)),
        Place::Done(inc) => (4, Some(inc)),
    }
}
