//! The images that an engine holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ImageSummary;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptions, ListImagesOptionsBuilder,
    RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use crate::engine::owner::Owner;
use crate::engine::{LABEL_BASE_IMAGE, LABEL_PROVIDER, LABEL_PYTHON, LABEL_RECIPE};
use crate::error::BuildError;
use crate::providers::ProviderKind;
use crate::version::PythonVersion;

/// How often images are listed at most until the engine tells.
const LISTINGS_MAX: usize = 5;

/// One request may carry a whole root or commit a big layer.
const REQUEST_LIMIT: Duration = Duration::from_secs(45 * 60);

/// What an image is called, and a container's name starts with, while it is being made; the owner follows.
///
/// Names, not labels, say who made a thing: whatever stands on an image inherits its labels.
pub(super) const SCRATCH: &str = "bottega-base-image-scratch";

/// A base image in the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvailableImage {
    /// The Python.
    pub python: PythonVersion,
    /// The Python with its patch number; `None` in an image that was not made here.
    pub full_version: Option<String>,
    /// Who brought the interpreter; `None` in an image that was not made here.
    pub provider: Option<ProviderKind>,
    /// The image's id, `sha256:…`.
    pub image_id: String,
    /// Its size with every layer, the shared ones too.
    pub size_bytes: u64,
    /// When it was made, in seconds since 1970.
    pub created_unix_seconds: i64,
}

/// The images that an engine holds. Where one goes while they are listed, Podman and Docker with containerd's store fail the
/// whole list: then it is asked for again.
///
/// # Errors
/// The engine does not answer, or refuses again and again.
pub async fn list_images(docker: &Docker, options: ListImagesOptions) -> Result<Vec<ImageSummary>, Error> {
    for _ in 1..LISTINGS_MAX {
        match docker.list_images(Some(options.clone())).await {
            Err(Error::DockerResponseServerError { .. }) => {}
            listed => return listed,
        }
    }
    docker.list_images(Some(options)).await
}

/// The base images in the engine, by Python; those named `openswe-python-*` with the tag `latest`.
pub async fn available(docker: &Docker) -> Result<Vec<AvailableImage>, BuildError> {
    let images = list_images(docker, ListImagesOptions::default()).await;
    let images = images.map_err(BuildError::engine("list the images"))?;
    let mut available: Vec<AvailableImage> = images.iter().flat_map(pythons_of).collect();
    available.sort_by_key(|image| image.python);
    Ok(available)
}

fn pythons_of(image: &ImageSummary) -> Vec<AvailableImage> {
    let tags = image.repo_tags.iter().filter(|tag| tag.ends_with(":latest"));
    let entry = |python| AvailableImage {
        python,
        full_version: image.labels.get(LABEL_PYTHON).cloned(),
        provider: image.labels.get(LABEL_PROVIDER).and_then(|provider| provider.parse().ok()),
        image_id: image.id.clone(),
        size_bytes: u64::try_from(image.size).unwrap_or_default(),
        created_unix_seconds: image.created,
    };
    tags.filter_map(|tag| PythonVersion::from_image(tag)).map(entry).collect()
}

/// An image as it was found by name or id.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) environment: Vec<String>,
    pub(crate) size_bytes: u64,
}

impl Found {
    pub(crate) fn recipe(&self) -> Option<&str> {
        self.labels.get(LABEL_RECIPE).map(String::as_str)
    }

    /// Whether it was made here, whatever the recipe.
    pub(crate) fn is_ours(&self) -> bool {
        self.labels.contains_key(LABEL_BASE_IMAGE)
    }
}

/// Asks for a moment in which images may be removed: what it gives is held meanwhile, and where it gives nothing, images stay
/// until another time.
pub(crate) type RemovalGate = Arc<dyn Fn() -> Option<Box<dyn Send>> + Send + Sync>;

/// The engine, and in whose name objects are made in it.
pub(crate) struct Engine {
    docker: Docker,
    owner: Owner,
    scratch_count: AtomicU64,
    pub(crate) gate: RemovalGate,
}

