//! What stays, and why. Everything that is not proven ours is kept.

use std::collections::{BTreeMap, HashMap, HashSet};

use queue_format::{LedgerEntry, ObjectKind, image_name};

use crate::disk::Level;
use crate::inventory::{ClaimKey, Container, Image, Inventory, Objects};
use crate::named::is_tag;
use crate::policy::Reason;

/// What base images are called; they carry no labels and outlive every task.
const BASE_IMAGE_PREFIX: &str = "openswe-python-";

/// Why a container or an image is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// It is not proven ours.
    Foreign,
    /// Its claim stands.
    LiveClaim,
    /// It is a base image.
    BaseImage,
    /// It is the image of an accepted task.
    Accepted,
    /// It was built on an accepted task's image, by whomever.
    OnAccepted,
    /// Something that is kept needs it.
    Needed,
}

/// The containers and images that stay, by id. Accepted tasks' images that are `spent` do not stay for their own sake.
#[must_use]
pub fn protect(inventory: &Inventory, spent: &BTreeMap<String, Reason>) -> BTreeMap<String, Kept> {
    let Some(objects) = &inventory.objects else { return BTreeMap::new() };
    let mut kept = BTreeMap::new();
    for container in &objects.containers {
        kept.extend(container_kept(inventory, container).map(|why| (container.id.clone(), why)));
    }
    for image in &objects.images {
        kept.extend(image_kept(inventory, image).map(|why| (image.id.clone(), why)));
    }
    keep_descendants_of_accepted(objects, &mut kept);
    kept.retain(|id, why| *why != Kept::Accepted || !spent.contains_key(id));
    let is_named = |image: &&Image| inventory.named_images.mean(image) || may_be_named(inventory, image);
    for image in objects.images.iter().filter(is_named) {
        kept.entry(image.id.clone()).or_insert(Kept::Needed);
    }
    keep_what_is_needed(objects, &mut kept);
    if objects.takes_parents {
        keep_one_on_each(objects, &mut kept);
    }
    kept
}

/// The ledger's entry of a container that is ours.
pub(crate) fn container_entry<'a>(
    inventory: &'a Inventory,
    container: &Container,
) -> Option<&'a LedgerEntry> {
    let names = || container.names.iter().map(String::as_str);
    inventory
        .entry_of(&container.labels)
        .filter(|entry| entry.kind.has_container(names(), container.is_build_step))
}

/// The ledger's entry of an image that is ours: one with a tag of somebody else's is not, nor one that was made after our
/// build had ended.
pub(crate) fn image_entry<'a>(inventory: &'a Inventory, image: &Image) -> Option<&'a LedgerEntry> {
    inventory.entry_of(&image.labels).filter(|entry| match &entry.kind {
        ObjectKind::Build { image: name } => {
            let is_of_build = |ended_at| image.created_at.is_some_and(|made_at| made_at <= ended_at);
            entry.ended_at.is_none_or(is_of_build) && image.tags.iter().all(|tag| is_tag_of(tag, name, entry))
        }
        ObjectKind::Container { .. } | ObjectKind::WorkDir { .. } => false,
    })
}

/// Whether it is the image of a task that is accepted with the very claim that built it.
pub(crate) fn is_accepted(inventory: &Inventory, image: &Image, entry: &LedgerEntry) -> bool {
    !image.tags.is_empty() && inventory.accepted.contains(&(entry.task.clone(), entry.token))
}

pub(crate) fn is_base(image: &Image) -> bool {
    image.tags.iter().any(|tag| tag.starts_with(BASE_IMAGE_PREFIX))
}

fn container_kept(inventory: &Inventory, container: &Container) -> Option<Kept> {
    match container_entry(inventory, container) {
        None => Some(Kept::Foreign),
        Some(entry) => inventory.is_live(&ClaimKey::of(entry)).then_some(Kept::LiveClaim),
    }
}

fn image_kept(inventory: &Inventory, image: &Image) -> Option<Kept> {
    if is_base(image) {
        return Some(Kept::BaseImage);
    }
    match image_entry(inventory, image) {
        None => Some(Kept::Foreign),
        Some(entry) if inventory.is_live(&ClaimKey::of(entry)) => Some(Kept::LiveClaim),
        Some(entry) => is_accepted(inventory, image, entry).then_some(Kept::Accepted),
    }
}

