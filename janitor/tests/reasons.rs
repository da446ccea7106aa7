//! Why things stay and how soon they go, one small node after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use janitor::{
    ClaimKey, Container, Image, Inventory, Kept, Level, Mirror, Objects, Patience, Pressure, Reason,
    Retention, Target, explain, policy, protect, spent,
};
use queue_format::{Incarnation, Labels, Life, ObjectKind, Owner, SpoolId, Token};
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
    let entry =
        labels.entry(ObjectKind::Build { image: "openswe--x".to_owned() }, jiff::Timestamp::UNIX_EPOCH);
    let inventory = Inventory {
        objects: Some(Objects::default()),
        ledger: BTreeMap::from([(entry.object, entry)]),
        lives: BTreeMap::from([(owner, Life::Alive)]),
        ..Inventory::of_nothing(spool, "here")
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
            is_build_step,
            is_running: true,
            ..Container::default()
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

    fn name(&mut self, image: &str) -> &mut Self {
        self.inventory.named_images.insert(image);
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

    fn more_wait(&mut self) -> &mut Self {
        self.inventory.is_more_waiting = true;
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
        assert_eq!(protect(&case.inventory, &BTreeMap::new()), expected, "{about}");
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
    check(
        "a person's version of our name",
        &|case| case.image("other", "", &["openswe--x:before-retry"]),
        &[("other", Foreign)],
    );
    let podman = |case: &mut Case| case.objects().takes_parents = true;
    check(
        "an engine that takes a person's layer along",
        &|case| {
            podman(case);
            case.inventory.objects.as_mut().expect("an engine").images[0].labels.clear();
            case.image("other", "second", &[])
        },
        &[("first", Foreign), ("second", Needed), ("final", Needed)],
    );
    check(
        "such an engine, and what has a name stands on it too",
        &|case| {
            podman(case);
            case.inventory.objects.as_mut().expect("an engine").images[0].labels.clear();
            case.image("mine", "first", &["mine:1"])
        },
        &[("first", Foreign), ("mine", Foreign)],
    );
    check("our name without a version", &|case| case.image("other", "", &["openswe--x"]), &[]);
    check("our name", &|case| case.image("other", "", &["openswe--x:latest"]), &[]);
    check("a claimed task is to run in it", &|case| case.name("openswe--x"), &all(Needed));
    check("by its whole name", &|case| case.name("openswe--x:latest"), &all(Needed));
    check(
        "by its id",
        &|case| case.image("sha256:beef", "first", &[]).name("bee"),
        &[("sha256:beef", Needed), ("first", Needed)],
    );
    check("more wait than were asked", &|case| case.more_wait(), &all(Needed));
    check(
        "more wait, and it never got a name",
        &|case| case.more_wait().image("layer", "", &[]),
        &all(Needed),
    );
    check("in another", &|case| case.name("openswe--x:2"), &[]);
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
        let found = policy(&case.inventory, &protect(&case.inventory, &BTreeMap::new()), &BTreeMap::new(), 0);
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

/// Accepted images `a` to `d` of 100 bytes each on a base, last used 400, 300, 200 and 10 seconds ago.
fn shelf(level: Level, bytes_to_free: u64, inodes_to_free: u64) -> Inventory {
    let mut case = case();
    case.accept(1);
    *case.objects() = Objects::default();
    case.image("base", "", &["openswe-python-3.11:latest"]);
    for name in ["a", "b", "c", "d"] {
        case.image(name, "base", &["openswe--x:latest"]);
    }
    let mut inventory = case.inventory;
    for image in &mut inventory.objects.as_mut().expect("objects").images {
        image.size_bytes = if image.id == "base" { 1000 } else { 1100 };
    }
    let at = |second| jiff::Timestamp::from_second(second).expect("a time");
    inventory.now = at(1000);
    inventory.used_at = [("base", 0), ("a", 600), ("b", 700), ("c", 800), ("d", 990)]
        .map(|(id, s)| (id.to_owned(), at(s)))
        .into();
    inventory.pressure = Pressure { level, bytes_to_free, inodes_to_free, told: String::new() };
    // No image lies on the disk of the state directory.
    inventory.state_pressure =
        Pressure { level: Level::Emergency, bytes_to_free: 5000, ..Pressure::default() };
    inventory
}

#[test]
fn what_was_unused_for_longest_goes_until_the_rest_fits() {
    let check = |level, bytes, inodes, days: u64, expected: &[(&str, Reason)]| {
        let inventory = shelf(level, bytes, inodes);
        let retention = Retention { accepted: Duration::from_secs(days), rest: Duration::from_secs(100) };
        let spent = spent(&inventory, &retention);
        let found: Vec<_> = spent.iter().map(|(id, why)| (id.as_str(), *why)).collect();
        assert_eq!(found, expected, "{level:?} {bytes} {inodes} {days}");
        // And it is what goes, with what it frees.
        let going = policy(&inventory, &protect(&inventory, &spent), &spent, 0);
        let going: Vec<_> = going
            .iter()
            .filter_map(|found| match &found.target {
                Target::Image(id) => Some((id.as_str(), found.reason, found.bytes)),
                _ => None,
            })
            .collect();
        let expected: Vec<_> = expected.iter().map(|(id, why)| (*id, *why, Some(100))).collect();
        assert_eq!(going, expected);
    };
    use Level::{Calm, Emergency, High};
    use Reason::{DiskFull, Unused};
    check(Calm, 0, 0, 500, &[]);
    check(Calm, 0, 0, 300, &[("a", Unused), ("b", Unused)]);
    check(High, 150, 0, 500, &[("a", DiskFull), ("b", DiskFull)]);
    check(High, 150, 0, 400, &[("a", Unused), ("b", DiskFull)]);
    check(High, 5000, 0, 500, &[("a", DiskFull), ("b", DiskFull), ("c", DiskFull)]);
    check(High, 0, 1, 500, &[("a", DiskFull), ("b", DiskFull), ("c", DiskFull)]);
    check(Emergency, 5000, 0, 500, &[("a", DiskFull), ("b", DiskFull), ("c", DiskFull), ("d", DiskFull)]);
    check(Emergency, 100, 0, 500, &[("a", DiskFull)]);
}

#[test]
fn accepted_images_stay_where_failed_ones_free_enough() {
    let check = |level, bytes, expected: &[&str]| {
        let mut inventory = shelf(level, bytes, 0);
        let mut failed = inventory.ledger.values().next().expect("an entry").clone();
        (failed.object, failed.token) = (Uuid::from_u128(9), Token(2));
        let objects = inventory.objects.as_mut().expect("objects");
        let mut image = objects.images.last().expect("an image").clone();
        image.id = "failed".to_owned();
        image.tags.clear();
        image.labels = Labels {
            spool: failed.spool,
            owner: failed.owner.clone(),
            task: failed.task.clone(),
            token: failed.token,
            object: failed.object,
        }
        .to_map();
        objects.images.push(image);
        inventory.ledger.insert(failed.object, failed);
        let retention = Retention { accepted: Duration::from_secs(500), rest: Duration::from_secs(100) };
        let spent = spent(&inventory, &retention);
        assert_eq!(spent.keys().collect::<Vec<_>>(), expected, "{level:?} {bytes}");
        let going = policy(&inventory, &protect(&inventory, &spent), &spent, 0);
        let is_there = |id: &str| going.iter().any(|found| found.target == Target::Image(id.to_owned()));
        assert!(is_there("failed") && expected.iter().all(|id| is_there(id)));
    };
    check(Level::High, 100, &[]);
    check(Level::High, 150, &["a"]);
    check(Level::Emergency, 150, &["a", "b"]);
}

#[test]
fn an_entry_of_a_build_is_told_to_go_after_its_images() {
    let mut case = case();
    let check = |case: &Case, expected: &str| {
        let lines = explain(&case.inventory, &BTreeMap::new(), 0, &case.labels.object.to_string());
        let entry = lines.iter().find(|line| line.starts_with("ledger entry ")).expect("an entry");
        assert!(entry.ends_with(expected), "{lines:#?}");
    };
    check(&case, "; it goes once nothing is left of the build");
    *case.objects() = Objects::default();
    check(&case, "; it goes: its claim is gone");
    case.claim(1);
    check(&case, "; it stays");
}

#[test]
fn what_cannot_go_makes_no_room() {
    type Change<'a> = &'a dyn Fn(&mut Inventory);
    let check = |about: &str, change: Change<'_>, (bytes, inodes): (u64, u64), expected: &[&str]| {
        for level in [Level::High, Level::Emergency] {
            let mut inventory = shelf(level, bytes, inodes);
            change(&mut inventory);
            let retention = Retention { accepted: Duration::from_secs(500), rest: Duration::from_secs(100) };
            let spent = spent(&inventory, &retention);
            let going = policy(&inventory, &protect(&inventory, &spent), &spent, 0);
            let going = going.iter().filter_map(|found| match &found.target {
                Target::Image(id) => Some(id.as_str()),
                _ => None,
            });
            assert_eq!(going.collect::<Vec<_>>(), expected, "{about} {level:?}");
        }
    };
    let copies = |inventory: &mut Inventory, ids: &[&str], used_at: i64, change: &dyn Fn(&mut Image)| {
        let objects = inventory.objects.as_mut().expect("objects");
        for id in ids {
            let mut image = objects.images.iter().find(|image| image.id == "a").expect("an image").clone();
            image.id = (*id).to_owned();
            change(&mut image);
            objects.images.push(image);
            let used_at = jiff::Timestamp::from_second(used_at).expect("a time");
            inventory.used_at.insert((*id).to_owned(), used_at);
        }
    };
    let mine = |inventory: &mut Inventory| {
        copies(inventory, &["mine"], 0, &|image| {
            image.parent_id = Some("a".to_owned());
            image.tags = vec!["mine:1".to_owned()];
        });
    };
    check("nothing else", &|_| (), (100, 0), &["a"]);
    check("a person built on it", &mine, (100, 0), &["b"]);
    let resists = |inventory: &mut Inventory| {
        inventory.left_alone.insert("a".to_owned());
    };
    check("it is left alone, and still a leftover", &resists, (100, 0), &["a", "b"]);
    let many = ["e", "f", "g", "h", "i", "j", "k", "l"];
    let eight_resist = |inventory: &mut Inventory| {
        copies(inventory, &many, 550, &|_| ());
        // Only an emergency takes it.
        inventory.objects.as_mut().expect("objects").images.retain(|image| image.id != "d");
        inventory.left_alone.extend(many.map(str::to_owned));
    };
    let all: Vec<&str> = ["a", "b", "c"].into_iter().chain(many).collect();
    check("as many as go in one pass are left alone", &eight_resist, (0, 1), &all);
}

#[test]
fn copies_of_repositories_stay_while_they_fit_or_may_be_read() {
    let at = |second| jiff::Timestamp::from_second(second).expect("a time");
    let check = |level, (bytes_to_free, inodes_to_free), bytes_max: u64, expected: &[(&str, Reason)]| {
        let mut inventory = case().inventory;
        inventory.now = at(1000);
        inventory.state_pressure = Pressure { level, bytes_to_free, inodes_to_free, told: String::new() };
        // That of the engine's images is another disk: no copy lies there.
        inventory.pressure = Pressure { level: Emergency, bytes_to_free: 5000, ..Pressure::default() };
        inventory.mirrors = [("old", 1), ("older", 0), ("rested", 400), ("new", 401)]
            .map(|(name, used_at)| Mirror { path: name.into(), bytes: 100, used_at: at(used_at) })
            .into();
        let found = policy(&inventory, &BTreeMap::new(), &BTreeMap::new(), bytes_max);
        let found: Vec<_> = found
            .iter()
            .filter(|found| matches!(found.target, Target::Mirror(_)))
            .map(|found| (found.name.as_str(), found.reason))
            .collect();
        assert_eq!(found, expected, "{level:?} {bytes_to_free} {inodes_to_free} {bytes_max}");
    };
    use Level::{Calm, Emergency, High};
    use Reason::{DiskFull, TooMany};
    check(Calm, (0, 0), 400, &[]);
    check(Calm, (0, 0), 399, &[("older", TooMany)]);
    check(Calm, (0, 0), 200, &[("older", TooMany), ("old", TooMany)]);
    check(Calm, (0, 0), 0, &[("older", TooMany), ("old", TooMany), ("rested", TooMany)]);
    check(High, (100, 0), 400, &[("older", DiskFull)]);
    check(High, (101, 9), 400, &[("older", DiskFull), ("old", DiskFull)]);
    check(High, (1, 0), 200, &[("older", DiskFull), ("old", TooMany)]);
    check(High, (0, 9), 400, &[("older", DiskFull)]);
    check(Emergency, (1, 0), 400, &[("older", DiskFull), ("old", DiskFull), ("rested", DiskFull)]);
}
