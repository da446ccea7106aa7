//! The janitor's passes over the model: the true stages, and between any two of its steps whatever others do. A guard can
//! be made blind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ::janitor::{
    Candidate, Container, Image, Inventory, Look, Marks, Objects, Reason, Retention, Target, judge_claim,
    judge_container, judge_image, plan, policy, protect, spent,
};
use queue_format::{Labels, LedgerEntry, Life, ObjectKind, Owner, image_name};

use crate::model::{NODE, World, spool};

/// A guard that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blind {
    /// Labels are believed without the ledger.
    Ledger,
    /// Labels are not compared with the ledger's entry.
    Labels,
    /// Claims are not looked at.
    Claims,
    /// A worker that left its attempts to a successor counts as dead.
    Left,
    /// Somebody's name on an image is not seen.
    Tags,
    /// Somebody's name of a container is not seen.
    Names,
    /// Every container counts as a step of a build.
    Steps,
    /// What is accepted goes at once.
    Accepted,
    /// Nobody looks again before a removal.
    LastLook,
    /// Images go while builds run.
    Lock,
}

impl Blind {
    pub(crate) const ALL: [Self; 10] = [
        Self::Ledger,
        Self::Labels,
        Self::Claims,
        Self::Left,
        Self::Tags,
        Self::Names,
        Self::Steps,
        Self::Accepted,
        Self::LastLook,
        Self::Lock,
    ];
}

const RETENTION: Retention = Retention { accepted: Duration::from_secs(400), rest: Duration::from_secs(100) };

/// Two looks, then what both saw goes.
pub(crate) fn sweep(world: &mut World, blind: Option<Blind>) {
    let start = Instant::now();
    let mut marks = Marks::default();
    let mut ripe = Vec::new();
    let mut inventory = world.blank();
    for look in 0..2u64 {
        inventory = observe(world, blind);
        meanwhile(world);
        let spent = spent_of(&inventory, blind);
        let kept = protect(&inventory, &spent);
        let found = policy(&inventory, &kept, &spent, 0);
        ripe = marks.ripe(found, start + Duration::from_secs(look), Duration::from_secs(1));
    }
    let retained = inventory.clone();
    let plan = plan(&inventory, ripe, usize::MAX);
    for wave in &plan.waves {
        let has_images = wave.iter().any(|candidate| matches!(candidate.target, Target::Image(_)));
        if has_images && !world.lock_out_builds() && blind != Some(Blind::Lock) {
            continue;
        }
        for candidate in wave {
            meanwhile(world);
            remove(world, candidate, &retained, blind);
        }
        world.no_builds = false;
    }
}

fn spent_of(inventory: &Inventory, blind: Option<Blind>) -> BTreeMap<String, Reason> {
    if blind == Some(Blind::Accepted) {
        let all = inventory.objects.iter().flat_map(|objects| &objects.images);
        return all.map(|image| (image.id.clone(), Reason::Unused)).collect();
    }
    spent(inventory, &RETENTION)
}

fn meanwhile(world: &mut World) {
    for _ in 0..world.random.below(3) {
        world.step();
    }
}

/// Engine first, then ledger, then spool, then who lives; anything may happen in between.
fn observe(world: &mut World, blind: Option<Blind>) -> Inventory {
    let mut inventory = world.blank();
    let containers = world.objects.containers.clone();
    meanwhile(world);
    let images = world.objects.images.clone();
    inventory.used_at.clone_from(&world.used_at);
    inventory.objects = Some(Objects { containers, images });
    meanwhile(world);
    inventory.ledger.clone_from(&world.ledger);
    meanwhile(world);
    inventory.claims.clone_from(&world.claims);
    meanwhile(world);
    inventory.accepted.clone_from(&world.accepted);
    inventory.leases = world.claims.iter().map(|claim| claim.owner.clone()).collect();
    meanwhile(world);
    inventory.lives.clone_from(&world.lives);
    blindfold(&mut inventory, blind);
    inventory
}

