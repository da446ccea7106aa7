//! The janitor's passes over the model: the true stages, and between any two of its steps whatever others do. A guard can
//! be made blind.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use queue_format::{BuildGate, Labels, LedgerEntry, Life, NoBuilds, ObjectKind, image_name};

use super::model::{Model, NODE, Random, spool};
use crate::audit::Event;
use crate::disk::Level;
use crate::door::BuildsWait;
use crate::ending::Ending;
use crate::error::{EngineError, JanitorError};
use crate::execute::Execution;
use crate::inventory::{Container, Image, Inventory, Objects};
use crate::janitor::{images_left, leftovers};
use crate::marks::Marks;
use crate::named::NamedImages;
use crate::plan::plan;
use crate::policy::{Candidate, Target};
use crate::retain::Retention;
use crate::show;
use crate::uses::Uses;
use crate::verify::Look;
use crate::world::{LookError, Removal, World};

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
    /// When a build of ours had ended is not asked.
    Ended,
    /// Somebody's name of a container is not seen.
    Names,
    /// Every container counts as a step of a build.
    Steps,
    /// What is accepted goes at once.
    Accepted,
    /// What a task is to run in is not asked.
    Named,
    /// What tasks that wait are to run in is not asked.
    Waiting,
    /// They are asked at the listing alone.
    LateWaiting,
    /// What the engine tells of uses is not heard.
    Events,
    /// That the clock was set is not seen.
    Clock,
    /// Steps of other people's builds are not seen.
    ForeignBuild,
    /// They are looked for at the listing alone.
    LateForeignBuild,
    /// The last look sees what the first one saw.
    LastLook,
    /// Images go while builds run.
    Lock,
    /// A removal counts as ended when the engine has been too slow for it.
    Settle,
}

impl Blind {
    pub(crate) const ALL: [Self; 19] = [
        Self::Ledger,
        Self::Labels,
        Self::Claims,
        Self::Left,
        Self::Tags,
        Self::Ended,
        Self::Names,
        Self::Steps,
        Self::Accepted,
        Self::Named,
        Self::Waiting,
        Self::LateWaiting,
        Self::Events,
        Self::Clock,
        Self::ForeignBuild,
        Self::LateForeignBuild,
        Self::LastLook,
        Self::Lock,
        Self::Settle,
    ];
}

const RETENTION: Retention = Retention { accepted: Duration::from_secs(400), rest: Duration::from_secs(100) };
/// Copies of repositories, of which the model has none.
const MIRRORS_BYTES_MAX: u64 = 0;

/// A node on which a janitor works.
pub(crate) struct Scene {
    pub(crate) model: RefCell<Model>,
    blind: Option<Blind>,
    gate: BuildGate,
    /// Whether the door was shut in this pass.
    was_shut: Cell<bool>,
    uses: Uses,
    marks: Marks,
    /// What the last listing showed, and the true last uses at that time.
    planned: Inventory,
    used_at: BTreeMap<String, i64>,
    planned_at: i64,
}

impl Scene {
    pub(crate) fn new(random: Random, gate: BuildGate, blind: Option<Blind>) -> Self {
        let model = Model::new(random, gate.clone());
        Self {
            planned: model.blank(),
            model: RefCell::new(model),
            blind,
            gate,
            was_shut: Cell::new(false),
            uses: Uses::default(),
            marks: Marks::default(),
            used_at: BTreeMap::new(),
            planned_at: 0,
        }
    }

