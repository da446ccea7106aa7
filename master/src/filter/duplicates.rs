use std::collections::HashMap;

use queue_format::Instance;

/// The rows that were accepted before, by what makes two of them the same. It grows with what is accepted, by some
/// hundred bytes a row, not with what is read.
#[derive(Debug, Default)]
pub(super) struct Duplicates(HashMap<[u8; 16], u64>);

impl Duplicates {
    /// Remembers a row under its number; or what it repeats, and the number of the row that it repeats.
    pub(super) fn insert(&mut self, instance: &Instance, number: u64) -> Result<(), (&'static str, u64)> {
        let repo = instance.repo.to_ascii_lowercase();
        let id = instance.instance_id.to_ascii_lowercase();
        // Forks and backports repeat a fix under other numbers; the same edit on another commit is another task.
        let fix = blake3::hash(instance.patch.as_bytes()).to_hex();
        let mut keys = vec![
            ("the id", key(&["id", &id])),
            ("the base commit and the fix", key(&["fix", &instance.base_commit, &fix])),
        ];
        // Where the source does not know it, 0 is no number.
        if instance.pull_number > 0 {
            keys.push(("the pull request", key(&["pull", &repo, &instance.pull_number.to_string()])));
        }
        if let Some((what, first)) = keys.iter().find_map(|(what, key)| Some((*what, *self.0.get(key)?))) {
            return Err((what, first));
        }
        self.0.extend(keys.into_iter().map(|(_, key)| (key, number)));
        Ok(())
    }
}

fn key(parts: &[&str]) -> [u8; 16] {
    let digest = blake3::hash(parts.join("\0").as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&digest.as_bytes()[..16]);
    key
}
