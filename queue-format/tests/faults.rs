//! What the simulation found once, each in the fewest steps: calls that fail, that are done although they fail, and
//! what crashes leave.
#![expect(clippy::disallowed_methods, reason = "what is done late is done by hand")]

mod common;

use std::any::Any;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::{accepted, claim, manifest, owner, task};
use nix::errno::Errno;
use queue_format::{
    AcceptanceClass, Claim, Disk, Entry, FailureReason, Filesystem, Known, Lease, LitterAges, NewFile, Next,
    OpenFile, Published, Publisher, Reaped, Spool, SpoolError, State, TaskId, Token,
};
use tempfile::TempDir;
use uuid::Uuid;

/// The disk, on which calls about paths with a certain text in them fail.
#[derive(Debug, Default)]
struct Flaky {
    rename_to: Mutex<Option<(String, Errno)>>,
    open: Mutex<Option<(String, Errno)>>,
    list: Mutex<Option<(String, Errno)>>,
    /// Somebody else makes each directory just after a rename has found none.
    is_hurried: AtomicBool,
    /// What somebody else renames just after a directory was listed: the directory, from, to.
    after_list: Mutex<Vec<[PathBuf; 3]>>,
}

fn refuse(fault: &Mutex<Option<(String, Errno)>>, path: &Path) -> io::Result<()> {
    match &*fault.lock().expect("no panic") {
        Some((text, errno)) if path.to_string_lossy().contains(text) => Err((*errno).into()),
        _ => Ok(()),
    }
}

impl Filesystem for Flaky {
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        refuse(&self.rename_to, to)?;
        let renamed = Disk.rename(from, to);
        if renamed.is_err() && self.is_hurried.load(Ordering::Relaxed) {
            fs::create_dir_all(to.parent().expect("a directory"))?;
        }
        renamed
    }

    fn open(&self, path: &Path) -> io::Result<OpenFile> {
        refuse(&self.open, path)?;
        Disk.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Disk.create(path)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        Disk.append(path, bytes)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        refuse(&self.list, dir)?;
        let names = Disk.list(dir);
        self.after_list.lock().expect("no panic").retain(|[listed, from, to]| {
            let is_due = listed == dir;
            if is_due {
                fs::rename(from, to).expect("moved");
            }
            !is_due
        });
        names
    }

    fn look(&self, path: &Path) -> io::Result<Entry> {
        Disk.look(path)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.make_dir(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.remove_dir(dir)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        Disk.remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }

    fn take_turn(&self, dir: &Path) -> io::Result<Box<dyn Any + Send>> {
        Disk.take_turn(dir)
    }

    fn unique(&self) -> Uuid {
        Disk.unique()
    }
}

fn spool() -> (TempDir, Spool, Arc<Flaky>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let flaky = Arc::new(Flaky::default());
    let spool = Spool::init_on(flaky.clone(), &dir.path().join("spool"), Uuid::now_v7()).expect("a spool");
    (dir, spool, flaky)
}

fn claimed(spool: &Spool) -> (Lease, Claim) {
    spool.publish(&[task("a")], &owner("n1"), Uuid::now_v7).expect("published");
    let mut lease = Lease::open(spool, owner("n1")).expect("a lease");
    let claim = claim(&mut lease);
    (lease, claim)
}

fn publish_chunk(spool: &Spool, source: Uuid, known: &mut Known) -> Result<Published, SpoolError> {
    Publisher::begin(spool, owner("n1"), source, known)?.publish(0, &[task("a")])
}

fn fail(fault: &Mutex<Option<(String, Errno)>>, text: &str, errno: Errno) {
    *fault.lock().expect("no panic") = Some((text.to_owned(), errno));
}

fn mend(fault: &Mutex<Option<(String, Errno)>>) {
    *fault.lock().expect("no panic") = None;
}

fn only(spool: &Spool) -> (State, PathBuf) {
    let mut found = spool.all().expect("listed");
    assert_eq!(found.len(), 1, "{found:?}");
    let found = found.remove(0);
    (found.state, found.path)
}

