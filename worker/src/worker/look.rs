//! What is looked at now and then: which slots are in service, and whether tasks wait that need several.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use queue_format::{Class, PathError};
use systemd::{Phase, Shutdown};

use super::{Worker, awaited_cpus};
use crate::board::Topic;
use crate::engine::{Engine, EngineError};
use crate::run;
use crate::slots::Slot;
use crate::topology::{CpuSet, Topology};
use crate::work_dir::on_disk;

/// How often: a CPU that goes offline, or a large task, is seen so late.
const LOOK_PERIOD: Duration = Duration::from_secs(30);
/// How soon after a look that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long the rest of what was ended may take to be gone, and the pause between two looks.
const END_MAX: Duration = Duration::from_secs(5);
const END_AGAIN: Duration = Duration::from_millis(100);

impl<E: Engine + 'static> Worker<E> {
    /// Looks until it is aborted.
    pub(super) async fn look_after_slots(self: Arc<Self>) {
        let mut pause = LOOK_PERIOD;
        loop {
            tokio::time::sleep(pause).await;
            pause = if self.look_at_slots().await { LOOK_PERIOD } else { LOOK_AGAIN };
        }
    }

    /// Takes slots out of service and back. False where nothing could be seen: what was in service stays so, and a slot
    /// whose CPUs were taken meanwhile does not come into it.
    pub(super) async fn look_at_slots(&self) -> bool {
        // Locks first: who gives one up may leave a container behind.
        let take_locks = || {
            let awaited = awaited_cpus(&self.state_dir, &self.boot, &self.instance)?;
            self.seats.take_locks(&awaited)
        };
        if let Err(error) = on_disk(take_locks) {
            tracing::warn!(%error, "cannot look after the locks of slots");
            return false;
        }
        let occupied = match self.cpus_of_others().await {
            Ok(occupied) => occupied,
            Err(error) => {
                tracing::debug!(%error, "cannot ask which containers run");
                return false;
            }
        };
        on_disk(|| self.seats.look(&Topology::read(Path::new("/")).usable(), &occupied));
        self.tell_of_slots();
        match on_disk(|| self.large_pending()) {
            Ok(large) => {
                for news in self.board.tell(Topic::Joining, self.seats.saw(&large)) {
                    tracing::info!("{news}");
                }
            }
            Err(error) => tracing::debug!(%error, "cannot look for large tasks"),
        }
        true
    }

    /// Waits until nothing of ours runs on CPUs that are about to be given out again; what stays for longer is told.
    pub(super) async fn until_empty(&self, given: &Slot, shutdown: &Shutdown) {
        let (of, began) = (Topic::Rest(given.number), tokio::time::Instant::now());
        while shutdown.phase() < Phase::Requested {
            let Err(why) = self.is_empty(given).await else { break };
            if began.elapsed() < END_MAX {
                tokio::time::sleep(END_AGAIN).await;
                continue;
            }
            for news in self.board.tell(of, [format!("slot {} is not given out again: {why}", given.number)])
            {
                tracing::warn!(slot = given.number, "{news}");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.board.tell(of, None::<String>);
    }

    async fn is_empty(&self, given: &Slot) -> Result<(), String> {
        self.shop.engine.clear(&given.cpus).await?;
        let running = self.shop.engine.running().await.map_err(|error| error.to_string())?;
        let ours = running.into_iter().filter(|container| container.owner == self.owner);
        let is_there = |cpus: &str| cpus.parse::<CpuSet>().is_ok_and(|set| set.touches(&given.cpu_set()));
        if let Some(left) = ours.into_iter().find(|container| is_there(&container.cpuset_cpus)) {
            return Err(format!("container {} was removed, and still runs there", left.id));
        }
        match on_disk(|| run::native_processes_in(&self.owner, given.number)).first() {
            None => Ok(()),
            Some(pid) => Err(format!("process {pid} was killed, and is still there")),
        }
    }

    /// Tells people which slots are out of service now.
    pub(super) fn tell_of_slots(&self) {
        for (slot, why) in self.board.set_out_of_service(&self.seats.out_of_service()) {
            match why {
                Some(why) => tracing::warn!(slot, "out of service: {why}"),
                None => tracing::info!(slot, "in service again"),
            }
        }
    }

    /// What containers use that other incarnations have made. They have no business on CPUs whose locks are ours,
    /// whether their worker lives or not.
    async fn cpus_of_others(&self) -> Result<Vec<CpuSet>, EngineError> {
        let running = self.shop.engine.running().await?;
        let left = running.iter().filter(|container| container.owner != self.owner);
        Ok(left.filter_map(|container| container.cpuset_cpus.parse().ok()).collect())
    }

    /// The classes of pending tasks that need several slots, as far as none is more urgent that needs one.
    fn large_pending(&self) -> Result<Vec<Class>, PathError> {
        let config = self.config.borrow().clone();
        let known = |class: &Class| run::knows(class, &config);
        let pending =
            self.spool.pending_work(|classes| classes.iter().any(|class| self.seats.needs_joining(class)))?;
        let pending: Vec<Class> = pending.into_iter().filter(known).collect();
        let first = pending.iter().find(|class| !self.seats.needs_joining(class)).map(|class| class.priority);
        let large = pending.into_iter().filter(|class| self.seats.needs_joining(class));
        Ok(large.filter(|class| first.is_none_or(|first| class.priority <= first)).collect())
    }
}
