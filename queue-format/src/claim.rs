use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use crate::files::Moved;
use crate::find::classes;
use crate::{
    Class, FailureReason, Layout, MANIFEST_FILE, Manifest, Owner, PathError, Spool, SpoolError,
    TASK_FILE_BYTES_MAX, TaskName, TaskSpec, Verdict, files,
};

/// How often a task may be lost with its worker, or fail through the node's fault, before it is set aside.
const RETRIES_MAX: u32 = 5;

/// What is left of an attempt that came to no verdict: one line that says why.
const ERROR_FILE: &str = "error.txt";

/// The lease directory of one worker incarnation: the right to claim.
#[derive(Debug)]
pub struct Lease {
    spool: Spool,
    owner: Owner,
    /// Names seen in pending and not tried yet; used up before the directories are listed again.
    candidates: VecDeque<(Class, PathBuf)>,
}

/// What a look into pending gave.
#[derive(Debug)]
pub enum Next {
    /// A task is ours.
    Claimed(Box<Claim>),
    /// A task file is not valid; it lies in `failed/badspec` now, its report in results/.
    Rejected {
        /// Its name.
        name: TaskName,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing is pending.
    Empty,
}

/// A task that is ours until its file is moved: by one of the methods here, or by a person.
#[derive(Debug)]
pub struct Claim {
    layout: Layout,
    owner: Owner,
    name: TaskName,
    class: Class,
    path: PathBuf,
    spec: TaskSpec,
}

/// Why a claim could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The claim is no longer ours: nothing was published.
    #[error("the claim on {0} is gone: somebody moved or removed its file; the attempt is void")]
    Lost(TaskName),
    /// The spool cannot be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl From<PathError> for ClaimError {
    fn from(error: PathError) -> Self {
        Self::Spool(error.into())
    }
}

