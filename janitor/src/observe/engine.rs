use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum, EventMessage,
    EventMessageTypeEnum, ImageSummary,
};
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use queue_format::Labels;

use crate::error::EngineError;
use crate::inventory::{Container, Image, Objects};
use crate::uses::Heard;

/// Where Docker listens if nobody says otherwise.
const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// How long an engine may take to say that it lives.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Events that Docker remembers (256 since 1.7): with so many, it may have forgotten some.
const EVENTS_KEPT: usize = 256;

/// Events that are read at once; other engines remember more.
const EVENTS_MAX: usize = 10_000;

/// Questions about single containers that are in flight at once.
const INSPECTIONS_IN_FLIGHT: usize = 8;

/// How long the size of a container may take to find out; it is only told, nothing depends on it.
const SIZE_TIMEOUT: Duration = Duration::from_secs(5);

/// A container engine that has answered once. Every call has a time-out.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    docker: Docker,
    timeout: Duration,
    root_dir: Option<PathBuf>,
    /// What images are made of; that never changes.
    layers: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
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
        let is_local = !address.starts_with("tcp://") && !address.starts_with("http://");
        let docker = if !is_local {
            Docker::connect_with_http(address, seconds, version)
        } else {
            Docker::connect_with_unix(address, seconds, version)
        };
        let docker = docker.map_err(unreachable)?;
        let answer = tokio::time::timeout(timeout, docker.negotiate_version()).await;
        let docker = answer.map_err(|_| EngineError::TimedOut { action: "tell its version", seconds })?;
        let docker = docker.map_err(unreachable)?;
        let mut engine = Self { docker, timeout, root_dir: None, layers: Arc::default() };
        let info = engine.call("tell what it is", engine.docker.info()).await?;
        // Elsewhere, the same path is another disk.
        engine.root_dir = info.docker_root_dir.filter(|_| is_local).map(PathBuf::from);
        Ok(engine)
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
        let mut images: Vec<Image> = images.into_iter().map(image_of_summary).collect();
        self.find_parents(&mut images).await?;
        Ok(Objects { containers, images })
    }

    /// Where it keeps everything, if that is on this machine.
    pub(crate) fn root_dir(&self) -> Option<&Path> {
        self.root_dir.as_deref()
    }

    /// Whether it answers at all.
    pub(crate) async fn answers(&self) -> bool {
        tokio::time::timeout(PING_TIMEOUT, self.docker.ping()).await.is_ok_and(|answer| answer.is_ok())
    }

    /// Which images were used since, as far as it remembers.
    pub(crate) async fn heard(
        &self,
        since: Option<Timestamp>,
        until: Timestamp,
    ) -> Result<Heard, EngineError> {
        let Some(since) = since else { return Ok(Heard::default()) };
        let filters = HashMap::from([("type".to_owned(), vec!["container".to_owned(), "image".to_owned()])]);
        let options = EventsOptionsBuilder::new()
            .since(&since.as_second().to_string())
            .until(&until.as_second().to_string())
            .filters(&filters)
            .build();
        let told = self.docker.events(Some(options)).take(EVENTS_MAX).try_collect::<Vec<_>>();
        let Ok(Ok(told)) = tokio::time::timeout(self.timeout, told).await else {
            // What it does not tell costs nothing but the age of images.
            return Ok(Heard { is_partial: true, uses: Vec::new() });
        };
        let is_partial = told.len() >= EVENTS_KEPT;
        Ok(Heard { uses: told.into_iter().filter_map(use_told).collect(), is_partial })
    }

    /// The parents of images whose engine names none (Docker's containerd store), by what they are made of: an image was
    /// built on the largest other one that is the beginning of it.
    async fn find_parents(&self, images: &mut [Image]) -> Result<(), EngineError> {
        let is_of_interest =
            |image: &Image| image.parent_id.is_none() && Labels::from_map(&image.labels).is_some();
        if !images.iter().any(is_of_interest) {
            return Ok(());
        }
        let known = self.layers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unknown: Vec<&str> =
            images.iter().map(|image| image.id.as_str()).filter(|id| !known.contains_key(*id)).collect();
        let found: Vec<(String, Vec<String>)> = futures_util::stream::iter(unknown)
            .map(|id| async move {
                let found = self.call("inspect an image", absent(self.docker.inspect_image(id))).await?;
                let layers = found.and_then(|image| image.root_fs?.layers).unwrap_or_default();
                Ok::<_, EngineError>((id.to_owned(), layers))
            })
            .buffer_unordered(INSPECTIONS_IN_FLIGHT)
            .try_collect()
            .await?;
        let mut known: BTreeMap<String, Vec<String>> = known;
        known.extend(found);
        known.retain(|id, _| images.iter().any(|image| image.id == *id));
        let orphans: Vec<usize> = (0..images.len()).filter(|at| is_of_interest(&images[*at])).collect();
        for at in orphans {
            images[at].parent_id = parent_by_layers(&images[at].id, &known);
        }
        *self.layers.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
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

    /// The list says all that is needed, but whether a container with our labels, or one that runs, is a step of a build.
    async fn complete(&self, summary: ContainerSummary) -> Result<Option<Container>, EngineError> {
        let (Some(id), labels) = (summary.id, summary.labels.unwrap_or_default()) else { return Ok(None) };
        let is_running = summary.state == Some(ContainerSummaryStateEnum::RUNNING);
        // Builders name images by their ids.
        let may_be_build = is_running && summary.image.is_some_and(|image| image.starts_with("sha256:"));
        if may_be_build || Labels::from_map(&labels).is_some() {
            return self.container(&id).await;
        }
        Ok(Some(Container {
            id,
            names: summary.names.unwrap_or_default().iter().map(|name| plain(name)).collect(),
            image_id: summary.image_id.unwrap_or_default(),
            labels,
            created_at: summary.created.and_then(|seconds| Timestamp::from_second(seconds).ok()),
            is_build_step: false,
            is_running,
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
    let is_running = found.state.as_ref().and_then(|state| state.running) == Some(true);
    Some(Container {
        id: found.id?,
        names: found.name.iter().map(|name| plain(name)).collect(),
        image_id: found.image.unwrap_or_default(),
        labels: found.config.and_then(|config| config.labels).unwrap_or_default(),
        created_at: found.created.and_then(|created| created.to_string().parse().ok()),
        is_build_step,
        is_running,
    })
}

/// An image that a container is made of, or that somebody names.
fn use_told(event: EventMessage) -> Option<(String, Timestamp)> {
    let at = Timestamp::from_second(event.time?).ok()?;
    let actor = event.actor?;
    match event.typ? {
        EventMessageTypeEnum::IMAGE if event.action.as_deref() != Some("delete") => Some((actor.id?, at)),
        EventMessageTypeEnum::CONTAINER => Some((actor.attributes?.remove("image")?, at)),
        _ => None,
    }
}

fn parent_by_layers(id: &str, layers: &BTreeMap<String, Vec<String>>) -> Option<String> {
    let own = layers.get(id).filter(|own| !own.is_empty())?;
    let below = layers.iter().filter(|(other, found)| {
        // Of two that are made of the same, one is the parent of the other, and not both.
        let is_before = found.len() < own.len() || (found.len() == own.len() && other.as_str() < id);
        !found.is_empty() && is_before && own.starts_with(found)
    });
    below.max_by_key(|(other, found)| (found.len(), other.as_str())).map(|(other, _)| other.clone())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_stands_on_the_largest_that_it_begins_with() {
        let layers = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        let all: BTreeMap<String, Vec<String>> = [
            ("base", "ab"),
            ("env", "abc"),
            ("top", "abcd"),
            ("alike", "abcd"),
            ("other", "xb"),
            ("empty", ""),
        ]
        .map(|(id, text)| (id.to_owned(), layers(text)))
        .into();
        let check = |id: &str, expected: Option<&str>| {
            assert_eq!(parent_by_layers(id, &all).as_deref(), expected, "{id}");
        };
        check("base", None);
        check("env", Some("base"));
        check("alike", Some("env"));
        check("top", Some("alike"));
        check("other", None);
        check("empty", None);
        check("gone", None);
    }
}
