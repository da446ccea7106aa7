//! What is a leftover, and why.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use jiff::Timestamp;
use queue_format::{LABEL_OBJECT, LedgerEntry, Life, Litter, LitterKind, ObjectKind, Owner};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk::{Level, Pressure};
use crate::inventory::{ClaimKey, Container, Image, Inventory, Mirror, Objects, WorkDirState};
use crate::observe::is_removed;
use crate::protect::{Kept, container_entry, image_entry};
use crate::retain::Sizes;
use crate::show::{self, NAMELESS};

/// A copy of a repository that was asked for within this time is about to be asked for again: by the same task's next try,
/// or the next task of its batch. Whoever reads one holds its lock.
const MIRROR_REST_SECONDS: i64 = 600;

/// Something to be done about one thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Take back what a dead worker had claimed.
    Lease(Owner),
    /// Remove a container, by its full id.
    Container(String),
    /// Remove an image, by its full id.
    Image(String),
    /// Remove a work directory, under its true path.
    WorkDir(PathBuf),
    /// Forget a ledger entry whose object is gone.
    Entry(Uuid),
    /// Forget the lock of a dead worker of which nothing is left.
    Lock(Owner),
    /// Remove something that nobody needs any more from the spool.
    Litter(PathBuf, LitterKind),
    /// Remove a copy of a repository.
    Mirror(PathBuf),
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Its worker's process is gone.
    OwnerDead,
    /// Its claim ended, or was taken away.
    ClaimGone,
    /// Nobody has used it for as long as it is kept.
    Unused,
    /// The disk is full, and nothing else that could go was unused for longer.
    DiskFull,
    /// What is kept of its kind takes too much, and this was unused for longest.
    TooMany,
    /// It was removed, but for its last name.
    Removed,
    /// The attempt that wrote it never came to its end.
    Void,
    /// It tells of a worker that is long gone.
    Old,
}

/// How long it must have been seen so before it is acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Patience {
    /// It is proven at first sight.
    None,
    /// The grace period.
    Grace,
    /// Many grace periods: nothing is gained by haste.
    Long,
}

/// A leftover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What.
    pub target: Target,
    /// Why.
    pub reason: Reason,
    /// How urgent.
    pub patience: Patience,
    /// What people call it: a container's name, an image's tag.
    pub name: String,
    /// The ledger's entry behind it.
    pub entry: Option<LedgerEntry>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// What its removal frees, where that is known.
    pub bytes: Option<u64>,
}

impl Candidate {
    /// The full id, where it is a container.
    pub(crate) fn container(&self) -> Option<&str> {
        match &self.target {
            Target::Container(id) => Some(id),
            _ => None,
        }
    }
}

/// Every leftover of the inventory, the oldest first; nothing that `kept` names. `spent` is why accepted tasks' images go, and copies of
/// repositories take `mirrors_bytes_max` at most.
#[must_use]
pub fn policy(
    inventory: &Inventory,
    kept: &BTreeMap<String, Kept>,
    spent: &BTreeMap<String, Reason>,
    mirrors_bytes_max: u64,
) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = dead_leases(inventory).collect();
    if let Some(objects) = &inventory.objects {
        let containers = objects.containers.iter().filter(|container| !kept.contains_key(&container.id));
        found.extend(containers.filter_map(|container| container_left(inventory, container)));
        let images = objects.images.iter().filter(|image| !kept.contains_key(&image.id));
        let sizes = Sizes::of(&objects.images);
        found.extend(images.filter_map(|image| image_left(inventory, &sizes, spent, image)));
    }
    found.extend(inventory.ledger.values().filter_map(|entry| work_dir_left(inventory, entry)));
    found.extend(entries_without_object(inventory));
    found.extend(locks_without_anything(inventory));
    found.extend(inventory.litter.iter().map(litter_left));
    let is_image = |candidate: &&Candidate| matches!(candidate.target, Target::Image(_));
    let of_images: u64 = found.iter().filter(is_image).filter_map(|candidate| candidate.bytes).sum();
    let freed = if inventory.is_one_disk { of_images } else { 0 };
    found.extend(mirrors_left(inventory, mirrors_bytes_max, freed));
    // Where only some may go, any two looks must choose the same: engines list in whatever order.
    found.sort_by_cached_key(|candidate| {
        (candidate.created_at.is_none(), candidate.created_at, show::id(&candidate.target))
    });
    found
}

