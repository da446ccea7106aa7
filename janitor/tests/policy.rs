//! The pure stages on generated nodes, judged by the rules written a second time, object by object.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use janitor::{
    Candidate, ClaimKey, Container, Image, Inventory, Level, Marks, Objects, Plan, Pressure, Reason,
    Retention, Target, WorkDirState, plan, policy, protect, spent,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use queue_format::{Incarnation, Labels, LedgerEntry, Life, ObjectKind, Owner, SpoolId, TaskId, Token};
use uuid::Uuid;

const NODE: &str = "here";
/// How long an accepted image is kept.
const KEPT: Duration = Duration::from_secs(1000);

fn spool(number: u8) -> SpoolId {
    Uuid::from_u128(1000 + u128::from(number)).to_string().parse().expect("a UUID")
}

fn owner(number: u8) -> Owner {
    // Owner 3 lives on another node.
    let node = if number == 3 { "there" } else { NODE };
    Owner::new(node, Incarnation::new(Uuid::from_u128(u128::from(number))))
}

fn task(number: u8) -> TaskId {
    format!("task-{number}").parse().expect("an id")
}

fn second(number: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(number).expect("a time")
}

fn name_of(object: Uuid) -> String {
    format!("run-{object}")
}

fn kind(number: u8, object: Uuid, task: &TaskId) -> ObjectKind {
    match number {
        0 => ObjectKind::Container { name: name_of(object) },
        1 => ObjectKind::Build { image: queue_format::image_name(task) },
        _ => ObjectKind::WorkDir { path: PathBuf::from(format!("/state/work/{object}")) },
    }
}

fn entries() -> impl Strategy<Value = Vec<LedgerEntry>> {
    // Mostly our spool and node: the rare others must be there, but not drown the rest.
    let one = (0u8..3, select(vec![0u8, 0, 0, 1]), select(vec![0u8, 1, 2, 3]), 0u8..3, 1u32..3);
    prop::collection::vec(one, 0..12).prop_map(|all| {
        let with_number = all.into_iter().enumerate();
        let entry =
            with_number.map(|(number, (kind_number, spool_number, owner_number, task_number, token))| {
                let object = Uuid::from_u128(5000 + number as u128);
                let task = task(task_number);
                LedgerEntry {
                    object,
                    kind: kind(kind_number, object, &task),
                    spool: spool(spool_number),
                    owner: owner(owner_number),
                    task,
                    token: Token(token),
                    created_at: jiff::Timestamp::UNIX_EPOCH,
                    ended_at: (number % 2 == 0).then(|| second(12)),
                }
            });
        entry.collect()
    })
}

/// The labels of an entry, sometimes bent: `bend` 0 to 5 are the ways in which labels can be wrong.
fn labels(entry: &LedgerEntry, bend: u8) -> HashMap<String, String> {
    let mut labels = Labels {
        spool: entry.spool,
        owner: entry.owner.clone(),
        task: entry.task.clone(),
        token: entry.token,
        object: entry.object,
    };
    match bend {
        0 => labels.spool = spool(1),
        1 => labels.owner = owner(3),
        2 => labels.task = task(9),
        3 => labels.token = Token(99),
        4 => labels.object = Uuid::from_u128(1),
        5 => return HashMap::new(),
        _ => {}
    }
    labels.to_map()
}

type Parts = (u8, Index, Index, bool, u8);

fn parts() -> impl Strategy<Value = Vec<Parts>> {
    prop::collection::vec((0u8..24, any::<Index>(), any::<Index>(), any::<bool>(), 0u8..8), 0..24)
}

fn images(entries: &[LedgerEntry], parts: &[Parts]) -> Vec<Image> {
    let mut images: Vec<Image> = Vec::new();
    for (number, (bend, entry, parent, has_parent, tag)) in parts.iter().enumerate() {
        if entries.is_empty() {
            continue;
        }
        let entry = entry.get(entries);
        let parent_id = (*has_parent && !images.is_empty()).then(|| parent.get(&images).id.clone());
        let tags = match tag {
            0 => vec!["openswe-python-3.11:latest".to_owned()],
            1 => vec!["mine:latest".to_owned()],
            2 => vec![format!("openswe--{}:latest", entry.task), "mine:1".to_owned()],
            3 => vec![format!("openswe--{}:before", entry.task)],
            4 | 5 => vec![format!("openswe--{}:latest", entry.task)],
            _ => vec![],
        };
        images.push(Image {
            id: format!("sha256:{number:03}"),
            parent_id,
            tags,
            labels: labels(entry, *bend),
            // The last parts come after all builds.
            created_at: (number > 0).then(|| second(number as i64)),
            size_bytes: 100,
        });
    }
    images
}

