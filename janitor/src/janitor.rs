use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use queue_format::{BuildGate, Emergency, Ledger, Spool, node_name};
use systemd::{Notifier, state_file};
use tokio::time::Instant;

use crate::audit::Audit;
use crate::breaker::{self, Breaker};
use crate::config::Config;
use crate::disk::{Level, Levels, Pressure, are_one_disk};
use crate::door::{BuildsWait, Door};
use crate::ending::Ending;
use crate::error::JanitorError;
use crate::execute::{ALONE_MAX, Execution, Report};
use crate::explain::explain;
use crate::here::{Here, while_alive};
use crate::inventory::Inventory;
use crate::maker::{self, Maker};
use crate::marks::Marks;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::named::NamedImages;
use crate::observe::{Files, House, Link};
use crate::plan::plan;
use crate::policy::{Candidate, Patience, Target, believes_engine, is_engines, policy};
use crate::protect::protect;
use crate::resistance::Resistance;
use crate::retain::{Retention, spent};
use crate::show;
use crate::uses::{Moment, Uses};
use crate::verify::Look;
use crate::world::World;

/// How far back removals are counted after a restart.
const REMEMBERED_SECONDS: i64 = 3600;

/// How often the last uses of images are written, and what the next process goes on with.
const KEEP_PERIOD: Duration = Duration::from_secs(60);

/// What a janitor looks after.
#[derive(Clone, Debug)]
pub struct Place {
    /// The spool.
    pub spool: PathBuf,
    /// The node's state directory.
    pub state: PathBuf,
    /// The node's name, as its workers give it to [`Owner::new`].
    pub hostname: String,
    /// The engine, as in `DOCKER_HOST`; Docker's own socket where it is `None`.
    pub engine: Option<String>,
}

/// Looks after one spool's leftovers on one node.
#[derive(Debug)]
pub struct Janitor {
    files: Arc<Files>,
    config: Config,
    clock: fn() -> Timestamp,
    notifier: Notifier,
    marks: Marks,
    resistance: Resistance,
    breaker: Breaker,
    door: Door,
    audit: Audit,
    link: Link,
    uses: Uses,
    uses_kept_at: Option<Instant>,
    memory_kept_at: Option<Instant>,
    house: House,
    /// Why the house could not be looked at last; what was seen before stands.
    house_trouble: Option<String>,
    /// When the house was looked at last, and which bucket of results is next.
    house_at: Option<Instant>,
    bucket: u8,
    /// Somebody else's build for which images wait.
    foreign_build: Option<String>,
    is_other_engine: bool,
    levels: Levels,
    /// What the disk of images demanded last, and that of the state directory; nothing until this process has looked, which
    /// tells of a full disk even where the one before has.
    pressure: Pressure,
    state_pressure: Pressure,
    /// Disks of which nobody can tell how full they are, a sentence each.
    unseen_disks: Vec<String>,
    /// What is told of others' objects.
    strangers: Vec<String>,
    emergency: Option<Emergency>,
    metrics: Metrics,
    ending: Ending,
}

impl Janitor {
    /// A janitor that has not looked yet. `clock` dates its log lines.
    ///
    /// # Errors
    /// The configuration makes no sense, there is no spool, or the state directory cannot be written.
    pub fn open(
        place: Place,
        config: Config,
        clock: fn() -> Timestamp,
        notifier: Notifier,
    ) -> Result<Self, JanitorError> {
        config.validate().map_err(JanitorError::Config)?;
        let spool_id = Spool::open(&place.spool)?.id();
        state_file::making_dirs(&place.state, &["ledger"], || Ledger::open(&place.state))?;
        let state_dir = place.state.canonicalize().map_err(|source| JanitorError::State {
            action: "find",
            path: place.state.clone(),
            source,
        })?;
        let gate = state_file::making_dirs(&state_dir, &["builds"], || BuildGate::prepare(&state_dir));
        if let Err(error) = gate {
            tracing::warn!("{error}; images stay until then");
        }
        let node = node_name(&place.hostname);
        let audit = Audit::new(&state_dir, config.audit_bytes_max);
        let hour_ago = clock() - jiff::SignedDuration::from_secs(REMEMBERED_SECONDS);
        let breaker = Breaker::new(audit.removed_since(hour_ago));
        let uses = Uses::read(&state_dir);
        let memory = Memory::read(&state_dir, &Moment::at(clock()));
        let now = Instant::now().into_std();
        // Each node begins elsewhere, and looks at everything in the end.
        let bucket = uses.bucket.unwrap_or_else(|| node.bytes().fold(0, |sum, byte| sum ^ byte));
        let files = Files {
            spool_root: place.spool,
            spool_id,
            state_dir,
            node,
            notifier: notifier.clone(),
            ages: config.litter_ages(),
            clock,
            waiting: Arc::default(),
        };
        Ok(Self {
            files: Arc::new(files),
            config,
            clock,
            notifier,
            marks: Marks::recall(memory.marks, now),
            resistance: Resistance::recall(memory.resisting, now),
            breaker,
            door: Door::recall(&memory.door, now),
            audit,
            link: Link::new(place.engine),
            uses,
            uses_kept_at: None,
            memory_kept_at: None,
            house: House::default(),
            house_trouble: None,
            house_at: None,
            bucket,
            foreign_build: None,
            is_other_engine: false,
            levels: memory.levels,
            pressure: Pressure::default(),
            state_pressure: Pressure::default(),
            unseen_disks: Vec::new(),
            strangers: Vec::new(),
            emergency: None,
            metrics: Metrics::default(),
            ending: Ending::default(),
        })
    }

