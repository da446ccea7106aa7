//! The last stage: look again, then remove.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jiff::Timestamp;
use queue_format::{BuildGate, Ledger, LedgerEntry, LifeLock, LitterKind, NoBuilds, ObjectKind, Owner};
use systemd::Notifier;

use crate::audit::{Audit, Event};
use crate::error::{EngineError, JanitorError};
use crate::observe::{Engine, Files, Removal, open_spool};
use crate::plan::Plan;
use crate::policy::{Candidate, Target};
use crate::show;
use crate::verify::{Look, LookError, World};

/// How long builds are kept waiting at most, give or take one wave of images.
const ALONE_MAX: Duration = Duration::from_secs(10);

/// Then the door is left open for so long: who waits looks several times in it.
const HAND_OVER: Duration = Duration::from_millis(200);

/// What a pass came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Things removed or forgotten, leases taken back.
    pub removed: usize,
    /// Things that the last look, or the engine, kept.
    pub kept: usize,
    /// Things that could not be removed; the next pass tries again.
    pub failed: usize,
    /// Removals left for later passes, since this one was full.
    pub postponed: usize,
    /// Leftovers whose grace period runs, and images that wait for builds.
    pub waiting: usize,
    /// Things that resisted so often that they are left alone for a while.
    pub stuck: usize,
    /// Bytes freed, as far as that is known.
    pub bytes: u64,
}

/// Carries out one plan.
pub(crate) struct Execution<'a> {
    pub(crate) world: &'a World,
    pub(crate) audit: &'a Audit,
    pub(crate) notifier: &'a Notifier,
    pub(crate) clock: fn() -> Timestamp,
    pub(crate) parallel: usize,
    /// How long builds are waited for before images go.
    pub(crate) builds_wait: Duration,
}

#[derive(Default)]
struct Tally {
    removed: AtomicUsize,
    kept: AtomicUsize,
    failed: AtomicUsize,
    bytes: AtomicU64,
    /// Once the engine has failed, nothing more is asked of it in this pass: every question would take its time-out.
    engine_down: AtomicBool,
    audit_down: AtomicBool,
    resisted: Mutex<Vec<(Target, String)>>,
}

/// What a pass came to, and what resisted.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) report: Report,
    pub(crate) resisted: Vec<(Target, String)>,
}