/// `None` where the claim stands: nothing made under it is touched.
pub(crate) fn reason(inventory: &Inventory, entry: &LedgerEntry) -> Option<Reason> {
    if inventory.life(&entry.owner) == Life::Dead {
        Some(Reason::OwnerDead)
    } else if inventory.claims.contains(&ClaimKey::of(entry)) {
        None
    } else {
        Some(Reason::ClaimGone)
    }
}

fn dead_leases(inventory: &Inventory) -> impl Iterator<Item = Candidate> {
    let dead = inventory.leases.iter().filter(|owner| inventory.life(owner) == Life::Dead);
    dead.map(|owner| Candidate {
        target: Target::Lease(owner.clone()),
        reason: Reason::OwnerDead,
        patience: Patience::None,
        name: owner.to_string(),
        entry: None,
        created_at: None,
        bytes: None,
    })
}

fn container_left(inventory: &Inventory, container: &Container) -> Option<Candidate> {
    let entry = container_entry(inventory, container)?;
    Some(Candidate {
        target: Target::Container(container.id.clone()),
        reason: reason(inventory, entry)?,
        patience: Patience::Grace,
        name: container.names.first().cloned().unwrap_or_default(),
        entry: Some(entry.clone()),
        created_at: container.created_at,
        bytes: None,
    })
}

fn image_left(
    inventory: &Inventory,
    sizes: &Sizes<'_>,
    spent: &BTreeMap<String, Reason>,
    image: &Image,
) -> Option<Candidate> {
    let entry = image_entry(inventory, image)?;
    let over = reason(inventory, entry)?;
    Some(Candidate {
        target: Target::Image(image.id.clone()),
        reason: spent.get(&image.id).copied().unwrap_or(over),
        patience: Patience::Grace,
        name: image.tags.first().cloned().unwrap_or_else(|| NAMELESS.to_owned()),
        entry: Some(entry.clone()),
        created_at: image.created_at,
        bytes: sizes.own_bytes(image),
    })
}

fn work_dir_left(inventory: &Inventory, entry: &LedgerEntry) -> Option<Candidate> {
    let ObjectKind::WorkDir { .. } = entry.kind else { return None };
    let WorkDirState::Inside(path) = inventory.work_dirs.get(&entry.object)? else { return None };
    if !inventory.covers(entry) {
        return None;
    }
    Some(Candidate {
        target: Target::WorkDir(path.clone()),
        reason: reason(inventory, entry)?,
        patience: Patience::Grace,
        name: path.display().to_string(),
        entry: Some(entry.clone()),
        created_at: Some(entry.created_at),
        bytes: None,
    })
}

/// Whether an entry is of an object of the engine's.
pub(crate) fn is_engines(entry: &LedgerEntry) -> bool {
    !matches!(entry.kind, ObjectKind::WorkDir { .. })
}

/// Whether something of the ledger would be forgotten since the engine has no such object.
pub(crate) fn believes_engine(inventory: &Inventory) -> bool {
    entries_without_object(inventory).any(|found| found.entry.as_ref().is_some_and(is_engines))
}

fn entries_without_object(inventory: &Inventory) -> impl Iterator<Item = Candidate> {
    let labelled = inventory.objects.as_ref().map(labelled);
    inventory.ledger.values().filter_map(move |entry| {
        let gone = match &entry.kind {
            ObjectKind::WorkDir { .. } => {
                inventory.work_dirs.get(&entry.object) == Some(&WorkDirState::Missing)
            }
            // An engine that does not answer proves nothing, nor does another one.
            ObjectKind::Container { .. } | ObjectKind::Build { .. } => {
                !inventory.is_other_engine && !labelled.as_ref()?.contains(&entry.object)
            }
        };
        if !gone || !inventory.covers(entry) {
            return None;
        }
        // A worker that lives may be about to make the object: it records it first.
        let alive = inventory.life(&entry.owner) == Life::Alive;
        Some(Candidate {
            target: Target::Entry(entry.object),
            reason: reason(inventory, entry)?,
            patience: if alive { Patience::Long } else { Patience::Grace },
            name: entry.object.to_string(),
            entry: Some(entry.clone()),
            created_at: Some(entry.created_at),
            bytes: None,
        })
    })
}

