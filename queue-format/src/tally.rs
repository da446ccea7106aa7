use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::{Class, Counts, DoneClass, FailureReason, Owner, PathError, Spool, State, TaskName};

/// Two changes of a directory may carry the same time where they are no further apart than this: the server's clock
/// ticks in milliseconds, that of some file systems in seconds.
const GRANULE: Duration = Duration::from_secs(2);

/// What was counted, directory by directory: a directory that has not changed since is not listed again.
///
/// A listing is believed only if it was made two seconds or more after its directory's time was first seen, so that no
/// later change can carry that time too. No two clocks are compared for it.
#[derive(Debug, Default)]
pub struct Tally {
    seen: HashMap<PathBuf, Listing>,
}

#[derive(Debug)]
struct Listing {
    modified: SystemTime,
    first_seen: Instant,
    listed: Instant,
    tasks: usize,
    /// Names that are no tasks': most are directories.
    others: Vec<String>,
}

/// One count.
struct Count<'a> {
    spool: &'a Spool,
    now: Instant,
    before: HashMap<PathBuf, Listing>,
    seen: HashMap<PathBuf, Listing>,
    counts: Counts,
}

impl Spool {
    /// Counts the tasks by state, class and reason: names only, and of those only what changed since `tally` was last
    /// given. A task that is moved meanwhile may be counted twice or not at all.
    ///
    /// # Errors
    /// A directory cannot be listed; the next count begins anew.
    pub fn count(&self, tally: &mut Tally, now: Instant) -> Result<Counts, PathError> {
        let before = std::mem::take(&mut tally.seen);
        let mut count = Count { spool: self, now, before, seen: HashMap::new(), counts: Counts::default() };
        count.all()?;
        tally.seen = count.seen;
        Ok(count.counts)
    }
}

impl Count<'_> {
    fn all(&mut self) -> Result<(), PathError> {
        let layout = self.spool.layout().clone();
        // What is on its way to pending counts as there.
        for source in self.below(&layout.ledger())? {
            for chunk in self.below(&source)? {
                self.classes(&chunk, false, &State::Pending)?;
            }
        }
        self.classes(&layout.pending(), true, &State::Pending)?;
        for due in self.below(&layout.delayed())? {
            let Some(due_seconds) = parsed(&due) else { continue };
            self.classes(&due, false, &|class| State::Delayed { due_seconds, class })?;
        }
        self.tasks(&layout.hold(), true, &State::Hold)?;
        for lease in self.below(&layout.claimed())? {
            let Some(owner) = parsed::<Owner>(&lease) else { continue };
            self.tasks(&lease, true, &State::Claimed(owner))?;
        }
        for class in DoneClass::all() {
            self.tasks(&layout.done_of(class), true, &State::Done(class))?;
        }
        for reason in FailureReason::ALL {
            self.tasks(&layout.failed_for(*reason), true, &State::Failed(*reason))?;
        }
        Ok(())
    }

    fn classes(&mut self, dir: &Path, deep: bool, state: &dyn Fn(Class) -> State) -> Result<(), PathError> {
        for class_dir in self.below(dir)? {
            if let Some(class) = parsed(&class_dir) {
                self.tasks(&class_dir, deep, &state(class))?;
            }
        }
        Ok(())
    }

    /// The tasks in `dir` and, if `deep`, in its direct subdirectories.
    fn tasks(&mut self, dir: &Path, deep: bool, state: &State) -> Result<(), PathError> {
        let listing = self.look(dir)?;
        let (tasks, below) = (listing.tasks, paths(dir, &listing.others));
        if tasks > 0 {
            self.counts.add(state, tasks);
        }
        if deep {
            for dir in below {
                self.tasks(&dir, false, state)?;
            }
        }
        Ok(())
    }

    fn below(&mut self, dir: &Path) -> Result<Vec<PathBuf>, PathError> {
        Ok(paths(dir, &self.look(dir)?.others))
    }

    fn look(&mut self, dir: &Path) -> Result<&Listing, PathError> {
        let files = self.spool.files();
        // Before it is listed: a change between the two is seen the next time.
        let modified = files.look(dir)?.map_or(SystemTime::UNIX_EPOCH, |entry| entry.modified);
        let known = self.before.remove(dir).filter(|listing| listing.modified == modified);
        let first_seen = known.as_ref().map_or(self.now, |listing| listing.first_seen);
        let listing = match known {
            Some(listing) if listing.listed.duration_since(first_seen) >= GRANULE => listing,
            _ => {
                let names = files.list(dir)?;
                let (tasks, others): (Vec<String>, _) =
                    names.into_iter().partition(|name| name.parse::<TaskName>().is_ok());
                Listing { modified, first_seen, listed: self.now, tasks: tasks.len(), others }
            }
        };
        Ok(self.seen.entry(dir.to_owned()).insert_entry(listing).into_mut())
    }
}