    /// One pass: what was seen in the one before and is still a leftover goes.
    pub(crate) async fn pass(&mut self, now: Instant) {
        self.planned = self.observe();
        let (found, _) = leftovers(&self.planned, &RETENTION, MIRRORS_BYTES_MAX);
        let ripe = self.marks.ripe(found, now, Duration::from_secs(1));
        let plan = plan(&self.planned, ripe, usize::MAX);
        let parallel = 1 + self.below(3) as usize;
        let waits = [BuildsWait::Open(Duration::ZERO), BuildsWait::Shut(Duration::ZERO)];
        let builds_wait = waits[self.below(2) as usize];
        let alone_max = if self.below(2) == 0 { Duration::ZERO } else { Duration::MAX };
        let execution = Execution {
            world: self,
            notifier: &systemd::Notifier::default(),
            clock: || Timestamp::UNIX_EPOCH,
            parallel,
            builds_wait,
            open_wait: Duration::ZERO,
            alone_max,
            more_wait: false,
            ending: &Ending::default(),
        };
        self.was_shut.set(false);
        execution.run(&plan).await;
    }

    /// Engine first, then ledger, then spool, then who lives; anything may happen in between.
    fn observe(&mut self) -> Inventory {
        let mut inventory = self.model.borrow().blank();
        let containers = {
            let mut model = self.model.borrow_mut();
            model.seen_waiting.clear();
            model.objects.containers.clone()
        };
        self.others_act();
        let images = self.model.borrow().objects.images.clone();
        self.others_act();
        let objects = Objects { containers, images, takes_parents: false };
        {
            let mut model = self.model.borrow_mut();
            self.used_at.clone_from(&model.used_at);
            self.planned_at = model.now;
            let mut heard = model.hear();
            if self.blind == Some(Blind::Events) {
                heard.uses.clear();
            }
            let mut moment = model.moment();
            if self.blind == Some(Blind::Clock) {
                moment.since_boot = Duration::from_secs(moment.wall.as_second().unsigned_abs());
            }
            inventory.now = moment.wall;
            self.uses.note(&objects, &heard, moment);
            inventory.pressure = model.blank().pressure;
        }
        inventory.used_at.clone_from(self.uses.of_images());
        inventory.objects = Some(objects);
        self.others_act();
        inventory.ledger.clone_from(&self.model.borrow().ledger);
        self.others_act();
        inventory.claims.clone_from(&self.model.borrow().claims);
        inventory.named_images = self.model.borrow().named.iter().collect();
        self.others_act();
        inventory.accepted.clone_from(&self.model.borrow().accepted);
        inventory.leases = self.model.borrow().claims.iter().map(|claim| claim.owner.clone()).collect();
        self.others_act();
        inventory.lives.clone_from(&self.model.borrow().lives);
        blindfold(&mut inventory, self.blind);
        if !images_left(&inventory, &RETENTION).is_empty() {
            let mut model = self.model.borrow_mut();
            model.seen_waiting = model.waiting.clone();
            if self.blind != Some(Blind::Waiting) {
                inventory.named_images.extend(&model.waiting);
            }
        }
        inventory
    }

    fn others_act(&self) {
        let mut model = self.model.borrow_mut();
        for _ in 0..model.random.below(3) {
            model.step();
        }
    }

    /// Others act, and perhaps other removals that are in flight.
    async fn meanwhile(&self) {
        self.others_act();
        if self.below(2) == 0 {
            tokio::task::yield_now().await;
        }
    }

    fn below(&self, bound: u64) -> u64 {
        self.model.borrow_mut().random.below(bound)
    }

    /// Whether the time of an accepted task's image was over when it was listed.
    fn was_over(&self, id: &str) -> bool {
        let used_at = self.used_at.get(id).copied().unwrap_or(self.planned_at);
        let unused = self.planned_at - used_at;
        match self.planned.pressure.level {
            Level::Calm => unused >= 400,
            Level::High => unused >= 100,
            Level::Emergency => true,
        }
    }

    fn remove_one_image(&self, id: &str) -> Result<Removal, LookError> {
        let mut model = self.model.borrow_mut();
        if model.untag(id) {
            return Ok(Removal::Done);
        }
        if !model.is_there(id) {
            return Ok(Removal::Gone);
        }
        if model.is_kept(id) {
            return Ok(Removal::InUse("somebody uses it".to_owned()));
        }
        model.judge_image(id, |_| self.was_over(id));
        if model.random.below(16) == 0 {
            model.slow.push(id.to_owned());
            return Err(EngineError::TimedOut { action: "remove an image", seconds: 1 }.into());
        }
        model.drop_image(id);
        Ok(Removal::Done)
    }
}

