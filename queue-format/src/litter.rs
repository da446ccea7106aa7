use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::log::owner_of;
use crate::{DoneClass, FailureReason, MANIFEST_FILE, Owner, PathError, Spool, State, TaskId, Token};

/// Things that one look finds at most of each kind; the rest is found once these are gone.
const FOUND_MAX: usize = 1000;

/// Directories that one look goes into at most.
const DIRS_MAX: usize = 20_000;

/// Something that nobody needs any more, in a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Litter {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub kind: LitterKind,
    /// Its size; of a directory, its files' alone.
    pub bytes: u64,
    /// When it was last written.
    pub modified: SystemTime,
}

/// What kind of thing is left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LitterKind {
    /// A file or a directory that was removed, but for its last name; a half-written file, a probe; the empty staging
    /// directory of who is gone.
    Leftover,
    /// What an attempt wrote that never came to its end: without a manifest it is no report of anything.
    VoidResult(TaskId, Token),
    /// What an incarnation did that is long gone.
    OldLog(Owner),
}

/// From which age on things are litter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LitterAges {
    /// Leftovers, and void results.
    pub leftovers: Duration,
    /// Logs of incarnations that are gone.
    pub logs: Duration,
    /// The logs of one node's incarnations that are gone take so many bytes at most, whatever their age.
    pub logs_bytes_max: u64,
}

impl Spool {
    /// What is litter `now`, by the server's clock: leftovers everywhere but in the directories of other results, void
    /// results of the tasks whose ids hash to `bucket`, and logs of `node`. A listing for each of those tasks. Nothing is
    /// litter in a directory that this user may not list.
    ///
    /// # Errors
    /// A directory cannot be listed for another reason.
    pub fn litter(
        &self,
        node: &str,
        bucket: u8,
        ages: &LitterAges,
        now: SystemTime,
    ) -> Result<Vec<Litter>, PathError> {
        let mut found = Vec::new();
        let layout = self.layout();
        let bucket = format!("{bucket:02x}");
        let results = layout.results().join(&bucket);
        let mut dirs = vec![layout.root().to_owned(), layout.logs(), layout.spends(), results.clone()];
        dirs.extend([layout.inputs(), layout.inputs().join(&bucket)]);
        for dir in [layout.nodes(), layout.status(), layout.incoming(), layout.control()] {
            self.dirs_below(dir, 1, &mut dirs)?;
        }
        for dir in [layout.tmp(), layout.pending(), layout.delayed(), layout.hold(), layout.claimed()] {
            self.dirs_below(dir, 2, &mut dirs)?;
        }
        self.dirs_below(layout.ledger(), 3, &mut dirs)?;
        for dir in DoneClass::all().map(|class| layout.done_of(class)) {
            dirs.extend([dir.join(&bucket), dir]);
        }
        for dir in FailureReason::ALL.iter().map(|reason| layout.failed_for(*reason)) {
            dirs.extend([dir.join(&bucket), dir]);
        }
        for dir in &dirs {
            self.leftovers(dir, ages, now, &mut found)?;
        }
        self.empty_staging(ages, now, &mut found)?;
        let (mut of_results, mut logs) = (Vec::new(), Vec::new());
        self.void_results(&results, ages, now, &mut of_results)?;
        self.old_logs(node, ages, now, &mut logs)?;
        // What cannot be removed must not hide the rest.
        Ok([found, of_results, logs]
            .into_iter()
            .flat_map(|of_kind| of_kind.into_iter().take(FOUND_MAX))
            .collect())
    }