impl Lease {
    /// Opens the lease directory of a new incarnation.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn open(spool: &Spool, owner: Owner) -> Result<Self, SpoolError> {
        files::make_dir(&spool.layout().lease(&owner))?;
        Ok(Self { spool: spool.clone(), owner, candidates: VecDeque::new() })
    }

    /// Whose lease it is.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Claims one pending task of a kind that `wanted` accepts.
    ///
    /// # Errors
    /// The spool cannot be listed or written.
    pub fn claim_next(&mut self, wanted: impl Fn(&Class) -> bool) -> Result<Next, SpoolError> {
        if self.candidates.is_empty() {
            self.candidates = self.scan(&wanted)?;
        }
        while let Some((class, path)) = self.candidates.pop_front() {
            if let Some(next) = self.claim(class, &path)? {
                return Ok(next);
            }
        }
        Ok(Next::Empty)
    }

    /// Ends the lease. Claims that are still there keep the directory; gives whether it is gone.
    ///
    /// # Errors
    /// The directory cannot be removed.
    pub fn close(self) -> Result<bool, SpoolError> {
        let dir = self.spool.layout().lease(&self.owner);
        for (_, class_dir) in classes(&dir)? {
            files::remove_if_empty(&class_dir)?;
        }
        Ok(files::remove_if_empty(&dir)?)
    }

    /// Names only. Every worker goes through the shards in an order of its own, so that few meet at one file.
    fn scan(&self, wanted: &impl Fn(&Class) -> bool) -> Result<VecDeque<(Class, PathBuf)>, SpoolError> {
        for (class, dir) in classes(&self.spool.layout().pending())? {
            if !wanted(&class) {
                continue;
            }
            let (loose, mut shards): (Vec<_>, Vec<_>) =
                files::list(&dir)?.into_iter().partition(|name| name.ends_with(".json"));
            let mut found: VecDeque<(Class, PathBuf)> =
                loose.iter().map(|name| (class.clone(), dir.join(name))).collect();
            shards
                .sort_by_key(|shard| *blake3::hash(format!("{}/{shard}", self.owner).as_bytes()).as_bytes());
            for shard in shards {
                let shard = dir.join(shard);
                let mut names = files::list(&shard)?;
                names.sort();
                if names.is_empty() {
                    // Published whole, a shard only shrinks: an empty one is used up.
                    files::remove_if_empty(&shard)?;
                }
                found.extend(names.iter().map(|name| (class.clone(), shard.join(name))));
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(VecDeque::new())
    }

    /// `None` where somebody else was faster, or the file is not a task's.
    fn claim(&self, class: Class, path: &Path) -> Result<Option<Next>, SpoolError> {
        let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(pending) = file_name.parse::<TaskName>() else {
            return self.refuse_name(path, file_name).map(|()| None);
        };
        let name = pending.claimed();
        let layout = self.spool.layout().clone();
        let dir = layout.lease(&self.owner).join(class.to_string());
        files::make_dir(&dir)?;
        let target = dir.join(name.to_string());
        if files::rename(path, &target)? == Moved::Gone {
            return Ok(None);
        }
        let read = files::read_regular(&target, TASK_FILE_BYTES_MAX)
            .map_err(|e| e.to_string())
            .and_then(|bytes| TaskSpec::parse(&bytes, &name.id).map_err(|e| e.to_string()));
        match read {
            Ok(spec) => {
                let owner = self.owner.clone();
                Ok(Some(Next::Claimed(Box::new(Claim { layout, owner, name, class, path: target, spec }))))
            }
            Err(why) => {
                let report = layout.attempt(&name.id, name.token);
                files::make_dir(&report)?;
                files::replace(&report.join(ERROR_FILE), format!("{why}\n").as_bytes())?;
                let failed = layout.failed_for(FailureReason::BadSpec);
                files::rename(&target, &failed.join(name.settled().to_string()))?;
                Ok(Some(Next::Rejected { name, why }))
            }
        }
    }

    /// A file whose name is no task's is kept aside under its own name, with the reason beside it.
    fn refuse_name(&self, path: &Path, file_name: &str) -> Result<(), SpoolError> {
        let Err(why) = file_name.parse::<TaskName>() else { return Ok(()) };
        let rejected = self.spool.layout().rejected();
        if path.is_file() && files::rename(path, &rejected.join(file_name))? == Moved::Yes {
            files::replace(&rejected.join(format!("{file_name}.reason")), format!("{why}\n").as_bytes())?;
        }
        Ok(())
    }
}

impl Claim {
    /// What is to be done.
    #[must_use]
    pub fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    /// The claim's name; its token fences everything that is done under it.
    #[must_use]
    pub fn name(&self) -> &TaskName {
        &self.name
    }

    /// False once a person has removed or moved the file: then the attempt is void.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// Publishes an attempt: its files, then its manifest, then the one rename that makes it count.
    /// Gives the directory of the results.
    ///
    /// # Errors
    /// [`ClaimError::Lost`] where the claim is gone; otherwise the spool cannot be written, and the claim is
    /// still ours.
    pub fn conclude(
        &self,
        manifest: &Manifest,
        attempt: &[(String, Vec<u8>)],
    ) -> Result<PathBuf, ClaimError> {
        if !self.is_held() {
            return Err(ClaimError::Lost(self.name.clone()));
        }
        let dir = self.layout.attempt(&self.name.id, self.name.token);
        files::make_dir(&dir)?;
        let mut digests = BTreeMap::new();
        for (name, bytes) in attempt {
            files::replace(&dir.join(name), bytes)?;
            digests.insert(name.clone(), blake3::hash(bytes).to_hex().to_string());
        }
        let manifest = Manifest { files: digests, ..manifest.clone() };
        let path = dir.join(MANIFEST_FILE);
        let bytes = serde_json::to_vec_pretty(&manifest)
            .map_err(|source| SpoolError::Json { path: path.clone(), source })?;
        files::replace(&path, &bytes)?;
        files::sync_dir(&dir)?;
        let target = match &manifest.verdict {
            Verdict::Accepted { .. } => {
                self.layout.done_bucket(&self.name.id).join(self.name.done_by(&self.owner).to_string())
            }
            Verdict::Failed { reason, .. } => {
                self.layout.failed_for(*reason).join(self.name.settled().to_string())
            }
        };
        self.move_to(&target)?;
        Ok(dir)
    }

    /// Hands the task back as it was: the worker stops, nothing is wrong with the task.
    ///
    /// # Errors
    /// As for [`Claim::conclude`].
    pub fn release(&self) -> Result<(), ClaimError> {
        self.move_to(&self.layout.pending_class(&self.class).join(self.name.to_string()))
    }

    /// Hands the task back through the node's fault, to be tried again not before `due_seconds` (since 1970);
    /// `why` is left with the attempt. After too many such retries it is left claimed and `false` is given: then
    /// [`Claim::conclude`] it as poison.
    ///
    /// # Errors
    /// As for [`Claim::conclude`].
    pub fn delay(&self, due_seconds: u64, why: &str) -> Result<bool, ClaimError> {
        if self.name.retries >= RETRIES_MAX {
            return Ok(false);
        }
        let report = self.layout.attempt(&self.name.id, self.name.token);
        files::make_dir(&report)?;
        files::replace(&report.join(ERROR_FILE), format!("{why}\n").as_bytes())?;
        let bucket = self.layout.delayed().join(due_seconds.to_string()).join(self.class.to_string());
        self.move_to(&bucket.join(self.name.retried().to_string()))?;
        Ok(true)
    }

    fn move_to(&self, target: &Path) -> Result<(), ClaimError> {
        if let Some(dir) = target.parent() {
            files::make_dir(dir)?;
        }
        match files::rename(&self.path, target)? {
            Moved::Yes => Ok(()),
            Moved::Gone => Err(ClaimError::Lost(self.name.clone())),
        }
    }
}

impl Spool {
    /// Takes back what a dead incarnation had claimed. The caller vouches that it is dead. Gives the tasks that
    /// are pending again; those lost too often lie in `failed/poison`.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn reap(&self, dead: &Owner) -> Result<Vec<TaskName>, SpoolError> {
        let lease = self.layout().lease(dead);
        let mut reaped = Vec::new();
        for (class, dir) in classes(&lease)? {
            let pending = self.layout().pending_class(&class);
            files::make_dir(&pending)?;
            for file_name in files::list(&dir)? {
                let Ok(name) = file_name.parse::<TaskName>() else { continue };
                let target = if name.retries < RETRIES_MAX {
                    pending.join(name.retried().to_string())
                } else {
                    self.layout().failed_for(FailureReason::Poison).join(name.settled().to_string())
                };
                if files::rename(&dir.join(&file_name), &target)? == Moved::Yes {
                    reaped.push(name);
                }
            }
            files::remove_if_empty(&dir)?;
        }
        files::remove_if_empty(&lease)?;
        self.remove_worker_status(dead)?;
        Ok(reaped)
    }

    /// The incarnations of one node that hold a lease directory.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn owners_on(&self, node: &str) -> Result<Vec<Owner>, PathError> {
        let owners = files::list(&self.layout().claimed())?;
        Ok(owners
            .iter()
            .filter_map(|name| name.parse().ok())
            .filter(|owner: &Owner| owner.node() == node)
            .collect())
    }
}
