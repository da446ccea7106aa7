use super::*;
use crate::policy::{Patience, Reason};
use queue_format::{Incarnation, Ledger, LedgerEntry, ObjectKind, Spool, Token};
use std::fs;
use uuid::Uuid;

/// A candidate as a listing found it; then the world changes, and the last look must see that.
struct Case {
    dir: tempfile::TempDir,
    world: World,
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
        owner,
        task,
        token,
        created_at: jiff::Timestamp::UNIX_EPOCH,
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
        node: "here".to_owned(),
        ages: crate::Config::default().litter_ages(),
        clock: jiff::Timestamp::now,
    });
    let world = World { files, engine: None };
    Case { dir, world, lease, candidate }
}

#[tokio::test]
async fn the_last_look_sees_what_changed() {
    let check = async |change: fn(&Case), expected: Result<Look, &str>| {
        let case = case();
        change(&case);
        let look = case.world.look(&case.candidate).await;
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
    check(|case| fs::remove_dir_all(case.path()).expect("removed"), Ok(Look::Keep("it is gone"))).await;
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
