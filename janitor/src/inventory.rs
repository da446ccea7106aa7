use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use jiff::Timestamp;
use queue_format::{Labels, LedgerEntry, Life, Litter, Owner, SpoolId, TaskId, Token};
use uuid::Uuid;

use crate::disk::Pressure;

/// All that a pass knows, seen within a few seconds: engine first, then ledger, then spool. A worker goes the other
/// way (claim, entry, object), so an object that is seen was preceded by its entry and its claim.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// Our spool.
    pub spool: SpoolId,
    /// This node, as owners name it.
    pub node: String,
    /// What the engine holds; `None` where it does not answer.
    pub objects: Option<Objects>,
    /// The node's ledger.
    pub ledger: BTreeMap<Uuid, LedgerEntry>,
    /// The directories that the ledger names.
    pub work_dirs: BTreeMap<Uuid, WorkDirState>,
    /// What is claimed, by this node's owners.
    pub claims: BTreeSet<ClaimKey>,
    /// What is accepted and with which token, among the tasks that the ledger has images of.
    pub accepted: BTreeSet<(TaskId, Token)>,
    /// The images that claimed tasks of this node are to run in, as those name them.
    pub named_images: BTreeSet<String>,
    /// This node's owners with a lease directory.
    pub leases: BTreeSet<Owner>,
    /// Every owner of this node that has a lease, a lock or an entry.
    pub lives: BTreeMap<Owner, Life>,
    /// When it was looked.
    pub now: Timestamp,
    /// When images were last used, by full id; what is missing was used just now.
    pub used_at: BTreeMap<String, Timestamp>,
    /// What the disk demands on which the engine keeps images.
    pub pressure: Pressure,
    /// What the disk of the state directory demands.
    pub state_pressure: Pressure,
    /// What nobody needs any more in the spool.
    pub litter: Vec<Litter>,
    /// Copies of repositories.
    pub mirrors: Vec<Mirror>,
}

/// A copy of a repository that the node's workers keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where.
    pub path: PathBuf,
    /// What it takes.
    pub bytes: u64,
    /// When a worker last asked for it.
    pub used_at: Timestamp,
}

/// What the engine holds.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// In every state.
    pub containers: Vec<Container>,
    /// Tagged, dangling and intermediate.
    pub images: Vec<Image>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its full id.
    pub id: String,
    /// Its names, without the leading slash.
    pub names: Vec<String>,
    /// The full id of its image.
    pub image_id: String,
    /// Its labels, those of its image included.
    pub labels: HashMap<String, String>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// Whether it looks like a step of a build. A container that a person starts from our image inherits its
    /// labels, and must not be taken for one.
    pub is_build_step: bool,
    /// Whether it runs.
    pub is_running: bool,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its full id.
    pub id: String,
    /// The image it was built on, where the engine knows it.
    pub parent_id: Option<String>,
    /// Its tags, `name:tag`.
    pub tags: Vec<String>,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// With everything below it.
    pub size_bytes: u64,
}

/// One claim, whether it still stands or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimKey {
    /// Who made it.
    pub owner: Owner,
    /// On which task.
    pub task: TaskId,
    /// Its fencing token.
    pub token: Token,
}

/// A directory that the ledger names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkDirState {
    /// It is not there.
    Missing,
    /// It lies where work directories lie, under its true path.
    Inside(PathBuf),
    /// It lies elsewhere, or is not a directory: never to be touched.
    Outside,
}

impl ClaimKey {
    /// The claim that an entry was made under.
    #[must_use]
    pub fn of(entry: &LedgerEntry) -> Self {
        Self { owner: entry.owner.clone(), task: entry.task.clone(), token: entry.token }
    }
}

impl Inventory {
    /// A node where nothing is, and whose engine does not answer.
    #[must_use]
    pub fn of_nothing(spool: SpoolId, node: &str) -> Self {
        Self {
            spool,
            node: node.to_owned(),
            objects: None,
            ledger: BTreeMap::new(),
            work_dirs: BTreeMap::new(),
            claims: BTreeSet::new(),
            accepted: BTreeSet::new(),
            named_images: BTreeSet::new(),
            leases: BTreeSet::new(),
            lives: BTreeMap::new(),
            now: Timestamp::UNIX_EPOCH,
            used_at: BTreeMap::new(),
            pressure: Pressure::default(),
            state_pressure: Pressure::default(),
            litter: Vec::new(),
            mirrors: Vec::new(),
        }
    }

    /// Whether somebody else builds an image just now: the cache that it looks into must not change meanwhile.
    #[must_use]
    pub fn foreign_build_runs(&self) -> bool {
        let containers = self.objects.iter().flat_map(|objects| &objects.containers);
        let mut steps = containers.filter(|container| container.is_build_step && container.is_running);
        steps.any(|step| self.entry_of(&step.labels).is_none())
    }

    /// Whether a claim stands and nothing proves its owner dead.
    #[must_use]
    pub fn is_live(&self, claim: &ClaimKey) -> bool {
        self.claims.contains(claim) && self.life(&claim.owner) != Life::Dead
    }

    /// Whether a claimed task is to run in an image, and has perhaps no container of it yet.
    #[must_use]
    pub fn is_named(&self, image: &Image) -> bool {
        self.named_images.iter().any(|name| {
            let is_tag = |tag: &String| tag == name || tag.strip_suffix(":latest") == Some(name);
            image.id == *name || image.tags.iter().any(is_tag)
        })
    }

    /// What is known of an owner.
    #[must_use]
    pub fn life(&self, owner: &Owner) -> Life {
        self.lives.get(owner).copied().unwrap_or(Life::Unknown)
    }

    /// Whether an entry is about our spool and this node.
    #[must_use]
    pub fn covers(&self, entry: &LedgerEntry) -> bool {
        entry.spool == self.spool && entry.owner.node() == self.node
    }

    /// The ledger's entry that labels stand for: only if it exists, says the same and is about our spool and node.
    #[must_use]
    pub fn entry_of(&self, labels: &HashMap<String, String>) -> Option<&LedgerEntry> {
        let labels = Labels::from_map(labels)?;
        let entry = self.ledger.get(&labels.object)?;
        let same = entry.object == labels.object
            && entry.spool == labels.spool
            && entry.owner == labels.owner
            && entry.task == labels.task
            && entry.token == labels.token;
        (same && self.covers(entry)).then_some(entry)
    }
}
