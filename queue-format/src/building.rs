use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::OnPath;
use crate::files::Files;
use crate::{Ledger, PathError};

/// How long a build waits for those who remove images; who has the lock for longer hangs, and removes nothing.
pub const BUILD_WAIT_MAX: Duration = Duration::from_secs(900);
/// How long a look may take.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// The pause between two looks at a lock.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Keeps builds and the removal of images apart on one node: an engine that looks into its cache for a build fails it
/// if an image goes at that moment.
///
/// Builds share a lock, who removes images has it alone. Where none is to be had by chance, whoever wants it first closes
/// the door to new builds, or a node that always builds would never be cleaned. The kernel drops both with their holder's process.
#[derive(Clone, Debug)]
pub struct BuildGate {
    door: PathBuf,
    lock: PathBuf,
}

/// Until it is dropped, no image is removed.
#[derive(Debug)]
pub struct Building {
    _lock: Option<File>,
}

/// Until it is dropped, no build begins.
#[derive(Debug)]
pub struct NoBuilds {
    _door: Option<File>,
    _lock: File,
}

impl Ledger {
    /// The gate of the node that this is the ledger of.
    ///
    /// # Errors
    /// Its directory cannot be made.
    pub fn builds(&self) -> Result<BuildGate, PathError> {
        BuildGate::open(self.state_dir())
    }
}

impl BuildGate {
    /// The gate in a node's state directory; made if it is not there.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, PathError> {
        let dir = state_dir.join("builds");
        Files::of_this_machine().make_dirs(&dir)?;
        Ok(Self { door: dir.join("door"), lock: dir.join("lock") })
    }

    /// Makes what is needed later and for [`Emergency::raise`]: on a disk without a free inode nothing can be made.
    ///
    /// # Errors
    /// A lock's file cannot be made.
    pub fn prepare(state_dir: &Path) -> Result<Self, PathError> {
        let gate = Self::open(state_dir)?;
        for path in [&gate.door, &gate.lock, &Emergency::file(state_dir)] {
            open(path)?;
        }
        Ok(gate)
    }

    /// Waits until no image is being removed. Blocks. A holder that hangs for minutes is not waited for any longer.
    ///
    /// # Errors
    /// The lock's file cannot be made or locked.
    pub fn build(&self) -> Result<Building, PathError> {
        Ok(self.build_within(BUILD_WAIT_MAX)?.unwrap_or(Building { _lock: None }))
    }

    /// Waits `at_most` so long until no image is being removed. Blocks. `None`: some still are.
    ///
    /// # Errors
    /// The lock's file cannot be made or locked.
    pub fn build_within(&self, at_most: Duration) -> Result<Option<Building>, PathError> {
        let until = Instant::now() + at_most;
        let Some(_door) = take(&self.door, false, until)? else { return Ok(None) };
        let lock = take(&self.lock, false, until)?;
        Ok(lock.map(|lock| Building { _lock: Some(lock) }))
    }

    /// Waits `at_most` so long for a moment in which none runs, and keeps none out until then. Blocks. `None`: some still run.
    ///
    /// # Errors
    /// The lock's file cannot be made or locked.
    pub fn no_builds_by_chance(&self, at_most: Duration) -> Result<Option<NoBuilds>, PathError> {
        let lock = take(&self.lock, true, Instant::now() + at_most)?;
        Ok(lock.map(|lock| NoBuilds { _door: None, _lock: lock }))
    }

    /// Keeps new builds out and waits for those that run, `at_most` so long. Blocks. `None`: some still run.
    ///
    /// # Errors
    /// The lock's file cannot be made or locked.
    pub fn no_builds(&self, at_most: Duration) -> Result<Option<NoBuilds>, PathError> {
        let until = Instant::now() + at_most;
        let Some(door) = take(&self.door, true, until)? else { return Ok(None) };
        let lock = take(&self.lock, true, until)?;
        Ok(lock.map(|lock| NoBuilds { _door: Some(door), _lock: lock }))
    }
}

fn take(path: &Path, alone: bool, until: Instant) -> Result<Option<File>, PathError> {
    lock(open(path)?, path, alone, until)
}

/// For reading alone, where it is there: a lock needs no more, and it may be root who made it.
fn open(path: &Path) -> Result<File, PathError> {
    match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => make(path),
        opened => opened.on_path("open", path),
    }
}

/// For all users that may enter its directory, whatever the umask of who comes first.
fn make(path: &Path) -> Result<File, PathError> {
    let made = File::options().create(true).append(true).open(path).on_path("make", path)?;
    // Where two make it at once, it is the other's, who does the same.
    let _ = made.set_permissions(Permissions::from_mode(0o666));
    Ok(made)
}

fn lock(file: File, path: &Path, alone: bool, until: Instant) -> Result<Option<File>, PathError> {
    loop {
        let locked = match alone {
            true => fs2::FileExt::try_lock_exclusive(&file),
            false => fs2::FileExt::try_lock_shared(&file),
        };
        match locked {
            Ok(()) => return Ok(Some(file)),
            Err(e) if e.kind() != fs2::lock_contended_error().kind() => return Err(e).on_path("lock", path),
            Err(_) if Instant::now() >= until => return Ok(None),
            Err(_) => std::thread::sleep(LOOK_PAUSE),
        }
    }
}

/// A node's cry for room: while it is raised, workers claim nothing. It lasts no longer than who raised it.
#[derive(Debug)]
pub struct Emergency {
    _lock: File,
}

