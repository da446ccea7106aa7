//! When each image was last used: the engine tells what happens, and lists make good for what it forgot to tell.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base_images::short_name;
use bollard::models::EventMessage;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use systemd::state_file;

use crate::inventory::{Image, Objects};
use crate::named::NamedImages;

/// The file in the state directory.
const USES_FILE: &str = "janitor-uses.json";
/// A clock is put right by less than this, but for once.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(600);
/// A machine that starts has been off for less than this, or its clock was set.
const OFF_MAX: Duration = Duration::from_secs(24 * 3600);
/// The largest such file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Last uses of the images that the engine holds. Never needed to continue: without it everything was used just now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Uses {
    /// Until when the engine's events were heard.
    pub(crate) heard_at: Option<Timestamp>,
    /// The last of these events.
    pub(crate) last: Option<Anchor>,
    /// When this was noted.
    noted_at: Option<Moment>,
    /// Which bucket of the spool's results is looked at next.
    pub(crate) bucket: Option<u8>,
    /// By full id.
    images: BTreeMap<String, Timestamp>,
}

/// The time by both clocks: the one that people set, and the one that nobody does, which counts from the machine's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) wall: Timestamp,
    /// Which start of the machine that was.
    pub(crate) boot_id: String,
    pub(crate) since_boot: Duration,
}

impl Moment {
    /// Now, when it is `wall` by the clock that people set.
    pub(crate) fn at(wall: Timestamp) -> Self {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        // With the time that the machine slept.
        let since_boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
        let since_boot = since_boot.map_or(Duration::ZERO, Duration::from);
        Self { wall, boot_id: boot_id.trim().to_owned(), since_boot }
    }

    /// How long ago `before` was; `None` where the machine was started in between, or nobody can tell.
    pub(crate) fn since(&self, before: &Self) -> Option<Duration> {
        let is_same = !self.boot_id.is_empty() && self.boot_id == before.boot_id;
        self.since_boot.checked_sub(before.since_boot).filter(|_| is_same)
    }

    /// Whether somebody has set the clock since `before`: ages that were noted then mean nothing now.
    fn is_after_jump(&self, before: &Self) -> bool {
        let wall = self.wall.duration_since(before.wall);
        // Where nobody tells which start it was, a younger one is another.
        if self.boot_id != before.boot_id || self.since_boot < before.since_boot {
            let off = SignedDuration::ZERO..SignedDuration::try_from(OFF_MAX).unwrap_or(SignedDuration::MAX);
            return !off.contains(&wall);
        }
        let steady = SignedDuration::try_from(self.since_boot.saturating_sub(before.since_boot));
        let steady = steady.unwrap_or(SignedDuration::MAX);
        (wall.saturating_sub(steady)).unsigned_abs() > CLOCK_STEP_MAX
    }
}

/// An event by which an engine is known again: one that has forgotten it has forgotten others too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Anchor {
    nanoseconds: i64,
}

impl Anchor {
    pub(crate) fn of(event: &EventMessage) -> Option<Self> {
        event.time_nano.map(|nanoseconds| Self { nanoseconds })
    }

    pub(crate) fn is(self, event: &EventMessage) -> bool {
        event.time_nano == Some(self.nanoseconds)
    }

    pub(crate) fn second(self) -> i64 {
        self.nanoseconds.div_euclid(1_000_000_000)
    }
}

/// What the engine told since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// An image, as it was named then, and when.
    pub(crate) uses: Vec<(String, Timestamp)>,
    /// Whether the engine had forgotten some of it.
    pub(crate) is_partial: bool,
    /// The last that it told.
    pub(crate) last: Option<Anchor>,
}

