//! What a pass will do, in which order, and how much of it.

use std::collections::{HashMap, HashSet};

use crate::inventory::Inventory;
use crate::policy::{Candidate, Target};

/// What a pass will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One after the other; within a wave, everything at once.
    pub waves: Vec<Vec<Candidate>>,
    /// How many removals wait for later passes, since this one is full.
    pub postponed: usize,
}

/// Orders removals: dead leases first, so that their tasks run again soon; then containers and directories; then
/// images, each after all that were built on it; then what lies in the spool; bookkeeping last. Takes `deletions_max` removals at most; leases
/// do not count, for they delete nothing.
#[must_use]
pub fn plan(inventory: &Inventory, candidates: Vec<Candidate>, deletions_max: usize) -> Plan {
    let (mut leases, mut objects, mut images) = (Vec::new(), Vec::new(), Vec::new());
    let (mut litter, mut books) = (Vec::new(), Vec::new());
    for candidate in candidates {
        match candidate.target {
            Target::Lease(_) => leases.push(candidate),
            Target::Container(_) | Target::WorkDir(_) | Target::Mirror(_) => objects.push(candidate),
            Target::Litter(..) => litter.push(candidate),
            Target::Image(_) => images.push(candidate),
            Target::Entry(_) | Target::Lock(_) => books.push(candidate),
        }
    }
    let mut waves = vec![objects];
    waves.extend(leaves_first(inventory, images));
    waves.extend([litter, books]);
    let total: usize = waves.iter().map(Vec::len).sum();
    let mut left = deletions_max;
    for wave in &mut waves {
        wave.truncate(left);
        left -= wave.len();
    }
    waves.insert(0, leases);
    waves.retain(|wave| !wave.is_empty());
    Plan { waves, postponed: total.saturating_sub(deletions_max) }
}

impl Plan {
    /// How many steps count for the limit.
    #[must_use]
    pub fn deletions(&self) -> usize {
        self.steps().filter(|step| !matches!(step.target, Target::Lease(_))).count()
    }

    /// Every step, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Candidate> {
        self.waves.iter().flatten()
    }
}

fn leaves_first(inventory: &Inventory, images: Vec<Candidate>) -> Vec<Vec<Candidate>> {
    let known = inventory.objects.iter().flat_map(|objects| &objects.images);
    let parents: HashMap<&str, &str> =
        known.filter_map(|image| Some((image.id.as_str(), image.parent_id.as_deref()?))).collect();
    let mut left: HashMap<String, Candidate> = images
        .into_iter()
        .filter_map(|candidate| match &candidate.target {
            Target::Image(id) => Some((id.clone(), candidate)),
            _ => None,
        })
        .collect();
    let mut waves = Vec::new();
    while !left.is_empty() {
        let with_child: HashSet<&str> =
            left.keys().filter_map(|child| parents.get(child.as_str()).copied()).collect();
        let mut leaves: Vec<String> =
            left.keys().filter(|id| !with_child.contains(id.as_str())).cloned().collect();
        if leaves.is_empty() {
            // Images cannot be each other's ancestors; an engine that says so is not believed.
            break;
        }
        leaves.sort();
        let mut wave: Vec<Candidate> = leaves.iter().filter_map(|id| left.remove(id)).collect();
        // Where a pass is full, what failed goes before what is kept for later use.
        wave.sort_by_key(|candidate| candidate.reason);
        waves.push(wave);
    }
    waves
}
