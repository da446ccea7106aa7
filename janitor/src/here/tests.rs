use super::*;
use crate::named::NamedImages;
use crate::policy::{Patience, Reason};
use queue_format::{
    Incarnation, Ledger, LedgerEntry, ObjectKind, Resources, RunTask, Spool, TaskSpec, Token,
};
use std::fs;
use uuid::Uuid;

/// A candidate as a listing found it; then the world changes, and the last look must see that.
struct Case {
    dir: tempfile::TempDir,
    world: Here,
    lease: PathBuf,
    candidate: Candidate,
}

impl Case {
    fn file(&self, name: &str) -> PathBuf {
        self.lease.join(name)
    }

    fn entry(&self) -> LedgerEntry {
        self.candidate.entry.clone().expect("an entry")
    }

    fn path(&self) -> PathBuf {
        let ObjectKind::WorkDir { path } = self.entry().kind else { panic!("a work directory") };
        path
    }

    fn ledger(&self) -> Ledger {
        Ledger::open(&self.world.files.state_dir).expect("a ledger")
    }
}

fn case() -> Case {
    let dir = tempfile::tempdir().expect("dir");
    let root = dir.path().canonicalize().expect("path");
    let spool = Spool::init(&root.join("spool"), Uuid::now_v7()).expect("spool");
    let owner = Owner::new("here", Incarnation::new(Uuid::now_v7()));
    let (object, task, token) = (Uuid::now_v7(), "x".parse().expect("id"), Token(1));
    let lease = spool.layout().lease(&owner).join("5-build");
    fs::create_dir_all(&lease).expect("lease");
    let path = root.join("state/work").join(object.to_string());
    fs::create_dir_all(&path).expect("dir");
    fs::write(path.join("file"), [1; 5000]).expect("file");
    let entry = LedgerEntry {
        object,
        kind: ObjectKind::WorkDir { path: path.clone() },
        spool: spool.id(),
        owner: owner.clone(),
        task,
        token,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        ended_at: None,
    };
    Ledger::open(&root.join("state")).expect("ledger").record(&entry).expect("recorded");
    let candidate = Candidate {
        target: Target::WorkDir(path),
        reason: Reason::ClaimGone,
        patience: Patience::Grace,
        name: String::new(),
        entry: Some(entry),
        created_at: None,
        bytes: None,
    };
    let (spool_root, state_dir) = (root.join("spool"), root.join("state"));
    let files = Arc::new(Files {
        spool_root,
        spool_id: spool.id(),
        state_dir,
        notifier: Notifier::default(),
        node: "here".to_owned(),
        ages: crate::Config::default().litter_ages(),
        clock: jiff::Timestamp::now,
        waiting: Arc::default(),
    });
    let audit = Audit::new(&files.state_dir, 1 << 20);
    let world = Here { files, engine: None, audit };
    Case { dir, world, lease, candidate }
}

#[tokio::test]
async fn the_last_look_sees_what_changed() {
    let check = async |change: fn(&Case), expected: Result<Look, &str>| {
        let case = case();
        change(&case);
        let look = case.world.look(&case.candidate, &NamedImages::default()).await;
        match (look, expected) {
            (Ok(Look::Remove(Some(bytes))), Ok(Look::Remove(None))) => assert!(bytes >= 5000, "{bytes}"),
            (Ok(look), Ok(expected)) => assert_eq!(look, expected),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (look, expected) => panic!("{look:?}, expected {expected:?}"),
        }
    };
    let again = Ok(Look::Keep("its claim stands again"));
    check(|_| (), Ok(Look::Remove(None))).await;
    check(|case| fs::write(case.file("x.a001.r0.json"), "{}").expect("claim"), again.clone()).await;
    check(|case| fs::write(case.file("x.a001.r3.json"), "{}").expect("claim"), again).await;
    check(|case| fs::write(case.file("x.a002.r0.json"), "{}").expect("claim"), Ok(Look::Remove(None))).await;
    let changed = Ok(Look::Keep("its ledger entry changed"));
    check(|case| case.ledger().forget(case.entry().object).expect("forgotten"), changed.clone()).await;
    check(
        |case| case.ledger().record(&LedgerEntry { token: Token(2), ..case.entry() }).expect("recorded"),
        changed,
    )
    .await;
    check(|case| fs::remove_dir_all(case.path()).expect("removed"), Ok(Look::Gone)).await;
    check(
        |case| {
            fs::remove_dir_all(case.path()).expect("removed");
            std::os::unix::fs::symlink(case.dir.path().join("spool"), case.path()).expect("linked");
        },
        Ok(Look::Keep("it does not lie where work directories do")),
    )
    .await;
    check(
        |case| fs::remove_file(case.dir.path().join("spool/spool.toml")).expect("removed"),
        Err("is not a spool"),
    )
    .await;
}

