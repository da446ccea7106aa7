use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base_images::{ListedContainer, Which, is_workers_build_step};
use bollard::query_parameters::RemoveContainerOptionsBuilder;
use queue_format::{LABEL_NODE, LABEL_OBJECT, ObjectKind, Owner, SpoolError};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::connect::{Docker, Inner, failed, is_missing};
use super::unlisted::Unlisted;
use super::{BuildRequest, EngineError, RunRequest};
use crate::topology::CpuSet;

/// How often an object's containers are looked for before the janitor is left to it.
const LOOKS_MAX: u32 = 40;
/// How long after a look that found something the next one comes.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// A request that was cut off may still make a container: so long nothing may appear.
const QUIET: Duration = Duration::from_secs(1);
/// How long an engine may take to tell of the end of a build whose steps are ended, and the pause between two looks.
const HEAR_OUT_MAX: Duration = Duration::from_mins(1);
const HEAR_OUT_AGAIN: Duration = Duration::from_millis(20);

/// Removes all containers of one object when dropped: a cancelled future leaves nothing running.
#[derive(Debug)]
pub(super) struct Removal {
    /// Nothing where nothing was made, or nothing is left.
    left: Option<Left>,
    /// Whether the ledger's entry goes with the containers.
    forget: bool,
}

#[derive(Debug)]
struct Left {
    inner: Arc<Inner>,
    object: Uuid,
    kind: ObjectKind,
    /// Where it runs.
    cpus: CpuSet,
    /// The request of a build, until it is hung up.
    request: Option<JoinHandle<()>>,
    /// Where an engine runs builds that it lists nowhere.
    unlisted: Option<Unlisted>,
}

impl Removal {
    /// Of one container, whose entry in the ledger goes with it.
    pub(super) fn of_run(inner: Arc<Inner>, request: &RunRequest) -> Self {
        let (object, kind) = (request.labels.object, request.kind());
        let cpus = request.limits.cpuset_cpus.parse().unwrap_or_default();
        Self { left: Some(Left { inner, object, kind, cpus, request: None, unlisted: None }), forget: true }
    }

    /// Of a build's containers; its images and layers stay, and so does its entry.
    pub(super) fn of_build(inner: Arc<Inner>, request: &BuildRequest) -> Self {
        let group = request.limits.cgroup_parent.as_deref().filter(|_| inner.facts.is_podman);
        let unlisted = group.map(|group| inner.groups.unlisted_below(group));
        let (object, kind) = (request.labels.object, request.kind());
        let cpus = request.limits.cpuset_cpus.parse().unwrap_or_default();
        Self { left: Some(Left { inner, object, kind, cpus, request: None, unlisted }), forget: false }
    }

    /// What is hung up when the build is cut off.
    pub(super) fn hangs_up(&mut self, request: JoinHandle<()>) {
        if let Some(left) = &mut self.left {
            left.request = Some(request);
        }
    }

    /// Nothing was made, or nothing is left.
    pub(super) fn disarm(mut self) {
        if let Some(left) = self.left.take()
            && self.forget
        {
            left.inner.forget(left.object);
        }
    }

    /// Removes one container that is known by its id, the usual end.
    pub(super) async fn of_container(self, id: &str) -> Result<(), EngineError> {
        let removed = match &self.left {
            Some(left) => left.inner.remove_container(id).await,
            None => Ok(()),
        };
        match removed {
            Ok(()) => {
                self.disarm();
                Ok(())
            }
            Err(_) => self.of_all().await,
        }
    }

    /// Removes every container of the object, and looks again until there is none.
    pub(super) async fn of_all(mut self) -> Result<(), EngineError> {
        if let Some(left) = &mut self.left {
            left.remove().await?;
        }
        self.disarm();
        Ok(())
    }

    /// Ends what runs in the slot of a build and is listed nowhere.
    pub(super) async fn of_unlisted(&self) -> Result<(), EngineError> {
        match &self.left {
            Some(left) => left.end_unlisted().await,
            None => Ok(()),
        }
    }
}

impl Left {
    async fn remove(&mut self) -> Result<(), EngineError> {
        if let Some(request) = self.request.take() {
            self.hang_up(request).await;
        }
        let removed = self.inner.remove_object(self.object, &self.kind).await;
        self.end_unlisted().await?;
        removed
    }

    /// An engine that stops a build when its asker hangs up is left at once. Podman would begin the step that it was about
    /// to: it is heard out, while what it begins is ended.
    async fn hang_up(&self, mut request: JoinHandle<()>) {
        if let Some(unlisted) = &self.unlisted {
            let heard_out = async {
                while !request.is_finished() {
                    let _ = unlisted.end().await;
                    let _ = tokio::time::timeout(HEAR_OUT_AGAIN, &mut request).await;
                }
            };
            let _ = tokio::time::timeout(HEAR_OUT_MAX, heard_out).await;
        }
        request.abort();
    }

