use std::collections::HashSet;

use crate::{TaskId, Token};

/// Every task that was seen, in 16 bytes each: enough to find ids that come twice, and tokens that fell behind.
#[derive(Debug, Default)]
pub(super) struct Index {
    seen: Vec<Seen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    key: u64,
    token: Token,
}

/// Stands for an id; two ids may share a key once in a very long time, and so a key is a suspicion only.
pub(super) fn key(id: &TaskId) -> u64 {
    let hash = blake3::hash(id.as_str().as_bytes());
    hash.as_bytes().iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte))
}

impl Index {
    pub(super) fn add(&mut self, id: &TaskId, token: Token) {
        self.seen.push(Seen { key: key(id), token });
    }

    /// After the last task, before the first question.
    pub(super) fn sort(&mut self) {
        self.seen.sort_unstable();
    }

    /// Keys that were seen more than once.
    pub(super) fn repeated(&self) -> HashSet<u64> {
        self.seen.windows(2).filter(|pair| pair[0].key == pair[1].key).map(|pair| pair[0].key).collect()
    }

    /// The highest token of an id; `None` where it was not seen.
    pub(super) fn token(&self, id: &TaskId) -> Option<Token> {
        let key = key(id);
        let end = self.seen.partition_point(|seen| seen.key <= key);
        self.seen[..end].last().filter(|seen| seen.key == key).map(|seen| seen.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_comes_twice_and_the_highest_token() {
        let id = |text: &str| -> TaskId { text.parse().expect("an id") };
        let mut index = Index::default();
        for (text, token) in [("a", 1), ("b", 7), ("c", 0), ("b", 3)] {
            index.add(&id(text), Token(token));
        }
        index.sort();
        assert_eq!(index.repeated(), [key(&id("b"))].into());
        let token = |text: &str| index.token(&id(text));
        assert_eq!(
            [token("a"), token("b"), token("c"), token("d")],
            [Some(Token(1)), Some(Token(7)), Some(Token(0)), None]
        );
    }
}
