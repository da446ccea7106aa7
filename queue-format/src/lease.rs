use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::claim::{Claim, RETRIES_MAX};
use crate::files::Moved;
use crate::find::classes;
use crate::{
    Class, FailureReason, Owner, PathError, Spool, SpoolError, TASK_FILE_BYTES_MAX, TaskName, TaskSpec,
};

/// Names kept from one look into pending.
const CANDIDATES_MAX: usize = 1024;

/// Looks into pending in a row that led to no claim: the listing may be a stale one, and others may be faster every
/// time.
const SCANS_MAX: u32 = 16;

/// Looks into the lease directory after a claim whose outcome is not certain; one task needs two to be a stray.
const DOUBTS: u32 = 3;

/// Looks in a row that may be left out where there is no doubt: a rename can be done however late it likes.
const LOOKS_LEFT_OUT_MAX: u32 = 30;

/// The lease directory of one worker incarnation: the right to claim, until another daemon closes it.
///
/// It is made once and never again. Whoever takes this incarnation for dead moves the claims out of the directory
/// and removes it; from then on every rename into it fails, however late it comes.
#[derive(Debug)]
pub struct Lease {
    spool: Spool,
    owner: Owner,
    held: Held,
    /// Classes whose directory is there.
    made: BTreeSet<Class>,
    /// Names seen in pending and not tried yet; used up before the directories are listed again.
    candidates: VecDeque<(Class, PathBuf)>,
    /// Names that somebody else was faster to take: each changes where this worker looks next.
    losses: u64,
    /// Tasks in the directory that no claim knew at the last look.
    strays: BTreeSet<PathBuf>,
    /// Looks still to be taken since a rename into the directory failed, and may have been done all the same.
    doubts: u32,
    /// Looks left out since the last.
    left_out: u32,
}

/// What a look into pending gave.
#[derive(Debug)]
pub enum Next {
    /// A task is ours.
    Claimed(Box<Claim>),
    /// A task file is not valid, or could not be read again and again; it lies in `failed/badspec` or
    /// `failed/poison` now, its report in results/.
    Rejected {
        /// Its name.
        name: TaskName,
        /// Where it lies: `failed/<reason>`.
        reason: FailureReason,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing is pending.
    Empty,
}

/// The claims that this process works on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Arc<Mutex<Claims>>);

#[derive(Debug, Default)]
struct Claims {
    /// Whether each was still there at the last look.
    there: BTreeMap<PathBuf, bool>,
    /// One was given up, as far as is known with its file still in the directory.
    dropped: bool,
    /// None is held any more, whatever the directory holds.
    is_revoked: bool,
}

/// Ends what a lease gave the right to.
#[derive(Clone, Debug)]
pub struct Revocation(Held);

impl Lease {
    /// Opens the lease directory of a new incarnation.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn open(spool: &Spool, owner: Owner) -> Result<Self, SpoolError> {
        spool.files().make_dirs(&spool.layout().lease(&owner))?;
        Ok(Self::new(spool, owner))
    }