#[test]
fn claimed_runs_name_their_images() {
    let case = case();
    let write = |class: &str, task: &str, text: &str| {
        let dir = case.lease.with_file_name(class);
        fs::create_dir_all(&dir).expect("a class");
        fs::write(dir.join(format!("{task}.a001.r0.json")), text).expect("a claim");
    };
    let run = |task: &str, image: Option<&str>| {
        let work = RunTask {
            image: image.map(str::to_owned),
            commands: vec![vec!["true".to_owned()]],
            ..RunTask::default()
        };
        let id = task.parse().expect("an id");
        let spec = TaskSpec::run(id, 5, Resources::default(), work).expect("a task");
        serde_json::to_string(&spec).expect("JSON")
    };
    write("5-run", "one", &run("one", Some("openswe--x")));
    write("5-run-2c", "two", &run("two", Some("python:3")));
    write("5-native", "three", &run("three", None));
    write("5-run", "torn", "{");
    // Nobody reads a task of a class that says that it is a build.
    write("5-build", "four", &run("four", Some("never")));
    // Nor a file that no daemon takes: it costs itself.
    let odd = case.lease.with_file_name("5-run").join("link.a001.r0.json");
    std::os::unix::fs::symlink("/dev/null", odd).expect("a link");
    let named = case.world.files.named_images().expect("names");
    assert_eq!(named, NamedImages::from_iter(["openswe--x", "python:3"]));
    let leases = case.world.files.observe(None).expect("an inventory");
    assert_eq!(leases.named_images, named);
    // Of those that wait a person may put it right.
    let spool = Spool::open(&case.dir.path().canonicalize().expect("a path").join("spool")).expect("a spool");
    let (hold, waiting) = (spool.layout().hold(), || case.world.files.waiting_images().expect("names"));
    assert_eq!(waiting(), (NamedImages::default(), true));
    let six = hold.join("six.a000.r0.json");
    for image in ["first", "second-image"] {
        fs::write(&six, run("six", Some(image))).expect("written");
        for _ in 0..2 {
            assert_eq!(waiting(), (NamedImages::from_iter([image]), true));
        }
    }
    fs::remove_file(six).expect("removed");
    assert_eq!(waiting(), (NamedImages::default(), true));
    std::os::unix::fs::symlink("/dev/null", hold.join("five.a000.r0.json")).expect("a link");
    assert_eq!(waiting(), (NamedImages::default(), false));
}

#[test]
fn a_lease_that_cannot_be_closed_is_not_told_as_closed() {
    assert_eq!(taken_back(&Reaped::Closed(Vec::new())), Removal::Done);
    for kept in [Reaped::Open(Vec::new()), Reaped::Alive] {
        assert!(matches!(taken_back(&kept), Removal::InUse(_)), "{kept:?}");
    }
}

#[tokio::test]
async fn the_watchdog_hears_of_what_takes_long() {
    let mut case = case();
    let socket = case.dir.path().join("notify.sock");
    let listener = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
    let said = [("NOTIFY_SOCKET", socket.as_os_str()), ("WATCHDOG_USEC", "20000".as_ref())];
    let environment = systemd::Environment::from_os(said.map(|(key, value)| (key.into(), value.into())));
    let files = Arc::get_mut(&mut case.world.files).expect("nobody else's");
    files.notifier = Notifier::new(&environment);
    let heard = async {
        let mut bytes = [0; 64];
        for _ in 0..4 {
            listener.set_nonblocking(true).expect("set");
            while listener.recv(&mut bytes).is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(bytes.starts_with(b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=20000\n"));
        }
    };
    // Once at its beginning, and then as often as it takes.
    tokio::time::timeout(Duration::from_secs(60), case.world.while_alive(heard)).await.expect("heard");
}
