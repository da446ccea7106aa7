use std::future::Future;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary, ImageSummary};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use queue_format::Labels;

use crate::error::EngineError;
use crate::inventory::{Container, Image, Objects};

/// Where Docker listens if nobody says otherwise.
const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// Questions about single containers that are in flight at once.
const INSPECTIONS_IN_FLIGHT: usize = 8;

/// How long the size of a container may take to find out; it is only told, nothing depends on it.
const SIZE_TIMEOUT: Duration = Duration::from_secs(5);

/// A container engine that has answered once. Every call has a time-out.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    docker: Docker,
    timeout: Duration,
}

/// What became of a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It is removed.
    Done,
    /// It was gone before.
    Gone,
    /// The engine keeps it, for it is in use.
    InUse(String),
}

impl Engine {
    /// `address` as in `DOCKER_HOST`.
    pub(crate) async fn connect(address: Option<&str>, timeout: Duration) -> Result<Self, EngineError> {
        let address = address.unwrap_or(DEFAULT_ADDRESS);
        let unreachable = |source| EngineError::Unreachable { address: address.to_owned(), source };
        let seconds = timeout.as_secs();
        let version = bollard::API_DEFAULT_VERSION;
        let docker = if address.starts_with("tcp://") || address.starts_with("http://") {
            Docker::connect_with_http(address, seconds, version)
        } else {
            Docker::connect_with_unix(address, seconds, version)
        };
        let docker = docker.map_err(unreachable)?;
        let answer = tokio::time::timeout(timeout, docker.negotiate_version()).await;
        let docker = answer.map_err(|_| EngineError::TimedOut { action: "tell its version", seconds })?;
        Ok(Self { docker: docker.map_err(unreachable)?, timeout })
    }

    /// Everything that it holds.
    pub(crate) async fn list(&self) -> Result<Objects, EngineError> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let summaries = self.call("list containers", self.docker.list_containers(Some(options))).await?;
        let containers = futures_util::stream::iter(summaries)
            .map(|summary| self.complete(summary))
            .buffer_unordered(INSPECTIONS_IN_FLIGHT)
            .try_filter_map(|container| std::future::ready(Ok(container)))
            .try_collect()
            .await?;
        let options = ListImagesOptionsBuilder::new().all(true).build();
        let images = self.call("list images", self.docker.list_images(Some(options))).await?;
        Ok(Objects { containers, images: images.into_iter().map(image_of_summary).collect() })
    }

    /// One container as it is now; `None`: it is gone.
    pub(crate) async fn container(&self, id: &str) -> Result<Option<Container>, EngineError> {
        let options = Some(InspectContainerOptions::default());
        let found =
            self.call("inspect a container", absent(self.docker.inspect_container(id, options))).await?;
        Ok(found.and_then(container_of_inspection))
    }

    /// What a container's own files take; `None` where that is not known soon.
    pub(crate) async fn container_bytes(&self, id: &str) -> Option<u64> {
        let options = Some(InspectContainerOptions { size: true });
        let asked = tokio::time::timeout(SIZE_TIMEOUT, self.docker.inspect_container(id, options)).await;
        asked.ok()?.ok()?.size_rw?.try_into().ok()
    }

    /// One image as it is now; `None`: it is gone. Its parent is not known this way.
    pub(crate) async fn image(&self, id: &str) -> Result<Option<Image>, EngineError> {
        let found = self.call("inspect an image", absent(self.docker.inspect_image(id))).await?;
        Ok(found.map(|found| Image {
            id: found.id.unwrap_or_default(),
            parent_id: None,
            tags: true_tags(found.repo_tags.unwrap_or_default()),
            labels: found.config.and_then(|config| config.labels).unwrap_or_default(),
            created_at: None,
            size_bytes: 0,
        }))
    }

    /// Kills and removes a container with its anonymous volumes.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<Removal, EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        self.removal("remove a container", self.docker.remove_container(id, Some(options))).await
    }

    /// Removes one image and no parent of it; never by force: what uses it keeps it.
    pub(crate) async fn remove_image(&self, id: &str) -> Result<Removal, EngineError> {
        let options = RemoveImageOptionsBuilder::new().force(false).noprune(true).build();
        let removed = async { self.docker.remove_image(id, Some(options), None).await.map(|_| ()) };
        self.removal("remove an image", removed).await
    }

    /// The list says all that is needed, but of a container with our labels: whether it is a step of a build.
    async fn complete(&self, summary: ContainerSummary) -> Result<Option<Container>, EngineError> {
        let (Some(id), labels) = (summary.id, summary.labels.unwrap_or_default()) else { return Ok(None) };
        if Labels::from_map(&labels).is_some() {
            return self.container(&id).await;
        }
        Ok(Some(Container {
            id,
            names: summary.names.unwrap_or_default().iter().map(|name| plain(name)).collect(),
            image_id: summary.image_id.unwrap_or_default(),
            labels,
            created_at: summary.created.and_then(|seconds| Timestamp::from_second(seconds).ok()),
            is_build_step: false,
        }))
    }

    async fn removal(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<(), Error>>,
    ) -> Result<Removal, EngineError> {
        let classified = async {
            match call.await {
                Ok(()) => Ok(Removal::Done),
                Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(Removal::Gone),
                Err(Error::DockerResponseServerError { status_code: 409, message }) => {
                    Ok(Removal::InUse(message))
                }
                Err(error) => Err(error),
            }
        };
        self.call(action, classified).await
    }

    async fn call<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, EngineError> {
        let timed_out = EngineError::TimedOut { action, seconds: self.timeout.as_secs() };
        match tokio::time::timeout(self.timeout, call).await {
            Err(_) | Ok(Err(Error::RequestTimeoutError)) => Err(timed_out),
            Ok(answer) => answer.map_err(|source| EngineError::Failed { action, source }),
        }
    }
}

