//! A node: engine, ledger, spool, workers, people; and what each of them may do next.

mod others;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use queue_format::{
    BuildGate, Building, Incarnation, Labels, LedgerEntry, Life, ObjectKind, Owner, SpoolId, TaskId, Token,
    image_name,
};
use uuid::Uuid;

use crate::disk::{Level, Pressure};
use crate::inventory::{ClaimKey, Container, Image, Inventory, Objects};
use crate::uses::{Heard, Moment};

pub(crate) const NODE: &str = "here";
const BASE: &str = "sha256:base";
const BASE_TAG: &str = "openswe-python-3.11:latest";
const TASKS: u64 = 3;

/// Numbers that a seed determines (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % bound
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        let bound = all.len() as u64;
        (bound > 0).then(|| all[self.below(bound) as usize].clone())
    }
}

/// Whose an object is, whatever its labels say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Ours(ClaimKey),
    Foreign,
}

/// A build that runs, as far as it has come; it holds the node's lock, unless it is a person's.
#[derive(Clone, Debug)]
struct Build {
    labels: Labels,
    whose: Whose,
    at: String,
    steps: u64,
    _lock: Rc<Building>,
}

pub(crate) struct Model {
    pub(crate) random: Random,
    pub(crate) objects: Objects,
    pub(crate) whose: HashMap<String, Whose>,
    pub(crate) ledger: BTreeMap<Uuid, LedgerEntry>,
    pub(crate) claims: BTreeSet<ClaimKey>,
    pub(crate) accepted: BTreeSet<(TaskId, Token)>,
    pub(crate) lives: BTreeMap<Owner, Life>,
    /// The true last use of each image, by the clock that nobody sets.
    pub(crate) used_at: BTreeMap<String, i64>,
    /// What the engine has to tell, and whether it has forgotten some of it.
    heard: Heard,
    pub(crate) now: i64,
    /// What somebody has set the clock ahead by.
    clock_ahead: i64,
    pub(crate) level: Level,
    /// The images that claimed tasks name, and those that tasks name which wait.
    pub(crate) named: BTreeSet<String>,
    pub(crate) waiting: BTreeSet<String>,
    /// Those that waited at the janitor's last listing, of images that would go.
    pub(crate) seen_waiting: BTreeSet<String>,
    /// Steps of other people's builds that ran when the janitor last closed the door to builds.
    pub(crate) seen_steps: HashSet<String>,
    /// Images that the engine is still removing, for whom the janitor no longer waits.
    pub(crate) slow: Vec<String>,
    /// Those that it has not removed in the end.
    pub(crate) given_up: HashSet<String>,
    gate: BuildGate,
    builds: Vec<Build>,
    tokens: BTreeMap<TaskId, u32>,
    unique: u128,
    /// What went wrong, the first of it.
    pub(crate) violation: Option<String>,
    pub(crate) removed: BTreeMap<&'static str, u64>,
    pub(crate) events: u64,
}

pub(crate) fn spool() -> SpoolId {
    Uuid::from_u128(1).to_string().parse().expect("a UUID")
}

impl Model {
    pub(crate) fn new(random: Random, gate: BuildGate) -> Self {
        let mut world = Self {
            random,
            objects: Objects::default(),
            whose: HashMap::new(),
            ledger: BTreeMap::new(),
            claims: BTreeSet::new(),
            accepted: BTreeSet::new(),
            lives: BTreeMap::new(),
            used_at: BTreeMap::new(),
            heard: Heard::default(),
            now: 100_000,
            clock_ahead: 0,
            level: Level::Calm,
            named: BTreeSet::new(),
            waiting: BTreeSet::new(),
            seen_waiting: BTreeSet::new(),
            seen_steps: HashSet::new(),
            slow: Vec::new(),
            given_up: HashSet::new(),
            gate,
            builds: Vec::new(),
            tokens: BTreeMap::new(),
            unique: 10,
            violation: None,
            removed: BTreeMap::new(),
            events: 0,
        };
        world.image(BASE.to_owned(), None, vec![BASE_TAG.to_owned()], HashMap::new(), Whose::Foreign);
        world
    }