impl Uses {
    /// Takes note of a list of what is there, and of what was heard since the one before. An image that is new, or has a
    /// container of any kind, is used now; if something was missed, or the clock was set, all are.
    pub(crate) fn note(&mut self, objects: &Objects, heard: &Heard, now: Moment) {
        let is_after_jump = self.noted_at.as_ref().is_some_and(|before| now.is_after_jump(before));
        if is_after_jump {
            tracing::warn!("the clock was set; every image counts as used now");
        }
        let mut before = std::mem::take(&mut self.images);
        if heard.is_partial || is_after_jump {
            before.clear();
        }
        let wall = now.wall;
        for image in &objects.images {
            let used_at = before.remove(&image.id).unwrap_or(wall);
            self.images.insert(image.id.clone(), used_at.min(wall));
        }
        for container in &objects.containers {
            if let Some(used_at) = self.images.get_mut(&container.image_id) {
                *used_at = wall;
            }
        }
        let by_tag: BTreeMap<&str, &str> = objects
            .images
            .iter()
            .flat_map(|image| image.tags.iter().map(|tag| (tag.as_str(), image.id.as_str())))
            .collect();
        for (name, at) in &heard.uses {
            let listed =
                |name: &str| by_tag.get(name).or_else(|| by_tag.get(format!("{name}:latest").as_str()));
            // Whichever engine it is: what may have been used counts as used.
            if name.contains('@') {
                let named = NamedImages::from_iter([name]);
                for image in objects.images.iter().filter(|image: &&Image| named.mean(image)) {
                    let used_at = self.images.entry(image.id.clone()).or_insert(*at);
                    *used_at = (*used_at).max(*at);
                }
                continue;
            }
            let names = [short_name(name, false), short_name(name, true)];
            let by_name = names.iter().find_map(|name| listed(name)).map(|id| (*id).to_owned());
            let Some(id) = by_name.or_else(|| id_of(name)) else { continue };
            let of_id = self.images.range_mut(id.clone()..).take_while(|(found, _)| found.starts_with(&id));
            of_id.for_each(|(_, used_at)| *used_at = (*used_at).max(*at));
        }
        self.heard_at = Some(wall);
        self.last = heard.last;
        self.noted_at = Some(now);
    }

    /// By full id.
    pub(crate) fn of_images(&self) -> &BTreeMap<String, Timestamp> {
        &self.images
    }

