//! The slots at work: the allocator shared by their loops, the locks on their CPUs, and what is looked at now and then.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use queue_format::{Class, PathError, Shape};
use tokio::sync::watch;

use crate::allocator::{Allocator, Cause};
use crate::slots::{CpuLocks, HeldCpus, Slot};
use crate::topology::CpuSet;

/// How long a slot that may not be given anything waits to be told otherwise: a wait may have run out.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Shared by the loops of all slots.
#[derive(Debug)]
pub struct Seats {
    state: Mutex<State>,
    locks: CpuLocks,
    changed: watch::Sender<()>,
    clock: fn() -> Duration,
}

#[derive(Debug)]
struct State {
    allocator: Allocator,
    /// The locks of each slot; without them it is out of service.
    held: BTreeMap<u32, HeldCpus>,
    /// The CPUs that the last look found online and ours.
    usable: Option<CpuSet>,
}

impl Seats {
    /// Takes the locks of all slots; one whose CPUs somebody else has is out of service, and the others are until the
    /// first [`Self::look`]. `wait_max`: how long slots wait for each other where a task needs several.
    ///
    /// # Errors
    /// A lock cannot be made.
    pub fn new(
        slots: Vec<Slot>,
        locks: CpuLocks,
        awaited: &CpuSet,
        wait_max: Duration,
        clock: fn() -> Duration,
    ) -> Result<Self, PathError> {
        let allocator = Allocator::new(slots, wait_max);
        let state = Mutex::new(State { allocator, held: BTreeMap::new(), usable: None });
        let seats = Self { state, locks, changed: watch::Sender::new(()), clock };
        seats.take_locks(awaited)?;
        Ok(seats)
    }

    /// Waits for a while until a slot can be given something; gives whether it can.
    pub async fn wait_for(&self, number: u32) -> bool {
        let mut changes = self.changed.subscribe();
        if !self.is_free(number) {
            let _ = tokio::time::timeout(ASK_AGAIN, changes.changed()).await;
        }
        self.is_free(number)
    }

    /// Whether a slot can be given something now.
    #[must_use]
    pub fn is_free(&self, number: u32) -> bool {
        self.state().allocator.is_free(number, (self.clock)())
    }

    /// Whether any slot can be given something now.
    #[must_use]
    pub fn has_free_slot(&self) -> bool {
        let (state, now) = (self.state(), (self.clock)());
        state.allocator.slots().iter().any(|slot| state.allocator.is_free(slot.number, now))
    }

    /// Whether a task of this shape can be given to a slot now, alone or joined with others.
    #[must_use]
    pub fn has_room(&self, number: u32, shape: &Shape) -> bool {
        self.state().allocator.has_room(number, shape, (self.clock)())
    }

    /// Gives a slot a task of this shape: the slot that it works in until it is released.
    pub fn take(&self, number: u32, shape: &Shape) -> Option<Slot> {
        self.change(|state| state.allocator.take(number, shape, (self.clock)()))
    }

    /// Gives slots a container that runs already, the first of them as their leader: to be released like others. False
    /// where one of them is busy, or somebody else has its CPUs.
    pub fn adopt(&self, numbers: &[u32]) -> bool {
        self.change(|state| state.allocator.adopt(numbers))
    }

    /// What a slot was given has ended. Gives whether it was waited for: the task that needs several is to be looked for
    /// at once.
    pub fn release(&self, number: u32) -> bool {
        self.change(|state| {
            state.allocator.release(number);
            let now = (self.clock)();
            let waiting = state.allocator.waiting(now);
            waiting.is_some_and(|(shape, _)| state.allocator.has_room(number, &shape, now))
        })
    }

    /// A slot cannot be used, nor those joined to it: they are out of service until the next look, which tries again.
    pub fn set_aside(&self, number: u32, why: &str) {
        self.change(|state| {
            for joined in state.allocator.joined_to(number) {
                state.allocator.set_out(joined, Cause::Occupied, Some(why.to_owned()));
            }
            state.allocator.release(number);
        });
    }

