//! The right to claim: of a new incarnation, or of one whose process ended before its attempts did.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use queue_format::{Claim, Lease, Life, LifeLock, Owner, PathError, Presence, Spool, SpoolError, TaskName};
use uuid::Uuid;

use crate::attempt::journal::{Begun as Beginning, Journal};
use crate::seats::Seats;
use crate::slots::{Slot, slots_made_of};
use crate::topology::CpuSet;

/// How often a worker looks at the other daemons' heartbeats in the time after which a silent one is dead.
const LOOKS_A_SILENCE: u32 = 3;

/// What an incarnation has among the others.
#[derive(Debug)]
pub struct Mandate {
    pub(super) lease: Lease,
    pub(super) presence: Presence,
    /// By the number of the slot that goes on with it.
    pub(super) begun: BTreeMap<u32, Begun>,
}

/// An attempt that a process before this one began.
#[derive(Debug)]
pub struct Begun {
    pub(super) claim: Claim,
    pub(super) journal: Journal,
    /// What it was given: one slot, or several joined.
    pub(super) given: Slot,
}

impl Mandate {
    /// Of a new incarnation.
    ///
    /// # Errors
    /// The lease directory or the heartbeat cannot be made.
    pub fn new(spool: &Spool, owner: &Owner) -> Result<Self, SpoolError> {
        let lease = Lease::open(spool, owner.clone())?;
        let presence = Presence::begin(spool, owner.clone(), look_pause(spool))?;
        Ok(Self { lease, presence, begun: BTreeMap::new() })
    }

    /// Of an incarnation whose process is gone: its attempts go on in the slots they began in. Claims that nobody can go
    /// on with, for their slot is not what it was, somebody else has it, or the machine was started anew, are handed back.
    ///
    /// # Errors
    /// [`SpoolError::LeaseClosed`] where others took it for dead; otherwise the spool cannot be read or written.
    pub fn resume(
        spool: &Spool,
        owner: &Owner,
        state_dir: &Path,
        boot: &str,
        slots: &[Slot],
        seats: &Seats,
    ) -> Result<Self, SpoolError> {
        let presence = Presence::resume(spool, owner.clone(), look_pause(spool))?;
        let (lease, claims) = Lease::resume(spool, owner.clone())?;
        let mut begun = BTreeMap::new();
        for claim in claims {
            let journal = Journal::resume(state_dir, owner, claim.name(), boot);
            let given = journal.as_ref().and_then(|journal| given(slots, journal.begun()));
            match (journal, given) {
                (Some(journal), Some((given, numbers))) if seats.adopt(&numbers) => {
                    begun.insert(given.number, Begun { claim, journal, given });
                }
                (journal, given) => {
                    let why = match (&journal, given) {
                        (None, _) => "it had not begun, or before the machine was started anew",
                        (_, None) => "slots are made of other cores now",
                        _ => "another worker has its cores",
                    };
                    let TaskName { id, token, .. } = claim.name();
                    tracing::warn!(task = %id, %token, "handed back, to begin again: {why}");
                    // Where that fails it is a stray, and the next looks hand it back.
                    if let Err(error) = claim.release() {
                        tracing::warn!(task = %claim.name().id, %error, "cannot hand the task back yet");
                    }
                    if let Some(journal) = journal {
                        journal.end();
                    }
                }
            }
        }
        Ok(Self { lease, presence, begun })
    }

    /// The containers that are to run on.
    #[must_use]
    pub fn running(&self) -> HashSet<Uuid> {
        self.begun.values().flat_map(|begun| begun.journal.left_running()).copied().collect()
    }

    /// Whether an attempt goes on in a slot.
    #[must_use]
    pub fn is_at_work(&self, slot: &Slot) -> bool {
        self.begun.values().any(|begun| begun.given.cpu_set().touches(&slot.cpu_set()))
    }

    /// How many attempts go on.
    #[must_use]
    pub fn continued(&self) -> usize {
        self.begun.len()
    }
}

/// What processes of this instance left.
#[derive(Debug)]
pub struct Left {
    /// The latest incarnation whose attempts can be gone on with: from now on this process's own.
    pub taken_over: Option<(Owner, LifeLock)>,
    /// Others, whose attempts nobody goes on with.
    pub void: Vec<Owner>,
}

