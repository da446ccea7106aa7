//! The last stage: look again, then remove.

use std::collections::HashSet;
use std::future::ready;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jiff::Timestamp;
use queue_format::{LedgerEntry, ObjectKind, image_name};
use systemd::Notifier;

use crate::audit::Event;
use crate::breaker::{self, Budget};
use crate::door::BuildsWait;
use crate::ending::{Alone, Ending};
use crate::error::EngineError;
use crate::named::NamedImages;
use crate::plan::Plan;
use crate::policy::{Candidate, Target};
use crate::show;
use crate::verify::Look;
use crate::world::{LookError, Removal, World};

/// How long builds are kept waiting at most, give or take what is in flight.
pub(crate) const ALONE_MAX: Duration = Duration::from_secs(10);

/// Then the door is left open for so long: who waits looks several times in it.
const HAND_OVER: Duration = Duration::from_millis(200);

/// How long builds wait for an image whose removal the engine was too slow for: far shorter than until they give up.
pub(crate) const SETTLE_MAX: Duration = Duration::from_secs(120);

/// The pause between two looks at such an image.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);

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

impl Report {
    /// What two passes of one run came to: what was done or failed adds up, what waits is what the second one left.
    pub(crate) fn after(self, first: Self) -> Self {
        Self {
            removed: first.removed + self.removed,
            kept: first.kept + self.kept,
            failed: first.failed + self.failed,
            bytes: first.bytes + self.bytes,
            ..self
        }
    }
}

/// Carries out one plan.
pub(crate) struct Execution<'a, W: World> {
    pub(crate) world: &'a W,
    pub(crate) notifier: &'a Notifier,
    pub(crate) clock: fn() -> Timestamp,
    pub(crate) parallel: usize,
    /// How a moment without builds is waited for before images go.
    pub(crate) builds_wait: BuildsWait,
    /// How long further moments are waited for, once one was got behind a shut door: that stays open for the rest of the pass.
    pub(crate) open_wait: Duration,
    /// How long builds that come then are kept waiting.
    pub(crate) alone_max: Duration,
    /// Whether more tasks wait than are asked for their images, and the plan goes by that already.
    pub(crate) more_wait: bool,
    /// Once it is asked for, nothing more is begun.
    pub(crate) ending: &'a Ending,
}

#[derive(Default)]
struct Tally {
    removed: AtomicUsize,
    /// Those of the removals that count for the breaker.
    counted: Mutex<Vec<Budget>>,
    kept: AtomicUsize,
    failed: AtomicUsize,
    bytes: AtomicU64,
    /// Once the engine has failed, nothing more is asked of it in this pass: every question would take its time-out.
    engine_down: AtomicBool,
    /// No more images go in this pass.
    images_over: AtomicBool,
    /// Whether a moment without builds was found, and whether one was not.
    was_alone: AtomicBool,
    builds_ran: AtomicBool,
    /// Whether an image was looked at in such a moment.
    images_tried: AtomicBool,
    audit_down: AtomicBool,
    resisted: Mutex<Vec<(Target, String)>>,
    settled: Mutex<Vec<Target>>,
    /// The images that the engine said had gone.
    went: Mutex<HashSet<String>>,
}

/// A moment in which images may go.
struct Moment<A> {
    /// While it is held, no build of ours begins.
    alone: Alone<A>,
    /// The images that tasks are to run in which wait.
    waiting: NamedImages,
}

/// What a pass came to, what resisted, and which files and directories are gone, or stay for now.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) report: Report,
    /// Those of the removals that count for the breaker.
    pub(crate) counted: Vec<Budget>,
    /// Whether a moment without builds was found, where one was looked for.
    pub(crate) was_alone: Option<bool>,
    /// Whether an image was looked at in such a moment, and went if it still was to go.
    pub(crate) images_tried: bool,
    pub(crate) resisted: Vec<(Target, String)>,
    pub(crate) settled: Vec<Target>,
}