    pub(crate) fn at(&self) -> Timestamp {
        Timestamp::from_second(self.now + self.clock_ahead).expect("a time")
    }

    /// As the engine dates what it makes. That somebody sets the clock back between a build of ours and one on it is left
    /// out: nothing would tell the two apart.
    fn steadily(&self) -> Timestamp {
        Timestamp::from_second(self.now).expect("a time")
    }

    pub(crate) fn moment(&self) -> Moment {
        let since_boot = Duration::from_secs(self.now.unsigned_abs());
        Moment { wall: self.at(), boot_id: String::new(), since_boot }
    }

    /// What the engine tells; it tells it once.
    pub(crate) fn hear(&mut self) -> Heard {
        std::mem::take(&mut self.heard)
    }

    /// An image is used, by its id or by a name.
    fn is_used(&mut self, image: &Image) {
        let name = self.random.of(&image.tags).unwrap_or_else(|| image.id.clone());
        let at = self.at();
        self.heard.uses.push((name, at));
        self.used_at.insert(image.id.clone(), self.now);
    }

    /// An inventory with nothing in it but what holds for the whole of it.
    pub(crate) fn blank(&self) -> Inventory {
        Inventory {
            now: self.at(),
            pressure: Pressure { level: self.level, bytes_to_free: 300, ..Pressure::default() },
            ..Inventory::of_nothing(spool(), NODE)
        }
    }

    /// Whatever somebody does next.
    pub(crate) fn step(&mut self) {
        self.events += 1;
        self.now += self.random.below(20) as i64;
        if self.random.below(3) == 0
            && let Some(id) = self.slow.pop()
        {
            self.end_slow_removal(&id);
        }
        match self.random.below(34) {
            0 | 1 => self.claim(),
            2 | 3 => self.run_container(),
            4 | 5 => self.begin_build(),
            6..=9 => self.go_on_building(),
            10 | 11 => self.end_claim(),
            12 => self.worker_dies(),
            13 => self.successor_adopts(),
            14 => self.person_runs(),
            15 => self.person_builds(),
            16 => self.person_tags(),
            17 => self.person_renames(),
            18 => self.person_forges(),
            19 => self.person_removes(),
            20 => self.task_is_retried(),
            21 => self.crash_leaves_a_step(),
            22 | 23 => self.image_is_used(),
            24 => self.person_begins_a_step(),
            25 | 26 => self.person_ends_a_step(),
            27 => self.task_names_an_image(),
            28 => self.task_that_named_ends(),
            31 | 32 => self.accepted_long_ago(),
            29 => self.heard = Heard { is_partial: true, ..Heard::default() },
            30 if self.random.below(8) == 0 => {
                // Farther than any clock is put right by.
                self.clock_ahead = if self.clock_ahead == 0 { 10_000 } else { 0 };
            }
            _ => {
                let levels = [Level::Calm, Level::Calm, Level::High, Level::Emergency];
                self.level = levels[self.random.below(4) as usize];
            }
        }
    }

    fn fresh(&mut self) -> Uuid {
        self.unique += 1;
        Uuid::from_u128(self.unique)
    }

    fn image(
        &mut self,
        id: String,
        parent_id: Option<String>,
        tags: Vec<String>,
        labels: HashMap<String, String>,
        whose: Whose,
    ) {
        // A name moves: whoever had it has it no more.
        for image in &mut self.objects.images {
            image.tags.retain(|tag| !tags.contains(tag));
        }
        self.whose.insert(id.clone(), whose);
        self.used_at.insert(id.clone(), self.now);
        let size_bytes = 100 * (1 + self.depth(parent_id.as_deref()));
        let created_at = Some(self.steadily());
        self.objects.images.push(Image { id, parent_id, tags, labels, created_at, size_bytes });
    }

