use std::collections::HashMap;
use std::time::SystemTime;

use queue_format::Dropped;

/// Tells files that are complete from those that a `cp` still writes: size and time must be the same in two looks.
#[derive(Debug, Default)]
pub struct Settling {
    seen: HashMap<String, (u64, SystemTime)>,
}

impl Settling {
    /// Of what lies there now, what has not changed since the look before.
    pub fn look(&mut self, dropped: Vec<Dropped>) -> Vec<Dropped> {
        let before = std::mem::take(&mut self.seen);
        let (mut settled, mut open) = (Vec::new(), HashMap::new());
        for file in dropped {
            let state = (file.bytes, file.modified);
            if before.get(&file.name) == Some(&state) {
                settled.push(file);
            } else {
                open.insert(file.name, state);
            }
        }
        self.seen = open;
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
    use std::time::Duration;

    #[test]
    fn takes_a_file_only_once_it_rests() {
        let file = |name: &str, bytes, second| Dropped {
            name: name.to_owned(),
            path: name.into(),
            bytes,
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
        };
        let mut settling = Settling::default();
        let mut look = |files: &[Dropped]| {
            let names: Vec<String> = settling.look(files.to_vec()).into_iter().map(|f| f.name).collect();
            (names.join(" "), settling.is_waiting())
        };
        assert_eq!(look(&[file("a", 1, 1)]), (String::new(), true));
        assert_eq!(look(&[file("a", 2, 1), file("b", 1, 1)]), (String::new(), true));
        assert_eq!(look(&[file("a", 2, 1), file("b", 1, 2)]), ("a".to_owned(), true));
        assert_eq!(look(&[file("b", 1, 2)]), ("b".to_owned(), false));
        // Dropped again under the same name.
        assert_eq!(look(&[file("b", 1, 2)]), (String::new(), true));
    }
}