impl<W: World> Execution<'_, W> {
    pub(crate) async fn run(&self, plan: &Plan) -> Done {
        let tally = Tally::default();
        let mut waiting = 0;
        let mut alone = None;
        for wave in &plan.waves {
            if wave.iter().any(|candidate| matches!(candidate.target, Target::Image(_))) {
                waiting += self.images(wave, &mut alone, &tally).await;
            } else {
                alone = None;
                self.steps(wave, &NamedImages::default(), &tally, |_| true).await;
            }
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
        let was_alone = match (tally.builds_ran.into_inner(), tally.was_alone.into_inner()) {
            (true, _) => Some(false),
            (false, true) => Some(true),
            (false, false) => None,
        };
        let resisted = tally.resisted.into_inner().unwrap_or_else(PoisonError::into_inner);
        let settled = tally.settled.into_inner().unwrap_or_else(PoisonError::into_inner);
        let counted = tally.counted.into_inner().unwrap_or_else(PoisonError::into_inner);
        let images_tried = tally.images_tried.into_inner();
        Done { report, counted, was_alone, images_tried, resisted, settled }
    }

    /// One wave of images, while no build runs; how many of them wait for the next pass.
    async fn images(&self, wave: &[Candidate], alone: &mut Option<Moment<W::Alone>>, tally: &Tally) -> usize {
        let mut left = wave;
        while !left.is_empty() {
            // Builds that wait meanwhile get their turn in between.
            if alone.as_ref().is_some_and(|moment| moment.alone.since.elapsed() >= self.alone_max) {
                *alone = None;
                self.world.pause(HAND_OVER).await;
            }
            // Who closes the door again and again, a wave after the other, keeps every new build out.
            if alone.is_none() && !tally.images_over.load(Ordering::Relaxed) {
                *alone = self.moment(tally).await;
                tally.images_over.store(alone.is_none(), Ordering::Relaxed);
            }
            let is_over = || tally.images_over.load(Ordering::Relaxed) || self.ending.is_asked();
            let Some(held) = alone.as_ref().filter(|_| !is_over()) else { return left.len() };
            let goes_on = |nth| (nth == 0 || held.alone.since.elapsed() < self.alone_max) && !is_over();
            let begun = self.steps(left, &held.waiting, tally, goes_on).await;
            tally.images_tried.fetch_or(begun > 0, Ordering::Relaxed);
            left = &left[begun..];
        }
        0
    }

    /// Builds were waited for, and perhaps for long: whatever else keeps images is asked again.
    async fn moment(&self, tally: &Tally) -> Option<Moment<W::Alone>> {
        let alone = self.ending.hold(self.without_builds(tally).await?);
        if self.somebody_builds().await {
            return None;
        }
        match self.world.waiting_images().await {
            Ok(Some(waiting)) => Some(Moment { alone, waiting }),
            Ok(None) if self.more_wait => Some(Moment { alone, waiting: NamedImages::default() }),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!("{error}; images stay until then");
                None
            }
        }
    }

    /// As many steps as `goes_on`, and no more at once than may be in flight; gives how many. `waiting` are the images that
    /// waiting tasks name.
    async fn steps(
        &self,
        wave: &[Candidate],
        waiting: &NamedImages,
        tally: &Tally,
        goes_on: impl Fn(usize) -> bool,
    ) -> usize {
        let begun = AtomicUsize::new(0);
        futures_util::stream::iter(wave)
            .take_while(|_| {
                let goes = goes_on(begun.load(Ordering::Relaxed));
                begun.fetch_add(usize::from(goes), Ordering::Relaxed);
                ready(goes)
            })
            .for_each_concurrent(self.parallel, |candidate| async {
                self.step(candidate, waiting, tally).await;
                self.notifier.works_on();
            })
            .await;
        begun.into_inner()
    }

    async fn without_builds(&self, tally: &Tally) -> Option<W::Alone> {
        let wait = match tally.was_alone.load(Ordering::Relaxed) {
            true => BuildsWait::Open(self.open_wait),
            false => self.builds_wait,
        };
        match self.world.without_builds(wait).await {
            Ok(None) => {
                tracing::info!("images wait for builds that run");
                tally.builds_ran.store(true, Ordering::Relaxed);
                None
            }
            Ok(alone) => {
                tally.was_alone.store(true, Ordering::Relaxed);
                alone
            }
            Err(error) => {
                tracing::warn!("{error}; images stay until then");
                None
            }
        }
    }

    /// Whether somebody else builds just now, who asks for no lock. Where that cannot be told, he does.
    async fn somebody_builds(&self) -> bool {
        match self.world.foreign_build().await {
            Ok(None) => false,
            Ok(Some(step)) => {
                tracing::info!("images wait for somebody else's build, whose step runs in container {step}");
                true
            }
            Err(error) => {
                tracing::warn!("whether somebody builds cannot be told: {error}; images stay until then");
                true
            }
        }
    }

    async fn step(&self, candidate: &Candidate, waiting: &NamedImages, tally: &Tally) {
        let needs_engine = matches!(candidate.target, Target::Container(_) | Target::Image(_));
        if needs_engine && tally.engine_down.load(Ordering::Relaxed) {
            tally.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let removed = match self.world.look(candidate, waiting).await {
            // Podman removes parents without a name along with what stood on them.
            Ok(Look::Gone) if tally.went(&candidate.target) => Ok((Removal::Gone, candidate.bytes)),
            Ok(Look::Gone) => {
                tracing::debug!("gone before: {}", show::line(candidate, None, (self.clock)()));
                tally.settle(candidate);
                return;
            }
            Ok(Look::Keep(why)) => {
                tracing::debug!("kept: {}: {why}", show::line(candidate, None, (self.clock)()));
                tally.kept.fetch_add(1, Ordering::Relaxed);
                tally.settle(candidate);
                // Where lists and last looks differ for good, it would take its place in every pass.
                tally.resist(candidate, why.to_owned());
                return;
            }
            Ok(Look::Wait(why)) => Ok((Removal::InUse(why.to_owned()), None)),
            Ok(Look::Remove(bytes)) => {
                self.note(Event::Removing, candidate, bytes, None, tally);
                self.remove(candidate).await.map(|(removal, went)| {
                    tally.went.lock().unwrap_or_else(PoisonError::into_inner).extend(went);
                    (removal, bytes)
                })
            }
            Err(error) => Err(error),
        };
        match removed {
            Ok((Removal::Done | Removal::Gone, bytes)) => {
                let (entry, now) = (candidate.entry.as_ref(), (self.clock)());
                // Fields, so that the journal finds what became of a task or a container.
                tracing::info!(
                    task = entry.map(|entry| tracing::field::display(&entry.task)),
                    token = entry.map(|entry| tracing::field::display(&entry.token)),
                    container = candidate.container(),
                    "{}",
                    show::line(candidate, bytes, now)
                );
                self.note(Event::Removed, candidate, bytes, None, tally);
                tally.removed.fetch_add(1, Ordering::Relaxed);
                let mut counted = tally.counted.lock().unwrap_or_else(PoisonError::into_inner);
                counted.extend(breaker::budget_of(candidate));
                drop(counted);
                tally.settle(candidate);
                tally.bytes.fetch_add(bytes.unwrap_or(0), Ordering::Relaxed);
            }
            Ok((Removal::InUse(why), _)) => {
                tracing::debug!("kept: {}: {why}", show::line(candidate, None, (self.clock)()));
                self.note(Event::Kept, candidate, None, Some(&why), tally);
                tally.kept.fetch_add(1, Ordering::Relaxed);
                tally.resist(candidate, self.why(candidate, why).await);
            }
            Err(error) => {
                let mut down = matches!(&error, LookError::Engine(engine) if engine.is_engine_down());
                if down {
                    // One container that cannot be removed, its process hanging in the kernel, is no dead engine.
                    down = !self.world.answers().await;
                }
                // Of eight in flight that fail together, the first speaks.
                if !down || !tally.engine_down.swap(true, Ordering::Relaxed) {
                    tracing::warn!("{} {}: {error}", show::kind(&candidate.target), candidate.name);
                }
                self.note(Event::Failed, candidate, None, Some(&error.to_string()), tally);
                tally.failed.fetch_add(1, Ordering::Relaxed);
                if let (Target::Image(id), LookError::Engine(EngineError::TimedOut { .. })) =
                    (&candidate.target, &error)
                {
                    tally.images_over.store(true, Ordering::Relaxed);
                    self.settle(id).await;
                }
                if !down {
                    tally.resist(candidate, self.why(candidate, error.to_string()).await);
                }
            }
        }
    }

    /// The engine goes on with what it was too slow for: no build may begin before that is over.
    async fn settle(&self, id: &str) {
        let began = Instant::now();
        while began.elapsed() < SETTLE_MAX && !matches!(self.world.image(id).await, Ok(None)) {
            self.notifier.works_on();
            self.world.pause(SETTLE_PAUSE).await;
        }
    }

    /// Gives the images that went, too.
    async fn remove(&self, candidate: &Candidate) -> Result<(Removal, Vec<String>), LookError> {
        let (world, entry) = (self.world, candidate.entry.as_ref());
        let removal = match &candidate.target {
            Target::Container(id) => world.remove_container(id).await?,
            Target::Image(id) => {
                let (removal, went) = world.remove_image(id).await?;
                return match (removal, draft_of(entry)) {
                    // Whose worker died while it gave it its last name: the engine removes no image with two.
                    (Removal::InUse(_), Some(draft)) => {
                        world.remove_image(draft).await?;
                        world.remove_image(id).await
                    }
                    (removal, _) => Ok((removal, went)),
                };
            }
            _ => world.remove_files(candidate).await?,
        };
        // What the engine keeps must stay ours, or nobody ever removes it.
        let outlives = |entry: &LedgerEntry| {
            matches!(entry.kind, ObjectKind::Build { .. }) && !matches!(candidate.target, Target::Entry(_))
        };
        if let Some(entry) = entry.filter(|entry| !outlives(entry))
            && !matches!(removal, Removal::InUse(_))
        {
            world.forget(entry).await?;
        }
        Ok((removal, Vec::new()))
    }

    /// Why something resists; of a container, which of its processes does.
    async fn why(&self, candidate: &Candidate, said: String) -> String {
        let hanging = match &candidate.target {
            Target::Container(id) => self.world.hanging(id).await,
            _ => None,
        };
        hanging.map_or(said.clone(), |hanging| format!("{said}; {hanging}"))
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
        if let Err(error) = self.world.note(event, candidate, bytes, detail)
            && !tally.audit_down.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("{error}");
        }
    }
}