impl World for Scene {
    type Alone = Option<NoBuilds>;

    async fn entry_now(&self, entry: &LedgerEntry) -> Result<Option<Inventory>, JanitorError> {
        self.meanwhile().await;
        if self.blind == Some(Blind::LastLook) {
            return Ok(Some(self.planned.clone()));
        }
        let is_same = |found: &&LedgerEntry| *found == entry || self.blind == Some(Blind::Ended);
        let found = self.model.borrow().ledger.get(&entry.object).filter(is_same).cloned();
        let is_forged = matches!(self.blind, Some(Blind::Ledger | Blind::Labels));
        let Some(found) = found.or_else(|| is_forged.then(|| entry.clone())) else { return Ok(None) };
        let mut now = self.model.borrow().blank();
        now.ledger.insert(entry.object, found);
        self.meanwhile().await;
        now.claims.clone_from(&self.model.borrow().claims);
        self.meanwhile().await;
        now.accepted.clone_from(&self.model.borrow().accepted);
        now.lives.clone_from(&self.model.borrow().lives);
        blindfold(&mut now, self.blind);
        Ok(Some(now))
    }

    /// From here on it is one with the removal.
    async fn named_images(&self) -> Result<NamedImages, JanitorError> {
        self.meanwhile().await;
        Ok(match self.blind {
            Some(Blind::Named) => NamedImages::default(),
            Some(Blind::LastLook) => self.planned.named_images.clone(),
            _ => self.model.borrow().named.iter().collect(),
        })
    }

    async fn waiting_images(&self) -> Result<Option<NamedImages>, JanitorError> {
        self.meanwhile().await;
        let mut model = self.model.borrow_mut();
        model.seen_waiting = model.waiting.clone();
        Ok(Some(match self.blind {
            Some(Blind::Waiting | Blind::LastLook | Blind::LateWaiting) => NamedImages::default(),
            _ => model.waiting.iter().collect(),
        }))
    }

    /// From here on it is one with the removal.
    async fn container(&self, id: &str) -> Result<Option<Container>, LookError> {
        self.meanwhile().await;
        let model = self.model.borrow();
        let objects = match &self.planned.objects {
            Some(objects) if self.blind == Some(Blind::LastLook) => objects,
            _ => &model.objects,
        };
        let found = objects.containers.iter().find(|container| container.id == id).cloned();
        Ok(found.map(|found| seen_container(&model.ledger, found, self.blind)))
    }

    async fn container_bytes(&self, _: &str) -> Option<u64> {
        self.meanwhile().await;
        None
    }

    async fn image(&self, id: &str) -> Result<Option<Image>, LookError> {
        let model = self.model.borrow();
        let objects = match &self.planned.objects {
            Some(objects) if self.blind == Some(Blind::LastLook) => objects,
            _ => &model.objects,
        };
        let found = objects.images.iter().find(|image| image.id == id).cloned();
        let found =
            found.filter(|_| self.blind != Some(Blind::Settle) || !model.slow.iter().any(|slow| slow == id));
        let found = found.filter(|found| !model.given_up.contains(&found.id));
        Ok(found.map(|found| seen_image(found, self.blind)))
    }

    async fn look_at_files(&self, candidate: &Candidate) -> Result<Look, JanitorError> {
        self.meanwhile().await;
        Ok(match &candidate.target {
            Target::Lease(owner) if self.model.borrow().lives.get(owner) != Some(&Life::Dead) => {
                Look::Keep("its worker is not proven dead")
            }
            _ => Look::Remove(None),
        })
    }