    fn depth<'a>(&'a self, mut id: Option<&'a str>) -> u64 {
        let mut depth = 0;
        while let Some(image) = id.and_then(|id| self.objects.images.iter().find(|image| image.id == id)) {
            depth += 1;
            id = image.parent_id.as_deref();
        }
        depth
    }

    fn container(
        &mut self,
        name: String,
        image: &Image,
        labels: HashMap<String, String>,
        step: bool,
        whose: Whose,
    ) {
        let id = format!("c{}", self.fresh());
        self.whose.insert(id.clone(), whose);
        self.is_used(image);
        // A container inherits what it does not say itself.
        let mut all = image.labels.clone();
        all.extend(labels);
        self.objects.containers.push(Container {
            id,
            names: vec![name],
            image_id: image.id.clone(),
            labels: all,
            created_at: Some(self.at()),
            is_build_step: step,
            is_others_step: false,
            is_running: !step && self.random.below(2) == 0,
            is_removing: false,
        });
    }

    fn labels(&mut self, claim: &ClaimKey) -> Labels {
        Labels {
            spool: spool(),
            owner: claim.owner.clone(),
            task: claim.task.clone(),
            token: claim.token,
            object: self.fresh(),
        }
    }

    fn record(&mut self, labels: &Labels, kind: ObjectKind) {
        let entry = labels.entry(kind, self.at());
        self.ledger.insert(labels.object, entry);
    }

    fn living(&self) -> Vec<Owner> {
        self.lives.iter().filter(|(_, life)| **life == Life::Alive).map(|(owner, _)| owner.clone()).collect()
    }

    fn a_live_claim(&mut self) -> Option<ClaimKey> {
        let claims: Vec<ClaimKey> = self
            .claims
            .iter()
            .filter(|claim| self.lives.get(&claim.owner) == Some(&Life::Alive))
            .cloned()
            .collect();
        self.random.of(&claims)
    }

    fn claim(&mut self) {
        let living = self.living();
        let owner = match self.random.of(&living) {
            Some(owner) if self.random.below(4) > 0 => owner,
            _ => {
                let owner = Owner::new(NODE, Incarnation::new(self.fresh()));
                self.lives.insert(owner.clone(), Life::Alive);
                owner
            }
        };
        let task: TaskId = format!("task-{}", self.random.below(TASKS)).parse().expect("an id");
        if self.claims.iter().any(|claim| claim.task == task) {
            return;
        }
        let token = self.tokens.entry(task.clone()).or_default();
        *token += 1;
        let token = Token(*token);
        self.claims.insert(ClaimKey { owner, task, token });
    }

    fn run_container(&mut self) {
        let Some(claim) = self.a_live_claim() else { return };
        let images = self.objects.images.clone();
        let Some(image) = self.random.of(&images) else { return };
        let labels = self.labels(&claim);
        let name = format!("run-{}", labels.object);
        self.record(&labels, ObjectKind::Container { name: name.clone() });
        // The claim may be lost between the entry and the container: it is made all the same.
        if self.random.below(6) == 0 {
            self.claims.remove(&claim);
        }
        self.container(name, &image, labels.to_map(), false, Whose::Ours(claim));
    }

    fn begin_build(&mut self) {
        let Some(claim) = self.a_live_claim() else { return };
        let Some(lock) = self.gate.build_within(Duration::ZERO).expect("a lock") else { return };
        let labels = self.labels(&claim);
        let kind = ObjectKind::Build { image: format!("bottega-draft:{}", labels.object.simple()) };
        self.record(&labels, kind);
        let steps = 1 + self.random.below(3);
        self.builds.push(Build {
            labels,
            whose: Whose::Ours(claim),
            at: BASE.to_owned(),
            steps,
            _lock: Rc::new(lock),
        });
    }

    fn go_on_building(&mut self) {
        if self.builds.is_empty() {
            return;
        }
        let at = self.random.below(self.builds.len() as u64) as usize;
        let mut build = self.builds.swap_remove(at);
        if !self.objects.images.iter().any(|image| image.id == build.at) {
            self.violation.get_or_insert(format!("a build of {} lost what it stands on", build.labels.task));
            return;
        }
        build.steps -= 1;
        let id = format!("sha256:{}", self.fresh().simple());
        let tags = match (&build.whose, build.steps) {
            (_, 1..) => vec![],
            (Whose::Ours(_), 0) => vec![format!("bottega-draft:{}", build.labels.object.simple())],
            (Whose::Foreign, 0) => vec![format!("mine-{}:1", self.unique)],
        };
        self.image(id.clone(), Some(build.at.clone()), tags, build.labels.to_map(), build.whose.clone());
        build.at = id;
        // Whoever dies just then has not noted it.
        let ended_at = Some(self.steadily()).filter(|_| build.steps == 0 && self.random.below(4) > 0);
        if let Some(entry) = self.ledger.get_mut(&build.labels.object) {
            entry.ended_at = ended_at;
        }
        // Whoever builds may be cut off: its layers stay.
        if build.steps > 0 && self.random.below(8) > 0 {
            self.builds.push(build);
        }
    }

    fn end_claim(&mut self) {
        let Some(claim) = self.a_live_claim() else { return };
        // A worker waits for its builds.
        self.builds.retain(|build| build.whose != Whose::Ours(claim.clone()));
        if self.random.below(4) > 0 {
            let built = self.whose.clone();
            let of_claim = |image: &&mut Image| built.get(&image.id) == Some(&Whose::Ours(claim.clone()));
            let image = self.objects.images.iter_mut().filter(of_claim).find(|image| !image.tags.is_empty());
            if let Some(id) = image.map(|image| image.id.clone()) {
                let name = format!("{}:latest", image_name(&claim.task));
                let dies = self.random.below(4) == 0;
                for image in &mut self.objects.images {
                    image.tags.retain(|tag| *tag != name);
                    if image.id == id {
                        // Whoever dies just then leaves the draft's name.
                        if !dies {
                            image.tags.clear();
                        }
                        image.tags.push(name.clone());
                    }
                }
                self.accepted.retain(|(task, _)| *task != claim.task);
                self.accepted.insert((claim.task.clone(), claim.token));
            }
        }
        self.claims.remove(&claim);
    }

    fn worker_dies(&mut self) {
        let living = self.living();
        let Some(owner) = self.random.of(&living) else { return };
        let life = if self.random.below(2) == 0 { Life::Left } else { Life::Dead };
        self.lives.insert(owner.clone(), life);
        // The engine ends the builds of whoever hangs up, and the kernel drops its locks.
        self.builds.retain(|build| !matches!(&build.whose, Whose::Ours(claim) if claim.owner == owner));
        if life == Life::Dead && self.random.below(2) == 0 {
            self.claims.retain(|claim| claim.owner != owner);
        }
    }

    /// The successor goes on as the same incarnation, with its claims and containers.
    fn successor_adopts(&mut self) {
        let left: Vec<Owner> = self
            .lives
            .iter()
            .filter(|(_, life)| **life == Life::Left)
            .map(|(owner, _)| owner.clone())
            .collect();
        if let Some(owner) = self.random.of(&left) {
            self.lives.insert(owner, Life::Alive);
        }
    }

    /// The steps of other people's builds that run now.
    pub(crate) fn foreign_steps(&self) -> HashSet<String> {
        let steps = self.objects.containers.iter().filter(|found| found.is_others_step);
        steps.map(|step| step.id.clone()).collect()
    }

    fn is_live(&self, claim: &ClaimKey) -> bool {
        self.claims.contains(claim) && self.lives.get(&claim.owner) != Some(&Life::Dead)
    }

    /// False where it is gone.
    pub(crate) fn remove_container(&mut self, id: &str) -> bool {
        let Some(at) = self.objects.containers.iter().position(|container| container.id == id) else {
            return false;
        };
        let container = self.objects.containers.swap_remove(at);
        match &self.whose[id] {
            Whose::Foreign => self.violate(format!("a foreign container went: {container:?}")),
            Whose::Ours(claim) if self.is_live(claim) => {
                let why = format!("a container of {claim:?} went, which is live");
                self.violate(why);
            }
            Whose::Ours(_) => {
                *self
                    .removed
                    .entry(if container.is_build_step { "step" } else { "container" })
                    .or_default() += 1;
            }
        }
        true
    }

    /// Drops a ledger entry, which must have nothing left that it stands for.
    pub(crate) fn forget(&mut self, entry: &LedgerEntry) {
        self.ledger.remove(&entry.object);
        let object = entry.object.to_string();
        let left = self.objects.containers.iter().find(|container| {
            let is_ours = matches!(self.whose.get(&container.id), Some(Whose::Ours(_)));
            is_ours && container.labels.get(queue_format::LABEL_OBJECT) == Some(&object)
        });
        if let Some(left) = left {
            self.violate(format!("a container is forgotten that is still there: {left:?}"));
        }
    }

    /// As the engine does it without force: what is in use stays, and so does what has two names.
    pub(crate) fn is_kept(&self, id: &str) -> bool {
        let is_used = self.objects.containers.iter().any(|container| container.image_id == id)
            || self.objects.images.iter().any(|image| image.parent_id.as_deref() == Some(id));
        is_used || self.objects.images.iter().any(|image| image.id == id && image.tags.len() > 1)
    }

    /// Takes one of several names away.
    pub(crate) fn untag(&mut self, name: &str) -> bool {
        let tagged = self.objects.images.iter_mut().find(|image| image.tags.iter().any(|tag| tag == name));
        let Some(image) = tagged.filter(|image| image.tags.len() > 1) else { return false };
        image.tags.retain(|tag| tag != name);
        true
    }

    /// What is wrong with the removal of an image that nothing keeps, to be asked when it is begun.
    pub(crate) fn judge_image(&mut self, id: &str, was_over: impl Fn(&Self) -> bool) {
        let Some(image) = self.objects.images.iter().find(|image| image.id == id).cloned() else { return };
        if !self.seen_steps.is_disjoint(&self.foreign_steps()) {
            self.violate("an image went while somebody else built".to_owned());
        }
        if image.tags.iter().any(|tag| self.named.contains(tag)) {
            self.violate(format!("the image {id} went, which a task is to run in"));
        }
        // One that is submitted after the last look at those that wait comes too late.
        if image.tags.iter().any(|tag| self.waiting.contains(tag) && self.seen_waiting.contains(tag)) {
            self.violate(format!("the image {id} went, which a task waits to run in"));
        }
        match self.whose[id].clone() {
            Whose::Foreign => self.violate(format!("a foreign image went: {image:?}")),
            Whose::Ours(claim) if self.is_live(&claim) => {
                self.violate(format!("an image of {claim:?} went, which is live"));
            }
            Whose::Ours(claim) => {
                let is_accepted =
                    !image.tags.is_empty() && self.accepted.contains(&(claim.task, claim.token));
                if is_accepted && !was_over(self) {
                    self.violate(format!("the image {id} of an accepted task went before its time"));
                }
                let what = match (is_accepted, image.tags.is_empty()) {
                    (true, _) => "spent",
                    (false, true) => "layer",
                    (false, false) => "image",
                };
                *self.removed.entry(what).or_default() += 1;
            }
        }
    }

    /// It is gone from one moment to the other.
    pub(crate) fn drop_image(&mut self, id: &str) {
        if self.builds.iter().any(|build| build.whose != Whose::Foreign) {
            self.violate("an image went while a build looked for its cache".to_owned());
        }
        self.objects.images.retain(|image| image.id != id);
    }

    fn end_slow_removal(&mut self, id: &str) {
        if self.objects.images.iter().any(|image| image.id == id) && !self.is_kept(id) {
            *self.removed.entry("slow").or_default() += 1;
            self.drop_image(id);
        } else {
            // Whoever uses it now would keep it, and the janitor wait for it until its time is over.
            self.given_up.insert(id.to_owned());
        }
    }

    pub(crate) fn is_there(&self, id: &str) -> bool {
        self.objects.images.iter().any(|image| image.id == id)
    }

    pub(crate) fn violate(&mut self, why: String) {
        self.violation.get_or_insert(why);
    }
}
