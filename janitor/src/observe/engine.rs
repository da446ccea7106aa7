use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base_images::{
    DEFAULT_ADDRESS, ListedContainer, Lookup, LookupError, Unreachable, Which, is_build_step,
    is_workers_build_step, list_images, short_name,
};
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ImageSummary, SystemInfo};
use bollard::query_parameters::{
    InspectContainerOptions, ListImagesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, TopOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use queue_format::Labels;
use serde_json::Value;

use super::hang;
use crate::error::EngineError;
use crate::inventory::{Container, Image, Objects};
use crate::maker::Maker;
use crate::world::Removal;

/// Where containerd keeps everything as a service of its own, and where that listens.
const CONTAINERD_DIR: &str = "/var/lib/containerd";
const CONTAINERD_RUN_DIR: &str = "/run/containerd/";

/// What Docker says of its driver where containerd keeps its images.
const CONTAINERD_SNAPSHOTTER: &str = "io.containerd.snapshotter";

/// How long an engine may take to say that it lives.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Questions about single containers that are in flight at once.
const INSPECTIONS_IN_FLIGHT: usize = 8;

/// How long one of them may take, while the others of the list wait.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the size of a container may take to find out; it is only told, nothing depends on it.
const SIZE_TIMEOUT: Duration = Duration::from_secs(5);

/// A container engine that has answered once. Every call has a time-out.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(super) docker: Docker,
    lookup: Lookup,
    pub(super) timeout: Duration,
    image_dirs: Vec<PathBuf>,
    is_local: bool,
    is_podman: bool,
    /// What images are made of; that never changes.
    layers: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
}

impl Engine {
    /// `address` as in `DOCKER_HOST`.
    pub(crate) async fn connect(address: Option<&str>, timeout: Duration) -> Result<Self, EngineError> {
        let address = address.unwrap_or(DEFAULT_ADDRESS);
        let unreachable = |source| Unreachable { address: address.to_owned(), source };
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
        let version = docker.client_version();
        let version = format!("{}.{}", version.major_version, version.minor_version);
        let lookup = Lookup::new(address, &version)?;
        let is_podman = false;
        let layers = Arc::default();
        let image_dirs = Vec::new();
        let mut engine = Self { docker, lookup, timeout, image_dirs, is_local, is_podman, layers };
        let version = engine.call("tell its version", engine.docker.version()).await?;
        engine.is_podman = version.components.iter().flatten().any(|part| part.name.starts_with("Podman"));
        let info = engine.call("tell what it is", engine.docker.info()).await?;
        // Elsewhere, the same path is another disk.
        if is_local {
            engine.image_dirs = dirs_of_images(&info, Path::new(CONTAINERD_DIR));
        }
        Ok(engine)
    }

    /// Whose store it has, as it is now: another process may have come in its place.
    pub(crate) async fn maker(&self) -> Result<Maker, EngineError> {
        let info = self.call("tell what it is", self.docker.info()).await?;
        let root_dir = info.docker_root_dir.filter(|_| self.is_local).map(PathBuf::from);
        Ok(Maker::new(info.id.filter(|_| !self.is_podman), root_dir.as_deref()))
    }

    /// Everything that it holds.
    pub(crate) async fn list(&self) -> Result<Objects, EngineError> {
        let listed = self.within("list containers", self.lookup.containers(Which::All, None)).await?;
        let containers = futures_util::stream::iter(listed)
            .map(|listed| self.complete(listed))
            .buffer_unordered(INSPECTIONS_IN_FLIGHT)
            .try_filter_map(|container| std::future::ready(Ok(container)))
            .try_collect()
            .await?;
        let options = ListImagesOptionsBuilder::new().all(true).build();
        let images = self.call("list images", list_images(&self.docker, options)).await?;
        let mut images: Vec<Image> = images.into_iter().map(|found| self.image_of_summary(found)).collect();
        self.find_parents(&mut images).await?;
        Ok(Objects { containers, images, takes_parents: self.is_podman })
    }

