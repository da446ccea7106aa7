//! What processes before this one left on the node: gone on with where that can be, else taken back and removed.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use queue_format::{Ledger, Life, LifeLock, ObjectKind, Owner, Spool, SpoolError};
use systemd::state_file;
use worker::engine::{Docker, DockerOptions, NodeEngine};
use worker::run::{end_native_commands_of, end_native_commands_of_the_dead};
use worker::seats::Seats;
use worker::slots::Slot;
use worker::{Mandate, left_behind};

/// How long the removal of containers may take when the worker ends.
pub(crate) const SETTLE_MAX: Duration = Duration::from_secs(20);

/// Where they left it.
pub(crate) struct Node<'a> {
    pub(crate) spool: &'a Spool,
    pub(crate) state_dir: &'a Path,
    pub(crate) ledger: &'a Ledger,
    pub(crate) engine: &'a NodeEngine,
    /// The node's name, as it stands in owners.
    pub(crate) name: String,
}

impl Node<'_> {
    /// Goes on as the incarnation of this instance whose process ended before its attempts did, if there is one.
    pub(crate) async fn take_up(
        &self,
        boot: &str,
        instance: &str,
        slots: &[Slot],
        seats: &Seats,
    ) -> anyhow::Result<Option<(Owner, LifeLock, Mandate)>> {
        let left = left_behind(self.spool, &self.name, self.state_dir, boot, instance)?;
        for owner in left.void {
            self.remove_containers_of(&owner, &HashSet::new()).await?;
        }
        let Some((owner, alive)) = left.taken_over else { return Ok(None) };
        // Without their supervisors, which nobody goes on as.
        end_native_commands_of(&owner);
        match Mandate::resume(self.spool, &owner, self.state_dir, boot, slots, seats) {
            Ok(mandate) => {
                let attempts = mandate.continued();
                tracing::info!(attempts, %owner, "going on with what the process before this one left");
                Ok(Some((owner, alive, mandate)))
            }
            Err(SpoolError::LeaseClosed(_)) => {
                tracing::info!(%owner, "others took it for dead: its attempts are void");
                LifeLock::forget_attempts(self.state_dir, &owner)?;
                self.remove_containers_of(&owner, &HashSet::new()).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes back what incarnations left with which nobody goes on, tasks and containers.
    pub(crate) async fn reap_the_dead(&self, me: &Owner) -> anyhow::Result<()> {
        end_native_commands_of_the_dead(self.state_dir)?;
        for owner in self.spool.owners_on(&self.name)? {
            if owner != *me && LifeLock::look(self.state_dir, &owner)? == Life::Dead {
                self.remove_containers_of(&owner, &HashSet::new()).await?;
                let tasks = self.spool.reap(&owner)?.tasks().len();
                tracing::info!(tasks, %owner, "taken back from an incarnation that died");
            }
        }
        Ok(())
    }

    /// Removes what the process before this one left and this one does not go on with.
    pub(crate) async fn clean_up(&self, me: &Owner, mandate: &Mandate) -> anyhow::Result<()> {
        self.remove_containers_of(me, &mandate.running()).await?;
        for entry in self.ledger.entries()?.into_iter().filter(|entry| entry.owner == *me) {
            if let ObjectKind::WorkDir { path } = entry.kind
                && state_file::remove_tree(&path).is_ok()
            {
                self.ledger.forget(entry.object)?;
            }
        }
        Ok(())
    }

    async fn remove_containers_of(&self, owner: &Owner, stay: &HashSet<uuid::Uuid>) -> anyhow::Result<()> {
        if let NodeEngine::Docker(docker) = self.engine {
            docker.remove_containers_of(owner, stay).await?;
        }
        Ok(())
    }
}

/// Removes all that runs for an incarnation, over a connection and a runtime of its own: those of the worker may hang on
/// the spool's mount.
pub(crate) fn end_containers(owner: &Owner, options: DockerOptions) {
    let removal = async {
        let engine = Docker::connect(options).await?;
        engine.remove_containers_of(owner, &HashSet::new()).await
    };
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(async { tokio::time::timeout(SETTLE_MAX, removal).await }));
    if !matches!(ended, Ok(Ok(Ok(())))) {
        tracing::error!("some containers could not be removed: the next start, or the janitor, does it");
    }
}