#[test]
fn a_task_that_a_node_cannot_read_is_not_called_invalid() {
    let (_dir, spool, flaky) = spool();
    spool.publish(&[task("a")], &owner("n1"), Uuid::now_v7).expect("published");
    fail(&flaky.open, "claimed", Errno::EIO);
    let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
    for retries in 1..=5 {
        lease.claim_next(|_| true).expect_err("it cannot be read");
        let (state, path) = only(&spool);
        assert!(matches!(state, State::Pending(_)), "{path:?}");
        assert!(path.ends_with(format!("a.a00{retries}.r{retries}.json")), "{path:?}");
    }
    let next = lease.claim_next(|_| true).expect("decided");
    assert!(matches!(next, Next::Rejected { reason: FailureReason::Poison, .. }), "{next:?}");
    assert_eq!(only(&spool).0, State::Failed(FailureReason::Poison), "at last it goes out of the way");
}

#[test]
fn a_chunk_that_could_not_enter_the_ledger_is_not_taken_for_somebody_elses() {
    let (_dir, spool, flaky) = spool();
    let source = Uuid::now_v7();
    let mut known = Known::default();
    let mut publish = || publish_chunk(&spool, source, &mut known);
    for errno in [Errno::ESTALE, Errno::ENOENT, Errno::EIO] {
        fail(&flaky.rename_to, "ledger", errno);
        publish().expect_err("nothing was published");
    }
    mend(&flaky.rename_to);
    assert_eq!(publish().expect("published").published, 1);
    assert!(matches!(only(&spool).0, State::Pending(_)));
}

#[test]
fn a_chunk_that_came_no_further_than_the_ledger_is_finished_when_its_source_is_read_again() {
    let (_dir, spool, flaky) = spool();
    let source = Uuid::now_v7();
    let mut known = Known::default();
    let mut publish = || publish_chunk(&spool, source, &mut known);
    fail(&flaky.rename_to, "pending", Errno::EIO);
    publish().expect_err("it stays in the ledger");
    mend(&flaky.rename_to);
    publish().expect("published");
    assert!(only(&spool).1.starts_with(spool.layout().pending()));
}

#[test]
fn a_verdict_that_was_published_although_it_failed_is_not_called_lost() {
    let (_dir, spool, flaky) = spool();
    let (mut lease, claim) = claimed(&spool);
    let manifest = manifest(&claim, accepted(), lease.owner());
    fail(&flaky.rename_to, "done", Errno::EIO);
    claim.conclude(&manifest, &[]).expect_err("it seems to have failed");
    let done = spool
        .layout()
        .done_bucket(queue_format::DoneClass::Accepted(AcceptanceClass::Strict), &claim.name().id);
    fs::rename(only(&spool).1, done.join(claim.name().done_by(lease.owner()).to_string())).expect("late");
    lease.look_after().expect("looked");
    assert!(!claim.is_held());
    claim.conclude(&manifest, &[]).expect("it was published");
}

#[test]
fn a_claim_is_not_called_lost_for_a_directory_that_came_late() {
    let (_dir, spool, flaky) = spool();
    let (lease, claim) = claimed(&spool);
    flaky.is_hurried.store(true, Ordering::Relaxed);
    claim.conclude(&manifest(&claim, accepted(), lease.owner()), &[]).expect("it is ours");
    assert!(matches!(only(&spool).0, State::Done(_)));
}

#[test]
fn what_a_crash_leaves_in_a_lease_does_not_keep_it_open() {
    let (_dir, spool, _) = spool();
    let (lease, claim) = claimed(&spool);
    let dir = spool.layout().lease(lease.owner());
    fs::write(dir.join(".look-1"), b"").expect("written");
    fs::write(dir.join("5-build/.look-2"), b"").expect("written");
    fs::create_dir_all(dir.join(".gone-3/x")).expect("made");
    assert_eq!(spool.reap(lease.owner()).expect("reaped"), Reaped::Closed(vec![claim.name().clone()]));
    assert!(!dir.exists());
}