    /// Goes by another configuration from now on, which was checked.
    pub(crate) fn follow(&mut self, config: Config) {
        self.audit = Audit::new(&self.files.state_dir, config.audit_bytes_max);
        self.files = Arc::new(Files { ages: config.litter_ages(), ..(*self.files).clone() });
        self.config = config;
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the engine answered when it was last asked.
    #[must_use]
    pub fn engine_answers(&self) -> bool {
        self.link.engine().is_some()
    }

    /// By which a pass is brought to its end.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.ending.clone()
    }

    /// What an operator should know: a full disk, too many removals, what cannot be removed.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        if self.worse().level > Level::Calm {
            troubles.push(self.worse().told.clone());
        }
        if self.breaker.is_open() {
            troubles.push(breaker::told(self.config.deletions_per_hour_max));
        }
        troubles.extend(self.is_other_engine.then(|| maker::told(&self.files.state_dir)));
        troubles.extend(self.unseen_disks.clone());
        troubles.extend(self.strangers.clone());
        troubles.extend(self.house_trouble.clone());
        troubles.extend(self.foreign_build.clone());
        troubles.extend(self.resistance.stuck());
        troubles
    }

    /// Hears between two passes too which images are used: an engine remembers few of its events. For who goes on.
    pub fn listen(&mut self) {
        self.link.listen();
    }

    /// Looks at what lies in the spool, at the next bucket of its results, with the next pass, however soon that is.
    pub fn look_further(&mut self) {
        self.house_at = None;
    }

    /// One pass: what has been a leftover for the grace period goes.
    ///
    /// # Errors
    /// The spool or the state directory cannot be read: then nothing is removed.
    pub async fn pass(&mut self) -> Result<Report, JanitorError> {
        Ok(self.pass_within(self.config.deletions_max).await?.0)
    }

    /// One pass of so many removals at most; gives how many it had planned, too.
    async fn pass_within(&mut self, deletions_max: usize) -> Result<(Report, usize), JanitorError> {
        let began = Instant::now().into_std();
        let inventory = match self.observe(began).await {
            Ok(inventory) => inventory,
            Err(error) => {
                self.metrics.failed_pass();
                self.write_metrics();
                return Err(error);
            }
        };
        self.keep_uses();
        self.keep_maker(&inventory).await;
        let was_raised = self.emergency.is_some();
        self.heed(&inventory);
        let found = self.leftovers(&inventory);
        let sees_images = inventory.objects.is_some() && self.foreign_build.is_none();
        self.resistance.forget_others(&found, sees_images);
        let images = found.iter().filter(|candidate| matches!(candidate.target, Target::Image(_))).count();
        let images_wait = images > 0 || !sees_images;
        let total = found.len();
        let mut ripe = self.marks.ripe(found, Instant::now().into_std(), self.config.grace());
        self.resistance.leave_alone(&mut ripe, began);
        if let Some(told) = self.ration(&mut ripe) {
            tracing::debug!("{told}");
        }
        if self.emergency.is_some() && !was_raised {
            // Workers stop first; what they have begun may need what would go.
            ripe.clear();
        }
        let waiting = total - ripe.len();
        let plan = plan(&inventory, ripe, deletions_max);
        if plan.postponed > 0 {
            tracing::warn!(
                "{} more removals wait for the next passes: this one makes {deletions_max} at most (janitor.deletions_max)",
                plan.postponed
            );
        }
        let open_wait = Duration::from_secs(self.config.builds_wait_seconds);
        let builds_wait = self.door.wait(self.pressure.level, open_wait, Instant::now().into_std());
        let execution = Execution {
            world: &self.here(),
            notifier: &self.notifier,
            clock: self.clock,
            parallel: self.config.parallel_removals,
            builds_wait,
            open_wait,
            alone_max: ALONE_MAX,
            more_wait: inventory.is_more_waiting,
            ending: &self.ending,
        };
        let done = execution.run(&plan).await;
        let is_over = done.images_tried || !images_wait;
        self.door.note(builds_wait, done.was_alone, is_over, Instant::now().into_std());
        self.resistance.note(done.resisted, Instant::now().into_std());
        self.house.leave_out(&done.settled);
        self.breaker.note(done.counted, (self.clock)());
        if self.memory_kept_at.is_none_or(|at| at.elapsed() >= KEEP_PERIOD) {
            self.keep_memory();
        }
        let stuck = self.resistance.stuck().len();
        let report = Report { waiting: waiting + done.report.waiting, stuck, ..done.report };
        self.metrics.pass(report, (self.clock)(), self.worse().level, self.breaker.is_open());
        self.write_metrics();
        Ok((report, plan.deletions()))
    }

    /// Looks, waits for the grace period, looks again and removes; what a single run can prove, no more, and both looks
    /// together no more than one pass of [`run`](crate::run).
    ///
    /// # Errors
    /// As for [`Janitor::pass`].
    pub async fn once(&mut self) -> Result<Report, JanitorError> {
        let max = self.config.deletions_max;
        let (first, planned) = self.pass_within(max).await?;
        if first.waiting == 0 {
            self.keep_memory();
            return Ok(first);
        }
        tokio::time::sleep(self.config.grace()).await;
        let (second, _) = self.pass_within(max.saturating_sub(planned)).await?;
        self.keep_memory();
        Ok(second.after(first))
    }

    /// What [`Janitor::once`] would do now, a line each; changes nothing.
    ///
    /// # Errors
    /// As for [`Janitor::pass`].
    pub async fn plan(&mut self) -> Result<Vec<String>, JanitorError> {
        let inventory = self.observe(Instant::now().into_std()).await?;
        self.note_pressure(&inventory);
        let mut found = self.leftovers(&inventory);
        let (end, grace) = (Instant::now().into_std() + self.config.grace(), self.config.grace());
        found.retain(|candidate| {
            let is_due = candidate.patience <= Patience::Grace || self.marks.is_ripe(candidate, end, grace);
            is_due && !self.resistance.leaves_alone(candidate, end)
        });
        let next_hours = self.ration(&mut found);
        let plan = plan(&inventory, found, self.config.deletions_max);
        let here = self.here();
        let mut lines = Vec::new();
        for candidate in plan.steps() {
            lines.extend(planned(&here, candidate, &inventory.named_images, (self.clock)()).await);
        }
        if plan.postponed > 0 {
            let max = self.config.deletions_max;
            lines.push(format!("{} more would wait: janitor.deletions_max is {max}", plan.postponed));
        }
        lines.extend(next_hours);
        let images = plan.steps().filter(|step| matches!(step.target, Target::Image(_))).count();
        // Looked for in this instant alone.
        if images > 0 && here.without_builds(BuildsWait::Open(Duration::ZERO)).await?.is_none() {
            lines.push(format!("a build runs now: of these, {images} images wait until none does"));
        }
        lines.extend(self.troubles());
        Ok(lines)
    }

    /// What is known of an object, and what becomes of it: a container, an image, a work directory, a task's.
    ///
    /// # Errors
    /// As for [`Janitor::pass`].
    pub async fn explain(&mut self, wanted: &str) -> Result<Vec<String>, JanitorError> {
        let inventory = self.observe(Instant::now().into_std()).await?;
        let spent = spent(&inventory, &self.config.retention());
        Ok(explain(&inventory, &spent, self.config.repositories_bytes_max, wanted))
    }

    fn leftovers(&mut self, inventory: &Inventory) -> Vec<Candidate> {
        let (retention, mirrors) = (self.config.retention(), self.config.repositories_bytes_max);
        let (found, waiting) = leftovers(inventory, &retention, mirrors);
        let build = inventory.foreign_build().filter(|_| waiting > 0);
        self.foreign_build = build.map(|step| {
            let step = show::container(step);
            format!("{waiting} images wait for somebody else's build, whose step runs in container {step}")
        });
        found
    }

    /// Leaves so much as this hour allows; tells what waits for the next.
    fn ration(&mut self, ripe: &mut Vec<Candidate>) -> Option<String> {
        let max = self.config.deletions_per_hour_max;
        let waiting = self.breaker.ration(ripe, max, (self.clock)());
        let is_news = waiting > 0 && !self.breaker.is_open();
        is_news.then(|| {
            format!("{waiting} more would wait for the next hour: janitor.deletions_per_hour_max is {max}")
        })
    }

    fn note_pressure(&mut self, inventory: &Inventory) {
        self.pressure = inventory.pressure.clone();
        self.state_pressure = inventory.state_pressure.clone();
    }

    /// Raises the emergency, or ends it.
    fn heed(&mut self, inventory: &Inventory) {
        let before = self.worse().level;
        self.note_pressure(inventory);
        let Pressure { level, told, .. } = self.worse().clone();
        if level > before {
            tracing::warn!("{told}");
        }
        if level < Level::Emergency {
            self.emergency = None;
        } else if self.emergency.is_none() {
            // Room is made in any case.
            self.emergency = Emergency::raise(&self.files.state_dir, &told).unwrap_or_else(|error| {
                tracing::warn!("{error}; workers are not told to stop");
                None
            });
        }
    }

    /// What the fuller of the disks demands: work fails on either.
    fn worse(&self) -> &Pressure {
        if self.state_pressure.level > self.pressure.level { &self.state_pressure } else { &self.pressure }
    }

    /// What is lost with a crash is heard again, as far as the engine remembers.
    fn keep_uses(&mut self) {
        if self.uses_kept_at.is_some_and(|at| at.elapsed() < KEEP_PERIOD) {
            return;
        }
        self.uses_kept_at = Some(Instant::now());
        if let Err(error) = self.uses.write(&self.files.state_dir) {
            tracing::debug!("the last uses of images are not kept: {error}");
        }
    }

    fn write_metrics(&mut self) {
        let engine_answers = self.engine_answers();
        if let Err(error) = self.metrics.write(&self.files.state_dir, engine_answers) {
            tracing::debug!("the metrics cannot be written: {error}");
        }
    }

    /// For the next process.
    fn keep_memory(&mut self) {
        self.memory_kept_at = Some(Instant::now());
        let now = Instant::now().into_std();
        let memory = Memory {
            marks: self.marks.remembered(now),
            resisting: self.resistance.remembered(),
            levels: self.levels.clone(),
            door: self.door.times(now),
        };
        if let Err(error) = memory.write(&self.files.state_dir, Moment::at((self.clock)())) {
            tracing::debug!("what resists is not kept: {error}");
        }
    }

    fn here(&self) -> Here {
        let (files, engine) = (Arc::clone(&self.files), self.link.engine().cloned());
        Here { files, engine, audit: self.audit.clone() }
    }

    /// The house first, for that takes long; what is looked at then is seen within a few seconds. What resists is left alone
    /// as of `began`.
    async fn observe(&mut self, began: std::time::Instant) -> Result<Inventory, JanitorError> {
        self.look_at_house().await;
        let now = (self.clock)();
        let asked = self.link.objects(&self.config, &self.uses, now);
        let seen = while_alive(&self.notifier, asked).await;
        if let Some((objects, heard)) = &seen {
            self.uses.note(objects, heard, Moment::at(now));
        }
        let files = Arc::clone(&self.files);
        let objects = seen.map(|(objects, _)| objects);
        let inventory = tokio::task::spawn_blocking(move || files.observe(objects)).await??;
        let before = std::mem::replace(&mut self.strangers, inventory.strangers());
        warn_of_new(&self.strangers, &before);
        let image_dirs = self.link.image_dirs();
        let state_dir = std::slice::from_ref(&self.files.state_dir);
        let (marks, unseen) = (self.config.watermarks(), &mut self.unseen_disks);
        let unseen_before = std::mem::take(unseen);
        let is_one_disk = image_dirs.iter().any(|dir| are_one_disk(dir, &state_dir[0]));
        let pressure = self.levels.worst_pressure(image_dirs, &marks, unseen);
        let state_pressure = self.levels.worst_pressure(state_dir, &marks, unseen);
        warn_of_new(unseen, &unseen_before);
        let mut inventory = Inventory {
            used_at: self.uses.of_images().clone(),
            left_alone: self.resistance.images_left_alone(began),
            pressure,
            state_pressure,
            is_one_disk,
            litter: self.house.litter.clone(),
            mirrors: self.house.mirrors.clone(),
            ..inventory
        };
        inventory.is_other_engine = self.is_other_engine(&inventory).await;
        // Tasks that wait are many: they are asked only where an image is about to go that one of them may name.
        let images = images_left(&inventory, &self.config.retention());
        if images.iter().any(|image| !self.resistance.leaves_alone(image, began)) {
            let waiting = self.here().waiting_images().await?;
            inventory.is_more_waiting = waiting.is_none();
            inventory.named_images.join(waiting.unwrap_or_default());
        }
        Ok(inventory)
    }

    /// Asked only where something would be forgotten on the engine's word.
    async fn is_other_engine(&mut self, inventory: &Inventory) -> bool {
        let was_other = std::mem::take(&mut self.is_other_engine);
        let Some(engine) = self.link.engine().filter(|_| believes_engine(inventory)) else { return false };
        let known = Maker::read(&self.files.state_dir);
        let maker = while_alive(&self.notifier, engine.maker()).await;
        self.is_other_engine = match (known, maker) {
            (Ok(Some(known)), Ok(maker)) => maker.differs(&known),
            (Ok(None), Ok(_)) => false,
            (Err(_), _) | (_, Err(_)) => true,
        };
        if self.is_other_engine && !was_other {
            tracing::warn!("{}", maker::told(&self.files.state_dir));
        }
        self.is_other_engine
    }

    /// Which engine made what the ledger names is noted with the first of it, and forgotten with the last.
    async fn keep_maker(&self, inventory: &Inventory) {
        let state_dir = &self.files.state_dir;
        let kept =
            match (inventory.ledger.values().any(is_engines), Maker::read(state_dir), self.link.engine()) {
                (true, Ok(None), Some(engine)) => match engine.maker().await {
                    Ok(maker) => maker.write(state_dir),
                    Err(_) => Ok(()),
                },
                (false, Ok(Some(_)) | Err(_), _) => Maker::forget(state_dir),
                _ => Ok(()),
            };
        if let Err(error) = kept {
            tracing::debug!("which engine it is cannot be noted: {error}");
        }
    }

    /// Where that fails, containers, claims and images are looked after all the same.
    async fn look_at_house(&mut self) {
        let period = Duration::from_secs(self.config.spool_period_seconds);
        if self.house_at.is_some_and(|at| at.elapsed() < period) {
            return;
        }
        let look = |files: &Files, bucket: &u8| Ok((files.litter(*bucket), files.mirrors()));
        let looked = self.here().on_files(&self.bucket, look).await;
        self.house_at = Some(Instant::now());
        self.bucket = self.bucket.wrapping_add(1);
        // The next one that is started goes on from here.
        self.uses.bucket = Some(self.bucket);
        self.uses_kept_at = None;
        // What goes wrong in the spool says nothing of copies of repositories.
        let litter = looked.and_then(|(litter, mirrors)| {
            self.house.mirrors = mirrors;
            litter
        });
        let trouble = match litter {
            Ok(litter) => {
                self.house.litter = litter;
                None
            }
            Err(error) => Some(format!("leftovers in the spool are not looked for: {error}")),
        };
        if let Some(trouble) = trouble.as_ref().filter(|_| self.house_trouble.is_none()) {
            tracing::warn!("{trouble}");
        }
        self.house_trouble = trouble;
    }
}

