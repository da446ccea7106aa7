use corosensei::stack::DefaultStack;

use crate::fiber::{self, End, Fiber, Pause};
use crate::world::{World, with};

/// Runs the processes of the current world one at a time, in an order that its chance decides.
#[derive(Default)]
pub(crate) struct Scheduler {
    running: Vec<Running>,
    /// From processes that ended: making one costs more than a whole history.
    stacks: Vec<DefaultStack>,
}

struct Running {
    index: usize,
    fiber: Fiber,
    wakes_ms: u64,
}

impl Scheduler {
    /// Until every process has ended, but for those that last.
    pub(crate) fn run(&mut self) {
        loop {
            self.take_begun();
            let goes_on = |one: &Running| {
                with(|world| !world.processes[one.index].lasts || world.processes[one.index].is_dead)
            };
            if !self.running.iter().any(goes_on) {
                return;
            }
            let next = with(|world| self.next(world));
            let Running { index, fiber, wakes_ms } = &mut self.running[next];
            with(|world| world.current = *index);
            match fiber.resume() {
                Ok(Pause::Turn) => *wakes_ms = with(|world| world.server.now_ms),
                Ok(Pause::Sleep { ms }) => *wakes_ms = with(|world| world.server.now_ms) + ms,
                Err(end) => self.end(next, end),
            }
        }
    }

    fn end(&mut self, which: usize, end: End) {
        let Running { index, fiber, .. } = self.running.swap_remove(which);
        self.stacks.push(fiber.into_stack());
        let then = with(|world| {
            world.processes[index].is_over = true;
            world.processes[index].on_crash.take()
        });
        if let (End::Crashed, Some(then)) = (end, then) {
            then();
        }
    }

    fn take_begun(&mut self) {
        let (begun, now_ms) = with(|world| (std::mem::take(&mut world.begun), world.server.now_ms));
        for (index, code) in begun {
            let stack = self.stacks.pop().unwrap_or_else(fiber::stack);
            self.running.push(Running { index, fiber: Fiber::new(stack, code), wakes_ms: now_ms });
        }
    }

    /// One that can go on; where all sleep, time passes until one wakes. The dead wake at once, to end.
    fn next(&self, world: &mut World) -> usize {
        let earliest_ms = self.running.iter().map(|one| one.wakes_ms).min().unwrap_or_default();
        world.server.now_ms = world.server.now_ms.max(earliest_ms);
        let now_ms = world.server.now_ms;
        let can = |one: &Running| one.wakes_ms <= now_ms || world.processes[one.index].is_dead;
        let ready = self.running.iter().filter(|one| can(one)).count();
        let nth = world.rng.below(ready);
        let mut ready = (0..self.running.len()).filter(|at| can(&self.running[*at]));
        ready.nth(nth).expect("the one that wakes first")
    }
}