    /// What runs and may be a step of a build.
    pub(crate) async fn running_steps(&self) -> Result<Vec<Container>, EngineError> {
        let listed = self.within("list containers", self.lookup.containers(Which::Running, None)).await?;
        futures_util::stream::iter(listed.into_iter().filter(is_by_id))
            .map(|listed| self.complete(listed))
            .buffer_unordered(INSPECTIONS_IN_FLIGHT)
            .try_filter_map(|container| std::future::ready(Ok(container)))
            .try_collect()
            .await
    }

    /// Where it keeps images, if that is on this machine.
    pub(crate) fn image_dirs(&self) -> &[PathBuf] {
        &self.image_dirs
    }

    /// Whether it answers at all.
    pub(crate) async fn answers(&self) -> bool {
        tokio::time::timeout(PING_TIMEOUT, self.docker.ping()).await.is_ok_and(|answer| answer.is_ok())
    }

    /// The parents of images whose engine names none (Docker's containerd store), by what they are made of: an image was
    /// built on the largest other one that is the beginning of it.
    async fn find_parents(&self, images: &mut [Image]) -> Result<(), EngineError> {
        let is_of_interest =
            |image: &Image| image.parent_id.is_none() && Labels::from_map(&image.labels).is_some();
        if !images.iter().any(is_of_interest) {
            return Ok(());
        }
        let ids = images.iter().map(|image| image.id.as_str());
        let unknown: Vec<&str> = {
            let known = self.known_layers();
            ids.filter(|id| !known.contains_key(*id)).collect()
        };
        futures_util::stream::iter(unknown)
            .map(|id| async move {
                let asked = self.call("inspect an image", absent(self.docker.inspect_image(id)));
                // One that is broken is asked again next time; until then it seems to stand on nothing, and the engine knows
                // better.
                if let Single::Known(found) = self.single(asked).await? {
                    let layers = found.and_then(|image| image.root_fs?.layers).unwrap_or_default();
                    // At once: others may take too long.
                    self.known_layers().insert(id.to_owned(), layers);
                }
                Ok::<_, EngineError>(())
            })
            .buffer_unordered(INSPECTIONS_IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        let mut known = self.known_layers();
        let ids: HashSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        known.retain(|id, _| ids.contains(id.as_str()));
        let orphans: Vec<usize> = (0..images.len()).filter(|at| is_of_interest(&images[*at])).collect();
        for at in orphans {
            images[at].parent_id = parent_by_layers(&images[at].id, &known);
        }
        Ok(())
    }

    fn known_layers(&self) -> MutexGuard<'_, BTreeMap<String, Vec<String>>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One container as it is now; `None`: it is gone.
    pub(crate) async fn container(&self, id: &str) -> Result<Option<Container>, EngineError> {
        let found = self.within("inspect a container", self.lookup.container(id)).await?;
        Ok(found.as_ref().and_then(container_of_inspection))
    }

    /// Which of a container's processes hangs in the kernel, as far as the engine tells: it sees what the janitor may not.
    pub(crate) async fn hanging(&self, id: &str) -> Option<String> {
        let options = TopOptionsBuilder::new().ps_args(hang::PS_ARGS).build();
        let told = self.docker.top_processes(id, Some(options));
        let told = tokio::time::timeout(INSPECTION_TIMEOUT, told).await.ok()?.ok()?;
        hang::of(&told.processes?)
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
            id: found.id.as_deref().map(full_id).unwrap_or_default(),
            parent_id: None,
            tags: self.true_tags(found.repo_tags.unwrap_or_default()),
            labels: found.config.and_then(|config| config.labels).unwrap_or_default(),
            created_at: found.created.and_then(|at| at.parse().ok()),
            size_bytes: 0,
        }))
    }

    /// Kills and removes a container with its anonymous volumes.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<Removal, EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        self.removal("remove a container", self.docker.remove_container(id, Some(options))).await
    }

    /// Removes one image and no parent of it, as far as the engine heeds that; never by force: what uses it keeps it. Gives
    /// all that went.
    pub(crate) async fn remove_image(&self, id: &str) -> Result<(Removal, Vec<String>), EngineError> {
        let options = RemoveImageOptionsBuilder::new().force(false).noprune(true).build();
        let mut went = Vec::new();
        let removed = async {
            let deleted = self.docker.remove_image(id, Some(options), None).await?;
            went.extend(deleted.into_iter().filter_map(|one| one.deleted).map(|id| full_id(&id)));
            Ok(())
        };
        Ok((self.removal("remove an image", removed).await?, went))
    }

    /// The list says all that is needed, but whether a container with our labels, or one that runs, is a step of a build.
    async fn complete(&self, listed: ListedContainer) -> Result<Option<Container>, EngineError> {
        let is_running = listed.state.as_deref() == Some("running");
        let may_be_build = is_running && is_by_id(&listed);
        let labels = listed.labels.unwrap_or_default();
        let found = Container {
            id: listed.id,
            names: listed.names.unwrap_or_default().iter().map(|name| plain(name)).collect(),
            image_id: listed.image_id.as_deref().map(full_id).unwrap_or_default(),
            created_at: listed.created.and_then(|seconds| Timestamp::from_second(seconds).ok()),
            is_running,
            ..Container::default()
        };
        if !may_be_build && Labels::from_map(&labels).is_none() {
            return Ok(Some(Container { labels, ..found }));
        }
        match self.single(self.container(&found.id)).await? {
            Single::Known(container) => Ok(container),
            // Without a name nothing proves it ours: it stays, and what it may need, its entry in the ledger too.
            Single::Broken => {
                let is_others_step = may_be_build;
                Ok(Some(Container { names: Vec::new(), labels, is_others_step, ..found }))
            }
        }
    }

    fn image_of_summary(&self, found: ImageSummary) -> Image {
        Image {
            id: full_id(&found.id),
            parent_id: Some(full_id(&found.parent_id)).filter(|parent| !parent.is_empty()),
            tags: self.true_tags(found.repo_tags),
            labels: found.labels,
            created_at: Timestamp::from_second(found.created).ok(),
            size_bytes: found.size.try_into().unwrap_or(0),
        }
    }

    /// Older engines say `<none>:<none>` where there is no tag; Podman says in full where a name comes from.
    fn true_tags(&self, mut tags: Vec<String>) -> Vec<String> {
        tags.retain(|tag| !tag.starts_with("<none>"));
        tags.iter().map(|tag| short_name(tag, self.is_podman).to_owned()).collect()
    }

    /// The answer about one thing of many: what cannot be told of it must not hide the others.
    async fn single<T>(
        &self,
        asked: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<Single<T>, EngineError> {
        let limit = INSPECTION_TIMEOUT.min(self.timeout);
        let error = match tokio::time::timeout(limit, asked).await {
            Ok(Ok(found)) => return Ok(Single::Known(found)),
            Ok(Err(error)) => error,
            Err(_) => EngineError::TimedOut { action: "inspect", seconds: limit.as_secs() },
        };
        if error.is_engine_down() && !self.answers().await {
            return Err(error);
        }
        tracing::debug!("left alone: {error}");
        Ok(Single::Broken)
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
        let call = async {
            match call.await {
                Err(Error::RequestTimeoutError) => Err(self.timed_out(action)),
                answer => answer.map_err(|source| EngineError::Failed { action, source }),
            }
        };
        self.within(action, call).await
    }

    async fn within<T, E>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, EngineError>
    where
        EngineError: From<E>,
    {
        let answer = tokio::time::timeout(self.timeout, call).await;
        Ok(answer.map_err(|_| self.timed_out(action))??)
    }

    fn timed_out(&self, action: &'static str) -> EngineError {
        EngineError::TimedOut { action, seconds: self.timeout.as_secs() }
    }
}

