//! When each image was last used: the engine tells what happens, and lists make good for what it forgot to tell.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::inventory::Objects;

/// The file in the state directory.
const USES_FILE: &str = "janitor-uses.json";
/// A clock is put right by less than this, but for once.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(600);
/// The largest such file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Last uses of the images that the engine holds. Never needed to continue: without it everything was used just now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    /// Until when the engine's events were heard.
    pub heard_at: Option<Timestamp>,
    /// By full id.
    images: BTreeMap<String, Timestamp>,
}

/// The time by both clocks: the one that people set, and the one that nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) wall: Timestamp,
    pub(crate) steady: Instant,
}

impl Moment {
    /// Whether somebody has set the clock since `before`: ages that were noted then mean nothing now.
    pub(crate) fn is_after_jump(self, before: Self) -> bool {
        let wall = self.wall.duration_since(before.wall);
        let steady = self.steady.saturating_duration_since(before.steady);
        let steady = jiff::SignedDuration::try_from(steady).unwrap_or(jiff::SignedDuration::MAX);
        (wall.saturating_sub(steady)).unsigned_abs() > CLOCK_STEP_MAX
    }
}

/// What the engine told since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// An image, as it was named then, and when.
    pub uses: Vec<(String, Timestamp)>,
    /// Whether the engine had forgotten some of it: it keeps a few hundred events.
    pub is_partial: bool,
}

impl Uses {
    /// Takes note of a list of what is there, and of what was heard since the one before. An image that is new, or has a
    /// container of any kind, is used now; if something was missed, all are.
    pub fn note(&mut self, objects: &Objects, heard: &Heard, now: Timestamp) {
        let mut before = std::mem::take(&mut self.images);
        for image in &objects.images {
            let used_at = before.remove(&image.id).filter(|_| !heard.is_partial).unwrap_or(now);
            self.images.insert(image.id.clone(), used_at.min(now));
        }
        for container in &objects.containers {
            if let Some(used_at) = self.images.get_mut(&container.image_id) {
                *used_at = now;
            }
        }
        let by_tag: BTreeMap<&str, &str> = objects
            .images
            .iter()
            .flat_map(|image| image.tags.iter().map(|tag| (tag.as_str(), image.id.as_str())))
            .collect();
        for (name, at) in &heard.uses {
            let latest = format!("{name}:latest");
            let id =
                by_tag.get(name.as_str()).or_else(|| by_tag.get(latest.as_str())).copied().unwrap_or(name);
            if let Some(used_at) = self.images.get_mut(id) {
                *used_at = (*used_at).max(*at);
            }
        }
        self.heard_at = Some(now);
    }

    /// By full id.
    #[must_use]
    pub fn of_images(&self) -> &BTreeMap<String, Timestamp> {
        &self.images
    }

    pub(crate) fn read(state_dir: &Path) -> Self {
        let path = file(state_dir);
        let is_small = path.metadata().is_ok_and(|found| found.len() <= FILE_BYTES_MAX);
        let text = if is_small { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// A file that is torn by a crash reads as none.
    pub(crate) fn write(&self, state_dir: &Path) -> std::io::Result<()> {
        fs::write(file(state_dir), serde_json::to_vec(self)?)
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(USES_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Container, Image};

    #[test]
    fn the_last_use_is_what_is_heard_or_seen_last() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let image = |id: &str| Image {
            id: id.to_owned(),
            parent_id: None,
            tags: vec![format!("name-of-{id}:latest")],
            labels: Default::default(),
            created_at: None,
            size_bytes: 0,
        };
        let container = |image: &str| Container { image_id: image.to_owned(), ..Container::default() };
        let mut uses = Uses::default();
        let mut check = |now, images: &[&str], used: &[&str], heard: &Heard, expected: &[(&str, i64)]| {
            let objects = Objects {
                containers: used.iter().map(|id| container(id)).collect(),
                images: images.iter().map(|id| image(id)).collect(),
            };
            uses.note(&objects, heard, at(now));
            let found: Vec<_> =
                uses.of_images().iter().map(|(id, at)| (id.as_str(), at.as_second())).collect();
            assert_eq!(found, expected, "at {now}");
        };
        let none = Heard::default();
        check(10, &["a", "b", "c"], &[], &none, &[("a", 10), ("b", 10), ("c", 10)]);
        check(20, &["a", "b", "c"], &["b"], &none, &[("a", 10), ("b", 20), ("c", 10)]);
        let heard =
            |name: &str, second| Heard { uses: vec![(name.to_owned(), at(second))], is_partial: false };
        check(30, &["a", "b"], &[], &heard("name-of-a", 25), &[("a", 25), ("b", 20)]);
        check(40, &["a", "b"], &[], &heard("a", 35), &[("a", 35), ("b", 20)]);
        check(50, &["a", "b"], &[], &heard("name-of-b:latest", 15), &[("a", 35), ("b", 20)]);
        check(60, &["a", "b", "c"], &[], &heard("gone", 55), &[("a", 35), ("b", 20), ("c", 60)]);
        let partial = Heard { uses: vec![], is_partial: true };
        check(70, &["a", "b"], &[], &partial, &[("a", 70), ("b", 70)]);
        // The clock was set back.
        check(5, &["a"], &[], &none, &[("a", 5)]);
    }

    #[test]
    fn a_clock_that_was_set_is_noticed() {
        let start = Instant::now();
        let moment = |wall, steady| Moment {
            wall: Timestamp::from_second(wall).expect("a time"),
            steady: start + Duration::from_secs(steady),
        };
        let check = |wall, steady, expected| {
            let before = moment(100_000, 0);
            assert_eq!(moment(wall, steady).is_after_jump(before), expected, "{wall} {steady}");
        };
        check(100_010, 10, false);
        check(100_600, 0, false);
        check(100_601, 0, true);
        check(99_400, 0, false);
        check(99_399, 0, true);
        check(110_000, 10_000, false);
        check(100_010, 10_000, true);
        check(40_000_000, 10, true);
        check(0, 10, true);
    }

    #[test]
    fn what_cannot_be_read_counts_as_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(Uses::read(dir.path()), Uses::default());
        let mut uses = Uses { heard_at: Some(Timestamp::UNIX_EPOCH), ..Uses::default() };
        uses.images.insert("a".to_owned(), Timestamp::UNIX_EPOCH);
        uses.write(dir.path()).expect("written");
        assert_eq!(Uses::read(dir.path()), uses);
        fs::write(file(dir.path()), "{\"heard_at\"").expect("written");
        assert_eq!(Uses::read(dir.path()), Uses::default());
    }
}