    /// Looks again, and removes what still is litter; false where it is not.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn discard(
        &self,
        path: &Path,
        kind: &LitterKind,
        node: &str,
        ages: &LitterAges,
        now: SystemTime,
    ) -> Result<bool, PathError> {
        let mut found = Vec::new();
        let Some(dir) = path.parent() else { return Ok(false) };
        match kind {
            LitterKind::Leftover if dir == self.layout().tmp() && is_owner(path) => {
                self.empty_staging(ages, now, &mut found)?;
            }
            LitterKind::Leftover => {
                self.leftovers(dir, ages, now, &mut found)?;
            }
            LitterKind::VoidResult(id, token) => {
                let void = self.void_result(path, id, *token, ages, now, true)?;
                found.extend(self.not_named(void.into_iter().collect())?);
            }
            LitterKind::OldLog(_) => self.old_logs(node, ages, now, &mut found)?,
        }
        if !found.iter().any(|now| now.path == path && now.kind == *kind) {
            return Ok(false);
        }
        if !self.files().is_dir(path) {
            self.files().remove_file(path)?;
        } else if is_owner(path) {
            return self.files().remove_if_empty(path);
        } else {
            self.files().remove_dir(path)?;
        }
        Ok(true)
    }

    /// A directory, and those below it to a depth, as far as their names can be directories'.
    fn dirs_below(&self, dir: PathBuf, depth: usize, dirs: &mut Vec<PathBuf>) -> Result<(), PathError> {
        if depth > 0 && dirs.len() < DIRS_MAX {
            for name in allowed(self.files().list(&dir))?.unwrap_or_default() {
                let below = dir.join(&name);
                if !name.ends_with(".json") && self.files().is_dir(&below) {
                    self.dirs_below(below, depth - 1, dirs)?;
                }
            }
        }
        dirs.push(dir);
        Ok(())
    }

    /// Of daemons that beat no more, and whose intake was adopted.
    fn empty_staging(
        &self,
        ages: &LitterAges,
        now: SystemTime,
        found: &mut Vec<Litter>,
    ) -> Result<(), PathError> {
        let beating = self.heartbeats()?;
        for name in allowed(self.files().list(&self.layout().tmp()))?.unwrap_or_default() {
            let Ok(owner) = name.parse::<Owner>() else { continue };
            let path = self.layout().staging(&owner);
            let is_empty = allowed(self.files().list(&path))?.is_some_and(|names| names.is_empty());
            if !beating.contains(&owner) && is_empty && self.files().is_dir(&path) {
                found.extend(self.old(path, LitterKind::Leftover, ages.leftovers, now)?);
            }
        }
        Ok(())
    }

    /// False where nobody can tell.
    fn leftovers(
        &self,
        dir: &Path,
        ages: &LitterAges,
        now: SystemTime,
        found: &mut Vec<Litter>,
    ) -> Result<bool, PathError> {
        let Some(names) = allowed(self.files().list_hidden(dir))? else { return Ok(false) };
        for name in names {
            let path = dir.join(&name);
            let is_file = is_silly_rename(&name) || is_staged(&name);
            if is_nameless(&name) || (is_file && self.files().is_file(&path)) {
                found.extend(self.old(path, LitterKind::Leftover, ages.leftovers, now)?);
            }
        }
        Ok(true)
    }

    fn void_results(
        &self,
        bucket: &Path,
        ages: &LitterAges,
        now: SystemTime,
        found: &mut Vec<Litter>,
    ) -> Result<(), PathError> {
        let mut void = Vec::new();
        for id_name in allowed(self.files().list(bucket))?.unwrap_or_default() {
            let Ok(id) = id_name.parse::<TaskId>() else { continue };
            let dir = bucket.join(&id_name);
            if !self.leftovers(&dir, ages, now, found)? {
                continue;
            }
            for token_name in self.files().list(&dir)? {
                let Ok(token) = token_name.parse::<Token>() else { continue };
                let path = dir.join(&token_name);
                if self.leftovers(&path, ages, now, found)? {
                    void.extend(self.void_result(&path, &id, token, ages, now, false)?);
                }
            }
            if found.len() + void.len() >= FOUND_MAX {
                break;
            }
        }
        found.extend(self.not_named(void)?);
        Ok(())
    }

    fn void_result(
        &self,
        path: &Path,
        id: &TaskId,
        token: Token,
        ages: &LitterAges,
        now: SystemTime,
        is_last_look: bool,
    ) -> Result<Option<Litter>, PathError> {
        let kind = LitterKind::VoidResult(id.clone(), token);
        let Some(litter) = self.old(path.to_owned(), kind, ages.leftovers, now)? else { return Ok(None) };
        let manifest = path.join(MANIFEST_FILE);
        // To be sure makes the directory young again: only before its end.
        if self.files().is_there(&manifest) || (is_last_look && self.files().is_there_now(&manifest)?) {
            return Ok(None);
        }
        Ok(Some(litter))
    }

    /// Void results of which no task tells. The attempt may go on, however long ago its directory was made; what is done
    /// or failed is never touched: a dead letter may have its error alone, and no manifest.
    fn not_named(&self, mut void: Vec<Litter>) -> Result<Vec<Litter>, PathError> {
        let attempt = |litter: &Litter| match &litter.kind {
            LitterKind::VoidResult(id, token) => Some((id.clone(), *token)),
            LitterKind::Leftover | LitterKind::OldLog(_) => None,
        };
        let ids = void.iter().filter_map(|litter| Some(attempt(litter)?.0)).collect();
        let is_told = |state: &State| matches!(state, State::Claimed(_) | State::Done(_) | State::Failed(_));
        let tasks = self.find_all(&ids)?.into_iter().filter(|task| is_told(&task.state));
        let named: BTreeSet<(TaskId, Token)> = tasks.map(|task| (task.name.id, task.name.token)).collect();
        void.retain(|litter| attempt(litter).is_some_and(|attempt| !named.contains(&attempt)));
        Ok(void)
    }

    /// By age; and where the rest is too much, the oldest of it.
    fn old_logs(
        &self,
        node: &str,
        ages: &LitterAges,
        now: SystemTime,
        found: &mut Vec<Litter>,
    ) -> Result<(), PathError> {
        let beating: BTreeSet<Owner> =
            self.incarnations()?.into_keys().chain(self.owners_on(node)?).collect();
        let mut logs = BTreeMap::new();
        for name in allowed(self.files().list(&self.layout().logs()))?.unwrap_or_default() {
            let Some(owner) = owner_of(&name) else { continue };
            if owner.node() != node || beating.contains(&owner) {
                continue;
            }
            let path = self.layout().logs().join(&name);
            let log = self.old(path, LitterKind::OldLog(owner), Duration::ZERO, now)?;
            logs.extend(log.map(|log| ((log.modified, log.path.clone()), log)));
        }
        let mut bytes: u64 = logs.values().map(|log| log.bytes).sum();
        for log in logs.into_values() {
            let is_old = now.duration_since(log.modified).is_ok_and(|age| age >= ages.logs);
            if is_old || bytes > ages.logs_bytes_max {
                bytes = bytes.saturating_sub(log.bytes);
                found.push(log);
            }
        }
        Ok(())
    }

    /// What lies there, if it was last written so long ago.
    fn old(
        &self,
        path: PathBuf,
        kind: LitterKind,
        age: Duration,
        now: SystemTime,
    ) -> Result<Option<Litter>, PathError> {
        let Some(entry) = self.files().look(&path)? else { return Ok(None) };
        let is_old = now.duration_since(entry.modified).is_ok_and(|found| found >= age);
        if !is_old {
            return Ok(None);
        }
        let mut bytes = entry.bytes;
        if self.files().is_dir(&path) {
            bytes = 0;
            for name in allowed(self.files().list(&path))?.unwrap_or_default() {
                bytes += self.files().look(&path.join(name))?.map_or(0, |file| file.bytes);
            }
        }
        Ok(Some(Litter { path, kind, bytes, modified: entry.modified }))
    }
}