impl Execution<'_> {
    pub(crate) async fn run(&self, plan: &Plan) -> Done {
        let tally = Tally::default();
        let mut waiting = 0;
        let mut is_refused = false;
        let mut alone: Option<(NoBuilds, Instant)> = None;
        for wave in &plan.waves {
            if wave.iter().any(|candidate| matches!(candidate.target, Target::Image(_))) {
                // Builds that wait meanwhile get their turn in between.
                if alone.as_ref().is_some_and(|(_, since)| since.elapsed() >= ALONE_MAX) {
                    alone = None;
                    tokio::time::sleep(HAND_OVER).await;
                }
                // Who closes the door again and again, a wave after the other, keeps every new build out.
                if alone.is_none() && !is_refused {
                    alone = self.without_builds().await.map(|gate| (gate, Instant::now()));
                    is_refused = alone.is_none();
                }
                if alone.is_none() {
                    waiting += wave.len();
                    continue;
                }
            } else {
                alone = None;
            }
            futures_util::stream::iter(wave)
                .for_each_concurrent(self.parallel, |candidate| async {
                    self.step(candidate, &tally).await;
                    self.notifier.watchdog();
                })
                .await;
        }
        let report = Report {
            removed: tally.removed.into_inner(),
            kept: tally.kept.into_inner(),
            failed: tally.failed.into_inner(),
            bytes: tally.bytes.into_inner(),
            postponed: plan.postponed,
            waiting,
            stuck: 0,
        };
        Done { report, resisted: tally.resisted.into_inner().unwrap_or_else(PoisonError::into_inner) }
    }

    async fn without_builds(&self) -> Option<NoBuilds> {
        let wait = self.builds_wait;
        let asked = self
            .world
            .on_files(&wait, |files, wait| Ok(BuildGate::open(&files.state_dir)?.no_builds(*wait)?));
        match asked.await {
            Ok(None) => {
                tracing::info!("images wait for builds that run");
                None
            }
            Ok(alone) => alone,
            Err(error) => {
                tracing::warn!("{error}; images stay until then");
                None
            }
        }
    }

    async fn step(&self, candidate: &Candidate, tally: &Tally) {
        let needs_engine = matches!(candidate.target, Target::Container(_) | Target::Image(_));
        if needs_engine && tally.engine_down.load(Ordering::Relaxed) {
            tally.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let removed = match self.world.look(candidate).await {
            Ok(Look::Keep(why)) => {
                tracing::debug!("kept: {}: {why}", show::line(candidate, None, (self.clock)()));
                tally.kept.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok(Look::Remove(bytes)) => {
                self.note(Event::Removing, candidate, bytes, None, tally);
                self.remove(candidate).await.map(|removal| (removal, bytes))
            }
            Err(error) => Err(error),
        };
        match removed {
            Ok((Removal::Done | Removal::Gone, bytes)) => {
                let (entry, now) = (candidate.entry.as_ref(), (self.clock)());
                // Fields, so that the journal finds what became of a task or a container.
                tracing::info!(
                    task = entry.map(|entry| display(&entry.task)),
                    token = entry.map(|entry| display(&entry.token)),
                    container = candidate.container(),
                    "{}",
                    show::line(candidate, bytes, now)
                );
                self.note(Event::Removed, candidate, bytes, None, tally);
                tally.removed.fetch_add(1, Ordering::Relaxed);
                tally.bytes.fetch_add(bytes.unwrap_or(0), Ordering::Relaxed);
            }
            Ok((Removal::InUse(why), _)) => {
                tracing::debug!("kept: {}: {why}", show::line(candidate, None, (self.clock)()));
                self.note(Event::Kept, candidate, None, Some(&why), tally);
                tally.kept.fetch_add(1, Ordering::Relaxed);
                tally.resist(candidate, why);
            }
            Err(error) => {
                let mut down = matches!(&error, LookError::Engine(engine) if engine.is_engine_down());
                if down && let Some(engine) = &self.world.engine {
                    // One container that cannot be removed, its process hanging in the kernel, is no dead engine.
                    down = !engine.answers().await;
                }
                // Of eight in flight that fail together, the first speaks.
                if !down || !tally.engine_down.swap(true, Ordering::Relaxed) {
                    tracing::warn!("{} {}: {error}", show::kind(&candidate.target), candidate.name);
                }
                self.note(Event::Failed, candidate, None, Some(&error.to_string()), tally);
                tally.failed.fetch_add(1, Ordering::Relaxed);
                if !down {
                    tally.resist(candidate, error.to_string());
                }
            }
        }
    }

    async fn remove(&self, candidate: &Candidate) -> Result<Removal, LookError> {
        let world = self.world;
        match &candidate.target {
            Target::Container(id) => {
                let removal = engine(world)?.remove_container(id).await?;
                // What the engine keeps must stay ours, or nobody ever removes it.
                if !matches!(removal, Removal::InUse(_))
                    && let Some(entry @ LedgerEntry { kind: ObjectKind::Container { .. }, .. }) =
                        &candidate.entry
                {
                    world.on_files(entry, forget_entry).await?;
                }
                return Ok(removal);
            }
            Target::Image(id) => return Ok(engine(world)?.remove_image(id).await?),
            Target::Lease(owner) => world.on_files(owner, take_back).await?,
            Target::Lock(owner) => world.on_files(owner, forget_lock).await?,
            Target::Litter(path, kind) => {
                return Ok(removal(world.on_files(&(path.clone(), kind.clone()), discard).await?));
            }
            Target::Mirror(path) => {
                let removed = world.on_files(path, |files, path| files.remove_mirror(path)).await?;
                return Ok(removal(removed));
            }
            Target::WorkDir(path) => {
                world.on_files(path, |_, path| remove_dir(path)).await?;
                if let Some(entry) = &candidate.entry {
                    world.on_files(entry, forget_entry).await?;
                }
            }
            Target::Entry(_) => {
                if let Some(entry) = &candidate.entry {
                    world.on_files(entry, forget_entry).await?;
                }
            }
        }
        Ok(Removal::Done)
    }

    /// A log that cannot be written keeps nothing from being removed: on a full disk that is the way out.
    fn note(
        &self,
        event: Event,
        candidate: &Candidate,
        bytes: Option<u64>,
        detail: Option<&str>,
        tally: &Tally,
    ) {
        if let Err(error) = self.audit.record((self.clock)(), event, candidate, bytes, detail)
            && !tally.audit_down.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("{error}");
        }
    }
}

impl Tally {
    fn resist(&self, candidate: &Candidate, why: String) {
        let mut resisted = self.resisted.lock().unwrap_or_else(PoisonError::into_inner);
        resisted.push((candidate.target.clone(), why));
    }
}

fn removal(removed: bool) -> Removal {
    if removed { Removal::Done } else { Removal::InUse("it is used again".to_owned()) }
}

fn discard(files: &Files, (path, kind): &(PathBuf, LitterKind)) -> Result<bool, JanitorError> {
    Ok(open_spool(files)?.discard(path, kind, &files.node, &files.ages, files.system_time())?)
}

fn engine(world: &World) -> Result<&Engine, LookError> {
    let lost = || {
        let source = bollard::errors::Error::IOError { err: std::io::ErrorKind::NotConnected.into() };
        EngineError::Failed { action: "be reached", source }
    };
    Ok(world.engine.as_ref().ok_or_else(lost)?)
}

fn take_back(files: &Files, owner: &Owner) -> Result<(), JanitorError> {
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
    Ok(())
}

fn forget_lock(files: &Files, owner: &Owner) -> Result<(), JanitorError> {
    Ok(LifeLock::forget(&files.state_dir, owner)?)
}

fn forget_entry(files: &Files, entry: &LedgerEntry) -> Result<(), JanitorError> {
    Ok(Ledger::open(&files.state_dir)?.forget(entry.object)?)
}

/// The standard library removes a tree by handles of its directories and follows no link inside it.
pub(crate) fn remove_dir(path: &std::path::Path) -> Result<(), JanitorError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(JanitorError::State { action: "remove", path: path.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}