impl Tally {
    fn went(&self, target: &Target) -> bool {
        let went = self.went.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(target, Target::Image(id) if went.contains(id))
    }

    fn resist(&self, candidate: &Candidate, why: String) {
        let mut resisted = self.resisted.lock().unwrap_or_else(PoisonError::into_inner);
        resisted.push((candidate.target.clone(), why));
    }

    /// What is looked at now and then only must not be taken for a leftover until then.
    fn settle(&self, candidate: &Candidate) {
        if matches!(candidate.target, Target::Litter(..) | Target::Mirror(_)) {
            self.settled.lock().unwrap_or_else(PoisonError::into_inner).push(candidate.target.clone());
        }
    }
}

/// What an image is called while it is being made: no other image ever has that name.
fn draft_of(entry: Option<&LedgerEntry>) -> Option<&str> {
    let entry = entry?;
    match &entry.kind {
        ObjectKind::Build { image } if *image != image_name(&entry.task) => Some(image),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_in_the_first_of_two_passes_is_told() {
        let first = Report { removed: 2, failed: 1, kept: 3, bytes: 5, waiting: 7, ..Report::default() };
        let second = Report { removed: 1, failed: 1, bytes: 1, waiting: 1, stuck: 1, ..Report::default() };
        let both = Report { removed: 3, failed: 2, kept: 3, bytes: 6, waiting: 1, stuck: 1, postponed: 0 };
        assert_eq!(second.after(first), both);
    }
}