    /// The slots that work for `number`, itself among them.
    #[must_use]
    pub fn joined_to(&self, number: u32) -> Vec<u32> {
        self.state().allocator.joined_to(number)
    }

    /// Whether tasks of a class need several slots, and can have them here.
    #[must_use]
    pub fn needs_joining(&self, class: &Class) -> bool {
        self.state().allocator.needs_joining(class)
    }

    /// Which of the classes that need several slots have tasks pending. Says for what slots wait for each other now.
    pub fn saw(&self, pending: &[Class]) -> Option<String> {
        let (shape, group) = self.change(|state| {
            let now = (self.clock)();
            state.allocator.saw(pending, now);
            state.allocator.waiting(now)
        })?;
        let asked = [
            shape.cores.map(|cores| format!("{cores} cores")),
            shape.memory_bytes.map(|bytes| format!("{} MiB", bytes >> 20)),
        ];
        let asked = asked.into_iter().flatten().collect::<Vec<_>>().join(" and ");
        Some(format!("idle slots of group {group} wait for each other: a pending task needs {asked}"))
    }

    /// Looks again which slots are in service: `usable` CPUs are online and ours, `occupied` ones are those of containers
    /// that are not ours, asked for after [`Self::take_locks`].
    pub fn look(&self, usable: &CpuSet, occupied: &[CpuSet]) {
        self.change(|state| {
            state.usable = Some(usable.clone());
            for slot in state.allocator.slots() {
                let (number, cpus) = (slot.number, slot.cpu_set());
                let gone = cpus.minus(usable);
                let reason =
                    (!gone.is_empty()).then(|| format!("CPUs {gone} are offline, or not ours any more"));
                state.allocator.set_out(number, Cause::Offline, reason);
                let is_occupied = occupied.iter().any(|occupied| occupied.touches(&cpus));
                let reason = is_occupied.then(|| "a container of another worker still runs there".to_owned());
                state.allocator.set_out(number, Cause::Occupied, reason);
            }
        });
    }

    /// Which slots are out of service, and why.
    #[must_use]
    pub fn out_of_service(&self) -> BTreeMap<u32, String> {
        self.state().allocator.out_of_service()
    }

    /// Whether none of these CPUs is left: what runs on them the kernel moves to others', as they are.
    #[must_use]
    pub fn are_gone(&self, cpus: &CpuSet) -> bool {
        self.state().usable.as_ref().is_some_and(|usable| !usable.touches(cpus))
    }

    /// Whether the locks of a slot are ours: nobody else's worker uses its cores.
    #[must_use]
    pub fn is_held(&self, number: u32) -> bool {
        self.state().held.contains_key(&number)
    }

    /// Takes the locks that are still missing, but of `awaited` CPUs: another worker, which is being restarted, goes on
    /// there. What runs on their CPUs is not known before a look that comes after.
    ///
    /// # Errors
    /// A lock cannot be made.
    pub fn take_locks(&self, awaited: &CpuSet) -> Result<(), PathError> {
        self.change(|state| {
            for slot in state.allocator.slots() {
                if state.held.contains_key(&slot.number) {
                    continue;
                }
                if slot.siblings.touches(awaited) {
                    let why = format!("attempts of another worker on this node go on soon on CPUs {awaited}");
                    state.allocator.set_out(slot.number, Cause::Locked, Some(why));
                    continue;
                }
                let reason = match self.locks.take(&slot.siblings)? {
                    Ok(held) => {
                        state.held.insert(slot.number, held);
                        let unknown = Some("it is not known yet what runs there".to_owned());
                        state.allocator.set_out(slot.number, Cause::Occupied, unknown);
                        None
                    }
                    Err(cpu) => Some(format!("another worker on this node has CPU {cpu}")),
                };
                state.allocator.set_out(slot.number, Cause::Locked, reason);
            }
            Ok(())
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let made = change(&mut self.state());
        self.changed.send_replace(());
        made
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