#[test]
fn a_claim_that_is_dropped_is_handed_back_by_a_worker_that_holds_no_other() {
    let (_dir, spool, _) = spool();
    let (mut lease, claim) = claimed(&spool);
    drop(claim);
    let looks: Vec<usize> = (0..3).map(|_| lease.look_after().expect("looked").len()).collect();
    assert_eq!(looks, [0, 1, 0]);
    assert!(matches!(only(&spool).0, State::Pending(_)));
}

#[test]
fn a_claim_that_is_made_long_after_it_failed_is_found_at_last() {
    let (_dir, spool, _) = spool();
    let (mut lease, claim) = claimed(&spool);
    let from = only(&spool).1;
    claim.release().expect("handed back");
    let quiet = (0..50).map(|_| lease.look_after().expect("looked").len()).sum::<usize>();
    assert_eq!(quiet, 0);
    fs::rename(only(&spool).1, &from).expect("late");
    let returned = (0..70).map(|_| lease.look_after().expect("looked").len()).sum::<usize>();
    assert_eq!(returned, 1);
    assert!(matches!(only(&spool).0, State::Pending(_)));
}

#[test]
fn one_task_that_cannot_be_moved_keeps_no_other_from_its_turn() {
    let (_dir, spool, flaky) = spool();
    spool.publish(&[task("a"), task("b")], &owner("n1"), Uuid::now_v7).expect("published");
    let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
    let claims = [claim(&mut lease), claim(&mut lease)];
    let waiting = || -> Vec<String> {
        let all = spool.all().expect("listed").into_iter();
        let pending = all.filter(|task| matches!(task.state, State::Pending(_)));
        pending.map(|task| task.name.id.to_string()).collect()
    };
    fail(&flaky.rename_to, "/pending/5-build/a.", Errno::EACCES);
    spool.reap(lease.owner()).expect_err("one cannot be moved");
    assert_eq!(waiting(), ["b"]);
    mend(&flaky.rename_to);
    let Reaped::Closed(tasks) = spool.reap(lease.owner()).expect("reaped") else { panic!("still open") };
    assert_eq!((tasks.len(), waiting().len()), (1, 2));
    drop(claims);

    let mut lease = Lease::open(&spool, owner("n1")).expect("a lease");
    for claim in [claim(&mut lease), claim(&mut lease)] {
        assert!(claim.delay(10, "the engine is down").expect("delayed"));
    }
    fail(&flaky.rename_to, "/pending/5-build/a.", Errno::EACCES);
    spool.release_until(10).expect_err("one cannot be moved");
    assert_eq!(waiting(), ["b"]);
    mend(&flaky.rename_to);
    assert_eq!(spool.release_until(10).expect("released"), 1);
}

#[test]
fn an_old_file_is_not_taken_for_the_one_that_could_not_replace_it() {
    let (_dir, spool, flaky) = spool();
    spool.pause("the first").expect("paused");
    fail(&flaky.rename_to, "/control/pause", Errno::EIO);
    spool.pause("the second").expect_err("it was not written");
    assert_eq!(spool.control().expect("read").paused(), Some("the first"));
    let left = fs::read_dir(spool.layout().control()).expect("listed").count();
    assert_eq!(left, 1, "nothing is left of what failed");
}

#[test]
fn a_chunk_that_the_ledger_has_forgotten_is_published_beside_what_is_left_of_it() {
    let (_dir, spool, _) = spool();
    let source = Uuid::now_v7();
    let publish = || {
        let mut known = Known::default();
        let mut publisher = Publisher::begin(&spool, owner("n1"), source, &mut known)?;
        publisher.publish(0, &[task("a"), task("b")])
    };
    assert_eq!(publish().expect("published").published, 2);
    fs::remove_dir_all(spool.layout().ledger_of(source)).expect("forgotten");
    let first = spool.find(&task("a").id).expect("listed").remove(0);
    fs::remove_file(first.path).expect("removed by a person");
    assert_eq!(publish().expect("published").published, 1);
    let all = spool.all().expect("listed");
    assert!(all.iter().all(|task| task.path.starts_with(spool.layout().pending())), "{all:?}");
    assert_eq!(all.len(), 2);
}