    async fn end_unlisted(&self) -> Result<(), EngineError> {
        match &self.unlisted {
            Some(unlisted) => unlisted.end().await.map_err(|why| failed("end a build", why)),
            None => Ok(()),
        }
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let Some(mut left) = self.left.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let forget = self.forget;
        left.inner.removals.send_modify(|removals| removals.push(left.cpus.clone()));
        runtime.spawn(async move {
            let object = left.object;
            match left.remove().await {
                Ok(()) if forget => left.inner.forget(object),
                Ok(()) => {}
                Err(error) => tracing::warn!(%object, %error, "something of it is left to the janitor"),
            }
            left.inner.removals.send_modify(|removals| {
                let done = removals.iter().position(|cpus| *cpus == left.cpus);
                done.map(|at| removals.swap_remove(at));
            });
        });
    }
}

impl Docker {
    /// Waits until the containers of dropped runs and builds are gone, of those whose CPUs are `awaited`, `at_most` so
    /// long. Says whether they are. Call it for all before the runtime ends.
    pub async fn settle(&self, at_most: Duration, awaited: impl Fn(&CpuSet) -> bool) -> bool {
        let mut removals = self.inner.removals.subscribe();
        let are_gone = removals.wait_for(|removals| !removals.iter().any(&awaited));
        tokio::time::timeout(at_most, are_gone).await.is_ok()
    }

    /// Removes the containers of an incarnation whose process is gone, so that its cores are free before they are given
    /// out again; those that are to `stay` are gone on with.
    ///
    /// # Errors
    /// The ledger cannot be read, or the engine cannot remove one.
    pub async fn remove_containers_of(&self, gone: &Owner, stay: &HashSet<Uuid>) -> Result<(), EngineError> {
        let entries = self.inner.options.ledger.entries().map_err(SpoolError::from)?;
        let entries: HashMap<Uuid, ObjectKind> = entries
            .into_iter()
            .filter(|entry| entry.owner == *gone && !stay.contains(&entry.object))
            .map(|entry| (entry.object, entry.kind))
            .collect();
        let kind = |labels: &HashMap<String, String>| {
            labels.get(LABEL_OBJECT)?.parse::<Uuid>().ok().and_then(|object| entries.get(&object))
        };
        self.inner.remove_labelled(LABEL_NODE, &gone.to_string(), kind).await?;
        for (object, kind) in &entries {
            self.inner.forget_container(*object, kind);
        }
        Ok(())
    }

    /// Removes the containers of one object of the ledger.
    pub(super) async fn remove_object(&self, object: Uuid) -> Result<(), EngineError> {
        let Some(entry) = self.inner.options.ledger.get(object) else { return Ok(()) };
        self.inner.remove_object(object, &entry.kind).await?;
        self.inner.forget_container(object, &entry.kind);
        Ok(())
    }
}

impl Inner {
    async fn remove_object(&self, object: Uuid, kind: &ObjectKind) -> Result<(), EngineError> {
        self.remove_labelled(LABEL_OBJECT, &object.to_string(), |_| Some(kind)).await
    }

    /// Of builds there may still be images.
    fn forget_container(&self, object: Uuid, kind: &ObjectKind) {
        match kind {
            ObjectKind::Container { .. } => self.forget(object),
            ObjectKind::Build { .. } | ObjectKind::WorkDir { .. } => {}
        }
    }

    /// Removes every container with a label that is truly of the object which its labels name, and looks again until there
    /// is none. `kind` is what that object is; `None`: none that is to go.
    async fn remove_labelled<'a>(
        &self,
        key: &str,
        value: &str,
        kind: impl Fn(&HashMap<String, String>) -> Option<&'a ObjectKind>,
    ) -> Result<(), EngineError> {
        let mut was_quiet = false;
        for _ in 0..LOOKS_MAX {
            let mut is_quiet = true;
            for container in self.list_containers(Which::All, &format!("{key}={value}")).await? {
                let Some(kind) = container.labels.as_ref().and_then(&kind) else { continue };
                // A failure shows in the next look: the builder may be removing it at the same moment.
                match self.is_of(kind, &container).await {
                    Ok(true) => drop(self.remove_container(&container.id).await),
                    Ok(false) => continue,
                    Err(error) => tracing::debug!(container = container.id, %error, "left alone"),
                }
                is_quiet = false;
            }
            if is_quiet && was_quiet {
                return Ok(());
            }
            was_quiet = is_quiet;
            tokio::time::sleep(if was_quiet { QUIET } else { LOOK_AGAIN }).await;
        }
        Err(failed("remove containers", format!("some labelled {key}={value} are still there")))
    }

    /// Whether a container that carries an object's labels is the object's own: by the rule that the janitor goes by too.
    async fn is_of(&self, kind: &ObjectKind, listed: &ListedContainer) -> Result<bool, EngineError> {
        let names = listed.names.iter().flatten().map(|name| name.trim_start_matches('/'));
        let is_build_step = match kind {
            ObjectKind::Build { .. } => {
                self.lookup.container(&listed.id).await?.is_some_and(|found| is_workers_build_step(&found))
            }
            ObjectKind::Container { .. } | ObjectKind::WorkDir { .. } => false,
        };
        Ok(kind.has_container(names, is_build_step))
    }

    /// Kills and removes; a missing container is fine.
    async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.client.remove_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(failed("remove a container", error)),
        }
    }
}
