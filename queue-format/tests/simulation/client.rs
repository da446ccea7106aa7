use std::collections::BTreeMap;

use crate::rng::Rng;
use crate::server::{Attributes, Ino, Name};

/// How long a client trusts what it remembers, as Linux does by default (acregmin to acdirmax).
const TRUST_MS: (u64, u64) = (3_000, 60_000);

/// What one node's NFS client remembers; all processes of the node share it.
#[derive(Debug, Default)]
pub(crate) struct Client {
    names: BTreeMap<Ino, BTreeMap<Name, Remembered<Option<Ino>>>>,
    lists: BTreeMap<Ino, Remembered<Vec<Name>>>,
    attributes: BTreeMap<Ino, Remembered<Attributes>>,
}

#[derive(Debug)]
struct Remembered<T> {
    what: T,
    until_ms: u64,
}

impl<T> Remembered<T> {
    fn new(what: T, now_ms: u64, rng: &mut Rng) -> Self {
        Self { what, until_ms: now_ms + rng.between(TRUST_MS.0, TRUST_MS.1) }
    }

    fn get(&self, now_ms: u64) -> Option<&T> {
        (now_ms < self.until_ms).then_some(&self.what)
    }
}

impl Client {
    /// What it believes of a name: `Some(None)` that there is nothing.
    pub(crate) fn name(&self, dir: Ino, name: &str, now_ms: u64) -> Option<Option<Ino>> {
        self.names.get(&dir)?.get(name)?.get(now_ms).copied()
    }

    pub(crate) fn list(&self, dir: Ino, now_ms: u64) -> Option<Vec<Name>> {
        self.lists.get(&dir)?.get(now_ms).cloned()
    }

    pub(crate) fn attributes(&self, ino: Ino, now_ms: u64) -> Option<Attributes> {
        self.attributes.get(&ino)?.get(now_ms).copied()
    }

    pub(crate) fn saw_name(&mut self, dir: Ino, name: &Name, ino: Option<Ino>, now_ms: u64, rng: &mut Rng) {
        self.names.entry(dir).or_default().insert(name.clone(), Remembered::new(ino, now_ms, rng));
    }

    pub(crate) fn saw_list(&mut self, dir: Ino, names: &[Name], now_ms: u64, rng: &mut Rng) {
        self.lists.insert(dir, Remembered::new(names.to_vec(), now_ms, rng));
    }

    pub(crate) fn saw_attributes(&mut self, ino: Ino, attributes: Attributes, now_ms: u64, rng: &mut Rng) {
        self.attributes.insert(ino, Remembered::new(attributes, now_ms, rng));
    }

    /// A change of its own in a directory: what it knew of absence there, and its listing, is void.
    pub(crate) fn changed(&mut self, dir: Ino) {
        self.lists.remove(&dir);
        self.attributes.remove(&dir);
        if let Some(names) = self.names.get_mut(&dir) {
            names.retain(|_, remembered| remembered.what.is_some());
        }
    }

    pub(crate) fn forget_name(&mut self, dir: Ino, name: &str) -> Option<Ino> {
        self.names.get_mut(&dir)?.remove(name)?.what
    }

    pub(crate) fn forget_attributes(&mut self, ino: Ino) {
        self.attributes.remove(&ino);
    }
}