/// What is known of one thing.
enum Single<T> {
    Known(T),
    /// The engine does not tell.
    Broken,
}

impl EngineError {
    /// True where nothing more is to be expected of the engine in this pass.
    pub(crate) fn is_engine_down(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut { .. } => true,
            Self::Failed { source, .. } => !matches!(source, Error::DockerResponseServerError { .. }),
            Self::Lookup(source) => matches!(source, LookupError::Unanswered { .. }),
        }
    }
}

/// With containerd's image store these lie where containerd keeps everything, beside where Docker does.
fn dirs_of_images(info: &SystemInfo, containerd_dir: &Path) -> Vec<PathBuf> {
    let is_containerds = |row: &Vec<String>| row.iter().any(|word| word.starts_with(CONTAINERD_SNAPSHOTTER));
    let address = info.containerd.as_ref().and_then(|containerd| containerd.address.as_deref());
    // One that dockerd has started for itself keeps all below dockerd's own directory.
    let is_service = address.is_none_or(|address| address.starts_with(CONTAINERD_RUN_DIR));
    let has_own_dir = is_service && info.driver_status.iter().flatten().any(is_containerds);
    let own_dir = has_own_dir.then(|| containerd_dir.to_owned()).filter(|dir| dir.exists());
    info.docker_root_dir.iter().map(PathBuf::from).chain(own_dir).collect()
}

