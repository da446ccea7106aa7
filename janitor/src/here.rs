use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use queue_format::{BuildGate, Ledger, LedgerEntry, Life, LifeLock, LitterKind, NoBuilds, Owner, Reaped};
use systemd::{Notifier, state_file};

use crate::audit::{Audit, Event};
use crate::door::BuildsWait;
use crate::error::{EngineError, JanitorError};
use crate::inventory::{Container, Image, Inventory, Objects, WorkDirState};
use crate::named::NamedImages;
use crate::observe::{Engine, Files, allocated_bytes, look_at_work_dir, open_spool};
use crate::policy::{Candidate, Target};
use crate::show;
use crate::verify::Look;
use crate::world::{LookError, Removal, World};

/// This node.
#[derive(Clone, Debug)]
pub(crate) struct Here {
    pub(crate) files: Arc<Files>,
    pub(crate) engine: Option<Engine>,
    pub(crate) audit: Audit,
}

impl World for Here {
    type Alone = NoBuilds;

    async fn entry_now(&self, entry: &LedgerEntry) -> Result<Option<Inventory>, JanitorError> {
        self.on_files(entry, Files::observe_one).await
    }

    async fn named_images(&self) -> Result<NamedImages, JanitorError> {
        self.on_files(&(), |files, ()| files.named_images()).await
    }

    async fn waiting_images(&self) -> Result<Option<NamedImages>, JanitorError> {
        let (images, are_all) = self.on_files(&(), |files, ()| files.waiting_images()).await?;
        Ok(are_all.then_some(images))
    }

    async fn container(&self, id: &str) -> Result<Option<Container>, LookError> {
        Ok(self.engine()?.container(id).await?)
    }

    async fn container_bytes(&self, id: &str) -> Option<u64> {
        self.engine.as_ref()?.container_bytes(id).await
    }

    async fn image(&self, id: &str) -> Result<Option<Image>, LookError> {
        Ok(self.engine()?.image(id).await?)
    }

    async fn look_at_files(&self, candidate: &Candidate) -> Result<Look, JanitorError> {
        match &candidate.target {
            Target::Lease(owner) => self.on_files(owner, look_at_lease).await,
            Target::Lock(owner) => self.on_files(owner, look_at_lock).await,
            Target::WorkDir(path) => self.on_files(path, look_at_dir).await,
            Target::Litter(path, _) => self.on_files(&(path.clone(), candidate.bytes), look_at_litter).await,
            Target::Mirror(path) => self.on_files(&(path.clone(), candidate.bytes), look_at_mirror).await,
            Target::Entry(_) | Target::Container(_) | Target::Image(_) => Ok(Look::Remove(None)),
        }
    }

    async fn foreign_build(&self) -> Result<Option<String>, LookError> {
        let containers = self.engine()?.running_steps().await?;
        if containers.is_empty() {
            return Ok(None);
        }
        let now = self.on_files(&(), |files, ()| files.ledger_alone()).await?;
        let now = Inventory { objects: Some(Objects { containers, ..Objects::default() }), ..now };
        Ok(now.foreign_build().map(show::container))
    }

    async fn without_builds(&self, wait: BuildsWait) -> Result<Option<NoBuilds>, JanitorError> {
        self.while_alive(self.on_files(&wait, wait_for_builds)).await
    }

    async fn remove_container(&self, id: &str) -> Result<Removal, LookError> {
        Ok(self.engine()?.remove_container(id).await?)
    }

    async fn remove_image(&self, id: &str) -> Result<(Removal, Vec<String>), LookError> {
        Ok(self.engine()?.remove_image(id).await?)
    }

    async fn remove_files(&self, candidate: &Candidate) -> Result<Removal, JanitorError> {
        let is_removed = match &candidate.target {
            Target::Lease(owner) => return self.on_files(owner, take_back).await,
            Target::Lock(owner) => self.on_files(owner, forget_lock).await.map(|()| true)?,
            // On a local disk, and of any size.
            Target::WorkDir(path) => {
                let removed = self.on_files(path, |_, path| remove_dir(path));
                self.while_alive(removed).await.map(|()| true)?
            }
            Target::Litter(path, kind) => self.on_files(&(path.clone(), kind.clone()), discard).await?,
            Target::Mirror(path) => {
                self.while_alive(self.on_files(path, |files, path| files.remove_mirror(path))).await?
            }
            Target::Entry(_) | Target::Container(_) | Target::Image(_) => true,
        };
        Ok(if is_removed { Removal::Done } else { Removal::InUse("it is used again".to_owned()) })
    }

    async fn forget(&self, entry: &LedgerEntry) -> Result<(), JanitorError> {
        self.on_files(entry, |files, entry| Ok(Ledger::open(&files.state_dir)?.forget(entry.object)?)).await
    }

    fn note(
        &self,
        event: Event,
        candidate: &Candidate,
        bytes: Option<u64>,
        detail: Option<&str>,
    ) -> Result<(), JanitorError> {
        self.audit.record((self.files.clock)(), event, candidate, bytes, detail)
    }

    async fn answers(&self) -> bool {
        match &self.engine {
            Some(engine) => engine.answers().await,
            None => false,
        }
    }

    async fn hanging(&self, id: &str) -> Option<String> {
        self.engine.as_ref()?.hanging(id).await
    }