    async fn foreign_build(&self) -> Result<Option<String>, LookError> {
        if self.blind == Some(Blind::LateForeignBuild) {
            return Ok(None);
        }
        let mut now = self.model.borrow().blank();
        now.objects = Some(Objects {
            containers: self.model.borrow().objects.containers.clone(),
            ..Objects::default()
        });
        now.ledger.clone_from(&self.model.borrow().ledger);
        blindfold(&mut now, self.blind);
        Ok(now.foreign_build().map(show::container))
    }

    async fn without_builds(&self, wait: BuildsWait) -> Result<Option<Self::Alone>, JanitorError> {
        self.meanwhile().await;
        let mut model = self.model.borrow_mut();
        model.seen_steps = model.foreign_steps();
        if matches!(wait, BuildsWait::Shut(_)) && self.was_shut.replace(true) {
            model.violate("the door was shut twice in one pass".to_owned());
        }
        drop(model);
        if self.blind == Some(Blind::Lock) {
            return Ok(Some(None));
        }
        Ok(match wait {
            BuildsWait::Open(at_most) => self.gate.no_builds_by_chance(at_most)?.map(Some),
            BuildsWait::Shut(at_most) => self.gate.no_builds(at_most)?.map(Some),
        })
    }

    async fn remove_container(&self, id: &str) -> Result<Removal, LookError> {
        let mut model = self.model.borrow_mut();
        if model.random.below(16) == 0 {
            return Ok(Removal::InUse("it is being removed".to_owned()));
        }
        Ok(if model.remove_container(id) { Removal::Done } else { Removal::Gone })
    }

    async fn remove_image(&self, id: &str) -> Result<(Removal, Vec<String>), LookError> {
        self.remove_one_image(id).map(|removal| (removal, Vec::new()))
    }

    async fn remove_files(&self, candidate: &Candidate) -> Result<Removal, JanitorError> {
        if let Target::Lease(owner) = &candidate.target {
            self.model.borrow_mut().claims.retain(|claim| claim.owner != *owner);
        }
        Ok(Removal::Done)
    }

    async fn forget(&self, entry: &LedgerEntry) -> Result<(), JanitorError> {
        self.meanwhile().await;
        self.model.borrow_mut().forget(entry);
        Ok(())
    }

    fn note(&self, _: Event, _: &Candidate, _: Option<u64>, _: Option<&str>) -> Result<(), JanitorError> {
        Ok(())
    }

    async fn answers(&self) -> bool {
        true
    }

    async fn hanging(&self, _: &str) -> Option<String> {
        None
    }

    async fn pause(&self, _: Duration) {
        self.meanwhile().await;
    }
}

/// Shows the stages what they would believe without a guard.
fn blindfold(inventory: &mut Inventory, blind: Option<Blind>) {
    let Some(blind) = blind else { return };
    match blind {
        Blind::Claims => inventory.claims.clear(),
        Blind::Named => inventory.named_images = NamedImages::default(),
        Blind::Left => {
            for life in inventory.lives.values_mut().filter(|life| **life == Life::Left) {
                *life = Life::Dead;
            }
        }
        Blind::Accepted => inventory.accepted.clear(),
        Blind::Ended => inventory.ledger.values_mut().for_each(|entry| entry.ended_at = None),
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
    let ledger = &inventory.ledger;
    objects.containers =
        objects.containers.into_iter().map(|found| seen_container(ledger, found, Some(blind))).collect();
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
    let entry = said.entry(kind, Timestamp::UNIX_EPOCH);
    ledger.insert(said.object, entry);
}

fn seen_container(
    ledger: &BTreeMap<uuid::Uuid, LedgerEntry>,
    mut found: Container,
    blind: Option<Blind>,
) -> Container {
    match blind {
        Some(Blind::Names) => {
            let entry = Labels::from_map(&found.labels).and_then(|said| ledger.get(&said.object));
            if let Some(LedgerEntry { kind: ObjectKind::Container { name }, .. }) = entry {
                found.names = vec![name.clone()];
            }
        }
        Some(Blind::Steps) => found.is_build_step = true,
        Some(Blind::ForeignBuild) => found.is_running = false,
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