fn containers(entries: &[LedgerEntry], images: &[Image], parts: &[Parts]) -> Vec<Container> {
    let made = parts.iter().enumerate().filter(|_| !entries.is_empty());
    made.map(|(number, (bend, entry, image, is_build_step, name))| {
        let entry = entry.get(entries);
        let renamed = *name == 0;
        Container {
            id: format!("c{number:03}"),
            names: vec![if renamed { "mine".to_owned() } else { name_of(entry.object) }],
            image_id: if images.is_empty() { "sha256:none".to_owned() } else { image.get(images).id.clone() },
            labels: labels(entry, *bend),
            created_at: None,
            is_build_step: *is_build_step,
            is_others_step: false,
            is_running: false,
            is_removing: false,
        }
    })
    .collect()
}

prop_compose! {
    fn inventories()(entries in entries(), bits in prop::collection::vec(any::<(bool, bool)>(), 12), lives in prop::collection::vec(0u8..4, 4), image_parts in parts(), container_parts in parts(), engine in 0u8..8, uses in prop::collection::vec(0i64..2000, 24), level in 0u8..3) -> Inventory {
        let images = images(&entries, &image_parts);
        let containers = containers(&entries, &images, &container_parts);
        let claims: BTreeSet<ClaimKey> =
            entries.iter().zip(&bits).filter(|(_, (claimed, _))| *claimed).map(|(e, _)| ClaimKey::of(e)).collect();
        let accepted = entries
            .iter()
            .zip(&bits)
            .filter(|(e, (_, done))| *done && !claims.contains(&ClaimKey::of(e)))
            .map(|(e, _)| (e.task.clone(), e.token))
            .collect();
        let lives: BTreeMap<Owner, Life> = lives
            .iter()
            .enumerate()
            .map(|(number, life)| (owner(number as u8), [Life::Alive, Life::Dead, Life::Unknown, Life::Left][usize::from(*life)]))
            .filter(|(owner, _)| owner.node() == NODE)
            .collect();
        let work_dirs = entries
            .iter()
            .zip(&bits)
            .filter(|(e, _)| matches!(e.kind, ObjectKind::WorkDir { .. }))
            .map(|(e, bits)| (e.object, match bits {
                (true, true) => WorkDirState::Missing,
                (false, true) => WorkDirState::Outside,
                _ => WorkDirState::Inside(PathBuf::from(format!("/state/work/{}", e.object))),
            }))
            .collect();
        Inventory {
            objects: (engine > 0).then_some(Objects { containers, images, takes_parents: engine > 1 }),
            leases: claims.iter().map(|claim| claim.owner.clone()).filter(|o| o.node() == NODE).collect(),
            ledger: entries.into_iter().map(|entry| (entry.object, entry)).collect(),
            work_dirs,
            claims,
            accepted,
            lives,
            now: jiff::Timestamp::from_second(2000).expect("a time"),
            used_at: (0..24)
                .map(|number| {
                    let used_at = jiff::Timestamp::from_second(uses[number]).expect("a time");
                    (format!("sha256:{number:03}"), used_at)
                })
                .collect(),
            pressure: Pressure {
                level: [Level::Calm, Level::High, Level::Emergency][usize::from(level)],
                bytes_to_free: 250,
                ..Pressure::default()
            },
            ..Inventory::of_nothing(spool(0), NODE)
        }
    }
}

fn everything(inventory: &Inventory) -> Vec<Candidate> {
    let spent = spent(inventory, &Retention { accepted: KEPT, rest: Duration::from_secs(100) });
    policy(inventory, &protect(inventory, &spent), &spent, u64::MAX)
}

/// What would go if every grace period were over.
fn all_of_it(inventory: &Inventory, deletions_max: usize) -> (Vec<Candidate>, Plan) {
    let found = everything(inventory);
    let mut marks = Marks::default();
    let start = Instant::now();
    marks.ripe(found.clone(), start, Duration::ZERO);
    let ripe = marks.ripe(found.clone(), start + Duration::from_secs(1), Duration::ZERO);
    (found, plan(inventory, ripe, deletions_max))
}

fn is_over(inventory: &Inventory, owner: &Owner, task: &TaskId, token: Token) -> bool {
    let claim = ClaimKey { owner: owner.clone(), task: task.clone(), token };
    inventory.lives.get(owner) == Some(&Life::Dead) || !inventory.claims.contains(&claim)
}

