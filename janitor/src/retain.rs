//! How long the images of accepted tasks stay, and which of them go first where the disk is full.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::disk::Level;
use crate::inventory::{ClaimKey, Image, Inventory};
use crate::policy::Reason;
use crate::protect::{image_entry, is_accepted, is_base, protect};

/// Images that go in one pass where inodes are short: nobody can tell how many each has.
const IMAGES_PER_PASS: usize = 8;

/// What is kept for later use, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// An accepted task's image stays so long after its last use.
    pub accepted: Duration,
    /// Even where the disk is full it stays so long, but in an emergency.
    pub rest: Duration,
}

/// Accepted tasks' images whose time is over, and why: those that nobody used for long, and where the disk is full those
/// that were not used for longest, until the rest fits. Live, base and foreign images are never among them; that what
/// is needed stays is [`protect`](crate::protect())'s.
#[must_use]
pub fn spent(inventory: &Inventory, retention: &Retention) -> BTreeMap<String, Reason> {
    let Some(objects) = &inventory.objects else { return BTreeMap::new() };
    let seconds = |image: &Image| {
        // What was never seen in use has just been.
        let used_at = inventory.used_at.get(&image.id).copied().unwrap_or(inventory.now);
        inventory.now.as_second().saturating_sub(used_at.as_second()).max(0).unsigned_abs()
    };
    if inventory.is_more_waiting && inventory.pressure.level < Level::Emergency {
        return BTreeMap::new();
    }
    let mut kept: Vec<(u64, &Image)> = objects
        .images
        .iter()
        .filter(|image| is_retained(inventory, image))
        .map(|i| (seconds(i), i))
        .collect();
    kept.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.id.cmp(&y.id)));
    let going: Vec<&Image> = kept.iter().map(|(_, image)| *image).collect();
    let (old, young): (Vec<_>, Vec<_>) =
        kept.into_iter().partition(|(unused, _)| *unused >= retention.accepted.as_secs());
    let mut spent: BTreeMap<String, Reason> =
        old.iter().map(|(_, image)| (image.id.clone(), Reason::Unused)).collect();
    let rest = match inventory.pressure.level {
        Level::Calm => return spent,
        Level::High => retention.rest.as_secs(),
        Level::Emergency => 0,
    };
    let sizes = Sizes::of(&objects.images);
    // What something else needs stays whoever is spent, and frees nothing; nor does what is left alone.
    let all = going.iter().map(|image| (image.id.clone(), Reason::DiskFull)).collect();
    let stays = protect(inventory, &all);
    let frees = |image: &Image| !stays.contains_key(&image.id) && !inventory.left_alone.contains(&image.id);
    let old_ones = old.iter().map(|(_, image)| *image).filter(|image| frees(image));
    let mut freed: u64 = old_ones.map(|image| sizes.freed_with(image)).sum();
    // In an emergency nothing is waited for: what goes anyway may resist.
    if inventory.pressure.level == Level::High {
        freed += bytes_going_anyway(inventory, &objects.images, &sizes);
    }
    let bytes = inventory.pressure.bytes_to_free;
    let mut by_number = if inventory.pressure.inodes_to_free > 0 { IMAGES_PER_PASS } else { 0 };
    for (unused, image) in young {
        if unused < rest || (freed >= bytes && by_number == 0) {
            break;
        }
        if stays.contains_key(&image.id) {
            continue;
        }
        // It is tried again in its time, and others go meanwhile.
        spent.insert(image.id.clone(), Reason::DiskFull);
        if frees(image) {
            freed += sizes.freed_with(image);
            by_number = by_number.saturating_sub(1);
        }
    }
    spent
}

/// What is freed with images that nobody keeps and that do not resist: those of failed tasks, and layers.
fn bytes_going_anyway(inventory: &Inventory, images: &[Image], sizes: &Sizes<'_>) -> u64 {
    let kept = protect(inventory, &BTreeMap::new());
    let is_going =
        |image: &&Image| !kept.contains_key(&image.id) && !inventory.left_alone.contains(&image.id);
    images.iter().filter(is_going).filter_map(|image| sizes.own_bytes(image)).sum()
}

fn is_retained(inventory: &Inventory, image: &Image) -> bool {
    let entry = image_entry(inventory, image).filter(|_| !is_base(image));
    let is_free = |entry| !inventory.is_live(&ClaimKey::of(entry)) && !inventory.named_images.mean(image);
    entry.is_some_and(|entry| is_accepted(inventory, image, entry) && is_free(entry))
}

/// What images share: each is stored as the difference to the one that it was built on.
pub(crate) struct Sizes<'a> {
    by_id: HashMap<&'a str, &'a Image>,
    children: HashMap<&'a str, usize>,
}

impl<'a> Sizes<'a> {
    pub(crate) fn of(images: &'a [Image]) -> Self {
        let mut children: HashMap<&str, usize> = HashMap::new();
        for parent in images.iter().filter_map(|image| image.parent_id.as_deref()) {
            *children.entry(parent).or_default() += 1;
        }
        Self { by_id: images.iter().map(|image| (image.id.as_str(), image)).collect(), children }
    }

    /// What an image takes beyond the one that it was built on; `None` where that one is not to be seen.
    pub(crate) fn own_bytes(&self, image: &Image) -> Option<u64> {
        match image.parent_id.as_deref() {
            None => Some(image.size_bytes),
            Some(parent) => Some(image.size_bytes.saturating_sub(self.by_id.get(parent)?.size_bytes)),
        }
    }

    /// What is freed with an image and the layers that it alone stands on.
    fn freed_with(&self, image: &Image) -> u64 {
        let (mut bytes, mut at) = (0, Some(image));
        // No image is its own ancestor; an engine that says so is not believed.
        for _ in 0..self.by_id.len() {
            let Some(image) = at else { break };
            bytes += self.own_bytes(image).unwrap_or(0);
            let parent = image.parent_id.as_deref().and_then(|parent| self.by_id.get(parent)).copied();
            at = parent
                .filter(|parent| self.children.get(parent.id.as_str()) == Some(&1) && parent.tags.is_empty());
        }
        bytes
    }
}
