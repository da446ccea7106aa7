//! Why things stay and how soon they go, one small node after the other.

use std::collections::{BTreeMap, BTreeSet};

use janitor::{ClaimKey, Container, Image, Inventory, Kept, Objects, Patience, Target, policy, protect};
use queue_format::{Incarnation, Labels, LedgerEntry, Life, ObjectKind, Owner, SpoolId, Token};
use uuid::Uuid;

/// A node with one finished build of task `x`, of three layers, and what a test adds.
struct Case {
    inventory: Inventory,
    labels: Labels,
}

fn case() -> Case {
    let spool: SpoolId = Uuid::from_u128(1).to_string().parse().expect("a UUID");
    let owner = Owner::new("here", Incarnation::new(Uuid::from_u128(2)));
    let labels = Labels {
        spool,
        owner: owner.clone(),
        task: "x".parse().expect("an id"),
        token: Token(1),
        object: Uuid::from_u128(3),
    };
    let entry = LedgerEntry {
        object: labels.object,
        kind: ObjectKind::Build { image: "openswe--x".to_owned() },
        spool,
        owner: owner.clone(),
        task: labels.task.clone(),
        token: labels.token,
        created_at: jiff::Timestamp::UNIX_EPOCH,
    };
    let inventory = Inventory {
        spool,
        node: "here".to_owned(),
        objects: Some(Objects::default()),
        ledger: BTreeMap::from([(entry.object, entry)]),
        work_dirs: BTreeMap::new(),
        claims: BTreeSet::new(),
        accepted: BTreeSet::new(),
        leases: BTreeSet::new(),
        lives: BTreeMap::from([(owner, Life::Alive)]),
    };
    let mut case = Case { inventory, labels };
    case.image("first", "", &[]).image("second", "first", &[]).image(
        "final",
        "second",
        &["openswe--x:latest"],
    );
    case
}

impl Case {
    fn objects(&mut self) -> &mut Objects {
        self.inventory.objects.as_mut().expect("an engine")
    }

    fn image(&mut self, id: &str, parent: &str, tags: &[&str]) -> &mut Self {
        let labels = self.labels.to_map();
        self.objects().images.push(Image {
            id: id.to_owned(),
            parent_id: (!parent.is_empty()).then(|| parent.to_owned()),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            labels,
            created_at: None,
            size_bytes: 0,
        });
        self
    }

    fn container(&mut self, id: &str, image: &str, is_build_step: bool) -> &mut Self {
        let labels = self.labels.to_map();
        self.objects().containers.push(Container {
            id: id.to_owned(),
            names: vec![id.to_owned()],
            image_id: image.to_owned(),
            labels,
            created_at: None,
            is_build_step,
        });
        self
    }

    fn accept(&mut self, token: u32) -> &mut Self {
        let task = self.labels.task.clone();
        self.inventory.accepted.insert((task, Token(token)));
        self
    }

    fn claim(&mut self, token: u32) -> &mut Self {
        let (owner, task) = (self.labels.owner.clone(), self.labels.task.clone());
        self.inventory.claims.insert(ClaimKey { owner, task, token: Token(token) });
        self
    }

    fn forget(&mut self) -> &mut Self {
        self.inventory.ledger.clear();
        self
    }

    fn lease(&mut self) -> &mut Self {
        self.inventory.leases.insert(self.labels.owner.clone());
        self
    }

    /// The ledger's only entry is another spool's, made by another worker.
    fn other_spool(&mut self) -> &mut Self {
        for entry in self.inventory.ledger.values_mut() {
            entry.spool = Uuid::from_u128(77).to_string().parse().expect("a UUID");
            entry.owner = Owner::new("here", Incarnation::new(Uuid::from_u128(78)));
        }
        self
    }

    fn without_engine(&mut self) -> &mut Self {
        self.inventory.objects = None;
        self
    }

    fn on_node(&mut self, node: &str) -> &mut Self {
        node.clone_into(&mut self.inventory.node);
        self
    }

    fn life(&mut self, life: Life) -> &mut Self {
        self.inventory.lives.insert(self.labels.owner.clone(), life);
        self
    }
}

