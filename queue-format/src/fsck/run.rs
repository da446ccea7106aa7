use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::finding::{Check, Finding, Severity, Step};
use super::index::{Index, key};
use super::items::{Item, look};
use crate::{Digest, PathError, Spool, SpoolError, TaskId};

/// Findings that come with a repair; after a repair of these a second check finds the others.
const REPAIRS_MAX: usize = 10_000;

/// Leftovers younger than this may still be somebody's.
pub(super) const LEFTOVER_AGE: Duration = Duration::from_secs(3600);

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Names only.
    Names,
    /// Task files and official results too.
    Contents,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// In `pending/`.
    pub pending: usize,
    /// In `delayed/`.
    pub delayed: usize,
    /// In `hold/`.
    pub hold: usize,
    /// In `claimed/`.
    pub claimed: usize,
    /// In `done/`.
    pub done: usize,
    /// In `failed/`.
    pub failed: usize,
    /// Attempts in `results/`.
    pub attempts: usize,
    /// Files whose content was read.
    pub files_read: usize,
}

/// One check of one spool.
pub(super) struct Run<'a> {
    pub(super) spool: &'a Spool,
    pub(super) depth: Depth,
    tell: &'a mut dyn FnMut(Finding),
    /// The server's clock, from a file just made; `None` where none could be made.
    pub(super) now: Option<SystemTime>,
    pub(super) checked: Checked,
    pub(super) index: Index,
    /// Keys of ids that seem to lie in two places: what becomes of such a file is decided once, in the end.
    pub(super) repeated: HashSet<u64>,
    /// Inputs that were told of.
    pub(super) inputs_seen: HashSet<Digest>,
    repairs: usize,
    asides: HashSet<PathBuf>,
}

impl Spool {
    /// Checks the whole spool, and tells of everything that is not as it must be. Changes nothing, but makes a file
    /// in `tmp/` for a moment to ask the server for the time.
    ///
    /// # Errors
    /// A directory that the check cannot do without cannot be listed.
    pub fn fsck(&self, depth: Depth, tell: &mut dyn FnMut(Finding)) -> Result<Checked, SpoolError> {
        let mut run = Run {
            spool: self,
            depth,
            tell,
            now: None,
            checked: Checked::default(),
            index: Index::default(),
            repeated: HashSet::new(),
            inputs_seen: HashSet::new(),
            repairs: 0,
            asides: HashSet::new(),
        };
        match self.server_time() {
            Ok(now) => run.now = Some(now),
            Err(e) => {
                let remedy = "mend that first; how old things are was not checked";
                run.say(Severity::Error, Check::Permissions, &self.layout().tmp(), e.to_string(), remedy);
            }
        }
        self.visit(|task| run.index.add(&task.name.id, task.name.token))?;
        run.index.sort();
        run.repeated = run.index.repeated();
        run.surroundings()?;
        run.places()?;
        run.inputs()?;
        run.daemons()?;
        run.control()?;
        let suspicions = run.results()?;
        run.suspicions(suspicions)?;
        Ok(run.checked)
    }

    /// The server's clock: the time that a file made just now carries.
    ///
    /// # Errors
    /// No file can be made in `tmp/`.
    pub fn server_time(&self) -> Result<SystemTime, PathError> {
        let probe = self.files().stage(&self.layout().tmp())?;
        let found = self.files().look(probe.path())?;
        Ok(found.map_or(SystemTime::UNIX_EPOCH, |found| found.modified))
    }
}

impl Run<'_> {
    /// Tells of a finding that only a person can mend.
    pub(super) fn say(
        &mut self,
        severity: Severity,
        check: Check,
        path: &Path,
        what: impl Into<String>,
        remedy: &str,
    ) {
        self.plan(severity, check, path, what, remedy, Vec::new());
    }

    /// Tells of a finding, with its repair.
    pub(super) fn plan(
        &mut self,
        severity: Severity,
        check: Check,
        path: &Path,
        what: impl Into<String>,
        remedy: &str,
        mut repair: Vec<Step>,
    ) {
        if !repair.is_empty() {
            self.repairs += 1;
            if self.repairs > REPAIRS_MAX {
                repair.clear();
            }
        }
        let (path, what, remedy) = (path.to_owned(), what.into(), remedy.to_owned());
        (self.tell)(Finding { severity, check, path, what, remedy, repair });
    }

    /// The one step of a repair that moves a task, unless its id lies elsewhere too.
    pub(super) fn move_task(&self, id: &TaskId, from: &Path, to: PathBuf) -> Vec<Step> {
        if self.repeated.contains(&key(id)) {
            return Vec::new();
        }
        vec![Step::Move { from: from.to_owned(), to }]
    }

    /// A step that puts a file into `incoming/rejected/`, under a name that is free there.
    pub(super) fn aside(&mut self, from: &Path, reason: &str) -> Step {
        let name = from.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let name = name.trim_start_matches('.').to_owned();
        let dir = self.spool.layout().rejected();
        let mut to = dir.join(&name);
        let mut number = 1;
        while self.asides.contains(&to) || look(&to).is_some() {
            number += 1;
            to = dir.join(format!("{name}.{number}"));
        }
        if self.asides.len() < REPAIRS_MAX {
            self.asides.insert(to.clone());
        }
        Step::Aside { from: from.to_owned(), to, reason: reason.to_owned() }
    }

    /// How long ago something was, by the server's clock; `None` where that is not known.
    pub(super) fn age(&self, then: SystemTime) -> Option<Duration> {
        self.now.map(|now| now.duration_since(then).unwrap_or_default())
    }

    /// Takes care of what daemons never see: dot files and names that are not UTF-8. Gives whether it was one.
    pub(super) fn is_unseen(&mut self, item: &Item) -> bool {
        if !item.is_utf8 {
            let what = "its name is not UTF-8: no daemon sees it";
            self.say(Severity::Error, Check::UnknownName, &item.path, what, "rename it");
            return true;
        }
        if !item.name.starts_with('.') {
            return false;
        }
        let is_staged = [".new-", ".look-", ".doctor-"].iter().any(|start| item.name.starts_with(start));
        if item.is_file && is_staged {
            let modified = look(&item.path).and_then(|found| found.modified().ok());
            let age = modified.and_then(|modified| self.age(modified));
            if age.is_some_and(|age| age > LEFTOVER_AGE) {
                let what = "a file that its writer never gave a name, more than an hour ago";
                let repair = vec![Step::RemoveLeftover { path: item.path.clone() }];
                self.plan(Severity::Note, Check::Leftover, &item.path, what, "remove it", repair);
            }
        } else if !item.name.starts_with(".nfs") {
            let what = "no daemon looks at names that begin with a dot";
            self.say(
                Severity::Note,
                Check::UnknownName,
                &item.path,
                what,
                "remove it, or rename it if it is a task",
            );
        }
        true
    }

    /// Tells of a directory that cannot be listed, and goes on with the next.
    pub(super) fn unreadable(&mut self, error: &PathError) {
        let (path, what) = (error.path.clone(), error.to_string());
        self.say(Severity::Error, Check::Unreadable, &path, what, "let the daemons' user read it");
    }
}
