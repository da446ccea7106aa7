use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::Dropped;

/// Tells files that are complete from those that somebody still writes: size and time must stay the same for a while.
#[derive(Debug)]
pub struct Settling {
    rest: Duration,
    seen: HashMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    bytes: u64,
    modified: SystemTime,
    since: Duration,
}

impl Settling {
    /// Files count as complete after `rest`.
    #[must_use]
    pub fn new(rest: Duration) -> Self {
        Self { rest, seen: HashMap::new() }
    }

    /// Of what lies there `now`, by a clock that no one sets, what has not changed for long enough.
    pub fn look(&mut self, dropped: Vec<Dropped>, now: Duration) -> Vec<Dropped> {
        let mut before = std::mem::take(&mut self.seen);
        let mut settled = Vec::new();
        for file in dropped {
            let (bytes, modified) = (file.bytes, file.modified);
            let known = before.remove(&file.name).filter(|s| (s.bytes, s.modified) == (bytes, modified));
            let seen = known.unwrap_or(Seen { bytes, modified, since: now });
            if now - seen.since >= self.rest {
                settled.push(file);
            } else {
                self.seen.insert(file.name, seen);
            }
        }
        settled
    }

    /// True while a file is being waited for.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.seen.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_file_only_once_it_rests() {
        let file = |name: &str, bytes, second| Dropped {
            name: name.to_owned(),
            path: name.into(),
            bytes,
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
        };
        let mut settling = Settling::new(Duration::from_secs(10));
        let mut look = |now, files: &[Dropped]| {
            let settled = settling.look(files.to_vec(), Duration::from_secs(now));
            let names: Vec<String> = settled.into_iter().map(|f| f.name).collect();
            (names.join(" "), settling.is_waiting())
        };
        assert_eq!(look(0, &[file("a", 1, 1)]), (String::new(), true));
        assert_eq!(look(9, &[file("a", 2, 1), file("b", 1, 1)]), (String::new(), true));
        // It has rested since the change, and not since it was first seen.
        assert_eq!(look(18, &[file("a", 2, 1), file("b", 1, 2)]), (String::new(), true));
        assert_eq!(look(19, &[file("a", 2, 1), file("b", 1, 2)]), ("a".to_owned(), true));
        assert_eq!(look(28, &[file("b", 1, 2)]), ("b".to_owned(), false));
        // Dropped again under the same name.
        assert_eq!(look(29, &[file("b", 1, 2)]), (String::new(), true));
        assert_eq!(look(30, &[]), (String::new(), false));
    }
}