/// Every UUID that some container or image names, be it ours or not.
fn labelled(objects: &Objects) -> HashSet<Uuid> {
    let containers = objects.containers.iter().map(|container| &container.labels);
    let images = objects.images.iter().map(|image| &image.labels);
    containers.chain(images).filter_map(|labels| labels.get(LABEL_OBJECT)?.parse().ok()).collect()
}

fn locks_without_anything(inventory: &Inventory) -> impl Iterator<Item = Candidate> {
    let named: HashSet<&Owner> = inventory.ledger.values().map(|entry| &entry.owner).collect();
    // Where another spool's workers keep their state here too, their leases are out of our sight.
    let shared = inventory.ledger.values().any(|entry| entry.spool != inventory.spool);
    let dead = inventory.lives.iter().filter(move |(owner, life)| {
        let free = !inventory.leases.contains(owner) && !named.contains(owner);
        matches!(life, Life::Dead | Life::Left) && free && !shared && owner.node() == inventory.node
    });
    dead.map(|(owner, _)| Candidate {
        target: Target::Lock(owner.clone()),
        reason: Reason::OwnerDead,
        patience: Patience::Long,
        name: owner.to_string(),
        entry: None,
        created_at: None,
        bytes: None,
    })
}

fn litter_left(litter: &Litter) -> Candidate {
    let reason = match litter.kind {
        LitterKind::Leftover => Reason::Removed,
        LitterKind::VoidResult(..) => Reason::Void,
        LitterKind::OldLog(_) => Reason::Old,
    };
    Candidate {
        target: Target::Litter(litter.path.clone(), litter.kind.clone()),
        reason,
        patience: Patience::Grace,
        name: show::plain(&litter.path),
        entry: None,
        created_at: Timestamp::try_from(litter.modified).ok(),
        bytes: Some(litter.bytes),
    }
}

/// The longest unused first, until the rest is no more than `bytes_max` and what a full disk demands is freed; in an
/// emergency all that rest. So many bytes are `freed` on that disk without them.
fn mirrors_left(inventory: &Inventory, bytes_max: u64, freed: u64) -> impl Iterator<Item = Candidate> {
    let Pressure { level, bytes_to_free, inodes_to_free, .. } = inventory.state_pressure;
    let mut bytes_to_free = bytes_to_free.saturating_sub(freed);
    let mut mirrors: Vec<&Mirror> = inventory.mirrors.iter().collect();
    mirrors.sort_by_key(|mirror| (mirror.used_at, &mirror.path));
    let mut bytes: u64 = mirrors.iter().map(|mirror| mirror.bytes).sum();
    // Nobody counts the files of a copy: one goes, and the next look tells.
    let mut by_number = u64::from(inodes_to_free > 0);
    let now = inventory.now;
    let going = mirrors.into_iter().filter_map(move |mirror| {
        let is_wanted = bytes_to_free > 0 || by_number > 0 || level == Level::Emergency;
        let reason = match () {
            () if is_removed(&mirror.path) => Reason::Removed,
            () if !mirror_rests(mirror.used_at, now) => return None,
            () if is_wanted => Reason::DiskFull,
            () if bytes > bytes_max => Reason::TooMany,
            () => return None,
        };
        bytes -= mirror.bytes;
        bytes_to_free = bytes_to_free.saturating_sub(mirror.bytes);
        by_number = by_number.saturating_sub(1);
        Some((mirror, reason))
    });
    going.map(|(mirror, reason)| Candidate {
        target: Target::Mirror(mirror.path.clone()),
        reason,
        patience: Patience::Grace,
        name: mirror.path.display().to_string(),
        entry: None,
        created_at: Some(mirror.used_at),
        bytes: Some(mirror.bytes),
    })
}

/// Whether nobody has asked for a copy of a repository for a while.
pub(crate) fn mirror_rests(used_at: Timestamp, now: Timestamp) -> bool {
    now.as_second().saturating_sub(used_at.as_second()) >= MIRROR_REST_SECONDS
}
