use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::files::Moved;
use crate::owner::node_name;
use crate::{Class, FailureReason, Located, Owner, PathError, Spool, SpoolError, State, TaskId};

/// What became of a task that a person cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It lies in `failed/cancelled` now.
    SetAside,
    /// This worker has it, and sets it aside within one heartbeat.
    AtWork(Owner),
    /// It had been settled before: it stays where it is.
    Settled(State),
    /// No task of this id was seen. It may have been on its way from one directory to the next: look again.
    NotSeen,
}

impl Spool {
    /// Keeps every worker from claiming, until [`Spool::resume`]; people are shown the reason.
    /// `echo REASON > control/pause`.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn pause(&self, reason: &str) -> Result<(), PathError> {
        self.files().replace(&self.layout().pause(), reason.as_bytes())
    }

    /// Ends the pause. `rm control/pause`.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn resume(&self) -> Result<(), PathError> {
        self.take_back(&self.layout().pause())
    }

    /// Keeps one node from claiming; it finishes what it has. `touch control/drain/NODE`.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn drain(&self, node: &str) -> Result<(), PathError> {
        self.mark(&self.layout().drained(), &node_name(node))
    }

    /// Lets a drained node claim again. `rm control/drain/NODE`.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn undrain(&self, node: &str) -> Result<(), PathError> {
        let dir = self.layout().drained();
        for name in self.files().list(&dir)? {
            if node_name(&name) == node_name(node) {
                self.take_back(&dir.join(name))?;
            }
        }
        self.files().remove_if_empty(&dir).map(drop)
    }

    /// Asks whoever has a task to set it aside. `touch control/cancel/ID`. [`Spool::carry_out`] does so at once
    /// where no worker has it.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn cancel(&self, id: &TaskId) -> Result<(), PathError> {
        self.mark(&self.layout().cancelled(), id.as_str())
    }

    /// Takes a wish to cancel back, or removes it once it is carried out. `rm control/cancel/ID`.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn uncancel(&self, id: &TaskId) -> Result<(), PathError> {
        self.take_back(&self.layout().cancelled().join(id.as_str()))?;
        self.files().remove_if_empty(&self.layout().cancelled()).map(drop)
    }

    /// What a person made there with mkdir counts like a file, and goes like one.
    fn take_back(&self, path: &Path) -> Result<(), PathError> {
        match self.files().remove_file(path) {
            Err(e) if e.source.kind() == ErrorKind::IsADirectory => {
                self.files().remove_if_empty(path).map(drop)
            }
            removed => removed,
        }
    }

    /// Sets aside every task among `ids` that no worker has, and removes the wish where nothing is left to do. Any
    /// number may do so at once: one of the moves is done.
    ///
    /// # Errors
    /// The spool cannot be listed or written.
    pub fn carry_out(&self, ids: &BTreeSet<TaskId>) -> Result<BTreeMap<TaskId, Cancelled>, SpoolError> {
        let mut became: BTreeMap<TaskId, Cancelled> =
            ids.iter().map(|id| (id.clone(), Cancelled::NotSeen)).collect();
        for task in self.find_all(ids)? {
            let now = match &task.state {
                State::Claimed(owner) => Cancelled::AtWork(owner.clone()),
                State::Done(_) | State::Failed(_) => Cancelled::Settled(task.state.clone()),
                State::Pending(_) | State::Delayed { .. } | State::Hold => {
                    let target = self.dead_letter(FailureReason::Cancelled, &task.name)?;
                    match self.files().bring(&task.path, &target)? {
                        Moved::Yes => Cancelled::SetAside,
                        // A worker was faster: it sees the wish when it looks next.
                        Moved::Gone => continue,
                    }
                }
            };
            became.entry(task.name.id).and_modify(|before| {
                if weight(&now) > weight(before) {
                    *before = now;
                }
            });
        }
        for (id, _) in
            became.iter().filter(|(_, what)| matches!(what, Cancelled::SetAside | Cancelled::Settled(_)))
        {
            self.uncancel(id)?;
        }
        Ok(became)
    }

    /// Parks a task that is pending, delayed or claimed; a worker that has it gives it up within one heartbeat. Gives
    /// where it lies now, or `None` where it was none of these (any more). `mv FILE hold/5-build/`.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn hold(&self, task: &Located) -> Result<Option<PathBuf>, SpoolError> {
        let class = match &task.state {
            State::Pending(class) | State::Delayed { class, .. } => class.clone(),
            State::Claimed(_) => self.class_of(task),
            State::Hold | State::Done(_) | State::Failed(_) => return Ok(None),
        };
        self.steer(task, &self.layout().hold().join(class.to_string()))
    }

    /// Makes a parked or delayed task pending. Gives where it lies now, or `None` where it was neither (any more).
    /// `mv hold/5-build/FILE pending/5-build/`.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn release(&self, task: &Located) -> Result<Option<PathBuf>, SpoolError> {
        let class = match &task.state {
            State::Hold => self.class_of(task),
            State::Delayed { class, .. } => class.clone(),
            _ => return Ok(None),
        };
        self.steer(task, &self.layout().pending_class(&class))
    }

    /// The class that a task belongs to: that of the directory it lies in, else what its content asks for.
    pub(crate) fn class_of(&self, task: &Located) -> Class {
        let dir = task.path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        let inside = || self.read_task(task).ok().map(|spec| spec.class());
        let usual = || Class { priority: 5, kind: "build".to_owned() };
        dir.and_then(|name| name.parse().ok()).or_else(inside).unwrap_or_else(usual)
    }

    fn steer(&self, task: &Located, dir: &Path) -> Result<Option<PathBuf>, SpoolError> {
        let target = dir.join(task.name.to_string());
        Ok((self.files().bring(&task.path, &target)? == Moved::Yes).then_some(target))
    }

    /// The directory is made when it is first needed and goes with its last file, so that who looks into `control/`
    /// and finds nothing has seen everything.
    fn mark(&self, dir: &Path, name: &str) -> Result<(), PathError> {
        let path = dir.join(name);
        for _ in 0..MARK_TRIES_MAX {
            self.files().make_dirs(dir)?;
            match self.files().append(&path, b"") {
                Err(e) if e.source.kind() == ErrorKind::NotFound => {}
                made => return made,
            }
        }
        self.files().append(&path, b"")
    }
}

/// How often a directory is made again that somebody removed since it became empty.
const MARK_TRIES_MAX: usize = 10;

/// Of several copies of a task, the one at work decides what is left to do.
fn weight(what: &Cancelled) -> u8 {
    match what {
        Cancelled::NotSeen => 0,
        Cancelled::Settled(_) => 1,
        Cancelled::SetAside => 2,
        Cancelled::AtWork(_) => 3,
    }
}