/// `None` where it is not for this user to list: whoever made it so, the rest of the spool is looked after.
fn allowed(listed: Result<Vec<String>, PathError>) -> Result<Option<Vec<String>>, PathError> {
    match listed {
        Err(error) if error.source.kind() == ErrorKind::PermissionDenied => Ok(None),
        listed => listed.map(Some),
    }
}

/// What NFS clients rename a file to that somebody still has open when it is removed: who dies then leaves it.
fn is_silly_rename(name: &str) -> bool {
    name.strip_prefix(".nfs").is_some_and(is_hex)
}

/// What this crate renames a directory to before it removes it.
fn is_nameless(name: &str) -> bool {
    name.strip_prefix(".gone-").is_some_and(|rest| rest.len() == 32 && is_hex(rest))
}

/// What this crate calls a file until it has its name, and one that only makes a client look.
fn is_staged(name: &str) -> bool {
    let rest = name.strip_prefix(".new-").or_else(|| name.strip_prefix(".look-"));
    rest.is_some_and(|rest| rest.len() == 32 && is_hex(rest))
}

fn is_owner(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()?.parse::<Owner>().ok()).is_some()
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_machines_give_are_leftovers() {
        let check = |name: &str, expected: (bool, bool)| {
            assert_eq!((is_silly_rename(name), is_nameless(name) || is_staged(name)), expected, "{name}");
        };
        check(".nfs00000000012c0b8f00000003", (true, false));
        check(".nfs", (false, false));
        check(".nfs-notes", (false, false));
        check(".nfsd", (true, false));
        check(".gone-0193a1c2d3e4f5061728394a5b6c7d8e", (false, true));
        check(".gone-0193a1c2d3e4f5061728394a5b6c7d8", (false, false));
        check(".gone-0193a1c2-d3e4-f506-1728-394a5b6c7d", (false, false));
        check(".gone-fishing", (false, false));
        check(".new-0193a1c2d3e4f5061728394a5b6c7d8e", (false, true));
        check(".look-0193a1c2d3e4f5061728394a5b6c7d8e", (false, true));
        check(".new-ideas", (false, false));
        check(".look-here", (false, false));
        check("0193a1c2d3e4f5061728394a5b6c7d8e", (false, false));
    }
}
