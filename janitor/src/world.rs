//! What a pass acts on, as it is now, and the last look at it: between a listing and a removal it went on.

use std::time::Duration;

use queue_format::LedgerEntry;

use crate::audit::Event;
use crate::door::BuildsWait;
use crate::error::{EngineError, JanitorError};
use crate::inventory::{Container, Image, Inventory};
use crate::named::NamedImages;
use crate::policy::{Candidate, Target};
use crate::verify::{Look, judge_claim, judge_container, judge_image};

/// What became of a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It is removed.
    Done,
    /// It was gone before.
    Gone,
    /// It is kept, for it is in use.
    InUse(String),
}

/// Why something could not be looked at, or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Files(#[from] JanitorError),
}

/// An engine, a ledger, a spool and a node's locks.
pub(crate) trait World {
    /// While it is held, no build begins.
    type Alone;

    /// What ledger, claims and locks say of one object; `None`: the ledger no longer has it as it was.
    async fn entry_now(&self, entry: &LedgerEntry) -> Result<Option<Inventory>, JanitorError>;

    /// The images that claimed tasks are to run in.
    async fn named_images(&self) -> Result<NamedImages, JanitorError>;

    /// The images that tasks are to run in which wait; `None`: they are more than are asked.
    async fn waiting_images(&self) -> Result<Option<NamedImages>, JanitorError>;

    /// One container; `None`: it is gone.
    async fn container(&self, id: &str) -> Result<Option<Container>, LookError>;

    /// What a container's own files take; `None` where that is not known soon.
    async fn container_bytes(&self, id: &str) -> Option<u64>;

    /// One image; `None`: it is gone.
    async fn image(&self, id: &str) -> Result<Option<Image>, LookError>;

    /// Whether what is no object of the engine's may go.
    async fn look_at_files(&self, candidate: &Candidate) -> Result<Look, JanitorError>;

    /// The container in which somebody else builds an image just now.
    async fn foreign_build(&self) -> Result<Option<String>, LookError>;

    /// Waits for a moment in which none of our builds runs; `None`: some still do. While it is held, none begins.
    async fn without_builds(&self, wait: BuildsWait) -> Result<Option<Self::Alone>, JanitorError>;

    /// Kills and removes a container with its anonymous volumes.
    async fn remove_container(&self, id: &str) -> Result<Removal, LookError>;

    /// Removes an image by its id, or a name of it that is not the last; never by force: what uses it keeps it.
    async fn remove_image(&self, id: &str) -> Result<(Removal, Vec<String>), LookError>;

    /// Removes what is no object of the engine's, or takes it back.
    async fn remove_files(&self, candidate: &Candidate) -> Result<Removal, JanitorError>;

    /// Drops a ledger entry.
    async fn forget(&self, entry: &LedgerEntry) -> Result<(), JanitorError>;

    /// Tells of a removal, before and after it.
    fn note(
        &self,
        event: Event,
        candidate: &Candidate,
        bytes: Option<u64>,
        detail: Option<&str>,
    ) -> Result<(), JanitorError>;

    /// Whether the engine answers at all.
    async fn answers(&self) -> bool;

    /// Why a container is not to be removed, as far as this node can see it.
    async fn hanging(&self, id: &str) -> Option<String>;

    async fn pause(&self, time: Duration);

    /// Whether a candidate may go, by its claim, its worker and itself as they are now, and by the images that waiting tasks
    /// name.
    async fn look(&self, candidate: &Candidate, waiting: &NamedImages) -> Result<Look, LookError> {
        if matches!(
            candidate.target,
            Target::Lease(_) | Target::Lock(_) | Target::Litter(..) | Target::Mirror(_)
        ) {
            return Ok(self.look_at_files(candidate).await?);
        }
        let Some(entry) = &candidate.entry else { return Ok(Look::Keep("the ledger does not know it")) };
        let Some(now) = self.entry_now(entry).await? else {
            return Ok(Look::Keep("its ledger entry changed"));
        };
        if let Some(keep) = judge_claim(&now, entry) {
            return Ok(keep);
        }
        // The object itself comes last: nothing is asked between that and its removal.
        match &candidate.target {
            Target::Container(id) => {
                let bytes = self.container_bytes(id).await;
                Ok(match judge_container(&now, self.container(id).await?.as_ref()) {
                    Look::Remove(_) => Look::Remove(bytes),
                    other => other,
                })
            }
            Target::Image(id) => {
                let named = self.named_images().await?;
                Ok(judge_image(&now, [&named, waiting], self.image(id).await?.as_ref(), candidate))
            }
            _ => Ok(self.look_at_files(candidate).await?),
        }
    }
}
