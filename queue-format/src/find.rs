use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::files::Files;
use crate::{Class, DoneClass, FailureReason, Owner, PathError, Spool, TaskId, TaskName};

/// Which state a task is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Waits for a worker.
    Pending(Class),
    /// Waits until a time, in seconds since 1970.
    Delayed {
        /// When it becomes pending.
        due_seconds: u64,
        /// Where it then goes.
        class: Class,
    },
    /// Parked by a person.
    Hold,
    /// A worker has it.
    Claimed(Owner),
    /// Accepted, and how good it is.
    Done(DoneClass),
    /// A dead letter.
    Failed(FailureReason),
}

/// A task file and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its state.
    pub state: State,
    /// Its name, parsed.
    pub name: TaskName,
    /// Its path.
    pub path: PathBuf,
}

impl Spool {
    /// Every task of the spool; names only, no file is opened.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn all(&self) -> Result<Vec<Located>, PathError> {
        let mut found = Vec::new();
        self.visit(|located| found.push(located))?;
        Ok(found)
    }

    /// Shows every task of the spool to `see`, and holds no more than one directory's names at a time. A task that is
    /// moved meanwhile may be shown twice or not at all.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn visit(&self, mut see: impl FnMut(Located)) -> Result<(), PathError> {
        let (layout, files) = (self.layout(), self.files());
        let see = &mut see;
        // What is on its way to pending counts as there.
        for (_, chunk) in self.chunks()? {
            for (class, dir) in classes(files, &chunk)? {
                collect(files, &dir, &State::Pending(class), false, see)?;
            }
        }
        for (class, dir) in classes(files, &layout.pending())? {
            collect(files, &dir, &State::Pending(class), true, see)?;
        }
        for due in files.list(&layout.delayed())? {
            let Ok(due_seconds) = due.parse() else { continue };
            for (class, dir) in classes(files, &layout.delayed().join(&due))? {
                collect(files, &dir, &State::Delayed { due_seconds, class }, false, see)?;
            }
        }
        collect(files, &layout.hold(), &State::Hold, true, see)?;
        for owner in files.list(&layout.claimed())? {
            let Ok(owner) = owner.parse::<Owner>() else { continue };
            collect(files, &layout.lease(&owner), &State::Claimed(owner), true, see)?;
        }
        for class in DoneClass::all() {
            collect(files, &layout.done_of(class), &State::Done(class), true, see)?;
        }
        for reason in FailureReason::ALL {
            collect(files, &layout.failed_for(*reason), &State::Failed(*reason), true, see)?;
        }
        Ok(())
    }

    /// Where a task is; two places only after a person copied its file.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn find(&self, id: &TaskId) -> Result<Vec<Located>, PathError> {
        let mut found = Vec::new();
        self.visit(|located| {
            if located.name.id == *id {
                found.push(located);
            }
        })?;
        Ok(found)
    }

    /// Where several tasks are: one look at every name, however many they are.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn find_all(&self, ids: &BTreeSet<TaskId>) -> Result<Vec<Located>, PathError> {
        let mut found = Vec::new();
        if ids.is_empty() {
            return Ok(found);
        }
        self.visit(|task| {
            if ids.contains(&task.name.id) {
                found.push(task);
            }
        })?;
        Ok(found)
    }

    /// What one incarnation has claimed; costs a listing of its lease directory, however large the spool is.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn claims_of(&self, owner: &Owner) -> Result<Vec<TaskName>, PathError> {
        let mut found = Vec::new();
        let state = State::Claimed(owner.clone());
        collect(self.files(), &self.layout().lease(owner), &state, true, &mut |located| {
            found.push(located.name);
        })?;
        Ok(found)
    }

    /// The accepted tasks in the same buckets of `done/` as `id`, that task among them if it is accepted.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn accepted_near(&self, id: &TaskId) -> Result<Vec<TaskName>, PathError> {
        let mut near = Vec::new();
        for class in DoneClass::all() {
            let names = self.files().list(&self.layout().done_bucket(class, id))?;
            near.extend(names.iter().filter_map(|name| name.parse::<TaskName>().ok()));
        }
        Ok(near)
    }

    /// The class directories of `pending/` that are there.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn pending_classes(&self) -> Result<Vec<PathBuf>, PathError> {
        let classes = classes(self.files(), &self.layout().pending())?;
        Ok(classes.into_iter().map(|(_, dir)| dir).collect())
    }
}

/// The class directories below `dir`.
pub(crate) fn classes(files: &Files, dir: &Path) -> Result<Vec<(Class, PathBuf)>, PathError> {
    let mut classes: Vec<(Class, PathBuf)> =
        files.list(dir)?.into_iter().filter_map(|name| Some((name.parse().ok()?, dir.join(&name)))).collect();
    classes.sort();
    Ok(classes)
}

/// Shows the tasks in `dir` and, if `deep`, in its direct subdirectories.
fn collect(
    files: &Files,
    dir: &Path,
    state: &State,
    deep: bool,
    see: &mut dyn FnMut(Located),
) -> Result<(), PathError> {
    for entry in files.list(dir)? {
        let path = dir.join(&entry);
        match entry.parse() {
            Ok(name) => see(Located { state: state.clone(), name, path }),
            Err(_) if deep && !entry.ends_with(".json") => collect(files, &path, state, false, see)?,
            Err(_) => {}
        }
    }
    Ok(())
}