    async fn pause(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

impl Here {
    /// Runs something that blocks on the spool or the node's disk.
    pub(crate) async fn on_files<A, T>(
        &self,
        about: &A,
        ask: fn(&Files, &A) -> Result<T, JanitorError>,
    ) -> Result<T, JanitorError>
    where
        A: Clone + Send + 'static,
        T: Send + 'static,
    {
        let (files, about) = (Arc::clone(&self.files), about.clone());
        tokio::task::spawn_blocking(move || ask(&files, &about)).await?
    }

    async fn while_alive<T>(&self, work: impl Future<Output = T>) -> T {
        while_alive(&self.files.notifier, work).await
    }

    fn engine(&self) -> Result<&Engine, EngineError> {
        let lost = || {
            let source = bollard::errors::Error::IOError { err: io::ErrorKind::NotConnected.into() };
            EngineError::Failed { action: "be reached", source }
        };
        self.engine.as_ref().ok_or_else(lost)
    }
}

/// What takes long and ends by itself; the watchdog hears of it meanwhile.
pub(crate) async fn while_alive<T>(notifier: &Notifier, work: impl Future<Output = T>) -> T {
    let tick = notifier.watchdog_interval().unwrap_or(Duration::MAX);
    let mut work = pin!(work);
    loop {
        notifier.works_on();
        if let Ok(done) = tokio::time::timeout(tick, &mut work).await {
            return done;
        }
    }
}

fn wait_for_builds(files: &Files, wait: &BuildsWait) -> Result<Option<NoBuilds>, JanitorError> {
    let gate = BuildGate::open(&files.state_dir)?;
    Ok(match *wait {
        BuildsWait::Open(at_most) => gate.no_builds_by_chance(at_most)?,
        BuildsWait::Shut(at_most) => gate.no_builds(at_most)?,
    })
}

fn look_at_lease(files: &Files, owner: &Owner) -> Result<Look, JanitorError> {
    Ok(match LifeLock::look(&files.state_dir, owner)? {
        Life::Dead => Look::Remove(None),
        Life::Left => Look::Keep("its worker left its attempts to a successor"),
        Life::Alive | Life::Unknown => Look::Keep("its worker is not proven dead"),
    })
}

fn look_at_lock(files: &Files, owner: &Owner) -> Result<Look, JanitorError> {
    match open_spool(files)?.layout().lease(owner).symlink_metadata() {
        Ok(_) => return Ok(Look::Keep("its lease is there again")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => return Ok(Look::Keep("whether its lease is there cannot be seen")),
    }
    Ok(match LifeLock::look(&files.state_dir, owner)? {
        // Without a lease nobody goes on with what it left.
        Life::Dead | Life::Left => Look::Remove(None),
        Life::Alive | Life::Unknown => Look::Keep("its worker is not proven dead"),
    })
}

fn look_at_dir(files: &Files, path: &PathBuf) -> Result<Look, JanitorError> {
    Ok(match look_at_work_dir(&files.state_dir.join("work"), path) {
        WorkDirState::Inside(found) if found == *path => match state_file::mounted_in(path) {
            Ok(None) => Look::Remove(Some(allocated_bytes(path))),
            Ok(Some(_)) => Look::Wait("something is mounted in it (findmnt tells): unmount that"),
            Err(_) => Look::Wait("whether something is mounted in it cannot be told"),
        },
        WorkDirState::Missing => Look::Gone,
        WorkDirState::Inside(_) | WorkDirState::Outside => {
            Look::Keep("it does not lie where work directories do")
        }
    })
}

fn look_at_litter(_: &Files, (path, bytes): &(PathBuf, Option<u64>)) -> Result<Look, JanitorError> {
    Ok(match path.symlink_metadata() {
        // What it is, the spool looks at again when it removes it.
        Ok(_) => Look::Remove(*bytes),
        Err(_) => Look::Gone,
    })
}

fn look_at_mirror(files: &Files, (path, bytes): &(PathBuf, Option<u64>)) -> Result<Look, JanitorError> {
    Ok(match path.symlink_metadata() {
        Err(_) => Look::Gone,
        Ok(_) if files.mirror_is_held(path) => Look::Keep("somebody reads or fetches it"),
        Ok(_) if files.mirror_rests(path) => Look::Remove(*bytes),
        Ok(_) => Look::Keep("somebody uses it"),
    })
}

fn take_back(files: &Files, owner: &Owner) -> Result<Removal, JanitorError> {
    let reaped = open_spool(files)?.reap(owner)?;
    let tasks = reaped.tasks();
    if !tasks.is_empty() {
        let names: Vec<String> = tasks.iter().map(|name| format!("{} {}", name.id, name.token)).collect();
        tracing::info!(
            "worker {owner} is dead; {} of its tasks run again: {}",
            tasks.len(),
            names.join(", ")
        );
    }
    Ok(taken_back(&reaped))
}

fn taken_back(reaped: &Reaped) -> Removal {
    match reaped {
        Reaped::Closed(_) => Removal::Done,
        Reaped::Open(_) => {
            Removal::InUse("something in it cannot be moved (lsof tells who has it open)".to_owned())
        }
        Reaped::Alive => Removal::InUse("its worker still beats its heart".to_owned()),
    }
}

fn forget_lock(files: &Files, owner: &Owner) -> Result<(), JanitorError> {
    Ok(LifeLock::forget(&files.state_dir, owner)?)
}

fn discard(files: &Files, (path, kind): &(PathBuf, LitterKind)) -> Result<bool, JanitorError> {
    let spool = open_spool(files)?;
    let now = files.spool_time(&spool);
    Ok(spool.discard(path, kind, &files.node, &files.ages, now)?)
}

pub(crate) fn remove_dir(path: &Path) -> Result<(), JanitorError> {
    match state_file::remove_tree(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(JanitorError::State { action: "remove", path: path.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
