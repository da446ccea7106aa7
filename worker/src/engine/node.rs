use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use super::{
    BuildOutcome, BuildRequest, Docker, Engine, EngineError, EngineFacts, Limits, RunOutcome, RunRequest,
    RunningContainer,
};

/// The engine of a node, or none where all that it does is run commands without a container.
#[derive(Clone, Debug)]
pub enum NodeEngine {
    /// Docker's API.
    Docker(Docker),
    /// There is none, and nothing is asked of it.
    None,
}

impl NodeEngine {
    /// What the engine is, if there is one.
    #[must_use]
    pub fn facts(&self) -> Option<&EngineFacts> {
        match self {
            Self::Docker(docker) => Some(docker.facts()),
            Self::None => None,
        }
    }

    fn engine(&self, action: &'static str) -> Result<&Docker, EngineError> {
        match self {
            Self::Docker(docker) => Ok(docker),
            Self::None => Err(EngineError::Failed {
                action,
                detail: "this node has none by its configuration (worker.containers)".to_owned(),
            }),
        }
    }
}

impl Engine for NodeEngine {
    async fn ping(&self) -> Result<(), EngineError> {
        match self {
            Self::Docker(docker) => docker.ping().await,
            Self::None => Ok(()),
        }
    }

    async fn running(&self) -> Result<Vec<RunningContainer>, EngineError> {
        match self {
            Self::Docker(docker) => docker.running().await,
            Self::None => Ok(Vec::new()),
        }
    }

    fn confine(&self, first_cpu: u32, limits: &mut Limits) -> Result<Option<String>, String> {
        match self {
            Self::Docker(docker) => docker.confine(first_cpu, limits),
            Self::None => Ok(None),
        }
    }

    async fn clear(&self, cpus: &[u32]) -> Result<(), String> {
        match self {
            Self::Docker(docker) => docker.clear(cpus).await,
            Self::None => Ok(()),
        }
    }

    async fn build(&self, request: &BuildRequest) -> Result<BuildOutcome, EngineError> {
        self.engine("build")?.build(request).await
    }

    async fn run(&self, request: &RunRequest) -> Result<RunOutcome, EngineError> {
        self.engine("run a container")?.run(request).await
    }

    async fn adopt(&self, request: &RunRequest) -> Result<Option<RunOutcome>, EngineError> {
        self.engine("go on with a container")?.adopt(request).await
    }

    async fn remove_left(&self, objects: &HashSet<Uuid>) -> Result<(), EngineError> {
        match self {
            Self::Docker(docker) => docker.remove_left(objects).await,
            Self::None => Ok(()),
        }
    }

    async fn images(&self, prefix: &str) -> Result<BTreeMap<String, String>, EngineError> {
        self.engine("list images")?.images(prefix).await
    }

    async fn tag_image(&self, id: &str, name: &str) -> Result<(), EngineError> {
        self.engine("name an image")?.tag_image(id, name).await
    }

    async fn pull_image(&self, name: &str) -> Result<(), EngineError> {
        self.engine("get an image")?.pull_image(name).await
    }

    async fn remove_image(&self, name: &str) -> Result<(), EngineError> {
        self.engine("remove an image")?.remove_image(name).await
    }
}