fn remove(world: &mut World, candidate: &Candidate, planned: &Inventory, blind: Option<Blind>) {
    let Some(entry) = &candidate.entry else { return take_back(world, &candidate.target) };
    let mut look = Look::Remove(None);
    if blind != Some(Blind::LastLook) {
        let entry_now = world.ledger.get(&entry.object).filter(|found| *found == entry).cloned();
        let is_forged = blind == Some(Blind::Ledger) || blind == Some(Blind::Labels);
        let Some(entry_now) = entry_now.or_else(|| is_forged.then(|| entry.clone())) else { return };
        meanwhile(world);
        let mut now = world.blank();
        now.ledger.insert(entry.object, entry_now);
        now.claims.clone_from(&world.claims);
        meanwhile(world);
        now.accepted.clone_from(&world.accepted);
        now.lives.clone_from(&world.lives);
        blindfold(&mut now, blind);
        if judge_claim(&now, entry).is_some() {
            return;
        }
        meanwhile(world);
        // From here on it is one with the removal.
        look = match &candidate.target {
            Target::Container(id) => {
                let found = world.objects.containers.iter().find(|container| container.id == *id).cloned();
                let found = found.map(|found| seen_container(&now, found, blind));
                judge_container(&now, found.as_ref())
            }
            Target::Image(id) => {
                let found = world.objects.images.iter().find(|image| image.id == *id).cloned();
                let found = found.map(|found| seen_image(found, blind));
                judge_image(&now, found.as_ref(), candidate)
            }
            _ => Look::Remove(None),
        };
    }
    if matches!(look, Look::Keep(_)) {
        return;
    }
    match &candidate.target {
        Target::Container(id) => world.remove_container(id),
        Target::Image(id) => {
            let was_there = world.objects.images.iter().any(|image| image.id == *id);
            let before = world.removed.get("spent").copied().unwrap_or(0);
            world.remove_image(id);
            let is_accepted = was_there && world.removed.get("spent").copied().unwrap_or(0) > before;
            if is_accepted && !its_time_was_over(planned, id) {
                world.violate(format!("the image {id} of an accepted task went before its time"));
            }
        }
        Target::Entry(object) => {
            world.ledger.remove(object);
        }
        _ => {}
    }
}

fn its_time_was_over(planned: &Inventory, id: &str) -> bool {
    let used_at = planned.used_at.get(id).copied().unwrap_or(planned.now);
    let unused = planned.now.as_second() - used_at.as_second();
    match planned.pressure.level {
        ::janitor::Level::Calm => unused >= 400,
        ::janitor::Level::High => unused >= 100,
        ::janitor::Level::Emergency => true,
    }
}

fn take_back(world: &mut World, target: &Target) {
    if let Target::Lease(owner) = target
        && world.lives.get(owner) == Some(&Life::Dead)
    {
        let owner: Owner = owner.clone();
        world.claims.retain(|claim| claim.owner != owner);
    }
}

/// Shows the stages what they would believe without a guard.
fn blindfold(inventory: &mut Inventory, blind: Option<Blind>) {
    let Some(blind) = blind else { return };
    match blind {
        Blind::Claims => inventory.claims.clear(),
        Blind::Left => {
            for life in inventory.lives.values_mut().filter(|life| **life == Life::Left) {
                *life = Life::Dead;
            }
        }
        Blind::Accepted => inventory.accepted.clear(),
        _ => {}
    }
    let Some(mut objects) = inventory.objects.take() else { return };
    if matches!(blind, Blind::Ledger | Blind::Labels) {
        let containers = objects.containers.iter().map(|found| (&found.labels, Some(&found.names[0])));
        let images = objects.images.iter().map(|found| (&found.labels, None));
        for (labels, name) in containers.chain(images) {
            believe(&mut inventory.ledger, labels, name, blind);
        }
    }
    objects.containers =
        objects.containers.into_iter().map(|found| seen_container(inventory, found, Some(blind))).collect();
    objects.images = objects.images.into_iter().map(|found| seen_image(found, Some(blind))).collect();
    inventory.objects = Some(objects);
}

/// The entry that labels would have, if they were true.
fn believe(
    ledger: &mut BTreeMap<uuid::Uuid, LedgerEntry>,
    labels: &std::collections::HashMap<String, String>,
    name: Option<&String>,
    blind: Blind,
) {
    let Some(said) = Labels::from_map(labels) else { return };
    if said.spool != spool() || said.owner.node() != NODE {
        return;
    }
    let is_known = ledger.contains_key(&said.object);
    if is_known != (blind == Blind::Labels) {
        return;
    }
    let kind = match name {
        Some(name) => ObjectKind::Container { name: name.clone() },
        None => ObjectKind::Build { image: image_name(&said.task) },
    };
    let entry = said.entry(kind, jiff::Timestamp::UNIX_EPOCH);
    ledger.insert(said.object, entry);
}

fn seen_container(inventory: &Inventory, mut found: Container, blind: Option<Blind>) -> Container {
    match blind {
        Some(Blind::Names) => {
            if let Some(LedgerEntry { kind: ObjectKind::Container { name }, .. }) =
                inventory.entry_of(&found.labels)
            {
                found.names = vec![name.clone()];
            }
        }
        Some(Blind::Steps) => found.is_build_step = true,
        _ => {}
    }
    found
}

fn seen_image(mut found: Image, blind: Option<Blind>) -> Image {
    if blind == Some(Blind::Tags) {
        found.tags.retain(|tag| !tag.starts_with("mine-"));
    }
    found
}
