use std::collections::{BTreeMap, BTreeSet};

use queue_format::{CHUNK_TASKS_MAX, Known, Owner, Publisher, Spool, SpoolError, TaskId, TaskSpec};
use uuid::Uuid;

use super::Plan;
use super::plan::PlanError;

/// Bytes of tasks held before they are published.
const CHUNK_BYTES_MAX: usize = 64 << 20;

/// Whoever publishes the tasks of a plan.
pub struct Publishing<'a> {
    /// Where to.
    pub spool: &'a Spool,
    /// Who.
    pub producer: &'a Owner,
    /// Whether tasks of this name may be there already, of a run that was cut off.
    pub may_go_on: bool,
}

/// What became of the tasks of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Tasks that are now pending.
    pub published: usize,
    /// Tasks that the spool had already.
    pub known: usize,
    /// The first of all.
    pub first: Option<TaskId>,
}

/// Why not all tasks were published; what was before stays, and is known the next time.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A task cannot be made; with what was published before it.
    #[error("{why}{}", more(published))]
    Plan {
        /// Why.
        why: PlanError,
        /// What is done.
        published: Published,
    },
    /// The name is taken.
    #[error("--name: task {0} is there already and does something else; choose another name")]
    Taken(TaskId),
    /// The spool cannot be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl Publishing<'_> {
    /// Publishes every task of a plan once, however often it is cut off and begun again. `progress` is called after each
    /// chunk; no more than one is in memory.
    ///
    /// # Errors
    /// A task cannot be made, the name is taken, or the spool cannot be written.
    pub fn run(&self, plan: Plan<'_>, mut progress: impl FnMut(&Published)) -> Result<Published, RunError> {
        let name = plan.name().clone();
        let mut known = Known::default();
        let mut done = Published::default();
        let mut chunk = Chunk::new(&name);
        let mut publish = |chunk: &mut Chunk, done: &mut Published| -> Result<(), RunError> {
            let tasks = std::mem::take(&mut chunk.tasks);
            let source = std::mem::replace(chunk, Chunk::new(&name)).source();
            if tasks.is_empty() {
                return Ok(());
            }
            // Each chunk is a source of its own, named by its content: whoever makes the same one again finds it there,
            // and an array that has grown since brings another.
            let mut publisher = Publisher::begin(self.spool, self.producer.clone(), source, &mut known)?;
            if self.may_go_on {
                self.compare(&tasks, &publisher.taken(&tasks))?;
            }
            let report = publisher.publish(0, &tasks)?;
            done.published += report.published;
            done.known += report.known.len();
            done.first.get_or_insert_with(|| tasks[0].id.clone());
            progress(done);
            Ok(())
        };
        for task in plan {
            match task {
                Ok(task) => {
                    chunk.add(task)?;
                    if chunk.tasks.len() >= CHUNK_TASKS_MAX || chunk.bytes >= CHUNK_BYTES_MAX {
                        publish(&mut chunk, &mut done)?;
                    }
                }
                Err(why) => return Err(RunError::Plan { why, published: done }),
            }
        }
        publish(&mut chunk, &mut done)?;
        Ok(done)
    }

    /// A name that is used again goes on with the same work, and never with other.
    fn compare(&self, tasks: &[TaskSpec], taken: &BTreeSet<TaskId>) -> Result<(), RunError> {
        let wanted: BTreeMap<&TaskId, &TaskSpec> = tasks.iter().map(|task| (&task.id, task)).collect();
        for found in self.spool.find_all(taken).map_err(SpoolError::from)? {
            // One that moves just now cannot be read, and is compared the next time.
            let Ok(task) = self.spool.read_task(&found) else { continue };
            if wanted.get(&task.id).is_some_and(|wanted| **wanted != task) {
                return Err(RunError::Taken(task.id));
            }
        }
        Ok(())
    }
}

/// Tasks that are published with one rename, and the digest that names them.
struct Chunk {
    tasks: Vec<TaskSpec>,
    bytes: usize,
    hasher: blake3::Hasher,
}

impl Chunk {
    fn new(name: &TaskId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("bottega run: a chunk of tasks");
        hasher.update(name.as_str().as_bytes());
        Self { tasks: Vec::new(), bytes: 0, hasher }
    }

    fn add(&mut self, task: TaskSpec) -> Result<(), SpoolError> {
        let bytes = serde_json::to_vec(&task)
            .map_err(|source| SpoolError::Json { path: task.id.as_str().into(), source })?;
        self.bytes += bytes.len();
        self.hasher.update(&bytes);
        self.tasks.push(task);
        Ok(())
    }

    fn source(self) -> Uuid {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.hasher.finalize().as_bytes()[..16]);
        Uuid::from_bytes(bytes)
    }
}

fn more(published: &Published) -> String {
    match published.published + published.known {
        0 => "; nothing was published".to_owned(),
        count => format!(
            "; {count} tasks before it were published: mend that and run it again with the same --name"
        ),
    }
}
