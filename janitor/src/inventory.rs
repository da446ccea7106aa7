use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use jiff::Timestamp;
use queue_format::{LABEL_OBJECT, Labels, LedgerEntry, Life, Litter, Owner, SpoolId, TaskId, Token};
use uuid::Uuid;

use crate::disk::Pressure;
use crate::named::NamedImages;

/// How long one step of somebody else's build is believed to take.
const BUILD_STEP_SECONDS_MAX: i64 = 6 * 3600;

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
    /// Whether another engine answers than the one that made what the ledger names.
    pub is_other_engine: bool,
    /// The node's ledger.
    pub ledger: BTreeMap<Uuid, LedgerEntry>,
    /// The files of its entries that are damaged.
    pub damaged: Vec<PathBuf>,
    /// The directories that the ledger names.
    pub work_dirs: BTreeMap<Uuid, WorkDirState>,
    /// What is claimed, by this node's owners.
    pub claims: BTreeSet<ClaimKey>,
    /// What is accepted and with which token, among the tasks that the ledger has images of.
    pub accepted: BTreeSet<(TaskId, Token)>,
    /// The images that claimed tasks of this node are to run in, and those of tasks that wait.
    pub named_images: NamedImages,
    /// Whether more tasks wait than were asked: each of them may name any image.
    pub is_more_waiting: bool,
    /// This node's owners with a lease directory.
    pub leases: BTreeSet<Owner>,
    /// Every owner of this node that has a lease, a lock or an entry.
    pub lives: BTreeMap<Owner, Life>,
    /// When it was looked.
    pub now: Timestamp,
    /// When images were last used, by full id; what is missing was used just now.
    pub used_at: BTreeMap<String, Timestamp>,
    /// Images that could not be removed and are left alone for now, by full id.
    pub left_alone: BTreeSet<String>,
    /// What the disk demands on which the engine keeps images.
    pub pressure: Pressure,
    /// What the disk of the state directory demands.
    pub state_pressure: Pressure,
    /// Whether the state directory lies on a disk of images.
    pub is_one_disk: bool,
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
    /// Whether the engine (Podman) removes what has no name along with the last image on it, asked to or not.
    pub takes_parents: bool,
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
    /// Whether it looks like a step of a worker's build, and has the limits of one. A container that a person starts from
    /// our image, or a step of what he builds on it, inherits its labels, and must not be taken for one.
    pub is_build_step: bool,
    /// Whether it looks like a step of anybody else's build.
    pub is_others_step: bool,
    /// Whether it runs.
    pub is_running: bool,
    /// Whether the engine is removing it.
    pub is_removing: bool,
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
            is_other_engine: false,
            ledger: BTreeMap::new(),
            damaged: Vec::new(),
            work_dirs: BTreeMap::new(),
            claims: BTreeSet::new(),
            accepted: BTreeSet::new(),
            named_images: NamedImages::default(),
            is_more_waiting: false,
            leases: BTreeSet::new(),
            lives: BTreeMap::new(),
            now: Timestamp::UNIX_EPOCH,
            used_at: BTreeMap::new(),
            left_alone: BTreeSet::new(),
            pressure: Pressure::default(),
            state_pressure: Pressure::default(),
            is_one_disk: false,
            litter: Vec::new(),
            mirrors: Vec::new(),
        }
    }

    /// The container in which somebody else builds an image just now: the cache that the build looks into must not change
    /// meanwhile. What has run for hours is no step of a build, or one that hangs.
    #[must_use]
    pub fn foreign_build(&self) -> Option<&Container> {
        let is_young = |step: &Container| {
            step.created_at.is_none_or(|at| self.now.duration_since(at).as_secs() < BUILD_STEP_SECONDS_MAX)
        };
        let mut containers = self.objects.iter().flat_map(|objects| &objects.containers);
        containers.find(|step| {
            let is_forged = || step.is_build_step && self.entry_of(&step.labels).is_none();
            step.is_running && is_young(step) && (step.is_others_step || is_forged())
        })
    }

    /// Whether a claim stands and nothing proves its owner dead.
    #[must_use]
    pub fn is_live(&self, claim: &ClaimKey) -> bool {
        self.claims.contains(claim) && self.life(&claim.owner) != Life::Dead
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

    /// What the ledger has that nobody looks after: objects of other spools, or from when this node had another name, and
    /// what cannot be read.
    pub(crate) fn strangers(&self) -> Vec<String> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for entry in self.ledger.values().filter(|entry| !self.covers(entry)) {
            let whose = match entry.spool == self.spool {
                true => format!("node {}", entry.owner.node()),
                false => format!("spool {}", entry.spool),
            };
            *counts.entry(whose).or_default() += 1;
        }
        let counts: Vec<String> = counts.iter().map(|(whose, count)| format!("{whose} ({count})")).collect();
        let others = (!counts.is_empty()).then(|| {
            format!(
                "this node has objects of {}, which nobody looks after here; docs/janitor.md says how they go",
                counts.join(", ")
            )
        });
        let damaged = self.damaged.first().map(|first| {
            format!(
                "damaged entries of the ledger: {}, {} first: what such a one names is taken for nobody's; remove what has \
                 the label {LABEL_OBJECT} with its number, if there is any, and then the file",
                self.damaged.len(),
                first.display()
            )
        });
        others.into_iter().chain(damaged).collect()
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

#[cfg(test)]
mod tests {
    use queue_format::{Incarnation, ObjectKind};

    use super::*;

    #[test]
    fn what_another_spool_left_is_told() {
        let spool = |number: u128| Uuid::from_u128(number).to_string().parse().expect("a UUID");
        let mut now = Inventory::of_nothing(spool(1), "here");
        let mut add = |object: u128, of: u128, node: &str| {
            let entry = LedgerEntry {
                object: Uuid::from_u128(object),
                spool: spool(of),
                owner: Owner::new(node, Incarnation::new(Uuid::from_u128(7))),
                task: "x".parse().expect("an id"),
                token: Token(1),
                kind: ObjectKind::WorkDir { path: "/x".into() },
                created_at: Timestamp::UNIX_EPOCH,
                ended_at: None,
            };
            now.ledger.insert(entry.object, entry);
            now.strangers()
        };
        assert_eq!(add(1, 1, "here"), Vec::<String>::new());
        add(2, 2, "here");
        add(3, 2, "here");
        let told = add(4, 1, "there").join("; ");
        let two = spool(2).to_string();
        assert!(told.contains(&format!("objects of node there (1), spool {two} (2), which")), "{told}");
    }
}
