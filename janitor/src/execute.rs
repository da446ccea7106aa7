//! The last stage: look again, then remove.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use futures_util::StreamExt;
use jiff::Timestamp;
use queue_format::{Ledger, LedgerEntry, LifeLock, ObjectKind, Owner};
use systemd::Notifier;

use crate::audit::{Audit, Event};
use crate::error::{EngineError, JanitorError};
use crate::observe::{Engine, Files, Removal, open_spool};
use crate::plan::Plan;
use crate::policy::{Candidate, Target};
use crate::show;
use crate::verify::{Look, LookError, World};

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
    /// Leftovers whose grace period runs.
    pub waiting: usize,
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
}

impl Execution<'_> {
    pub(crate) async fn run(&self, plan: &Plan) -> Report {
        let tally = Tally::default();
        for wave in &plan.waves {
            futures_util::stream::iter(wave)
                .for_each_concurrent(self.parallel, |candidate| async {
                    self.step(candidate, &tally).await;
                    self.notifier.watchdog();
                })
                .await;
        }
        Report {
            removed: tally.removed.into_inner(),
            kept: tally.kept.into_inner(),
            failed: tally.failed.into_inner(),
            bytes: tally.bytes.into_inner(),
            postponed: plan.postponed,
            waiting: 0,
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
            }
            Err(error) => {
                let down = matches!(&error, LookError::Engine(engine) if engine.is_engine_down());
                // Of eight in flight that fail together, the first speaks.
                if !down || !tally.engine_down.swap(true, Ordering::Relaxed) {
                    tracing::warn!("{} {}: {error}", show::kind(&candidate.target), candidate.name);
                }
                self.note(Event::Failed, candidate, None, Some(&error.to_string()), tally);
                tally.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn remove(&self, candidate: &Candidate) -> Result<Removal, LookError> {
        let world = self.world;
        match &candidate.target {
            Target::Container(id) => {
                let removal = engine(world)?.remove_container(id).await?;
                if let Some(entry @ LedgerEntry { kind: ObjectKind::Container { .. }, .. }) = &candidate.entry
                {
                    world.on_files(entry, forget_entry).await?;
                }
                return Ok(removal);
            }
            Target::Image(id) => return Ok(engine(world)?.remove_image(id).await?),
            Target::Lease(owner) => world.on_files(owner, take_back).await?,
            Target::Lock(owner) => world.on_files(owner, forget_lock).await?,
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
fn remove_dir(path: &std::path::Path) -> Result<(), JanitorError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(JanitorError::State { action: "remove", path: path.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}
