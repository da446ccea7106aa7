use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One life of a process on a node, never used twice: the lower-case hex of a UUID v7 (its start time and randomness).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(String);

/// `<node>~<incarnation>`: who holds a claim, who wrote a result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner {
    node: String,
    incarnation: Incarnation,
}

/// Why a string is not an owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an owner: expected <node>~<incarnation> of [a-z0-9-]")]
pub struct InvalidOwner(pub String);

impl Incarnation {
    /// The incarnation that a fresh UUID v7 names.
    #[must_use]
    pub fn new(unique: Uuid) -> Self {
        Self(unique.simple().to_string())
    }
}

impl Owner {
    /// An owner on the host called `hostname`; what a file name or an owner cannot hold becomes `-`.
    #[must_use]
    pub fn new(hostname: &str, incarnation: Incarnation) -> Self {
        Self { node: node_name(hostname), incarnation }
    }

    /// The node's name, as it stands in every owner of that node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The process's life.
    #[must_use]
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }
}

/// The longest node name: leaves room for the other parts of a task's name in 255 bytes.
const NODE_BYTES_MAX: usize = 48;

/// A host's name as it stands in owners; a name that is one already stays as it is.
#[must_use]
pub fn node_name(hostname: &str) -> String {
    let first = hostname.split('.').next().unwrap_or_default();
    let name: String = first
        .chars()
        .take(NODE_BYTES_MAX)
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

impl FromStr for Owner {
    type Err = InvalidOwner;

    fn from_str(text: &str) -> Result<Self, InvalidOwner> {
        let legal = |part: &str| {
            !part.is_empty()
                && part.len() <= NODE_BYTES_MAX
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        match text.split_once('~') {
            Some((node, inc)) if legal(node) && legal(inc) => {
                Ok(Self { node: node.to_owned(), incarnation: Incarnation(inc.to_owned()) })
            }
            _ => Err(InvalidOwner(text.chars().take(120).collect())),
        }
    }
}

impl TryFrom<String> for Owner {
    type Error = InvalidOwner;

    fn try_from(text: String) -> Result<Self, InvalidOwner> {
        text.parse()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> String {
        owner.to_string()
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}", self.node, self.incarnation)
    }
}
