//! One environment: by whichever brain, with a journal that tells all of it where a model was asked.

use queue_format::{Claim, JOURNAL_FILE, Verdict, Work};

use super::Worker;
use super::turn::Interruption;
use crate::agents::{AgentsConfig, Asker, BrainKind, Brains, Budget, Memory, Model, Reference, accepted_in};
use crate::attempt::journal::{Circumstances, Journal};
use crate::attempt::{Attempt, AttemptError, Conclusion, Job, attempt};
use crate::config::WorkerConfig;
use crate::engine::{Engine, EngineError};
use crate::synthesis::BrainError;
use crate::work_dir::on_disk;

impl<E: Engine + 'static> Worker<E> {
    /// Makes an attempt at an environment.
    pub(super) async fn made(
        &self,
        job: &Job<'_, impl Engine>,
        journal: &Journal,
    ) -> Result<Attempt, Interruption> {
        let (shop, instance, memory) = (job.shop, &job.task.instance, Memory::of(&self.state_dir));
        let WorkerConfig { brain, agents, iterations_max, .. } = &shop.config;
        let asks = *brain != BrainKind::Rules;
        // What was offered once is offered again to whoever goes on.
        let known = || {
            let (repository, task) = (&instance.repo, &job.labels.task);
            let elsewhere = on_disk(|| accepted_in(&self.spool, repository, task));
            memory.nearest(repository, task, instance.created(), elsewhere)
        };
        let reference = match journal.circumstances() {
            Some(then) => then.reference.clone(),
            None => asks.then(known).flatten(),
        };
        if asks {
            let agents = AgentsConfig { endpoints: Vec::new(), ..agents.clone() };
            journal.note_circumstances(Circumstances {
                config: WorkerConfig { agents, ..shop.config.clone() },
                pythons: shop.pythons.clone(),
                build_network: shop.build_network,
                reference: reference.clone(),
            });
        }
        let asker = Asker::new(journal, Model::Live(self.llm.clone()), Budget::of(agents));
        let mut brain = Brains::new(*brain, agents, *iterations_max, asker, reference);
        let mut made = attempt(job, &mut brain).await.map_err(|error| match error {
            AttemptError::Brain(BrainError::Away(why)) => Interruption::ModelAway(why),
            AttemptError::Brain(error @ BrainError::Alone(_)) => Interruption::Lacking(error.to_string()),
            AttemptError::Engine(
                error @ (EngineError::Disturbed { .. }
                | EngineError::ShortOfMemory
                | EngineError::Lacking { .. }),
            ) => Interruption::Lacking(error.to_string()),
            error => Interruption::Node(error.to_string()),
        })?;
        if asks {
            let kept = on_disk(|| journal.to_bytes());
            made.files.extend(kept.map(|bytes| (JOURNAL_FILE.to_owned(), bytes)));
        }
        Ok(made)
    }

    /// Remembers an environment that is accepted, and official.
    pub(super) fn remember(&self, claim: &Claim, conclusion: &Conclusion) {
        let (Work::Build(task), Verdict::Accepted { .. }) =
            (&claim.spec().work, &conclusion.manifest.verdict)
        else {
            return;
        };
        let text = |wanted: &str| {
            let (_, bytes) = conclusion.files.iter().find(|(name, _)| name.as_str() == wanted)?;
            String::from_utf8(bytes.clone()).ok()
        };
        let (Some(dockerfile), Some(script)) = (text("Dockerfile"), text("eval_skeleton.sh")) else { return };
        let (of, at) = (claim.name().id.clone(), task.instance.created());
        let reference = Reference { task: of, at, dockerfile, script };
        if let Err(error) = on_disk(|| Memory::of(&self.state_dir).keep(&task.instance.repo, reference)) {
            tracing::warn!(%error, "cannot remember an accepted environment");
        }
    }
}
