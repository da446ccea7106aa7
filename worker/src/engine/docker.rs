use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use base_images::{ListedContainer, Which, list_images, short_name};
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListImagesOptions, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
    TagImageOptionsBuilder,
};
use futures_util::StreamExt;
use queue_format::{LABEL_OBJECT, ObjectKind};
use uuid::Uuid;

use super::connect::{Docker, Inner, failed, is_missing};
use super::{
    BuildEnd, BuildOutcome, BuildRequest, Engine, EngineError, Limits, RunOutcome, RunRequest,
    RunningContainer,
};
use crate::topology::CpuSet;

/// How long a registry may say nothing.
const PULL_SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long what was cut off may keep a slot from its next task.
const SETTLE_MAX: Duration = Duration::from_secs(20);

impl Engine for Docker {
    async fn build(&self, request: &BuildRequest) -> Result<BuildOutcome, EngineError> {
        let builds = self.inner.options.ledger.builds().map_err(queue_format::SpoolError::from)?;
        let building = tokio::task::spawn_blocking(move || builds.build()).await;
        let building =
            building.map_err(|source| failed("build", source))?.map_err(queue_format::SpoolError::from)?;
        let before = self.inner.image_id(&request.image_name).await?;
        let built = self.build_image(request).await?;
        drop(building);
        if let (BuildEnd::Built(id), Some(before)) = (&built.end, before)
            && *id != before
        {
            self.remove_superseded(&before, request).await;
        }
        Ok(built)
    }

    async fn run(&self, request: &RunRequest) -> Result<RunOutcome, EngineError> {
        self.run_container(request).await
    }

    async fn adopt(&self, request: &RunRequest) -> Result<Option<RunOutcome>, EngineError> {
        self.adopt_container(request).await
    }

    async fn remove_left(&self, objects: &HashSet<Uuid>) -> Result<(), EngineError> {
        let mut removed = Ok(());
        for object in objects {
            removed = removed.and(self.remove_object(*object).await);
        }
        removed
    }

    async fn ping(&self) -> Result<(), EngineError> {
        let answer = self.inner.client.ping().await;
        answer.map(|_| ()).map_err(|source| failed("answer a ping", source))
    }

    async fn running(&self) -> Result<Vec<RunningContainer>, EngineError> {
        let mut running = Vec::new();
        for ListedContainer { id, labels, .. } in
            self.inner.list_containers(Which::Running, LABEL_OBJECT).await?
        {
            let object = labels.as_ref().and_then(|labels| labels.get(LABEL_OBJECT)?.parse().ok());
            let Some(object) = object else { continue };
            // A label can be forged; the ledger cannot.
            let Some(entry) = self.inner.options.ledger.get(object) else { continue };
            let Some(found) = self.inner.inspect_container(&id).await? else { continue };
            let cpuset_cpus = found.host_config.and_then(|host| host.cpuset_cpus).unwrap_or_default();
            running.push(RunningContainer { id, object, owner: entry.owner, cpuset_cpus });
        }
        Ok(running)
    }

    fn confine(&self, first_cpu: u32, limits: &mut Limits) -> Result<Option<String>, String> {
        let Inner { facts, groups, .. } = &*self.inner;
        if !facts.is_podman {
            let can_be = facts.limits_build_processes;
            return Ok(can_be.then(|| groups.confine(first_cpu, limits).err()).flatten());
        }
        groups.confine(first_cpu, limits)?;
        if groups.unlisted(&[first_cpu]).can_be_ended() {
            return Ok(None);
        }
        Err(format!(
            "Podman goes on with builds that are cut off, and user {} cannot end them: run bottega-worker prepare as root \
             (cgroup v2), or the worker itself, or use Docker",
            nix::unistd::geteuid()
        ))
    }

    async fn clear(&self, cpus: &[u32]) -> Result<(), String> {
        let of_slot: CpuSet = cpus.iter().copied().collect();
        if !self.settle(SETTLE_MAX, |removed| removed.touches(&of_slot)).await {
            tracing::warn!(
                cpus = %of_slot,
                "containers of an attempt that was cut off are still there: they are left to the janitor"
            );
        }
        match self.inner.facts.is_podman {
            true => self.inner.groups.unlisted(cpus).end().await,
            false => Ok(()),
        }
    }