/// Builders name images by their ids.
fn is_by_id(listed: &ListedContainer) -> bool {
    listed.image.as_ref().is_some_and(|image| image.starts_with("sha256:"))
}

async fn absent<T>(call: impl Future<Output = Result<T, Error>>) -> Result<Option<T>, Error> {
    match call.await {
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

fn container_of_inspection(found: &Value) -> Option<Container> {
    let text = |path: &str| found.pointer(path).and_then(Value::as_str);
    let labels = found.pointer("/Config/Labels").and_then(Value::as_object);
    let label = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    Some(Container {
        id: text("/Id")?.to_owned(),
        names: text("/Name").map(plain).into_iter().collect(),
        // Podman leaves out what it is a digest of.
        image_id: text("/Image").map(full_id).unwrap_or_default(),
        labels: labels.into_iter().flatten().filter_map(label).collect(),
        created_at: text("/Created").and_then(|created| created.parse().ok()),
        is_build_step: is_workers_build_step(found),
        is_others_step: is_build_step(found) && !is_workers_build_step(found),
        is_running: found.pointer("/State/Running").and_then(Value::as_bool) == Some(true),
        is_removing: text("/State/Status") == Some("removing"),
    })
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

/// Podman gives ids of images without their kind.
fn full_id(id: &str) -> String {
    match id.contains(':') || id.is_empty() {
        true => id.to_owned(),
        false => format!("sha256:{id}"),
    }
}

fn plain(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_lie_where_the_store_is_that_keeps_them() {
        let dir = tempfile::tempdir().expect("dir");
        let check = |driver: &str, address: Option<&str>, has_own_dir: bool| {
            let info = serde_json::json!({
                "DockerRootDir": "/data/docker",
                "DriverStatus": [["driver-type", driver]],
                "Containerd": address.map(|address| serde_json::json!({"Address": address})),
            });
            let info: SystemInfo = serde_json::from_value(info).expect("an answer");
            let mut expected = vec![PathBuf::from("/data/docker")];
            assert_eq!(dirs_of_images(&info, &dir.path().join("gone")), expected, "{driver}");
            expected.extend(has_own_dir.then(|| dir.path().to_owned()));
            assert_eq!(dirs_of_images(&info, dir.path()), expected, "{driver} {address:?}");
        };
        check("overlay2", None, false);
        check("io.containerd.snapshotter.v1", None, true);
        check("io.containerd.snapshotter.v1", Some("/run/containerd/containerd.sock"), true);
        check("io.containerd.snapshotter.v1", Some("/var/run/docker/containerd/containerd.sock"), false);
    }

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
