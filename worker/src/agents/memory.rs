use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use queue_format::{DoneClass, Located, Spool, State, TaskId, Work};
use serde::{Deserialize, Serialize};
use systemd::state_file;

/// Environments that are remembered of one repository.
const REMEMBERED_MAX: usize = 4;
/// The longest Dockerfile or script that is remembered, in bytes.
const TEXT_BYTES_MAX: usize = 20_000;
/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// An accepted environment of the same repository, shown to agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Whose it is.
    pub task: TaskId,
    /// When that task's pull request was made.
    pub at: Option<Timestamp>,
    /// What it was built from.
    pub dockerfile: String,
    /// How its tests are run.
    pub script: String,
}

/// What this node has seen accepted: a file for each repository, below its state directory. Removing it loses nothing but
/// references.
#[derive(Clone, Debug)]
pub struct Memory {
    dir: PathBuf,
}

impl Memory {
    /// Below a state directory.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("environments") }
    }

    /// The environment whose pull request is nearest in time, of those that are remembered here and of what others know;
    /// the last that was kept where times are not known.
    #[must_use]
    pub fn nearest(
        &self,
        repository: &str,
        task: &TaskId,
        at: Option<Timestamp>,
        elsewhere: Vec<Reference>,
    ) -> Option<Reference> {
        let known = self.read(repository).into_iter().rev().chain(elsewhere);
        known.filter(|known| known.task != *task).min_by_key(|known| match (known.at, at) {
            (Some(one), Some(other)) => one.duration_since(other).unsigned_abs(),
            _ => std::time::Duration::MAX,
        })
    }

    /// Remembers an environment, and forgets the oldest of too many.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn keep(&self, repository: &str, reference: Reference) -> io::Result<()> {
        if reference.dockerfile.len() > TEXT_BYTES_MAX || reference.script.len() > TEXT_BYTES_MAX {
            return Ok(());
        }
        let mut known = self.read(repository);
        known.retain(|other| other.task != reference.task);
        known.push(reference);
        known.drain(..known.len().saturating_sub(REMEMBERED_MAX));
        std::fs::create_dir_all(&self.dir)?;
        state_file::replace(&self.path(repository), &serde_json::to_vec(&known)?, 0o600)
    }

    /// What cannot be read is not known.
    fn read(&self, repository: &str) -> Vec<Reference> {
        let path = self.path(repository);
        let is_small = std::fs::metadata(&path).is_ok_and(|file| file.len() <= FILE_BYTES_MAX);
        let bytes = is_small.then(|| std::fs::read(&path).ok()).flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn path(&self, repository: &str) -> PathBuf {
        let name = blake3::hash(repository.to_ascii_lowercase().as_bytes()).to_hex();
        self.dir.join(format!("{name}.json"))
    }
}

/// What a spool has accepted of the same repository, whichever node made it: those whose ids begin as this task's does, as
/// ids of one repository do, the nearest numbers first. What cannot be read is not known.
#[must_use]
pub fn accepted_in(spool: &Spool, repository: &str, task: &TaskId) -> Vec<Reference> {
    let Some((beginning, number)) = parted(task.as_str()) else { return Vec::new() };
    let mut near: Vec<(u64, Located)> = Vec::new();
    let seen = spool.visit_settled(|located| {
        let State::Done(DoneClass::Accepted(_)) = located.state else { return };
        match parted(located.name.id.as_str()) {
            Some((same, other)) if same == beginning && located.name.id != *task => {
                near.push((other.abs_diff(number), located));
            }
            _ => {}
        }
    });
    if let Err(error) = seen {
        tracing::debug!(%error, "cannot look for environments of the same repository");
    }
    near.sort_by(|one, other| (one.0, &one.1.path).cmp(&(other.0, &other.1.path)));
    let read = |located: &Located| {
        let spec = spool.read_task(located).ok()?;
        let Work::Build(build) = &spec.work else { return None };
        let text = |name: &str| {
            let bytes =
                spool.attempt_file(&spec.id, located.name.token, name, TEXT_BYTES_MAX as u64).ok()??;
            String::from_utf8(bytes).ok()
        };
        let (dockerfile, script) = (text("Dockerfile")?, text("eval_skeleton.sh")?);
        let (task, at) = (spec.id.clone(), build.instance.created());
        let is_same = build.instance.repo.eq_ignore_ascii_case(repository);
        is_same.then_some(Reference { task, at, dockerfile, script })
    };
    near.iter().take(REMEMBERED_MAX).filter_map(|(_, located)| read(located)).collect()
}

/// `owner__name-` and the number.
fn parted(id: &str) -> Option<(&str, u64)> {
    let at = id.rfind('-')? + 1;
    Some((&id[..at], id[at..].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_in_time_is_offered() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::of(dir.path());
        let id = |n: u64| -> TaskId { format!("task-{n}").parse().unwrap() };
        let at = |day: u64| Timestamp::from_second(i64::try_from(day).unwrap() * 86_400).ok();
        for day in [10, 20, 30, 40] {
            let (dockerfile, script) = (format!("FROM {day}"), String::new());
            let reference = Reference { task: id(day), at: at(day), dockerfile, script };
            memory.keep("Owner/name", reference).unwrap();
        }
        let check = |task: u64, day: u64, expected: Option<u64>| {
            let found = memory.nearest("owner/NAME", &id(task), at(day), Vec::new()).map(|found| found.task);
            assert_eq!(found, expected.map(id), "{task} {day}");
        };
        check(1, 19, Some(20));
        check(20, 19, Some(10));
        check(1, 99, Some(40));
        assert_eq!(
            memory.nearest("owner/name", &id(1), None, Vec::new()).map(|found| found.task),
            Some(id(40))
        );
        assert_eq!(memory.nearest("other/name", &id(1), at(1), Vec::new()), None);
        let of_others =
            Reference { task: id(18), at: at(18), dockerfile: String::new(), script: String::new() };
        let found = memory.nearest("owner/name", &id(1), at(17), vec![of_others.clone()]);
        assert_eq!(found, Some(of_others));
        let reference =
            Reference { task: id(50), at: at(50), dockerfile: String::new(), script: String::new() };
        memory.keep("owner/name", reference.clone()).unwrap();
        check(1, 1, Some(20));
        memory.keep("owner/name", Reference { script: "x".repeat(TEXT_BYTES_MAX + 1), ..reference }).unwrap();
        std::fs::write(memory.path("owner/name"), "torn").unwrap();
        check(1, 1, None);
    }
}