#[test]
fn a_task_on_the_move_is_found_where_it_came_to_rest() {
    let (_dir, spool, flaky) = spool();
    let (_lease, claim) = claimed(&spool);
    let ids = [claim.name().id.clone()].into();
    let (_, at_work) = only(&spool);
    let waits = spool.layout().pending().join("5-build").join(at_work.file_name().expect("a name"));
    let moved = |listed: &Path, from: &Path, to: &Path| {
        *flaky.after_list.lock().expect("no panic") = vec![[listed, from, to].map(Path::to_owned)];
        let found = spool.settle_find(&ids).expect("listed");
        assert_eq!(*flaky.after_list.lock().expect("no panic"), Vec::<[PathBuf; 3]>::new());
        assert_eq!(found.into_iter().map(|task| task.path).collect::<Vec<_>>(), [to]);
    };
    let pending = waits.parent().expect("a directory");
    // pending/ is listed before claimed/: the task is seen nowhere, and then twice.
    moved(pending, &at_work, &waits);
    moved(pending, &waits, &at_work);
    // Seen once, where it is no more.
    moved(at_work.parent().expect("a directory"), &at_work, &waits);
    fs::copy(&waits, &at_work).expect("copied");
    assert_eq!(spool.settle_find(&ids).expect("listed").len(), 2, "two files are two");
}

#[test]
fn a_directory_that_may_not_be_listed_costs_itself() {
    let dir = TempDir::new().expect("dir");
    let flaky = Arc::new(Flaky::default());
    let spool = Spool::init_on(flaky.clone(), dir.path(), Uuid::now_v7()).expect("spool");
    let layout = spool.layout();
    let old = SystemTime::now() - Duration::from_secs(9 * 24 * 3600);
    let write = |path: PathBuf| {
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(&path, "").expect("written");
        for path in [path.as_path(), path.parent().expect("a parent")] {
            fs::File::open(path).expect("opened").set_modified(old).expect("set");
        }
        path
    };
    let id: TaskId = "void".parse().expect("an id");
    let seen = write(layout.pending().join("5-build/.nfs0001"));
    for path in [
        layout.incoming().join("private/.nfs0002"),
        layout.control().join("private/.nfs0003"),
        layout.tmp().join("private/.nfs0004"),
        layout.attempt(&id, Token(1)).join("private"),
    ] {
        write(path);
    }
    let day = Duration::from_secs(24 * 3600);
    let ages = LitterAges { leftovers: day, logs: day, logs_bytes_max: u64::MAX };
    let look = |refused: &str, errno: Errno| {
        *flaky.list.lock().expect("no panic") = Some((refused.to_owned(), errno));
        let buckets = 0..=u8::MAX;
        let mut found = BTreeSet::new();
        for bucket in buckets {
            let litter = spool.litter("here", bucket, &ages, SystemTime::now())?;
            found.extend(litter.into_iter().map(|litter| litter.path));
        }
        Ok::<_, queue_format::PathError>(found)
    };
    assert_eq!(look("nowhere", Errno::EACCES).expect("litter").len(), 5);
    assert_eq!(look("private", Errno::EACCES).expect("litter").len(), 2);
    let attempts = layout.results().display().to_string();
    assert_eq!(look(&attempts, Errno::EACCES).expect("litter").len(), 4, "nobody knows whether it is void");
    let logs = layout.logs().display().to_string();
    assert_eq!(look(&logs, Errno::EACCES).expect("litter").len(), 5);
    assert_eq!(look("", Errno::EACCES).map(|found| found.contains(&seen)).ok(), None, "the spool is closed");
    assert!(look("private", Errno::EIO).is_err(), "a disk that fails is told");
}