    async fn images(&self, prefix: &str) -> Result<BTreeMap<String, String>, EngineError> {
        let listed = list_images(&self.inner.client, ListImagesOptions::default()).await;
        let listed = listed.map_err(|source| failed("list images", source))?;
        let mut names = BTreeMap::new();
        for image in listed {
            for tag in image.repo_tags {
                let name = tag.strip_suffix(":latest").unwrap_or(&tag);
                let name = short_name(name, self.inner.facts.is_podman);
                if name.starts_with(prefix) {
                    names.insert(name.to_owned(), image.id.clone());
                }
            }
        }
        Ok(names)
    }

    async fn tag_image(&self, id: &str, name: &str) -> Result<(), EngineError> {
        let options = TagImageOptionsBuilder::new().repo(name).tag("latest").build();
        let tagged = self.inner.client.tag_image(id, Some(options)).await;
        tagged.map_err(|source| failed("name an image", source))
    }

    async fn pull_image(&self, name: &str) -> Result<(), EngineError> {
        let refuse = |detail: String| EngineError::Pull { image: name.to_owned(), detail };
        // Without a tag the engine would get every image of the name.
        let is_exact = name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        let wanted = if is_exact { name.to_owned() } else { format!("{name}:latest") };
        let options = CreateImageOptionsBuilder::new().from_image(&wanted).build();
        let mut progress = std::pin::pin!(self.inner.client.create_image(Some(options), None, None));
        loop {
            match tokio::time::timeout(PULL_SILENCE_MAX, progress.next()).await {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return Err(refuse(error.to_string())),
                Ok(None) => return Ok(()),
                Err(_) => {
                    return Err(refuse(format!(
                        "the registry said nothing for {} s",
                        PULL_SILENCE_MAX.as_secs()
                    )));
                }
            }
        }
    }

    async fn remove_image(&self, name: &str) -> Result<(), EngineError> {
        let builds = self.inner.options.ledger.builds().map_err(queue_format::SpoolError::from)?;
        let alone = builds.no_builds(Duration::ZERO).map_err(queue_format::SpoolError::from)?;
        if alone.is_none() && self.is_last_name(name).await? {
            // A build of another slot that looks at this image meanwhile would fail. It is the janitor's.
            return Ok(());
        }
        let options = RemoveImageOptionsBuilder::new().force(false).noprune(false).build();
        match self.inner.client.remove_image(name, Some(options), None).await {
            Err(error) if !is_missing(&error) => return Err(failed("remove an image", error)),
            _ => {}
        }
        self.forget_builds(name).await
    }
}

impl Docker {
    /// Removes the image that had the tag before, if an earlier build of the same object made it. Without force:
    /// layers that the new image shares stay. What cannot be removed, or not while others build, is the janitor's.
    async fn remove_superseded(&self, id: &str, request: &BuildRequest) {
        let alone = self.inner.options.ledger.builds().and_then(|builds| builds.no_builds(Duration::ZERO));
        let Ok(Some(_alone)) = alone else { return };
        let Ok(image) = self.inner.client.inspect_image(id).await else { return };
        let labels = image.config.and_then(|config| config.labels).unwrap_or_default();
        let is_ours = labels.get(LABEL_OBJECT) == Some(&request.labels.object.to_string());
        if is_ours && image.repo_tags.unwrap_or_default().is_empty() {
            let options = RemoveImageOptionsBuilder::new().force(false).noprune(false).build();
            if let Err(error) = self.inner.client.remove_image(id, Some(options), None).await {
                tracing::debug!(id, %error, "a superseded image is left to the janitor");
            }
        }
    }

    /// Whether an image goes with this name.
    async fn is_last_name(&self, name: &str) -> Result<bool, EngineError> {
        match self.inner.client.inspect_image(name).await {
            Ok(image) => Ok(image.repo_tags.unwrap_or_default().len() <= 1),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(failed("inspect an image", error)),
        }
    }

    /// Forgets the builds of an image of which nothing is left, not even layers.
    async fn forget_builds(&self, name: &str) -> Result<(), EngineError> {
        let ledger = self.inner.options.ledger.clone();
        let entries = tokio::task::spawn_blocking(move || ledger.entries()).await;
        let entries = entries
            .map_err(|source| failed("read the ledger", source))?
            .map_err(queue_format::SpoolError::from)?;
        for entry in entries {
            if !matches!(&entry.kind, ObjectKind::Build { image } if image == name) {
                continue;
            }
            let filter =
                HashMap::from([("label".to_owned(), vec![format!("{LABEL_OBJECT}={}", entry.object)])]);
            let options = ListImagesOptionsBuilder::new().all(true).filters(&filter).build();
            let left = list_images(&self.inner.client, options).await;
            if left.map_err(|source| failed("list images", source))?.is_empty() {
                self.inner.forget(entry.object);
            }
        }
        Ok(())
    }
}