    pub(crate) fn read(state_dir: &Path) -> Self {
        let path = file(state_dir);
        let is_small = path.metadata().is_ok_and(|found| found.len() <= FILE_BYTES_MAX);
        let text = if is_small { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(crate) fn write(&self, state_dir: &Path) -> std::io::Result<()> {
        state_file::replace(&file(state_dir), &serde_json::to_vec(self)?, 0o640)
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(USES_FILE)
}

/// The id that an image is called by, or the beginning of it. Podman leaves out of what kind it is.
fn id_of(name: &str) -> Option<String> {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let is_id = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| format!("sha256:{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Container;

    fn moment(boot: &str, wall: i64, since_boot: u64) -> Moment {
        let wall = Timestamp::from_second(wall).expect("a time");
        Moment { wall, boot_id: boot.to_owned(), since_boot: Duration::from_secs(since_boot) }
    }

    #[test]
    fn the_last_use_is_what_is_heard_or_seen_last() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let image = |id: &str| Image {
            id: format!("sha256:{id}"),
            parent_id: None,
            tags: vec![format!("name-of-{id}:latest")],
            labels: Default::default(),
            created_at: None,
            size_bytes: 0,
        };
        let container =
            |image: &str| Container { image_id: format!("sha256:{image}"), ..Container::default() };
        let mut uses = Uses::default();
        let mut check = |now, images: &[&str], used: &[&str], heard: &Heard, expected: &[(&str, i64)]| {
            let objects = Objects {
                containers: used.iter().map(|id| container(id)).collect(),
                images: images.iter().map(|id| image(id)).collect(),
                ..Objects::default()
            };
            uses.note(&objects, heard, moment("here", now, now as u64));
            let found: Vec<_> =
                uses.of_images().iter().map(|(id, at)| (&id["sha256:".len()..], at.as_second())).collect();
            assert_eq!(found, expected, "at {now}");
        };
        let none = Heard::default();
        check(10, &["a", "b", "c"], &[], &none, &[("a", 10), ("b", 10), ("c", 10)]);
        check(20, &["a", "b", "c"], &["b"], &none, &[("a", 10), ("b", 20), ("c", 10)]);
        let heard =
            |name: &str, second| Heard { uses: vec![(name.to_owned(), at(second))], ..Heard::default() };
        check(30, &["a", "b"], &[], &heard("name-of-a", 25), &[("a", 25), ("b", 20)]);
        check(40, &["a", "b"], &[], &heard("sha256:a", 35), &[("a", 35), ("b", 20)]);
        check(50, &["a", "b"], &[], &heard("name-of-b:latest", 15), &[("a", 35), ("b", 20)]);
        check(60, &["a", "b", "c"], &[], &heard("gone", 55), &[("a", 35), ("b", 20), ("c", 60)]);
        let partial = Heard { is_partial: true, ..Heard::default() };
        check(70, &["a", "b"], &[], &partial, &[("a", 70), ("b", 70)]);
        // The clock was set back a little.
        check(5, &["a"], &[], &none, &[("a", 5)]);
        check(6, &["a", "b"], &[], &none, &[("a", 5), ("b", 6)]);
        let far = heard("docker.io/library/name-of-b:latest", 7);
        check(8, &["a", "b"], &[], &far, &[("a", 5), ("b", 7)]);
        // By its id without its kind, or by the beginning of it.
        check(9, &["a1", "a2", "b"], &[], &none, &[("a1", 9), ("a2", 9), ("b", 7)]);
        check(12, &["a1", "a2", "b"], &[], &heard("a1", 11), &[("a1", 11), ("a2", 9), ("b", 7)]);
        check(14, &["a1", "a2", "b"], &[], &heard("a", 13), &[("a1", 13), ("a2", 13), ("b", 7)]);
        check(16, &["a1", "b"], &[], &heard("ab:c", 15), &[("a1", 13), ("b", 7)]);
    }

    #[test]
    fn a_clock_that_was_set_is_noticed() {
        let check = |boot: &str, wall, since_boot, expected| {
            let before = moment("one", 100_000, 50);
            let now = moment(boot, wall, since_boot);
            assert_eq!(now.is_after_jump(&before), expected, "{boot} {wall} {since_boot}");
        };
        check("one", 100_010, 60, false);
        check("one", 100_600, 50, false);
        check("one", 100_601, 50, true);
        check("one", 99_400, 50, false);
        check("one", 99_399, 50, true);
        check("one", 110_000, 10_050, false);
        check("one", 100_010, 10_050, true);
        check("one", 40_000_000, 60, true);
        check("one", 0, 60, true);
        // The machine was started anew.
        check("two", 100_100, 5, false);
        check("two", 186_000, 5, false);
        check("two", 186_401, 5, true);
        check("two", 99_999, 5, true);
        // In a namespace that hides it.
        check("one", 100_700, 5, false);
        check("one", 186_401, 5, true);
        let now = Moment::at(Timestamp::now());
        assert_eq!(now.boot_id.len(), 36, "the kernel tells it");
        assert!(now.since_boot > Duration::ZERO && !Moment::at(Timestamp::now()).is_after_jump(&now));
    }

    #[test]
    fn what_cannot_be_read_counts_as_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(Uses::read(dir.path()), Uses::default());
        let mut uses = Uses { heard_at: Some(Timestamp::UNIX_EPOCH), ..Uses::default() };
        uses.images.insert("a".to_owned(), Timestamp::UNIX_EPOCH);
        uses.write(dir.path()).expect("written");
        assert_eq!(Uses::read(dir.path()), uses);
        let mut reader = fs::File::open(file(dir.path())).expect("opened");
        Uses::default().write(dir.path()).expect("written");
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut text).expect("read");
        assert_eq!(serde_json::from_slice::<Uses>(&text).expect("whole"), uses, "it is never half written");
        fs::write(file(dir.path()), "{\"heard_at\"").expect("written");
        assert_eq!(Uses::read(dir.path()), Uses::default());
    }
}