    /// Goes on with the lease of an incarnation whose process is gone, and gives the claims that are still in it. The
    /// process that comes after is to others what one is that has slept: nothing else tells them apart.
    ///
    /// # Errors
    /// [`SpoolError::LeaseClosed`] where it was taken for dead; otherwise the spool cannot be read or written.
    pub fn resume(spool: &Spool, owner: Owner) -> Result<(Self, Vec<Claim>), SpoolError> {
        let mut lease = Self::new(spool, owner);
        let files = spool.files();
        let dir = spool.layout().lease(&lease.owner);
        let mut claims = Vec::new();
        for (class, class_dir) in classes(files, &dir)? {
            lease.made.insert(class.clone());
            for file_name in files.list(&class_dir)? {
                // Whatever else lies there was brought by nobody of ours.
                let Ok(name) = file_name.parse::<TaskName>() else { continue };
                let (target, class) = (class_dir.join(&file_name), class.clone());
                match lease.take(class, name, target) {
                    Ok(Next::Claimed(claim)) => claims.push(*claim),
                    Ok(Next::Rejected { .. } | Next::Empty) => {}
                    // Handed back, or a stray that the next looks hand back.
                    Err(SpoolError::Path(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if claims.is_empty() && !files.is_dir(&dir) {
            return Err(spool.nothing_left_of(&lease.owner));
        }
        // A rename of the process before may still be done.
        lease.doubts = DOUBTS;
        Ok((lease, claims))
    }

    fn new(spool: &Spool, owner: Owner) -> Self {
        Self {
            spool: spool.clone(),
            owner,
            held: Held::default(),
            made: BTreeSet::new(),
            candidates: VecDeque::new(),
            losses: 0,
            strays: BTreeSet::new(),
            doubts: 0,
            left_out: 0,
        }
    }

    /// Whose lease it is.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The means to end every claim at once, from any thread, while the lease itself may wait for a hung mount.
    #[must_use]
    pub fn revocation(&self) -> Revocation {
        Revocation(self.held.clone())
    }

    /// Claims one pending task of a kind that `wanted` accepts.
    ///
    /// # Errors
    /// [`SpoolError::LeaseClosed`] where another daemon took us for dead; otherwise the spool cannot be listed or
    /// written.
    pub fn claim_next(&mut self, wanted: impl Fn(&Class) -> bool) -> Result<Next, SpoolError> {
        for _ in 0..SCANS_MAX {
            if self.candidates.is_empty() {
                self.candidates = self.scan(&wanted)?;
            }
            if self.candidates.is_empty() {
                return Ok(Next::Empty);
            }
            while let Some((class, path)) = self.candidates.pop_front() {
                // Wanted when it was listed, and perhaps no longer.
                if !wanted(&class) {
                    continue;
                }
                if let Some(next) = self.claim(class, &path)? {
                    return Ok(next);
                }
            }
        }
        Ok(Next::Empty)
    }

    /// Compares the lease directory with what this process works on. A claim whose file a person or another
    /// daemon has moved is no longer held from now on. A task that no claim knows, seen at two looks in a row, was
    /// brought by a rename that failed for us and was done all the same: it is handed back. Gives those. While nothing
    /// is held and every claim was certain, files are touched only now and then.
    ///
    /// # Errors
    /// [`SpoolError::LeaseClosed`] where the directory is gone; otherwise it cannot be listed.
    pub fn look_after(&mut self) -> Result<Vec<TaskName>, SpoolError> {
        if self.held.take_dropped() {
            self.doubts = DOUBTS;
        }
        if self.held.is_empty() && self.doubts == 0 && self.left_out < LOOKS_LEFT_OUT_MAX {
            self.left_out += 1;
            return Ok(Vec::new());
        }
        self.left_out = 0;
        self.doubts = self.doubts.saturating_sub(1);
        let files = self.spool.files();
        let dir = self.spool.layout().lease(&self.owner);
        let mut present = BTreeMap::new();
        for class in &self.made {
            let class_dir = dir.join(class.to_string());
            // Where that fails, an older listing has to do: it is one from after our own last claim.
            let _ = files.refresh(&class_dir);
            for name in files.list(&class_dir)? {
                if let Ok(task) = name.parse::<TaskName>() {
                    present.insert(class_dir.join(&name), (class.clone(), task));
                }
            }
        }
        if present.is_empty() && !files.is_dir(&dir) {
            let error = self.spool.nothing_left_of(&self.owner);
            if matches!(error, SpoolError::LeaseClosed(_)) {
                self.held.look(|_| false);
            }
            return Err(error);
        }
        self.held.look(|path| present.contains_key(path));
        let unknown: BTreeSet<PathBuf> =
            present.keys().filter(|path| !self.held.knows(path)).cloned().collect();
        let mut returned = Vec::new();
        for path in unknown.intersection(&self.strays) {
            let (class, name) = &present[path];
            if give_back(&self.spool, class, name, path)? == Moved::Yes {
                returned.push(name.clone());
            }
        }
        if !unknown.is_empty() {
            self.doubts = DOUBTS;
        }
        self.strays = unknown;
        Ok(returned)
    }

    /// Ends the lease. Claims that are still there keep the directory; gives whether it is gone.
    ///
    /// # Errors
    /// The directory cannot be removed.
    pub fn close(self) -> Result<bool, SpoolError> {
        let dir = self.spool.layout().lease(&self.owner);
        for (_, class_dir) in classes(self.spool.files(), &dir)? {
            self.spool.files().remove_if_empty(&class_dir)?;
        }
        Ok(self.spool.files().remove_if_empty(&dir)?)
    }

    /// Forgets the names seen in pending: the next claim begins with what is there then, first priority first.
    pub fn forget_candidates(&mut self) {
        self.candidates.clear();
    }

    /// Every worker goes through the shards in an order of its own, and begins within each at a place of its own, so
    /// that few meet at one file.
    fn rank(&self, shard: &str) -> u64 {
        let hash = blake3::hash(format!("{}/{}/{shard}", self.owner, self.losses).as_bytes());
        u64::from_le_bytes(std::array::from_fn(|n| hash.as_bytes()[n]))
    }

    /// Names only.
    fn scan(&self, wanted: &impl Fn(&Class) -> bool) -> Result<VecDeque<(Class, PathBuf)>, SpoolError> {
        let files = self.spool.files();
        for (class, dir) in classes(files, &self.spool.layout().pending())? {
            if !wanted(&class) {
                continue;
            }
            let (mut names, mut shards): (Vec<_>, Vec<_>) =
                files.list(&dir)?.into_iter().partition(|name| name.ends_with(".json"));
            self.keep_tasks(&dir, &mut names)?;
            shards.sort_by_cached_key(|shard| self.rank(shard));
            let loose = names.len();
            let (mut place, mut from) = (self.rank(""), dir.clone());
            for shard in shards {
                from = dir.join(&shard);
                let mut inside = files.list(&from)?;
                if inside.is_empty() {
                    // Who brings a task makes the directory again.
                    files.remove_if_empty(&from)?;
                }
                // One task is enough to know what the directory is: the others are looked at when it is their turn.
                if !inside.iter().any(|name| is_task(name)) {
                    self.keep_tasks(&from, &mut inside)?;
                }
                names.extend(inside);
                if !names.is_empty() {
                    place = self.rank(&shard);
                    break;
                }
            }
            // Everybody is given the names in the same order, and claims run through a part of it.
            let start = usize::try_from(place % names.len().max(1) as u64).unwrap_or(0);
            let path = |n: usize| if n < loose { dir.join(&names[n]) } else { from.join(&names[n]) };
            let around = (start..names.len()).chain(0..start);
            let tasks = around.filter(|n| names[*n].ends_with(".json")).take(CANDIDATES_MAX);
            let found: VecDeque<_> = tasks.map(|n| (class.clone(), path(n))).collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(VecDeque::new())
    }

    /// Leaves the names of tasks. Files of other names that end as those of tasks do are kept aside; directories, links
    /// and whatever else people put here keep nobody from claiming.
    fn keep_tasks(&self, dir: &Path, names: &mut Vec<String>) -> Result<(), SpoolError> {
        for name in names.iter().filter(|name| name.ends_with(".json") && !is_task(name)) {
            self.refuse_name(&dir.join(name), name)?;
        }
        names.retain(|name| is_task(name));
        Ok(())
    }

    /// `None` where somebody else was faster, or the file is not a task's.
    fn claim(&mut self, class: Class, path: &Path) -> Result<Option<Next>, SpoolError> {
        let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(pending) = file_name.parse::<TaskName>() else {
            return self.refuse_name(path, file_name).map(|()| None);
        };
        let name = pending.claimed();
        let Some(target) = self.bring_in(&class, path, &name)? else {
            // Whoever took it goes on to the names that follow: better to look elsewhere than to run behind.
            self.losses += 1;
            self.candidates.clear();
            return Ok(None);
        };
        self.take(class, name, target).map(Some)
    }

    /// Reads a task that lies in the lease directory.
    fn take(&mut self, class: Class, name: TaskName, target: PathBuf) -> Result<Next, SpoolError> {
        let files = self.spool.files();
        let read = match files.read_regular(&target, TASK_FILE_BYTES_MAX) {
            Ok(bytes) => {
                TaskSpec::parse(&bytes, &name.id).map_err(|e| (FailureReason::BadSpec, e.to_string()))
            }
            Err(e) if is_no_file(&e) => Err((FailureReason::BadSpec, e.to_string())),
            Err(e) if name.retries >= RETRIES_MAX => Err((FailureReason::Poison, e.to_string())),
            Err(e) => {
                // Perhaps the node's fault, and not the task's: others may read it.
                self.doubts = DOUBTS;
                give_back(&self.spool, &class, &name.retried(), &target)?;
                return Err(e.into());
            }
        };
        match read {
            Ok(spec) => {
                let claim = Claim::new(&self.spool, &self.owner, name, class, target, spec, &self.held);
                Ok(Next::Claimed(Box::new(claim)))
            }
            Err((reason, why)) => {
                self.spool.leave_error(&name, &why)?;
                files.bring(&target, &self.spool.dead_letter(reason, &name)?)?;
                Ok(Next::Rejected { name, reason, why })
            }
        }
    }

    /// The one rename that makes a task ours; where it lies then, or `None` where somebody else was faster.
    fn bring_in(
        &mut self,
        class: &Class,
        from: &Path,
        name: &TaskName,
    ) -> Result<Option<PathBuf>, SpoolError> {
        let files = self.spool.files();
        let lease = self.spool.layout().lease(&self.owner);
        let dir = lease.join(class.to_string());
        let target = dir.join(name.to_string());
        // A class directory that is gone is made once more, the lease directory never.
        for is_gone in [false, true] {
            if is_gone || !self.made.contains(class) {
                match files.make_dir(&dir) {
                    Err(e) if e.source.kind() == ErrorKind::NotFound => {
                        return Err(self.spool.nothing_left_of(&self.owner));
                    }
                    made => made?,
                }
                self.made.insert(class.clone());
            }
            let renamed = files.rename_cheaply(from, &target);
            if !matches!(renamed, Ok(Moved::Yes)) {
                self.doubts = DOUBTS;
            }
            match renamed {
                Ok(Moved::Yes) => return Ok(Some(target)),
                Ok(Moved::Gone) => return Ok(None),
                Err(e) if e.source.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(self.spool.nothing_left_of(&self.owner))
    }

    /// A file whose name is no task's is kept aside.
    fn refuse_name(&self, path: &Path, file_name: &str) -> Result<(), SpoolError> {
        let Err(why) = file_name.parse::<TaskName>() else { return Ok(()) };
        if self.spool.files().is_file(path) {
            self.spool.keep_aside(path, &why.to_string())?;
        }
        Ok(())
    }
}

impl Revocation {
    /// Every claim of the lease, of now and of later, is void: none is concluded, released or delayed any more.
    /// Touches no file, and waits for none.
    pub fn revoke(&self) {
        self.0.claims().is_revoked = true;
    }
}

impl Held {
    pub(crate) fn add(&self, path: &Path) {
        self.claims().there.insert(path.to_owned(), true);
    }

    /// The claim's file was moved by its holder.
    pub(crate) fn settle(&self, path: &Path) {
        self.claims().there.remove(path);
    }

    /// Nobody holds the claim any more.
    pub(crate) fn give_up(&self, path: &Path) {
        let mut claims = self.claims();
        claims.dropped |= claims.there.remove(path).is_some();
    }

    pub(crate) fn is_there(&self, path: &Path) -> bool {
        let claims = self.claims();
        !claims.is_revoked && claims.there.get(path).copied().unwrap_or(false)
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.claims().is_revoked
    }

    fn is_empty(&self) -> bool {
        self.claims().there.is_empty()
    }

    fn knows(&self, path: &Path) -> bool {
        self.claims().there.contains_key(path)
    }

    fn take_dropped(&self) -> bool {
        std::mem::take(&mut self.claims().dropped)
    }

    /// Once gone, a claim stays gone: if a person moves the file back, it is a stray.
    fn look(&self, is_present: impl Fn(&Path) -> bool) {
        for (path, is_there) in &mut self.claims().there {
            *is_there &= is_present(path);
        }
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_task(name: &str) -> bool {
    name.parse::<TaskName>().is_ok()
}

/// What lies there can never be read as a task: a link, a pipe, something with two names, something too large.
fn is_no_file(error: &PathError) -> bool {
    error.source.kind() == ErrorKind::InvalidData
        || error.source.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32)
}

/// Makes a claimed task pending again, as `name`.
pub(crate) fn give_back(
    spool: &Spool,
    class: &Class,
    name: &TaskName,
    path: &Path,
) -> Result<Moved, PathError> {
    spool.files().bring(path, &spool.layout().pending_class(class).join(name.to_string()))
}
