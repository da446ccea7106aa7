use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use uuid::Uuid;

use crate::error::OnPath;
use crate::files::{Files, Moved};
use crate::{Class, Owner, PathError, Spool, SpoolError, TaskId, TaskName, TaskSpec};

/// Tasks in one shard; a directory of this size is still quick to list over NFS.
const SHARD_TASKS_MAX: usize = 4096;

/// Files of a shard written at once: each waits for the disk or the server, which serve many waits together.
const WRITERS: usize = 16;

/// What a publication did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Tasks that are now pending.
    pub published: usize,
    /// Ids that the spool had already, in whatever state; left as they are.
    pub known: Vec<TaskId>,
}

impl Spool {
    /// Makes tasks pending, a whole shard with one rename, so that no reader ever sees half a file.
    /// Ids that the spool knows are skipped. `unique` gives a fresh UUID for each shard's name.
    ///
    /// # Errors
    /// The spool cannot be written; shards published before the error stay published.
    pub fn publish(
        &self,
        tasks: &[TaskSpec],
        producer: &Owner,
        mut unique: impl FnMut() -> Uuid,
    ) -> Result<Published, SpoolError> {
        let _turn = self.publishing_turn()?;
        let mut seen: HashSet<TaskId> = self.all()?.into_iter().map(|located| located.name.id).collect();
        let mut report = Published::default();
        let mut fresh: Vec<(Class, &TaskSpec)> = Vec::new();
        for task in tasks {
            if seen.insert(task.id.clone()) {
                fresh.push((task.class(), task));
            } else {
                report.known.push(task.id.clone());
            }
        }
        fresh.sort_by(|(a, _), (b, _)| a.cmp(b));
        for group in fresh.chunk_by(|(a, _), (b, _)| a == b) {
            for shard in group.chunks(SHARD_TASKS_MAX) {
                let tasks: Vec<&TaskSpec> = shard.iter().map(|(_, task)| *task).collect();
                self.publish_shard(&group[0].0, &tasks, producer, unique())?;
                report.published += tasks.len();
            }
        }
        Ok(report)
    }

    /// Publishers of one node take turns, so that two that are given the same id at once do not both find it
    /// missing. The lock is on a directory: the kernel keeps such a lock to this node, over NFS too.
    fn publishing_turn(&self) -> Result<File, PathError> {
        let dir = self.layout().root().join("tmp");
        let turn = File::open(&dir).on_path("open", &dir)?;
        fs2::FileExt::lock_exclusive(&turn).on_path("lock", &dir)?;
        Ok(turn)
    }

    fn publish_shard(
        &self,
        class: &Class,
        tasks: &[&TaskSpec],
        producer: &Owner,
        unique: Uuid,
    ) -> Result<(), SpoolError> {
        let staged = self.layout().staging(producer).join(unique.simple().to_string());
        self.files().make_dirs(&staged)?;
        let result = self.fill_and_move(class, tasks, &staged);
        if result.is_err() {
            self.files().discard_dir(&staged);
        }
        self.files().remove_if_empty(&self.layout().staging(producer))?;
        result
    }

    fn fill_and_move(&self, class: &Class, tasks: &[&TaskSpec], staged: &Path) -> Result<(), SpoolError> {
        let share = tasks.len().div_ceil(WRITERS).max(1);
        std::thread::scope(|scope| {
            let writers: Vec<_> = tasks
                .chunks(share)
                .map(|tasks| scope.spawn(|| write_tasks(self.files(), tasks, staged)))
                .collect();
            writers.into_iter().try_for_each(|writer| match writer.join() {
                Ok(written) => written,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        self.files().sync_dir(staged)?;
        let class_dir = self.layout().pending_class(class);
        self.files().make_dirs(&class_dir)?;
        let shard = staged.file_name().map(|name| class_dir.join(name)).unwrap_or_default();
        if self.files().rename(staged, &shard)? == Moved::Gone {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(source).on_path("publish", staged)?;
        }
        self.files().sync_dir(&class_dir)?;
        Ok(())
    }
}

fn write_tasks(files: &Files, tasks: &[&TaskSpec], staged: &Path) -> Result<(), SpoolError> {
    for task in tasks {
        let path = staged.join(TaskName::fresh(task.id.clone()).to_string());
        let bytes = serde_json::to_vec_pretty(task)
            .map_err(|source| SpoolError::Json { path: path.clone(), source })?;
        files.write_new(&path, &bytes)?;
    }
    Ok(())
}