/// The rules again: what may at all be taken for a leftover of our own by its labels.
fn labels_allow(inventory: &Inventory, labels: &HashMap<String, String>) -> Option<LedgerEntry> {
    let said = Labels::from_map(labels)?;
    let entry = inventory.ledger.get(&said.object)?;
    let agree = said.spool == spool(0)
        && entry.spool == spool(0)
        && said.owner.node() == NODE
        && said.owner == entry.owner
        && said.task == entry.task
        && said.token == entry.token;
    (agree && is_over(inventory, &entry.owner, &entry.task, entry.token)).then(|| entry.clone())
}

fn container_may_go(inventory: &Inventory, container: &Container) -> bool {
    labels_allow(inventory, &container.labels).is_some_and(|entry| match entry.kind {
        ObjectKind::Container { name } => container.names == [name],
        ObjectKind::Build { .. } => container.is_build_step,
        ObjectKind::WorkDir { .. } => false,
    })
}

fn image_may_go(inventory: &Inventory, image: &Image) -> bool {
    labels_allow(inventory, &image.labels).is_some_and(|entry| {
        let own_tag = format!("openswe--{}:latest", entry.task);
        let accepted = inventory.accepted.contains(&(entry.task.clone(), entry.token));
        let came_after = match (image.created_at, entry.ended_at) {
            (Some(made), Some(ended)) => made > ended,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        matches!(entry.kind, ObjectKind::Build { .. })
            && !came_after
            && image.tags.iter().all(|tag| *tag == own_tag)
            && (image.tags.is_empty() || !accepted || its_time_is_over(inventory, image))
    })
}

fn its_time_is_over(inventory: &Inventory, image: &Image) -> bool {
    let unused = inventory.now.as_second() - inventory.used_at[&image.id].as_second();
    match inventory.pressure.level {
        Level::Calm => unused >= 1000,
        Level::High => unused >= 100,
        Level::Emergency => true,
    }
}

/// What is there after a plan on an engine that removes parents without a name along with the last image on them.
fn left_by_podman<'a>(images: &'a [Image], plan: &Plan) -> HashSet<&'a str> {
    let mut left: HashSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
    let by_id = |id: &str| images.iter().find(|image| image.id == id);
    for step in plan.steps() {
        let Target::Image(id) = &step.target else { continue };
        let mut next = by_id(id);
        while let Some(image) = next.filter(|image| left.remove(image.id.as_str())) {
            next = image.parent_id.as_deref().and_then(by_id).filter(|parent| {
                let is_on_it = |other: &Image| other.parent_id.as_ref() == Some(&parent.id);
                parent.tags.is_empty()
                    && !images.iter().any(|other| is_on_it(other) && left.contains(other.id.as_str()))
            });
        }
    }
    left
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn nothing_goes_but_what_is_proven_ours_and_over(inventory in inventories()) {
        let (_, plan) = all_of_it(&inventory, usize::MAX);
        let going: HashSet<&Target> = plan.steps().map(|step| &step.target).collect();
        let objects = inventory.objects.clone().unwrap_or_default();
        let goes = |target: Target| going.contains(&target);
        for container in &objects.containers {
            if goes(Target::Container(container.id.clone())) {
                prop_assert!(container_may_go(&inventory, container), "{container:?}");
            } else {
                prop_assert!(!goes(Target::Image(container.image_id.clone())), "in use: {container:?}");
            }
        }
        for image in &objects.images {
            if goes(Target::Image(image.id.clone())) {
                prop_assert!(image_may_go(&inventory, image), "{image:?}");
            } else if let Some(parent) = &image.parent_id {
                prop_assert!(!goes(Target::Image(parent.clone())), "needed by {image:?}");
            }
        }
        if objects.takes_parents {
            let left = left_by_podman(&objects.images, &plan);
            for image in objects.images.iter().filter(|image| !goes(Target::Image(image.id.clone()))) {
                prop_assert!(left.contains(image.id.as_str()), "went along: {image:?}");
            }
        }
        for target in going {
            match target {
                Target::Entry(object) => {
                    let entry = &inventory.ledger[object];
                    prop_assert!(entry.spool == spool(0) && entry.owner.node() == NODE);
                    prop_assert!(is_over(&inventory, &entry.owner, &entry.task, entry.token));
                    if matches!(entry.kind, ObjectKind::WorkDir { .. }) {
                        prop_assert_eq!(inventory.work_dirs.get(object), Some(&WorkDirState::Missing));
                        continue;
                    }
                    // An engine that does not answer proves nothing; a label proves that something is there.
                    prop_assert!(inventory.objects.is_some());
                    let said = object.to_string();
                    let named = |labels: &HashMap<String, String>| labels.values().any(|value| *value == said);
                    prop_assert!(!objects.containers.iter().any(|container| named(&container.labels)));
                    prop_assert!(!objects.images.iter().any(|image| named(&image.labels)));
                }
                Target::WorkDir(path) => {
                    let owns = |entry: &&LedgerEntry| {
                        inventory.work_dirs.get(&entry.object) == Some(&WorkDirState::Inside(path.clone()))
                    };
                    let entry = inventory.ledger.values().find(owns).expect("it is in the ledger");
                    prop_assert!(entry.spool == spool(0) && entry.owner.node() == NODE);
                    prop_assert!(is_over(&inventory, &entry.owner, &entry.task, entry.token));
                }
                Target::Lease(owner) => prop_assert_eq!(inventory.lives.get(owner), Some(&Life::Dead)),
                Target::Lock(owner) => {
                    prop_assert!(matches!(inventory.lives.get(owner), Some(Life::Dead | Life::Left)));
                    prop_assert!(!inventory.leases.contains(owner));
                    prop_assert!(inventory.ledger.values().all(|entry| entry.owner != *owner));
                }
                Target::Container(_) | Target::Image(_) => prop_assert!(inventory.objects.is_some()),
                Target::Litter(..) | Target::Mirror(_) => prop_assert!(false, "there is none"),
            }
        }
    }

    #[test]
    fn what_is_proven_over_and_not_needed_goes(inventory in inventories()) {
        let (found, _) = all_of_it(&inventory, usize::MAX);
        let going: HashSet<&Target> = found.iter().map(|candidate| &candidate.target).collect();
        let objects = inventory.objects.clone().unwrap_or_default();
        for container in objects.containers.iter().filter(|container| container_may_go(&inventory, container)) {
            prop_assert!(going.contains(&Target::Container(container.id.clone())), "{container:?}");
        }
        // An image that is alone on its base: nothing stands on it, runs from it or lies below it.
        let alone = |image: &&Image| {
            image.parent_id.is_none()
                && objects.images.iter().all(|other| other.parent_id.as_ref() != Some(&image.id))
                && objects.containers.iter().all(|container| container.image_id != image.id)
        };
        // Under pressure as many go as it takes, and no more.
        let must_go = |image: &&Image| {
            let calm = Inventory { pressure: Pressure::default(), ..inventory.clone() };
            image_may_go(&calm, image)
        };
        for image in objects.images.iter().filter(alone).filter(must_go) {
            prop_assert!(going.contains(&Target::Image(image.id.clone())), "{image:?}");
        }
    }

    #[test]
    fn a_plan_takes_children_first_and_keeps_its_limit(inventory in inventories(), deletions_max in 0usize..30) {
        let (found, plan) = all_of_it(&inventory, deletions_max);
        let steps: Vec<&Candidate> = plan.steps().filter(|step| !matches!(step.target, Target::Lease(_))).collect();
        prop_assert!(steps.len() <= deletions_max);
        let parent = |target: &Target| {
            let Target::Image(id) = target else { return None };
            let image = inventory.objects.as_ref()?.images.iter().find(|image| image.id == *id)?;
            image.parent_id.clone().map(Target::Image)
        };
        let mut gone: HashSet<&Target> = HashSet::new();
        for wave in &plan.waves {
            for step in wave {
                let above = parent(&step.target);
                prop_assert!(above.is_none_or(|parent| !gone.contains(&parent)), "{step:?} after its parent");
            }
            for step in wave {
                let above = parent(&step.target);
                prop_assert!(wave.iter().all(|other| Some(&other.target) != above.as_ref()), "{step:?} beside it");
            }
            gone.extend(wave.iter().map(|step| &step.target));
        }
        let long = |candidate: &&Candidate| candidate.patience != janitor::Patience::Long;
        let leases = found.iter().filter(|candidate| matches!(candidate.target, Target::Lease(_))).count();
        let due = found.iter().filter(long).count() - leases;
        prop_assert!(steps.len() + plan.postponed >= due, "nothing that is due is forgotten");
    }
}

#[test]
fn the_generator_reaches_every_kind_of_leftover() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut seen, mut reasons) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..500 {
        let inventory = inventories().new_tree(&mut runner).expect("a value").current();
        for candidate in everything(&inventory) {
            let kind = match candidate.target {
                Target::Container(_) => "container",
                Target::Image(_) => "image",
                Target::WorkDir(_) => "directory",
                Target::Entry(_) => "entry",
                Target::Lease(_) => "lease",
                Target::Lock(_) => "lock",
                Target::Litter(..) | Target::Mirror(_) => continue,
            };
            seen.insert(kind);
            reasons.insert(candidate.reason);
        }
    }
    assert_eq!(seen, BTreeSet::from(["container", "directory", "entry", "image", "lease", "lock"]));
    let expected = [Reason::OwnerDead, Reason::ClaimGone, Reason::Unused, Reason::DiskFull];
    assert_eq!(reasons, BTreeSet::from(expected));
}
