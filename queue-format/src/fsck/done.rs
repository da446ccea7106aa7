use std::io::{BufReader, ErrorKind};
use std::path::Path;

use super::finding::{Check, Severity};
use super::items::{Item, look};
use super::run::{Depth, Run};
use crate::error::OnPath;
use crate::{DoneClass, Located, Manifest, PathError, SpoolError, State, TaskName};

/// Bytes of a result that are hashed at once.
const CHUNK_BYTES: usize = 1 << 16;

/// Why a task in `done/` does not stand.
enum Flaw {
    /// Its result is missing or is not what was judged.
    Result(String),
    /// Nobody knows: the file system does not say. No reason to have it done again.
    Reading(PathError),
}

impl Run<'_> {
    /// Accepted tasks: the name tells whose result counts, and that result is there and whole.
    pub(super) fn done(&mut self) -> Result<(), PathError> {
        let done = self.spool.layout().done();
        self.each_in(&done, &mut |run, item| match item.name.parse::<DoneClass>() {
            Ok(class) if item.is_dir => run.done_of(class, &item.path),
            _ => run.unclassed(&item),
        })
    }

    fn done_of(&mut self, class: DoneClass, dir: &Path) -> Result<(), PathError> {
        self.each_in(dir, &mut |run, item| {
            if item.is_dir {
                return run.each_in(&item.path, &mut |run, item| {
                    if item.is_dir {
                        return run.out_of_sight(&item);
                    }
                    run.accepted(class, &item);
                    Ok(())
                });
            }
            run.accepted(class, &item);
            Ok(())
        })
    }

    /// What lies in no class's directory: a task whose result says of which class it is belongs there.
    fn unclassed(&mut self, item: &Item) -> Result<(), PathError> {
        if item.is_dir {
            return self.each_in(&item.path, &mut |run, inner| run.unclassed(&inner));
        }
        let Ok(name) = item.name.parse::<TaskName>() else { return self.out_of_sight(item) };
        let manifest = self.spool.manifest(&name.id, name.token).ok().flatten();
        let Some(class) = manifest.and_then(|manifest| manifest.verdict.done_class()) else {
            return self.out_of_sight(item);
        };
        self.misplaced(class, &name, &item.path);
        Ok(())
    }

    fn misplaced(&mut self, class: DoneClass, name: &TaskName, path: &Path) {
        let bucket = self.spool.layout().done_bucket(class, &name.id);
        let what = format!("it belongs into {}", bucket.display());
        let repair = self.move_task(&name.id, path, bucket.join(name.to_string()));
        self.plan(Severity::Warning, Check::OutOfSight, path, what, "move it there", repair);
    }

    fn accepted(&mut self, class: DoneClass, item: &Item) {
        let Some(task) = &self.task(item, &State::Done(class)) else { return };
        let bucket = self.spool.layout().done_bucket(class, &task.name.id);
        if task.path.parent() != Some(bucket.as_path()) {
            self.misplaced(class, &task.name, &task.path);
            return;
        }
        let found = match self.depth {
            Depth::Contents => self.result(task),
            // A name is enough to tell that a result is there.
            Depth::Names if self.has_manifest(task) => return self.without_owner(task, None),
            Depth::Names => return self.without_result(task, "its result has no manifest.json"),
        };
        // Moved by a person since it was listed, and perhaps its results removed.
        if look(&task.path).is_none() {
            return;
        }
        match found {
            Ok(manifest) if manifest.verdict.done_class() != Some(class) => {
                if let Some(class) = manifest.verdict.done_class() {
                    self.misplaced(class, &task.name, &task.path);
                }
            }
            Ok(manifest) => self.without_owner(task, Some(&manifest)),
            Err(Flaw::Result(why)) => self.without_result(task, &why),
            Err(Flaw::Reading(error)) => self.unreadable(&error),
        }
    }

    /// Whoever saw none before the result was published remembers that for a while; so the server is asked, by a probe
    /// that needs leave to write.
    fn has_manifest(&self, task: &Located) -> bool {
        let manifest = self.spool.layout().attempt(&task.name.id, task.name.token).join(crate::MANIFEST_FILE);
        look(&manifest).is_some() || self.spool.files().is_left(&manifest).unwrap_or(false)
    }

    /// The manifest of an official result, once every file is as it says; else what is wrong.
    fn result(&mut self, task: &Located) -> Result<Manifest, Flaw> {
        let (id, token) = (&task.name.id, task.name.token);
        self.checked.files_read += 1;
        let read = || self.spool.manifest(id, token);
        let manifest = match read() {
            Ok(None) if self.has_manifest(task) => read(),
            read => read,
        };
        let manifest = match manifest {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Err(Flaw::of("its result has no manifest.json")),
            Err(SpoolError::Path(error)) => return Err(error.into()),
            Err(error) => return Err(Flaw::of(format!("its manifest.json is damaged: {error}"))),
        };
        if manifest.id != *id || manifest.token != token {
            return Err(Flaw::of(format!("its manifest.json is of {} {}", manifest.id, manifest.token)));
        }
        if !manifest.verdict.is_success() {
            return Err(Flaw::of("its manifest.json says that the attempt failed"));
        }
        let dir = self.spool.layout().attempt(id, token);
        for (name, digest) in &manifest.files {
            if name.contains('/') || name == ".." {
                return Err(Flaw::of(format!(
                    "its manifest.json names {name:?}, which is no file of the attempt"
                )));
            }
            self.checked.files_read += 1;
            let path = dir.join(name);
            let file = self.spool.files().open_regular(&path)?;
            let mut hasher = blake3::Hasher::new();
            std::io::copy(&mut BufReader::with_capacity(CHUNK_BYTES, file.content), &mut hasher)
                .on_path("read", &path)?;
            if hasher.finalize().to_hex().as_str() != digest {
                return Err(Flaw::of(format!("{name} is not what its manifest says (BLAKE3 {digest})")));
            }
        }
        Ok(manifest)
    }

    fn without_result(&mut self, task: &Located, why: &str) {
        let class = self.spool.class_of(task);
        let to = self.spool.layout().pending_class(&class).join(task.name.settled().to_string());
        let repair = self.move_task(&task.name.id, &task.path, to);
        let remedy = "move it to pending/ to have it done again, under its next token";
        self.plan(Severity::Error, Check::DoneWithoutResult, &task.path, why, remedy, repair);
    }

    fn without_owner(&mut self, task: &Located, manifest: Option<&Manifest>) {
        let Some(owner) = &task.name.owner else {
            let what = "its name does not say whose result counts";
            let named = manifest.map(|manifest| {
                let to = task.path.with_file_name(task.name.done_by(&manifest.owner).to_string());
                self.move_task(&task.name.id, &task.path, to)
            });
            let remedy = "rename it to <id>.<token>@<owner>.r0.json, as the manifest of that token says";
            let repair = named.unwrap_or_default();
            return self.plan(Severity::Error, Check::DoneWithoutOwner, &task.path, what, remedy, repair);
        };
        if let Some(manifest) = manifest.filter(|manifest| manifest.owner != *owner) {
            let what = format!("its name says {owner}, its manifest {}", manifest.owner);
            let remedy = "look at both; if in doubt, move it to pending/ to have it done again";
            self.say(Severity::Error, Check::DamagedResult, &task.path, what, remedy);
        }
    }
}

impl Flaw {
    fn of(why: impl Into<String>) -> Self {
        Self::Result(why.into())
    }
}

impl From<PathError> for Flaw {
    fn from(error: PathError) -> Self {
        match error.source.kind() {
            ErrorKind::NotFound => Self::Result(format!("{} is missing", error.path.display())),
            ErrorKind::InvalidData => Self::Result(error.to_string()),
            _ => Self::Reading(error),
        }
    }
}
