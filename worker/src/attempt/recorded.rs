use std::collections::BTreeMap;

use super::journal::Journal;
use crate::engine::{
    BuildEnd, BuildOutcome, BuildRequest, Engine, EngineError, Limits, RunOutcome, RunRequest,
    RunningContainer, digest,
};

/// The engine as one attempt sees it: what was done already, by whichever process, is not done again.
pub struct Recorded<'a, E> {
    engine: &'a E,
    journal: &'a Journal,
}

impl<'a, E: Engine> Recorded<'a, E> {
    /// The engine, with what `journal` knows.
    pub fn new(engine: &'a E, journal: &'a Journal) -> Self {
        Self { engine, journal }
    }

    /// An image may have been removed since it was built.
    async fn is_there(&self, id: &str) -> Result<bool, EngineError> {
        Ok(self.engine.images("").await?.values().any(|there| there == id))
    }
}

impl<E: Engine> Engine for Recorded<'_, E> {
    async fn ping(&self) -> Result<(), EngineError> {
        self.engine.ping().await
    }

    async fn running(&self) -> Result<Vec<RunningContainer>, EngineError> {
        self.engine.running().await
    }

    fn confine(&self, first_cpu: u32, limits: &mut Limits) -> Result<Option<String>, String> {
        self.engine.confine(first_cpu, limits)
    }

    async fn build(&self, request: &BuildRequest) -> Result<BuildOutcome, EngineError> {
        let path = request.context_dir.join("Dockerfile");
        let dockerfile = std::fs::read(&path).map_err(|source| EngineError::Failed {
            action: "read the Dockerfile",
            detail: format!("{}: {source}", path.display()),
        })?;
        let asked = digest(&(request, blake3::hash(&dockerfile).to_hex().as_str()));
        if let Some(known) = self.journal.built(&asked) {
            let is_good = match &known.end {
                BuildEnd::Built(id) => self.is_there(id).await?,
                _ => true,
            };
            if is_good {
                self.journal.continued();
                return Ok(known.clone());
            }
        }
        let outcome = self.engine.build(request).await?;
        self.journal.note_built(asked, &outcome);
        Ok(outcome)
    }

    async fn run(&self, request: &RunRequest) -> Result<RunOutcome, EngineError> {
        let (asked, object) = (digest(request), request.labels.object);
        if let Some(known) = self.journal.ran(&asked) {
            self.journal.continued();
            return Ok(known.clone());
        }
        let adopted = match self.journal.left_running().contains(&object) {
            true => self.engine.adopt(request).await?,
            false => None,
        };
        let outcome = match adopted {
            Some(outcome) => {
                self.journal.continued();
                outcome
            }
            None => {
                self.journal.note_run(object).map_err(|source| EngineError::Failed {
                    action: "keep the attempt's journal",
                    detail: source.to_string(),
                })?;
                self.engine.run(request).await?
            }
        };
        self.journal.note_ran(asked, object, &outcome);
        Ok(outcome)
    }

    async fn adopt(&self, request: &RunRequest) -> Result<Option<RunOutcome>, EngineError> {
        self.engine.adopt(request).await
    }

    async fn images(&self, prefix: &str) -> Result<BTreeMap<String, String>, EngineError> {
        self.engine.images(prefix).await
    }

    async fn tag_image(&self, id: &str, name: &str) -> Result<(), EngineError> {
        self.engine.tag_image(id, name).await
    }

    async fn pull_image(&self, name: &str) -> Result<(), EngineError> {
        self.engine.pull_image(name).await
    }

    async fn remove_image(&self, name: &str) -> Result<(), EngineError> {
        self.engine.remove_image(name).await
    }
}
