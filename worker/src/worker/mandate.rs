//! The right to claim: of a new incarnation, or of one whose process ended before its attempts did.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use queue_format::{Claim, Lease, Life, LifeLock, Owner, PathError, Presence, Spool, SpoolError};
use uuid::Uuid;

use crate::attempt::journal::{Begun as Beginning, Journal};
use crate::slots::{Slot, slots_of};
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
    /// The slots that it takes up, the first of them as their leader, and what they are together.
    pub(super) slots: Vec<u32>,
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
    /// on with, for their slot is not what it was or the machine was started anew, are handed back.
    ///
    /// # Errors
    /// [`SpoolError::LeaseClosed`] where others took it for dead; otherwise the spool cannot be read or written.
    pub fn resume(
        spool: &Spool,
        owner: &Owner,
        state_dir: &Path,
        boot: &str,
        slots: &[Slot],
    ) -> Result<Self, SpoolError> {
        let presence = Presence::resume(spool, owner.clone(), look_pause(spool))?;
        let (lease, claims) = Lease::resume(spool, owner.clone())?;
        let mut begun = BTreeMap::new();
        for claim in claims {
            let journal = Journal::resume(state_dir, owner, claim.name(), boot);
            let given = journal.as_ref().and_then(|journal| given(slots, journal.begun()));
            match (journal, given) {
                (Some(journal), Some(given)) => {
                    let slots = slots_of(slots, &given.cpu_set());
                    begun.insert(given.number, Begun { claim, journal, slots, given });
                }
                (journal, _) => {
                    tracing::info!(task = %claim.name().id, token = %claim.name().token, "handed back: it cannot be gone on with");
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
        if begun.is_empty() || begun.iter().any(|begun| begun.instance == instance) {
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

/// The slots that an attempt began in, as it began; `None` where they are made otherwise now.
fn given(slots: &[Slot], begun: &Beginning) -> Option<Slot> {
    let cpus: CpuSet = begun.limits.cpuset_cpus.parse().ok()?;
    let parts = slots.iter().filter(|slot| slot.cpu_set().touches(&cpus));
    let mut given: Option<Slot> = None;
    for part in parts {
        match &mut given {
            None => given = Some(part.clone()),
            Some(given) => given.cpus.extend(&part.cpus),
        }
    }
    let given = given.filter(|given| given.cpu_set() == cpus)?;
    Some(Slot { limits: begun.limits.clone(), ..given })
}

fn look_pause(spool: &Spool) -> Duration {
    Duration::from_secs(spool.timing().silence_seconds) / LOOKS_A_SILENCE
}