/// Looks for incarnations of this instance whose process ended before their attempts did.
///
/// # Errors
/// The spool or the state directory cannot be read.
pub fn left_behind(
    spool: &Spool,
    node: &str,
    state_dir: &Path,
    boot: &str,
    instance: &str,
) -> Result<Left, PathError> {
    let mut left = Vec::new();
    for owner in LifeLock::known(state_dir)?.into_iter().filter(|owner| owner.node() == node) {
        if LifeLock::look(state_dir, &owner)? != Life::Left {
            continue;
        }
        let begun = Beginning::all_of(state_dir, &owner);
        // Without one that can be read nobody would ever take care of it.
        let is_ours = |begun: &Beginning| begun.instance == instance && begun.spool == spool.id();
        if begun.is_empty() || begun.iter().any(is_ours) {
            left.push((owner, begun));
        }
    }
    let leases = spool.owners_on(node)?;
    // Incarnations are named by the time at which they began.
    left.sort_by(|one, other| other.0.cmp(&one.0));
    let mut found = Left { taken_over: None, void: Vec::new() };
    for (owner, begun) in left {
        let is_of_use = begun.iter().any(|begun| begun.boot == boot) && leases.contains(&owner);
        // Another process of this name may be faster.
        let Some(lock) = LifeLock::take_over(state_dir, &owner)? else { continue };
        if found.taken_over.is_none() && is_of_use {
            found.taken_over = Some((owner, lock));
        } else {
            LifeLock::forget_attempts(state_dir, &owner)?;
            found.void.push(owner);
        }
    }
    Ok(found)
}

/// The CPUs of attempts that wait for a worker of another name to go on with them: workers of a node that are restarted
/// together come back one after the other.
///
/// # Errors
/// The state directory cannot be read.
pub fn awaited_cpus(state_dir: &Path, boot: &str, instance: &str) -> Result<CpuSet, PathError> {
    let mut cpus = Vec::new();
    for owner in LifeLock::known(state_dir)? {
        if LifeLock::look(state_dir, &owner)? == Life::Left {
            let begun = Beginning::all_of(state_dir, &owner).into_iter();
            let awaited = begun.filter(|begun| begun.boot == boot && begun.instance != instance);
            cpus.extend(awaited.flat_map(|begun| begun.cpus));
        }
    }
    Ok(cpus.into_iter().collect())
}

/// What an attempt was given, and the slots that are that, the one that leads first; `None` where slots are made otherwise
/// now.
fn given(slots: &[Slot], begun: &Beginning) -> Option<(Slot, Vec<u32>)> {
    let cpus: CpuSet = begun.cpus.iter().copied().collect();
    let lead = slots.iter().find(|slot| begun.cpus.first().is_some_and(|first| slot.cpus.contains(first)))?;
    let mut numbers = slots_made_of(slots, &cpus)?;
    numbers.sort_by_key(|number| *number != lead.number);
    let given = Slot { cpus: begun.cpus.clone(), limits: begun.limits.clone(), ..lead.clone() };
    Some((given, numbers))
}

fn look_pause(spool: &Spool) -> Duration {
    Duration::from_secs(spool.timing().silence_seconds) / LOOKS_A_SILENCE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WorkerConfig;
    use crate::slots::plan;
    use crate::slots::tests::machine;

    #[test]
    fn an_attempt_goes_on_in_the_slots_that_it_began_in() {
        let plan_of = |slot_cores| {
            let config = WorkerConfig { slots: 8 / slot_cores, slot_cores, ..WorkerConfig::default() };
            plan(&machine(1, 8, 1, 64 << 30), &config).slots
        };
        let slots = plan_of(4);
        let check = |slots: &[Slot], cpus: &[u32], expected: Option<(u32, Vec<u32>)>| {
            let begun = Beginning {
                at: jiff::Timestamp::UNIX_EPOCH,
                instance: "worker".to_owned(),
                boot: "boot".to_owned(),
                spool: Uuid::from_u128(1).to_string().parse().unwrap(),
                cpus: cpus.to_vec(),
                seed: [0; 32],
                limits: slots[0].limits.clone(),
            };
            let got = given(slots, &begun).map(|(given, numbers)| {
                assert_eq!(given.cpus, cpus, "in their order: a share is the first of them");
                (given.number, numbers)
            });
            assert_eq!(got, expected, "{cpus:?}");
        };
        check(&slots, &[0, 1, 2, 3], Some((0, vec![0])));
        check(&slots, &[4, 5, 6, 7, 0, 1, 2, 3], Some((1, vec![1, 0])));
        check(&slots, &[0, 1], None);
        check(&slots, &[2, 3, 4, 5], None);
        check(&slots, &[8, 9], None);
        check(&slots, &[], None);
        check(&plan_of(2), &[0, 1, 2, 3], Some((0, vec![0, 1])));
    }
}
