use std::collections::HashMap;

use crate::{LedgerEntry, ObjectKind, Owner, SpoolId, TaskId, Token};

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

    /// What the ledger is to say of the object that carries them.
    #[must_use]
    pub fn entry(&self, kind: ObjectKind, created_at: jiff::Timestamp) -> LedgerEntry {
        LedgerEntry {
            object: self.object,
            kind,
            spool: self.spool,
            owner: self.owner.clone(),
            task: self.task.clone(),
            token: self.token,
            created_at,
            ended_at: None,
        }
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

/// The name of a task's image. Most ids are legal there as they are; in the others, runs of `.`, `_` and `-` that
/// an image name cannot have become one `-`, and a digest keeps such names apart.
#[must_use]
pub fn image_name(id: &TaskId) -> String {
    let words: Vec<&str> = id.as_str().split(['.', '_', '-']).filter(|word| !word.is_empty()).collect();
    if is_legal(id.as_str()) {
        return format!("openswe--{id}");
    }
    let digest = blake3::hash(id.as_str().as_bytes()).to_hex();
    format!("openswe--{}-{}", words.join("-"), &digest[..8])
}

/// Whether an id is `word (separator word)*`, a separator being `.`, `_`, `__` or any number of `-`
/// (<https://github.com/distribution/reference>, path-component).
fn is_legal(id: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    id.ends_with(is_word)
        && id.split(is_word).all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_has_an_image_name_that_an_engine_takes() {
        let check = |id: &str, expected: &str| {
            assert_eq!(image_name(&id.parse().expect("an id")), expected);
        };
        check("pallets__click-1", "openswe--pallets__click-1");
        check("a.b--c_d", "openswe--a.b--c_d");
        for (id, begins) in
            [("a..b", "a-b-"), ("trail-", "trail-"), ("tri___ple", "tri-ple-"), ("x._y", "x-y-")]
        {
            let name = image_name(&id.parse().expect("an id"));
            let rest = name.strip_prefix("openswe--").expect("the prefix");
            assert!(rest.starts_with(begins) && is_legal(rest), "{id}: {name}");
        }
        assert_ne!(image_name(&"a..b".parse().expect("an id")), image_name(&"a-b".parse().expect("an id")));
    }
}