impl EngineError {
    /// True where nothing more is to be expected of the engine in this pass.
    pub(crate) fn is_engine_down(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Failed { source, .. } => !matches!(source, Error::DockerResponseServerError { .. }),
        }
    }
}

async fn absent<T>(call: impl Future<Output = Result<T, Error>>) -> Result<Option<T>, Error> {
    match call.await {
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

fn container_of_inspection(found: ContainerInspectResponse) -> Option<Container> {
    let is_build_step = is_build_step(&found);
    Some(Container {
        id: found.id?,
        names: found.name.iter().map(|name| plain(name)).collect(),
        image_id: found.image.unwrap_or_default(),
        labels: found.config.and_then(|config| config.labels).unwrap_or_default(),
        created_at: found.created.and_then(|created| created.to_string().parse().ok()),
        is_build_step,
    })
}

/// The classic builder names the image by its id, gives the step no log and no terminal. Whoever starts a
/// container by hand does not do all three.
fn is_build_step(found: &ContainerInspectResponse) -> bool {
    let by_id = |image: &String| image.starts_with("sha256:");
    let config = found.config.as_ref();
    let logs = found.host_config.as_ref().and_then(|host| host.log_config.as_ref()?.typ.as_deref());
    config.is_some_and(|config| {
        config.image.as_ref().is_some_and(by_id)
            && config.tty != Some(true)
            && config.open_stdin != Some(true)
            && logs == Some("none")
    })
}

fn image_of_summary(found: ImageSummary) -> Image {
    Image {
        id: found.id,
        parent_id: Some(found.parent_id).filter(|parent| !parent.is_empty()),
        tags: true_tags(found.repo_tags),
        labels: found.labels,
        created_at: Timestamp::from_second(found.created).ok(),
        size_bytes: found.size.try_into().unwrap_or(0),
    }
}

/// Older engines say `<none>:<none>` where there is no tag.
fn true_tags(mut tags: Vec<String>) -> Vec<String> {
    tags.retain(|tag| !tag.starts_with("<none>"));
    tags
}

fn plain(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}
