//! Which slots work on what: a state machine without I/O.
//!
//! ```text
//!          take (alone, or joined with idle ones of its group)
//!   idle ────────────────────────────────────────────────────► busy
//!     ▲                                                          │
//!     └──────────────────────── release ─────────────────────────┘
//! ```
//!
//! Beside that, a slot is out of service while there is a reason: somebody else has its cores, one of its CPUs is
//! offline, a container that nobody adopted still runs there. One that is busy ends its work; none is taken.
//!
//! A task larger than a slot is given several of one group. Tasks that fit one slot would starve it: so while such a
//! task is pending, the slots of one group that become idle wait for each other, for a bounded time, and then as long
//! not.

use std::collections::BTreeMap;
use std::time::Duration;

use queue_format::{Class, Shape};

use crate::slots::Slot;

/// Why a slot is out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Somebody else's lock is on one of its CPUs.
    Locked,
    /// A CPU of it is offline, or not ours any more.
    Offline,
    /// A container that no living worker looks after runs on its CPUs.
    Occupied,
}

/// Slots, and which of them is idle.
#[derive(Clone, Debug)]
pub struct Allocator {
    seats: Vec<Seat>,
    wait_max: Duration,
    wait: Wait,
}

#[derive(Clone, Debug)]
struct Seat {
    slot: Slot,
    /// The number of the slot that leads: its own where it works alone.
    busy_for: Option<u32>,
    out: BTreeMap<Cause, String>,
}

#[derive(Clone, Debug)]
enum Wait {
    None,
    /// Idle slots of a group wait until this shape fits them.
    For {
        shape: Shape,
        group: u32,
        until: Duration,
    },
    /// It was in vain: tasks that fit one slot have their turn.
    Not {
        until: Duration,
    },
}

impl Allocator {
    /// All slots idle. `wait_max`: how long slots wait for each other at most.
    #[must_use]
    pub fn new(slots: Vec<Slot>, wait_max: Duration) -> Self {
        let seat = |slot| Seat { slot, busy_for: None, out: BTreeMap::new() };
        Self { seats: slots.into_iter().map(seat).collect(), wait_max, wait: Wait::None }
    }

    /// Whether a slot can be given something now: idle, in service, and not waiting for others to become idle.
    #[must_use]
    pub fn is_free(&self, number: u32, now: Duration) -> bool {
        self.seat(number).is_some_and(Seat::is_idle) && !self.waits(number, now)
    }

    /// Whether a task of this shape can be given to a slot, alone or joined with idle ones of its group.
    #[must_use]
    pub fn has_room(&self, number: u32, shape: &Shape, now: Duration) -> bool {
        if !self.is_free(number, now) {
            return false;
        }
        let Some(chosen) = self.choose(number, shape) else { return false };
        // What the others wait for must not be taken apart again.
        match self.waiting(now) {
            Some((wanted, group)) if self.group_of(number) == Some(group) && *shape != wanted => {
                let rest = self.idle_in(group).filter(|slot| !chosen.contains(&slot.number));
                fits(rest, &wanted)
            }
            _ => true,
        }
    }

    /// Gives a slot a task of this shape; the slot that it works in, joined from several where it must be. `None` where
    /// there is no room.
    pub fn take(&mut self, number: u32, shape: &Shape, now: Duration) -> Option<Slot> {
        if !self.has_room(number, shape, now) {
            return None;
        }
        let chosen = self.choose(number, shape)?;
        if self.waiting(now).is_some_and(|(wanted, _)| wanted == *shape) {
            self.wait = Wait::None;
        }
        let mut parts = Vec::new();
        for seat in self.seats.iter_mut().filter(|seat| chosen.contains(&seat.slot.number)) {
            seat.busy_for = Some(number);
            parts.push(&seat.slot);
        }
        parts.sort_by_key(|slot| slot.number != number);
        Some(join(&parts))
    }

    /// Gives slots what runs there already; the first of them leads, and is released for all. False, and nothing is
    /// given, where one is busy, not there, or locked by somebody else.
    pub fn adopt(&mut self, numbers: &[u32]) -> bool {
        let Some(lead) = numbers.first() else { return false };
        let is_idle = |number: &u32| {
            let seat = self.seat(*number);
            seat.is_some_and(|seat| seat.busy_for.is_none() && !seat.out.contains_key(&Cause::Locked))
        };
        if !numbers.iter().all(is_idle) {
            return false;
        }
        for seat in self.seats.iter_mut().filter(|seat| numbers.contains(&seat.slot.number)) {
            seat.busy_for = Some(*lead);
        }
        true
    }

    /// What a slot was given has ended.
    pub fn release(&mut self, number: u32) {
        for seat in self.seats.iter_mut().filter(|seat| seat.busy_for == Some(number)) {
            seat.busy_for = None;
        }
    }

    /// The slots that work for `number`, itself among them.
    #[must_use]
    pub fn joined_to(&self, number: u32) -> Vec<u32> {
        let seats = self.seats.iter().filter(|seat| seat.busy_for == Some(number));
        seats.map(|seat| seat.slot.number).collect()
    }

    /// Takes a slot out of service for a cause, or back where there is no `reason` any more. Gives whether that is news.
    pub fn set_out(&mut self, number: u32, cause: Cause, reason: Option<String>) -> bool {
        let Some(seat) = self.seats.iter_mut().find(|seat| seat.slot.number == number) else { return false };
        match reason {
            Some(reason) => seat.out.insert(cause, reason.clone()) != Some(reason),
            None => seat.out.remove(&cause).is_some(),
        }
    }

