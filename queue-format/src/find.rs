use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::files::{Files, is_gone};
use crate::filesystem::Entry;
use crate::{
    Class, DoneClass, FailureReason, Owner, PathError, Spool, SpoolError, TaskId, TaskName, TaskSpec, Work,
};

/// Looks for a task that lies nowhere: it may be on its way from one directory to the next.
const LOOKS_MAX: usize = 3;

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

/// Where tasks lie, in the order in which they usually move.
#[derive(Clone, Copy, Debug)]
enum Place {
    Ledger,
    Pending,
    Delayed,
    Hold,
    Claimed,
    Done,
    Failed,
}

const PLACES: [Place; 7] =
    [Place::Ledger, Place::Pending, Place::Delayed, Place::Hold, Place::Claimed, Place::Done, Place::Failed];

/// Looks at the least, and at the most, of who has to be sure.
const SURE_LOOKS_MIN: usize = 3;
const SURE_LOOKS_MAX: usize = 6;

/// Which images the files of waiting tasks named at the last look, and what these were then.
#[derive(Debug, Default)]
pub struct WaitingImages(HashMap<PathBuf, (Entry, Option<String>)>);

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
    pub fn visit(&self, see: impl FnMut(Located)) -> Result<(), PathError> {
        self.visit_places(&PLACES, see)
    }

    /// As [`Spool::visit`], those that are done or have failed.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn visit_settled(&self, see: impl FnMut(Located)) -> Result<(), PathError> {
        self.visit_places(&[Place::Done, Place::Failed], see)
    }

    fn visit_places(&self, places: &[Place], mut see: impl FnMut(Located)) -> Result<(), PathError> {
        let look = Look::remembered(self.files());
        places.iter().try_for_each(|place| self.visit_place(*place, &look, &mut see))
    }

    /// [`Spool::visit`] for whoever must miss nothing: it looks at what the server has, and again, each time the other
    /// way round, until `see` says of no task that it is new. A task is missed only if it moves against the direction of
    /// every one of these looks while it lasts.
    pub(crate) fn visit_surely(&self, mut see: impl FnMut(Located) -> bool) -> Result<(), PathError> {
        let look = Look { files: self.files(), is_sure: true };
        let mut places = PLACES;
        for looks in 1..=SURE_LOOKS_MAX {
            let mut is_new = false;
            for place in places {
                self.visit_place(place, &look, &mut |task| is_new |= see(task))?;
            }
            if looks >= SURE_LOOKS_MIN && !is_new {
                break;
            }
            places.reverse();
        }
        Ok(())
    }

    fn visit_place(
        &self,
        place: Place,
        look: &Look<'_>,
        see: &mut dyn FnMut(Located),
    ) -> Result<(), PathError> {
        let layout = self.layout();
        match place {
            // What is on its way to pending counts as there.
            Place::Ledger => {
                for (_, chunk) in self.chunks()? {
                    for (class, dir) in look.classes(&chunk)? {
                        look.collect(&dir, &State::Pending(class), false, see)?;
                    }
                }
            }
            Place::Pending => {
                for (class, dir) in look.classes(&layout.pending())? {
                    look.collect(&dir, &State::Pending(class), true, see)?;
                }
            }
            Place::Delayed => {
                for due in look.list(&layout.delayed())? {
                    let Ok(due_seconds) = due.parse() else { continue };
                    for (class, dir) in look.classes(&layout.delayed().join(&due))? {
                        look.collect(&dir, &State::Delayed { due_seconds, class }, false, see)?;
                    }
                }
            }
            Place::Hold => look.collect(&layout.hold(), &State::Hold, true, see)?,
            Place::Claimed => {
                for owner in look.list(&layout.claimed())? {
                    let Ok(owner) = owner.parse::<Owner>() else { continue };
                    look.collect(&layout.lease(&owner), &State::Claimed(owner), true, see)?;
                }
            }
            Place::Done => {
                for class in DoneClass::all() {
                    look.collect(&layout.done_of(class), &State::Done(class), true, see)?;
                }
            }
            Place::Failed => {
                for reason in FailureReason::ALL {
                    look.collect(&layout.failed_for(*reason), &State::Failed(*reason), true, see)?;
                }
            }
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

    /// Where several tasks are, for what is to be done about them or said of them: a task that others move meanwhile is
    /// given where it came to rest, and looked for again where it seemed to be nowhere. Two places of one task are two
    /// files.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn settle_find(&self, ids: &BTreeSet<TaskId>) -> Result<Vec<Located>, PathError> {
        let mut found: Vec<Located> = Vec::new();
        for _ in 0..LOOKS_MAX {
            let seen: BTreeSet<&TaskId> = found.iter().map(|task| &task.name.id).collect();
            let missing: BTreeSet<TaskId> = ids.iter().filter(|id| !seen.contains(id)).cloned().collect();
            if missing.is_empty() {
                break;
            }
            found.extend(self.find_all(&missing)?);
            // Twice: between two of these it may go from one of its places to the other.
            for _ in 0..2 {
                found.retain(|task| self.files().is_there(&task.path));
            }
        }
        Ok(found)
    }

    /// What one incarnation has claimed; costs a listing of its lease directory, however large the spool is.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn claims_of(&self, owner: &Owner) -> Result<Vec<TaskName>, PathError> {
        let mut found = Vec::new();
        let state = State::Claimed(owner.clone());
        let see = &mut |located: Located| found.push(located.name);
        Look::remembered(self.files()).collect(&self.layout().lease(owner), &state, true, see)?;
        Ok(found)
    }

    /// The images that the tasks are to run in which one incarnation has claimed. What has moved meanwhile or is not
    /// valid names none.
    ///
    /// # Errors
    /// The directory cannot be listed, or a task file cannot be read.
    pub fn images_of_claims(&self, owner: &Owner) -> Result<BTreeSet<String>, SpoolError> {
        let mut runs = Vec::new();
        let state = State::Claimed(owner.clone());
        let see = &mut |located: Located| runs.push(located);
        Look::remembered(self.files()).collect(&self.layout().lease(owner), &state, true, see)?;
        runs.retain(may_name_image);
        let mut images = BTreeSet::new();
        for task in &runs {
            images.extend(self.image_of(task)?.unwrap_or_default());
        }
        Ok(images)
    }

    /// What has moved meanwhile or is not valid names none. `None` of a file that no daemon takes (a link, a pipe, somebody
    /// else's): a person may put it right.
    fn image_of(&self, task: &Located) -> Result<Option<Option<String>>, SpoolError> {
        match self.read_task(task) {
            Ok(TaskSpec { work: Work::Run(run), .. }) => Ok(Some(run.image)),
            Ok(_) | Err(SpoolError::Damaged { .. }) => Ok(Some(None)),
            Err(SpoolError::Path(error)) if is_gone(&error.source) => Ok(Some(None)),
            Err(SpoolError::Path(error)) if is_odd(&error.source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The images that tasks are to run in which wait for a worker, a time or a person; of `tasks_max` at most. Gives
    /// whether these were all: more may wait, and some may be in files that no daemon takes. A file is read again only once
    /// it was written since the last look.
    ///
    /// # Errors
    /// A directory cannot be listed, or a task file cannot be read.
    pub fn images_of_waiting(
        &self,
        tasks_max: usize,
        last: &mut WaitingImages,
    ) -> Result<(BTreeSet<String>, bool), SpoolError> {
        let mut runs = Vec::new();
        let mut seen = 0;
        self.visit_places(&[Place::Ledger, Place::Pending, Place::Delayed, Place::Hold], |task| {
            if may_name_image(&task) {
                seen += 1;
                if seen <= tasks_max {
                    runs.push(task);
                }
            }
        })?;
        let mut before = std::mem::take(&mut last.0);
        let mut are_read = true;
        for task in runs {
            // Before it is read: what is written meanwhile is seen the next time.
            let Some(found) = self.files().look(&task.path)? else { continue };
            let image = match before.remove(&task.path) {
                Some((read, image)) if read == found => Some(image),
                _ => self.image_of(&task)?,
            };
            are_read &= image.is_some();
            last.0.extend(image.map(|image| (task.path, (found, image))));
        }
        let images = last.0.values().filter_map(|(_, image)| image.clone()).collect();
        Ok((images, are_read && seen <= tasks_max))
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

impl Spool {
    /// The classes that have something pending, the most urgent first; nothing where none of the classes that ever had
    /// are `of_interest`, for that is one directory to be listed and not all of them.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn pending_work(&self, of_interest: impl Fn(&[Class]) -> bool) -> Result<Vec<Class>, PathError> {
        let (classes, dirs): (Vec<Class>, Vec<PathBuf>) =
            classes(self.files(), &self.layout().pending())?.into_iter().unzip();
        if !of_interest(&classes) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for (class, dir) in classes.into_iter().zip(dirs) {
            // The directories of what was claimed stay for a while.
            let mut has_task = false;
            let pending = State::Pending(class.clone());
            Look::remembered(self.files()).collect(&dir, &pending, true, &mut |_| has_task = true)?;
            if has_task {
                found.push(class);
            }
        }
        Ok(found)
    }
}

/// The class directories below `dir`.
pub(crate) fn classes(files: &Files, dir: &Path) -> Result<Vec<(Class, PathBuf)>, PathError> {
    let mut classes: Vec<(Class, PathBuf)> =
        files.list(dir)?.into_iter().filter_map(|name| Some((name.parse().ok()?, dir.join(&name)))).collect();
    classes.sort();
    Ok(classes)
}

/// Looks at directories as this node remembers them or, where it is to be sure, as they are.
struct Look<'a> {
    files: &'a Files,
    is_sure: bool,
}

impl<'a> Look<'a> {
    fn remembered(files: &'a Files) -> Self {
        Self { files, is_sure: false }
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, PathError> {
        self.make_sure(dir);
        self.files.list(dir)
    }

    fn classes(&self, dir: &Path) -> Result<Vec<(Class, PathBuf)>, PathError> {
        self.make_sure(dir);
        classes(self.files, dir)
    }

    /// What takes no change can only be looked at as it is remembered.
    fn make_sure(&self, dir: &Path) {
        if self.is_sure {
            let _ = self.files.refresh(dir);
        }
    }

    /// Shows the tasks in `dir` and, if `deep`, in its direct subdirectories.
    fn collect(
        &self,
        dir: &Path,
        state: &State,
        deep: bool,
        see: &mut dyn FnMut(Located),
    ) -> Result<(), PathError> {
        for entry in self.list(dir)? {
            let path = dir.join(&entry);
            match entry.parse() {
                Ok(name) => see(Located { state: state.clone(), name, path }),
                Err(_) if deep && !entry.ends_with(".json") => self.collect(&path, state, false, see)?,
                Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Whether a file is refused for what it is, and not because it could not be read just now.
fn is_odd(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(nix::libc::ELOOP)
}

/// Whether its class does not say that it is another kind of work.
fn may_name_image(task: &Located) -> bool {
    let said = match &task.state {
        State::Pending(class) | State::Delayed { class, .. } => Some(class.clone()),
        _ => task.path.parent().and_then(|dir| dir.file_name()?.to_str()?.parse().ok()),
    };
    said.is_none_or(|class| class.work() == "run")
}
