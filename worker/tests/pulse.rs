//! A worker that others may take for dead ends, whatever hangs.
#![expect(clippy::disallowed_methods, reason = "people rename with mv")]

use std::fs;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use queue_format::{
    Disk, Entry, EventLog, Filesystem, Incarnation, Lease, NewFile, OpenFile, Owner, Presence, Spool,
};
use tempfile::TempDir;
use uuid::Uuid;
use worker::pulse::{Heart, Pulse};

/// Far longer than any of it takes; it only keeps a failing test from hanging.
const BOUND: Duration = Duration::from_secs(60);

/// A spool where a second is long.
fn hasty_spool() -> (TempDir, Spool) {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("spool");
    Spool::init(&root, Uuid::now_v7()).expect("a spool");
    let identity = root.join("spool.toml");
    let text = fs::read_to_string(&identity).expect("read");
    let timing = "[timing]\nbeat_seconds = 1\nfence_seconds = 3\nsilence_seconds = 6\n";
    fs::write(&identity, format!("{text}\n{timing}")).expect("written");
    (dir, Spool::open(&root).expect("opened"))
}

fn owner() -> Owner {
    Owner::new("node", Incarnation::new(Uuid::now_v7()))
}

fn since_start() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

fn start(spool: &Spool, owner: &Owner) -> (Pulse, Receiver<String>) {
    let (tell, told) = channel();
    let heart = Heart {
        presence: Presence::begin(spool, owner.clone(), Duration::from_secs(1)).expect("begun"),
        lease: Arc::new(Mutex::new(Lease::open(spool, owner.clone()).expect("a lease"))),
        spool: spool.clone(),
        control: Arc::default(),
        log: EventLog::new(spool, owner),
        timing: spool.timing(),
        clock: since_start,
        now: jiff::Timestamp::now,
    };
    let pulse = heart.start(move |why| tell.send(why.to_owned()).expect("heard")).expect("threads");
    (pulse, told)
}

fn wait(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < BOUND, "it never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn whoever_is_given_up_ends() {
    let (_dir, spool) = hasty_spool();
    let me = owner();
    let (_pulse, told) = start(&spool, &me);
    wait(|| spool.incarnations().expect("listed").get(&me).copied().flatten() > Some(0));
    spool.reap(&me).expect("reaped");
    let why = told.recv_timeout(BOUND).expect("it ends");
    assert!(why.contains("was closed"), "{why}");
}

#[test]
fn whoever_cannot_beat_ends_by_itself_before_it_is_given_up() {
    let (_dir, spool) = hasty_spool();
    let (_pulse, told) = start(&spool, &owner());
    let nodes = spool.layout().nodes();
    fs::rename(&nodes, nodes.with_extension("away")).expect("mv");
    let why = told.recv_timeout(BOUND).expect("it ends");
    assert!(why.contains("could not be written"), "{why}");
}

#[test]
fn whoever_stops_in_order_leaves_nothing_and_the_silent_are_taken_back() {
    let (_dir, spool) = hasty_spool();
    let (silent, me) = (owner(), owner());
    drop(Lease::open(&spool, silent.clone()).expect("a lease"));
    let dead = Presence::begin(&spool, silent.clone(), Duration::from_secs(1)).expect("begun");
    let (pulse, told) = start(&spool, &me);
    wait(|| !spool.incarnations().expect("listed").contains_key(&silent));
    assert!(!spool.layout().lease(&silent).exists());
    assert!(spool.incarnations().expect("listed").contains_key(&me), "whoever beats is left alone");
    pulse.stop();
    assert_eq!(spool.incarnations().expect("listed").get(&me), Some(&None), "only the lease is left");
    assert!(told.try_recv().is_err(), "nobody died");
    drop(dead);
}

/// A disk on which nothing can be moved into `nodes/gone/`: as a server of NFS keeps what it has lent to a client that is
/// gone.
#[derive(Debug, Default)]
struct Lending {
    is_asked: AtomicBool,
}

impl Filesystem for Lending {
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if to.parent().is_some_and(|dir| dir.ends_with("gone")) {
            self.is_asked.store(true, Ordering::SeqCst);
            std::thread::sleep(BOUND);
        }
        Disk.rename(from, to)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Disk.create(path)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        Disk.append(path, bytes)
    }

    fn open(&self, path: &Path) -> io::Result<OpenFile> {
        Disk.open(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk.list(dir)
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

#[test]
fn what_the_dead_have_left_silences_nobody_however_slow_it_is_to_move() {
    let (_dir, spool) = hasty_spool();
    let lending = Arc::new(Lending::default());
    let spool = Spool::open_on(lending.clone(), spool.layout().root()).expect("opened");
    let (silent, me) = (owner(), owner());
    let _dead = Presence::begin(&spool, silent, Duration::from_secs(1)).expect("begun");
    let (_pulse, told) = start(&spool, &me);
    wait(|| lending.is_asked.load(Ordering::SeqCst));
    let beats = || spool.incarnations().expect("listed").get(&me).copied().flatten();
    let (before, enough) = (beats(), 2 * spool.timing().fence_seconds);
    wait(|| {
        beats() >= before.map(|before| before + enough) || !told.try_recv().unwrap_or_default().is_empty()
    });
    assert!(beats() >= before.map(|before| before + enough), "it beats on");
}
