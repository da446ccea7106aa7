//! What any bytes may be given to: each returns, whatever they are, and panics only where a promise is broken. The
//! tests call these for a moment, `queue-format/fuzz` for as long as somebody likes.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use queue_format::{
    Class, Incarnation, Lease, Limits, Next, Owner, Spool, TaskId, TaskName, TaskSpec, Timing, Token,
};
use tempfile::TempDir;
use uuid::Uuid;

/// Claims after which a spool with one hostile file in it is taken to go round in circles.
const CLAIMS_MAX: usize = 10;

thread_local! {
    /// Making a spool costs more than opening one.
    static SPOOL: RefCell<Option<(TempDir, Spool)>> = const { RefCell::new(None) };
}

/// Names of tasks, owners, ids, tokens and classes: whatever is accepted is safe as a file name and is written as it
/// is read.
pub(crate) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = text.parse::<TaskName>() {
        let shown = name.to_string();
        assert_eq!(shown.parse().as_ref(), Ok(&name));
        for name in [name.claimed(), name.retried(), name.settled(), name.done_by(&owner())] {
            let shown = name.to_string();
            assert!(is_plain(&shown), "{shown}");
            assert_eq!(shown.parse(), Ok(name));
        }
    }
    if let Ok(id) = text.parse::<TaskId>() {
        assert!(is_plain(id.as_str()) && id.bucket().len() == 2);
    }
    if let Ok(owner) = text.parse::<Owner>() {
        assert!(is_plain(text));
        assert_eq!(owner.to_string(), text);
    }
    if let Ok(class) = text.parse::<Class>() {
        assert!(is_plain(text) && class.priority <= 9);
        assert_eq!(class.to_string(), text);
    }
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.to_string().parse(), Ok(token));
    }
    let foreign = Owner::new(text, Incarnation::new(Uuid::nil()));
    assert_eq!(foreign.to_string().parse(), Ok(foreign));
}

/// The content of a task file: whatever is accepted is accepted again as it is written.
pub(crate) fn task_file(bytes: &[u8]) {
    let id: TaskId = "x".parse().expect("an id");
    if let Ok(spec) = TaskSpec::parse(bytes, &id) {
        let written = serde_json::to_vec_pretty(&spec).expect("JSON");
        assert_eq!(TaskSpec::parse(&written, &id).expect("what was written"), spec);
        assert!(is_plain(&spec.class().to_string()));
    }
}

/// control/limits.toml: what is wrong is said in one line.
pub(crate) fn limits(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(why) = Limits::parse(text) {
        assert!(!why.contains('\n'), "{why}");
    }
}

/// spool.toml: whatever is accepted has timing that keeps workers safe.
pub(crate) fn identity(bytes: &[u8]) {
    with_spool(|root, _| {
        let path = root.join("spool.toml");
        let valid = fs::read(&path).expect("readable");
        fs::write(&path, bytes).expect("written");
        let opened = Spool::open(root);
        fs::write(&path, valid).expect("written");
        if let Ok(spool) = opened {
            let Timing { beat_seconds, fence_seconds, silence_seconds } = spool.timing();
            assert!(
                beat_seconds >= 1 && fence_seconds >= 3 * beat_seconds && silence_seconds > fence_seconds
            );
        }
    });
}

/// A file of any name and content, at a place in a spool that the first byte says: every daemon goes on.
pub(crate) fn foreign_file(bytes: &[u8]) {
    const PLACES: [&str; 14] = [
        "pending",
        "pending/5-build",
        "pending/5-build/shard",
        "delayed/0/5-build",
        "hold",
        "claimed",
        "done/strict/00",
        "failed/build",
        "nodes",
        "control",
        "control/cancel",
        "control/drain",
        "incoming",
        "ledger",
    ];
    let Some((place, rest)) = bytes.split_first() else { return };
    let place = PLACES[usize::from(*place) % PLACES.len()];
    let (name, content) = rest.split_at(rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()));
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| matches!(b, 0 | b'/')) {
        return;
    }
    with_spool(|root, spool| {
        let dir = root.join(place);
        fs::create_dir_all(&dir).expect("made");
        let path = dir.join(OsStr::from_bytes(name));
        // Too long a name, or one that is there.
        if path.exists() || fs::write(&path, content).is_err() {
            return;
        }
        let before = spool.all().expect("listed").len();
        spool.incarnations().expect("listed");
        spool.dropped().expect("listed");
        spool.control().expect("read");
        spool.finish_chunks().expect("listed");
        spool.release_until(u64::MAX).expect("released");
        let mut lease = Lease::open(spool, owner()).expect("a lease");
        let mut claims = 0;
        while !matches!(lease.claim_next(|_| true).expect("a readable spool"), Next::Empty) {
            claims += 1;
            assert!(claims <= CLAIMS_MAX, "it is claimed again and again");
        }
        for _ in 0..3 {
            lease.look_after().expect("looked");
        }
        let after = spool.all().expect("listed").len();
        assert_eq!(before, after, "a task was lost, or another made");
        let _ = lease.close().expect("closed");
        clear(root);
    });
}

fn with_spool(work: impl FnOnce(&Path, &Spool)) {
    SPOOL.with(|spool| {
        let mut spool = spool.borrow_mut();
        let (dir, spool) = spool.get_or_insert_with(|| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let spool = Spool::init(&dir.path().join("spool"), Uuid::nil()).expect("a spool");
            (dir, spool)
        });
        work(&dir.path().join("spool"), spool);
    });
}

/// As new, but for its identity.
fn clear(root: &Path) {
    for entry in fs::read_dir(root).expect("listed") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            fs::remove_dir_all(&path).expect("removed");
        }
    }
    Spool::open(root).expect("made again");
}

fn owner() -> Owner {
    Owner::new("n1", Incarnation::new(Uuid::nil()))
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(['/', '\0', '\n'])
}