#[test]
fn what_stays_and_why() {
    use Kept::{Accepted, BaseImage, Foreign, LiveClaim, Needed, OnAccepted};
    let check = |about: &str, change: &dyn Fn(&mut Case) -> &mut Case, expected: &[(&str, Kept)]| {
        let mut case = case();
        change(&mut case);
        let expected = expected.iter().map(|(id, why)| ((*id).to_owned(), *why)).collect();
        assert_eq!(protect(&case.inventory), expected, "{about}");
    };
    let all = |why| [("final", why), ("first", why), ("second", why)];
    let accepted = [("final", Accepted), ("first", Needed), ("second", Needed)];

    check("the claim is gone", &|case| case, &[]);
    check("the claim stands", &|case| case.claim(1), &all(LiveClaim));
    check("another claim stands", &|case| case.claim(2), &[]);
    check("the claim stands, its worker does not", &|case| case.claim(1).life(Life::Dead), &[]);
    check("nobody knows the worker", &|case| case.claim(1).life(Life::Unknown), &all(LiveClaim));
    check("the task is accepted", &|case| case.accept(1), &accepted);
    check("accepted by a later claim", &|case| case.accept(2), &[]);
    check("accepted, worker dead", &|case| case.accept(1).life(Life::Dead), &accepted);
    check(
        "accepted, and somebody built on it",
        &|case| case.accept(1).image("on", "final", &[]).image("more", "on", &[]),
        &[accepted.as_slice(), &[("on", OnAccepted), ("more", OnAccepted)]].concat(),
    );
    check(
        "accepted, and an earlier build's layer is left",
        &|case| case.accept(1).image("earlier", "second", &[]),
        &accepted,
    );
    check(
        "a person's image on a failed one",
        &|case| case.image("mine", "final", &["mine:1"]),
        &[("mine", Foreign), ("final", Needed), ("first", Needed), ("second", Needed)],
    );
    check(
        "a person's container of a step",
        &|case| case.container("c", "first", false),
        &[("c", Foreign), ("first", Needed)],
    );
    check("a step of the build", &|case| case.container("c", "first", true), &[]);
    check(
        "a base image with our labels",
        &|case| case.image("base", "", &["openswe-python-3.11:latest"]),
        &[("base", BaseImage)],
    );
    check(
        "a registry's port is no version",
        &|case| case.image("other", "", &["host:5000/openswe--x"]),
        &[("other", Foreign)],
    );
    check("another version of our tag", &|case| case.image("other", "", &["openswe--x:2"]), &[]);
    check("no engine", &|case| case.without_engine(), &[]);
    check("another node's ledger entry", &|case| case.on_node("there"), &all(Foreign));
}

#[test]
fn books_are_closed_late() {
    let object = Uuid::from_u128(3);
    let entry = Target::Entry(object);
    let lock = Target::Lock(Owner::new("here", Incarnation::new(Uuid::from_u128(2))));
    let check = |about: &str, change: &dyn Fn(&mut Case) -> &mut Case, expected: &[(&Target, Patience)]| {
        let mut case = case();
        *case.objects() = Objects::default();
        change(&mut case);
        let found = policy(&case.inventory, &protect(&case.inventory));
        let found: Vec<_> = found.iter().map(|candidate| (&candidate.target, candidate.patience)).collect();
        assert_eq!(found, expected, "{about}");
    };
    check("its worker is dead", &|case| case.life(Life::Dead), &[(&entry, Patience::Grace)]);
    check("its worker may be about to make it", &|case| case, &[(&entry, Patience::Long)]);
    check("its claim stands", &|case| case.claim(1), &[]);
    check("nobody has seen the engine", &|case| case.life(Life::Dead).without_engine(), &[]);
    check(
        "nothing is left of its worker",
        &|case| case.life(Life::Dead).forget(),
        &[(&lock, Patience::Long)],
    );
    check("its worker lives", &|case| case.forget(), &[]);
    check("it holds a lease", &|case| case.life(Life::Dead).forget().lease(), &[(&lease(), Patience::None)]);
    check("another spool's workers live here too", &|case| case.life(Life::Dead).other_spool(), &[]);
}

fn lease() -> Target {
    Target::Lease(Owner::new("here", Incarnation::new(Uuid::from_u128(2))))
}