impl Emergency {
    fn file(state_dir: &Path) -> PathBuf {
        state_dir.join("emergency")
    }

    /// Raises it; `why` is what people read. `None`: somebody else has raised it.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn raise(state_dir: &Path, why: &str) -> Result<Option<Self>, PathError> {
        let path = Self::file(state_dir);
        // It may be root's; then nobody else writes why.
        let file = make(&path).or_else(|_| open(&path))?;
        // Who looks has it for a moment too.
        let Some(lock) = lock(file, &path, true, Instant::now() + LOOK_MAX)? else { return Ok(None) };
        // Who cannot write on a full disk raises it all the same.
        if lock.set_len(0).is_ok() {
            let _ = std::io::Write::write_all(&mut &lock, why.as_bytes());
        }
        Ok(Some(Self { _lock: lock }))
    }

    /// Why nothing may be claimed on this node, while somebody says so.
    #[must_use]
    pub fn raised(state_dir: &Path) -> Option<String> {
        let path = Self::file(state_dir);
        let file = File::open(&path).ok()?;
        match fs2::FileExt::try_lock_shared(&file) {
            Err(e) if e.kind() == fs2::lock_contended_error().kind() => {
                let said = Files::of_this_machine().read_regular(&path, 1 << 12).unwrap_or_default();
                let said = String::from_utf8_lossy(&said).into_owned();
                Some(if said.is_empty() { "the node's disk is full".to_owned() } else { said })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::ZERO;
    const BOUND: Duration = Duration::from_secs(60);

    #[test]
    fn builds_share_and_removals_are_alone() {
        let dir = tempfile::tempdir().unwrap();
        let gate = BuildGate::open(dir.path()).unwrap();
        let one = gate.build().unwrap();
        let other = gate.build().unwrap();
        assert!(gate.no_builds(SOON).unwrap().is_none());
        drop(one);
        assert!(gate.no_builds(SOON).unwrap().is_none());
        drop(other);
        let alone = gate.no_builds(SOON).unwrap().expect("nobody builds");
        assert!(gate.no_builds(SOON).unwrap().is_none());
        let waiting = std::thread::spawn({
            let gate = gate.clone();
            move || gate.build().unwrap()
        });
        assert!(take(&gate.lock, false, Instant::now()).unwrap().is_none(), "a build has begun");
        drop(alone);
        drop(waiting.join().unwrap());
    }

    #[test]
    fn who_waits_by_chance_keeps_no_build_out() {
        let dir = tempfile::tempdir().unwrap();
        let gate = BuildGate::open(dir.path()).unwrap();
        let old = gate.build().unwrap();
        let waiting = std::thread::spawn({
            let gate = gate.clone();
            move || gate.no_builds_by_chance(BOUND).unwrap().expect("in time")
        });
        // It never closes the door, so no look at it fails, whenever that is.
        for _ in 0..20 {
            drop(gate.build_within(SOON).unwrap().expect("another begins"));
            std::thread::sleep(LOOK_PAUSE);
        }
        assert!(gate.no_builds_by_chance(SOON).unwrap().is_none());
        drop(old);
        let alone = waiting.join().unwrap();
        assert!(gate.build_within(SOON).unwrap().is_none(), "a build has begun");
        drop(alone);
        drop(gate.build().unwrap());
    }

    #[test]
    fn who_waits_to_be_alone_keeps_new_builds_out() {
        let dir = tempfile::tempdir().unwrap();
        let gate = BuildGate::open(dir.path()).unwrap();
        let old = gate.build().unwrap();
        let alone = std::thread::spawn({
            let gate = gate.clone();
            move || gate.no_builds(BOUND).unwrap().expect("in time")
        });
        let until = Instant::now() + BOUND;
        while take(&gate.door, false, Instant::now()).unwrap().is_some() {
            assert!(Instant::now() < until, "the door is never closed");
            std::thread::sleep(LOOK_PAUSE);
        }
        drop(old);
        drop(alone.join().unwrap());
        drop(gate.build().unwrap());
    }

    #[test]
    fn locks_that_another_user_made_serve_all() {
        let dir = tempfile::tempdir().unwrap();
        let gate = BuildGate::open(dir.path()).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        drop(gate.no_builds(SOON).unwrap().expect("nobody builds"));
        drop(Emergency::raise(dir.path(), "full").unwrap());
        let files = [gate.door.clone(), gate.lock.clone(), dir.path().join("emergency")];
        for path in &files {
            assert_eq!(mode(path), 0o666, "{}", path.display());
            // Another user's, which may only be read.
            std::fs::set_permissions(path, Permissions::from_mode(0o444)).unwrap();
        }
        drop(gate.build().unwrap());
        drop(gate.no_builds(SOON).unwrap().expect("nobody builds"));
        let held = Emergency::raise(dir.path(), "full").unwrap().expect("nobody else");
        assert!(Emergency::raised(dir.path()).is_some());
        drop(held);
    }

    #[test]
    fn an_emergency_lasts_as_long_as_it_is_held() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Emergency::raised(dir.path()), None);
        let held = Emergency::raise(dir.path(), "/ is full").unwrap().expect("nobody else");
        assert_eq!(Emergency::raised(dir.path()).as_deref(), Some("/ is full"));
        assert!(Emergency::raise(dir.path(), "again").unwrap().is_none());
        drop(held);
        assert_eq!(Emergency::raised(dir.path()), None);
    }
}