/// The images that would go for all that is known without the tasks that wait.
pub(crate) fn images_left(inventory: &Inventory, retention: &Retention) -> Vec<Candidate> {
    let (mut found, _) = leftovers(inventory, retention, u64::MAX);
    found.retain(|candidate| matches!(candidate.target, Target::Image(_)));
    found
}

/// What is left over, and how many images of it wait for somebody else's build.
pub(crate) fn leftovers(
    inventory: &Inventory,
    retention: &Retention,
    mirrors_bytes_max: u64,
) -> (Vec<Candidate>, usize) {
    let spent = spent(inventory, retention);
    let kept = protect(inventory, &spent);
    let mut found = policy(inventory, &kept, &spent, mirrors_bytes_max);
    let total = found.len();
    if inventory.foreign_build().is_some() {
        found.retain(|candidate| !matches!(candidate.target, Target::Image(_)));
    }
    let waiting = total - found.len();
    (found, waiting)
}

fn warn_of_new(troubles: &[String], before: &[String]) {
    troubles.iter().filter(|told| !before.contains(told)).for_each(|told| tracing::warn!("{told}"));
}

async fn planned(here: &Here, candidate: &Candidate, named: &NamedImages, now: Timestamp) -> Option<String> {
    match here.look(candidate, named).await {
        Ok(Look::Remove(bytes)) => Some(show::line(candidate, bytes, now)),
        Ok(Look::Keep(_) | Look::Wait(_) | Look::Gone) => None,
        Err(error) => {
            Some(format!("cannot judge {} {}: {error}", show::kind(&candidate.target), candidate.name))
        }
    }
}