    /// Which slots are out of service, and why.
    #[must_use]
    pub fn out_of_service(&self) -> BTreeMap<u32, String> {
        let out = self.seats.iter().filter(|seat| !seat.out.is_empty());
        let why = |seat: &Seat| seat.out.values().cloned().collect::<Vec<_>>().join("; ");
        out.map(|seat| (seat.slot.number, why(seat))).collect()
    }

    /// Whether tasks of a class need more than one slot, and slots of some group can be joined to hold one.
    #[must_use]
    pub fn needs_joining(&self, class: &Class) -> bool {
        let shape = class.shape();
        !self.seats.iter().any(|seat| shape.fits(seat.slot.cpus.len(), seat.slot.limits.memory_bytes))
            && self.groups().any(|group| fits(self.in_service(group), &shape))
    }

    /// Takes in which classes that [`Self::needs_joining`] names have a task pending, the most urgent first; those of
    /// one slot that are more urgent have theirs before.
    pub fn saw(&mut self, pending: &[Class], now: Duration) {
        match &self.wait {
            Wait::For { until, .. } if *until <= now => self.wait = Wait::Not { until: now + self.wait_max },
            Wait::Not { until } if *until <= now => self.wait = Wait::None,
            _ => {}
        }
        let shapes: Vec<Shape> = pending.iter().map(Class::shape).collect();
        match &self.wait {
            Wait::For { shape, group, .. }
                if !shapes.contains(shape) || !fits(self.in_service(*group), shape) =>
            {
                self.wait = Wait::None;
            }
            _ => {}
        }
        if matches!(self.wait, Wait::None) && !self.wait_max.is_zero() {
            let place = shapes.iter().find_map(|shape| {
                let able = self.groups().filter(|group| fits(self.in_service(*group), shape));
                // Where most slots are idle already.
                let group = able.max_by_key(|group| (self.idle_in(*group).count(), u32::MAX - group))?;
                Some((*shape, group))
            });
            if let Some((shape, group)) = place {
                self.wait = Wait::For { shape, group, until: now + self.wait_max };
            }
        }
    }

    /// The shape that idle slots of a group wait for.
    #[must_use]
    pub fn waiting(&self, now: Duration) -> Option<(Shape, u32)> {
        match self.wait {
            Wait::For { shape, group, until } if now < until => Some((shape, group)),
            _ => None,
        }
    }

    /// Every slot.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        self.seats.iter().map(|seat| seat.slot.clone()).collect()
    }

    fn waits(&self, number: u32, now: Duration) -> bool {
        self.waiting(now).is_some_and(|(shape, group)| {
            self.group_of(number) == Some(group) && !fits(self.idle_in(group), &shape)
        })
    }

    /// The slot alone, or the fewest of its group with it, its neighbours first.
    fn choose(&self, number: u32, shape: &Shape) -> Option<Vec<u32>> {
        let group = self.group_of(number)?;
        let mut idle: Vec<&Slot> = self.idle_in(group).collect();
        idle.sort_by_key(|slot| slot.number.abs_diff(number));
        let count = (1..=idle.len()).find(|count| fits(idle[..*count].iter().copied(), shape))?;
        Some(idle[..count].iter().map(|slot| slot.number).collect())
    }

    fn idle_in(&self, group: u32) -> impl Iterator<Item = &Slot> {
        let idle = self.seats.iter().filter(move |seat| seat.slot.group == group && seat.is_idle());
        idle.map(|seat| &seat.slot)
    }

    fn in_service(&self, group: u32) -> impl Iterator<Item = &Slot> {
        let seats = self.seats.iter().filter(move |seat| seat.slot.group == group && seat.out.is_empty());
        seats.map(|seat| &seat.slot)
    }

    fn groups(&self) -> impl Iterator<Item = u32> {
        let groups: std::collections::BTreeSet<u32> = self.seats.iter().map(|seat| seat.slot.group).collect();
        groups.into_iter()
    }

    fn group_of(&self, number: u32) -> Option<u32> {
        Some(self.seat(number)?.slot.group)
    }

    fn seat(&self, number: u32) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.slot.number == number)
    }
}

impl Seat {
    fn is_idle(&self) -> bool {
        self.busy_for.is_none() && self.out.is_empty()
    }
}

/// Whether slots together are enough.
fn fits<'a>(slots: impl Iterator<Item = &'a Slot>, shape: &Shape) -> bool {
    let (mut cpus, mut memory_bytes, mut count) = (0, 0u64, 0);
    for slot in slots {
        cpus += slot.cpus.len();
        memory_bytes = memory_bytes.saturating_add(slot.limits.memory_bytes);
        count += 1;
    }
    count > 0 && shape.fits(cpus, memory_bytes)
}

/// One slot of several: CPUs, memory and disk added, the first one's name. They share their memory's NUMA node.
fn join(parts: &[&Slot]) -> Slot {
    let mut joined = parts[0].clone();
    for part in &parts[1..] {
        joined.cpus.extend(&part.cpus);
        let limits = &mut joined.limits;
        limits.memory_bytes += part.limits.memory_bytes;
        limits.disk_bytes += part.limits.disk_bytes;
    }
    joined.limits.cpuset_cpus = joined.cpu_set().to_string();
    joined
}

#[cfg(test)]
mod tests;