fn paths(dir: &Path, names: &[String]) -> Vec<PathBuf> {
    names.iter().filter(|name| !name.ends_with(".json")).map(|name| dir.join(name)).collect()
}

fn parsed<T: std::str::FromStr>(dir: &Path) -> Option<T> {
    dir.file_name()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use uuid::Uuid;

    #[test]
    fn counts_as_everything_else_sees_it_however_old_the_tally_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::init(&dir.path().join("spool"), Uuid::now_v7()).expect("a spool");
        let root = spool.layout().root().to_owned();
        let (mut tally, begin) = (Tally::default(), Instant::now());
        let mut check = |after_seconds: u64, expected: usize| {
            let now = begin + Duration::from_secs(after_seconds);
            let counts = spool.count(&mut tally, now).expect("counted");
            assert_eq!(counts, Counts::of(&spool.all().expect("listed")), "after {after_seconds} s");
            assert_eq!(counts.open() + counts.settled() + counts.hold, expected, "after {after_seconds} s");
        };
        let put = |place: &str| {
            let path = root.join(place);
            fs::create_dir_all(path.parent().expect("one")).expect("made");
            fs::write(path, b"").expect("written");
        };
        check(0, 0);
        put("pending/5-build/x.a000.r0.json");
        put("pending/5-build/shard/y.json");
        put("delayed/77/5-build/z.a001.r1.json");
        put("hold/h.json");
        put("failed/timeout/f.a001.r0.json");
        put("failed/timeout/ab/g.a001.r0.json");
        put("done/strict/ab/d.a001.r0.json");
        check(0, 7);
        put("hold/5-build/i.json");
        put("NOT/a place/x.json");
        check(1, 8);
        check(3, 8);
        put("pending/5-build/shard/late.json");
        check(3, 9);
        check(6, 9);
        fs::remove_dir_all(root.join("hold/5-build")).expect("removed");
        check(9, 8);
    }

    #[test]
    fn a_listing_is_believed_only_once_its_time_can_not_come_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::init(&dir.path().join("spool"), Uuid::now_v7()).expect("a spool");
        let hold = spool.layout().hold();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let (mut tally, begin) = (Tally::default(), Instant::now());
        let mut check = |after_seconds: u64, put: &str, expected: usize| {
            if !put.is_empty() {
                fs::write(hold.join(put), b"").expect("written");
            }
            // As where the clock stands still between two changes.
            fs::File::open(&hold).and_then(|dir| dir.set_modified(old)).expect("set");
            let counts = spool.count(&mut tally, begin + Duration::from_secs(after_seconds));
            assert_eq!(counts.expect("counted").hold, expected, "{put} after {after_seconds} s");
        };
        check(0, "a.json", 1);
        check(1, "b.json", 2);
        check(2, "c.json", 3);
        check(3, "", 3);
        check(60, "unseen.json", 3);
    }
}
