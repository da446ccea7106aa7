//! What is looked at now and then: which slots are in service, and whether tasks wait that need several.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use queue_format::{Class, Life, LifeLock, PathError};

use super::Worker;
use crate::engine::{Engine, EngineError};
use crate::run;
use crate::synthesis::Brain;
use crate::topology::{CpuSet, Topology};
use crate::work_dir::on_disk;

/// How often: a CPU that goes offline, or a large task, is seen so late.
const LOOK_PERIOD: Duration = Duration::from_secs(30);

impl<E: Engine + 'static, B: Brain + 'static> Worker<E, B> {
    /// Looks until it is aborted.
    pub(super) async fn look_after_slots(self: Arc<Self>, mut said: Vec<String>) {
        loop {
            tokio::time::sleep(LOOK_PERIOD).await;
            self.look_at_slots(&mut said).await;
        }
    }

    /// Takes slots out of service and back; `said` is what people were told of that.
    pub(super) async fn look_at_slots(&self, said: &mut Vec<String>) {
        let occupied = match self.cpus_of_the_dead().await {
            Ok(occupied) => occupied,
            Err(error) => {
                // Nothing is claimed meanwhile, and nothing was given out that was not free.
                tracing::debug!(%error, "cannot ask which containers run");
                return;
            }
        };
        let looked = on_disk(|| self.seats.look(&Topology::read(Path::new("/")).usable(), &occupied));
        match looked {
            Ok(reasons) => self.tell_of_slots(said, reasons),
            Err(error) => tracing::warn!(%error, "cannot look after the locks of slots"),
        }
        match on_disk(|| self.large_pending()) {
            Ok(large) => self.seats.saw(&large),
            Err(error) => tracing::debug!(%error, "cannot look for large tasks"),
        }
    }

    fn tell_of_slots(&self, said: &mut Vec<String>, reasons: Vec<String>) {
        for gone in said.iter().filter(|gone| !reasons.contains(gone)) {
            tracing::info!("no longer so: {gone}");
            self.board.withdraw(gone);
        }
        for reason in reasons.iter().filter(|reason| !said.contains(reason)) {
            tracing::warn!("{reason}");
            self.board.notice(reason);
        }
        *said = reasons;
    }

    /// What containers use that a dead incarnation of this node has left and nobody looks after.
    async fn cpus_of_the_dead(&self) -> Result<Vec<CpuSet>, EngineError> {
        let running = self.shop.engine.running().await?;
        let is_left = |owner| matches!(LifeLock::look(&self.state_dir, owner), Ok(Life::Dead | Life::Left));
        let left = running.iter().filter(|container| is_left(&container.owner));
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
