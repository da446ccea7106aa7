use std::collections::HashMap;

use crate::{Owner, SpoolId, TaskId, Token};

/// The spool that an object belongs to.
pub const LABEL_SPOOL: &str = "bottega.spool";
/// The node that made it.
pub const LABEL_NODE: &str = "bottega.node";
/// The object's own UUID, which the node's ledger knows.
pub const LABEL_OBJECT: &str = "bottega.object";
/// The task it serves.
pub const LABEL_TASK: &str = "bottega.task";
/// The claim it serves.
pub const LABEL_TOKEN: &str = "bottega.token";

/// What every container and image that a worker makes carries.
///
/// Labels are hints: an untrusted Dockerfile can forge them. An object is ours only if the node's
/// [`Ledger`](crate::Ledger) knows its UUID too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// The spool.
    pub spool: SpoolId,
    /// The worker's incarnation.
    pub owner: Owner,
    /// The task.
    pub task: TaskId,
    /// The claim.
    pub token: Token,
    /// The object's UUID in the ledger.
    pub object: uuid::Uuid,
}

impl Labels {
    /// As the engine wants them.
    #[must_use]
    pub fn to_map(&self) -> HashMap<String, String> {
        [
            (LABEL_SPOOL, self.spool.to_string()),
            (LABEL_NODE, self.owner.to_string()),
            (LABEL_OBJECT, self.object.to_string()),
            (LABEL_TASK, self.task.to_string()),
            (LABEL_TOKEN, self.token.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// From an object's labels; `None` where one is missing or malformed.
    #[must_use]
    pub fn from_map(map: &HashMap<String, String>) -> Option<Self> {
        Some(Self {
            spool: map.get(LABEL_SPOOL)?.parse().ok()?,
            owner: map.get(LABEL_NODE)?.parse().ok()?,
            object: map.get(LABEL_OBJECT)?.parse().ok()?,
            task: map.get(LABEL_TASK)?.parse().ok()?,
            token: map.get(LABEL_TOKEN)?.parse().ok()?,
        })
    }
}

/// The name of a task's image.
#[must_use]
pub fn image_name(id: &TaskId) -> String {
    format!("openswe--{id}")
}