impl Engine {
    pub(crate) fn new(docker: Docker) -> Self {
        Self {
            docker: docker.with_timeout(REQUEST_LIMIT),
            owner: Owner::current(),
            scratch_count: AtomicU64::new(0),
            gate: Arc::new(|| Some(Box::new(()))),
        }
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// A new name that tells its owner.
    pub(super) fn scratch_name(&self) -> String {
        format!("{}_{}", self.owner.as_str(), self.scratch_count.fetch_add(1, Ordering::Relaxed))
    }

    /// The image of that name or id, if there is one.
    pub(crate) async fn find(&self, image: &str) -> Result<Option<Found>, BuildError> {
        let inspected = match self.docker.inspect_image(image).await {
            Err(error) if is_absent(&error) => return Ok(None),
            inspected => inspected.map_err(BuildError::engine("inspect an image"))?,
        };
        let config = inspected.config.unwrap_or_default();
        Ok(Some(Found {
            id: inspected.id.unwrap_or_default(),
            labels: config.labels.unwrap_or_default(),
            environment: config.env.unwrap_or_default(),
            size_bytes: inspected.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
        }))
    }

    /// Makes a scratch image of a root's tar stream; `changes` are lines of a Dockerfile.
    pub(crate) async fn import(
        &self,
        archive: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
        changes: Vec<String>,
    ) -> Result<String, BuildError> {
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(SCRATCH)
            .tag(&self.scratch_name())
            .changes(changes)
            .build();
        let mut answers =
            self.docker.create_image(Some(options), Some(bollard::body_try_stream(archive)), None);
        let mut id = None;
        while let Some(answer) = answers.next().await {
            let status = answer.map_err(BuildError::engine("import a root"))?.status;
            id = status.filter(|status| status.starts_with("sha256:")).or(id);
        }
        id.ok_or(BuildError::NoImage { step: "import a root" })
    }

    /// Gives an image a name with the tag `latest`. The image that had it becomes a scratch image, if it was made here.
    pub(crate) async fn tag(&self, image: &str, name: &str) -> Result<(), BuildError> {
        let replaced = self.find(name).await?.filter(|replaced| replaced.id != image && replaced.is_ours());
        if let Some(replaced) = replaced {
            self.name(&replaced.id, SCRATCH, &self.scratch_name()).await?;
        }
        self.name(image, name, "latest").await
    }

    async fn name(&self, image: &str, name: &str, tag: &str) -> Result<(), BuildError> {
        let options = TagImageOptionsBuilder::default().repo(name).tag(tag).build();
        self.docker.tag_image(image, Some(options)).await.map_err(BuildError::engine("tag an image"))
    }

    /// Removes an image unless a tag, a container or another image needs it.
    async fn remove_image(&self, image: &str) {
        let options = RemoveImageOptionsBuilder::default().force(false).build();
        // A refusal is the engine's way to say that it is needed; the next sweep asks again.
        let _ = self.docker.remove_image(image, Some(options), None).await;
    }

    /// Removes what this process and processes that are gone left behind: containers and scratch images.
    pub(crate) async fn sweep(&self) -> Result<(), BuildError> {
        let filters = HashMap::from([("name".to_owned(), vec![SCRATCH.to_owned()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let containers = self.docker.list_containers(Some(options)).await;
        for container in containers.map_err(BuildError::engine("list the containers"))? {
            let names = container.names.unwrap_or_default();
            let abandoned = names.iter().any(|name| self.is_abandoned(name.trim_start_matches('/'), '-'));
            if let Some(id) = container.id.filter(|_| abandoned) {
                self.remove_container(&id).await?;
            }
        }
        let filters = HashMap::from([("reference".to_owned(), vec![SCRATCH.to_owned()])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let images = list_images(&self.docker, options).await;
        let images = images.map_err(BuildError::engine("list the images"))?;
        let tags = images.iter().flat_map(|image| &image.repo_tags);
        let abandoned: Vec<&String> = tags.filter(|tag| self.is_abandoned(tag, ':')).collect();
        if abandoned.is_empty() {
            return Ok(());
        }
        let gate = Arc::clone(&self.gate);
        let moment = tokio::task::spawn_blocking(move || gate()).await.ok().flatten();
        if moment.is_some() {
            for tag in abandoned {
                self.remove_image(tag).await;
            }
        }
        Ok(())
    }

    /// Whether a scratch name is this process's, or of one that is gone.
    fn is_abandoned(&self, name: &str, separator: char) -> bool {
        let scratch = name.strip_prefix(SCRATCH).and_then(|rest| rest.strip_prefix(separator));
        let owner = scratch.and_then(|scratch| scratch.rsplit_once('_')).map(|(owner, _)| owner);
        owner.is_some_and(|owner| owner == self.owner.as_str() || Owner::is_gone(owner))
    }
}

/// Whether the engine says that there is no such object.
pub(super) fn is_absent(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pythons_from_tags() {
        let check = |tags: &[&str], expected: &[&str]| {
            let image = ImageSummary {
                repo_tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                labels: HashMap::from([(LABEL_PROVIDER.to_owned(), "prefix".to_owned())]),
                ..ImageSummary::default()
            };
            let found: Vec<String> =
                pythons_of(&image).iter().map(|image| image.python.to_string()).collect();
            assert_eq!(found, expected);
            assert!(pythons_of(&image).iter().all(|image| image.provider == Some(ProviderKind::Prefix)));
        };
        check(&["openswe-python-3.9:latest"], &["3.9"]);
        check(&["openswe-python-3.9:old", "other:latest"], &[]);
        check(&["openswe-python-3.9:latest", "openswe-python-3.10:latest"], &["3.9", "3.10"]);
        check(&["<none>:<none>"], &[]);
    }
}