/// Whether more tasks wait than were asked, and one of them may name it.
fn may_be_named(inventory: &Inventory, image: &Image) -> bool {
    let has_tasks_name = |entry: &LedgerEntry| {
        let name = image_name(&entry.task);
        image.tags.iter().any(|tag| is_tag(tag, &name))
    };
    inventory.is_more_waiting
        && inventory.pressure.level < Level::Emergency
        && image_entry(inventory, image).is_some_and(has_tasks_name)
}

/// Workers name an image as they build it, and then by its task, and give neither a version: any other is a person's.
fn is_tag_of(tag: &str, name: &str, entry: &LedgerEntry) -> bool {
    is_tag(tag, name) || is_tag(tag, &image_name(&entry.task))
}

fn children(objects: &Objects) -> HashMap<&str, Vec<&Image>> {
    let mut children: HashMap<&str, Vec<&Image>> = HashMap::new();
    for image in &objects.images {
        children.entry(image.parent_id.as_deref().unwrap_or_default()).or_default().push(image);
    }
    children
}

/// A person who builds on an accepted environment inherits its labels; the steps of that build are not ours.
fn keep_descendants_of_accepted(objects: &Objects, kept: &mut BTreeMap<String, Kept>) {
    let children = children(objects);
    let accepted = |image: &&Image| kept.get(&image.id) == Some(&Kept::Accepted);
    let mut waiting: Vec<&Image> = objects.images.iter().filter(accepted).collect();
    let mut seen: HashSet<&str> = waiting.iter().map(|image| image.id.as_str()).collect();
    while let Some(image) = waiting.pop() {
        for child in children.get(image.id.as_str()).into_iter().flatten() {
            if seen.insert(&child.id) {
                kept.entry(child.id.clone()).or_insert(Kept::OnAccepted);
                waiting.push(child);
            }
        }
    }
}

/// The images of containers that stay, and everything below an image that stays.
fn keep_what_is_needed(objects: &Objects, kept: &mut BTreeMap<String, Kept>) {
    let by_id = by_id(objects);
    let used = objects.containers.iter().filter(|container| kept.contains_key(&container.id));
    let used = used.map(|container| container.image_id.as_str());
    let standing = objects.images.iter().filter(|image| kept.contains_key(&image.id));
    let below = standing.filter_map(|image| image.parent_id.as_deref());
    let mut waiting: Vec<&str> = used.chain(below).collect();
    let mut seen = HashSet::new();
    while let Some(id) = waiting.pop() {
        let Some(image) = by_id.get(id).filter(|_| seen.insert(id)) else { continue };
        kept.entry(image.id.clone()).or_insert(Kept::Needed);
        waiting.extend(image.parent_id.as_deref());
    }
}

/// Of an image without a name that stays, one that was built on it stays too, with all between them: with the last of
/// these it would go.
fn keep_one_on_each(objects: &Objects, kept: &mut BTreeMap<String, Kept>) {
    let (children, by_id) = (children(objects), by_id(objects));
    let first_on = |image: &Image| children.get(image.id.as_str()).and_then(|on_it| on_it.first()).copied();
    // What is still there once all has gone that does not stay.
    let mut lasting = HashSet::new();
    let stands = |image: &&Image| {
        kept.contains_key(&image.id) && (!image.tags.is_empty() || first_on(image).is_none())
    };
    for tip in objects.images.iter().filter(stands) {
        last_below(tip, &by_id, kept, &mut lasting);
    }
    for image in &objects.images {
        if !kept.contains_key(&image.id) || lasting.contains(image.id.as_str()) {
            continue;
        }
        let (mut tip, mut seen) = (image, HashSet::new());
        // Images cannot be each other's ancestors; an engine that says so is not believed.
        while let Some(child) = first_on(tip).filter(|child| seen.insert(&child.id)) {
            kept.entry(child.id.clone()).or_insert(Kept::Needed);
            tip = child;
        }
        last_below(tip, &by_id, kept, &mut lasting);
    }
}

/// What lasts holds all that stays below it.
fn last_below<'a>(
    tip: &'a Image,
    by_id: &HashMap<&str, &'a Image>,
    kept: &BTreeMap<String, Kept>,
    lasting: &mut HashSet<&'a str>,
) {
    let mut next = Some(tip);
    while let Some(image) = next.filter(|image| kept.contains_key(&image.id) && lasting.insert(&image.id)) {
        next = image.parent_id.as_deref().and_then(|parent| by_id.get(parent).copied());
    }
}

fn by_id(objects: &Objects) -> HashMap<&str, &Image> {
    objects.images.iter().map(|image| (image.id.as_str(), image)).collect()
}
