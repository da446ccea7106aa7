//! When new builds are kept waiting for the removal of images.

use std::time::{Duration, Instant};

use queue_format::BUILD_WAIT_MAX;
use serde::{Deserialize, Serialize};

use crate::config::ENGINE_TIMEOUT_SECONDS_MAX;
use crate::disk::Level;
use crate::execute::{ALONE_MAX, SETTLE_MAX};

/// Images that have waited so long for a moment without builds get one.
const OVERDUE: Duration = Duration::from_secs(2 * 3600);

/// How long builds that run are waited for behind a shut door.
const SHUT_MAX: Duration = Duration::from_secs(180);

/// How long the door stays open between two such waits.
const OPEN_MIN: Duration = Duration::from_secs(600);

/// Questions that the engine may answer just before its time-out until one image is gone: what runs, a look, a removal that
/// takes three, and the last look at what it was too slow for.
const CALLS_PER_IMAGE: u64 = 6;

// No build may give up waiting while an image is still being removed.
const _: () = assert!(
    SHUT_MAX.as_secs()
        + ALONE_MAX.as_secs()
        + CALLS_PER_IMAGE * ENGINE_TIMEOUT_SECONDS_MAX
        + SETTLE_MAX.as_secs()
        < BUILD_WAIT_MAX.as_secs()
);

/// How a moment without builds is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BuildsWait {
    /// New builds begin meanwhile.
    Open(Duration),
    /// New builds wait meanwhile.
    Shut(Duration),
}

/// Keeps new builds out only where images go by no other way, and then seldom.
#[derive(Debug, Default)]
pub(crate) struct Door {
    /// Since when images have waited for a moment without builds.
    waiting_since: Option<Instant>,
    /// When the door was open again after it had last been shut.
    opened_at: Option<Instant>,
}

/// For how long, as one process tells it the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DoorTimes {
    /// Images have waited for a moment without builds.
    pub(crate) waited: Option<Duration>,
    /// The door has been open.
    pub(crate) open: Option<Duration>,
}

impl Door {
    /// What an earlier process left.
    pub(crate) fn recall(times: &DoorTimes, now: Instant) -> Self {
        let since = |time: Option<Duration>| time.and_then(|time| now.checked_sub(time));
        Self { waiting_since: since(times.waited), opened_at: since(times.open) }
    }

    /// What a later process goes on with.
    pub(crate) fn times(&self, now: Instant) -> DoorTimes {
        let elapsed = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        DoorTimes { waited: elapsed(self.waiting_since), open: elapsed(self.opened_at) }
    }

    /// How this pass waits for builds; `open_wait` is how long where it keeps none out.
    pub(crate) fn wait(&self, level: Level, open_wait: Duration, now: Instant) -> BuildsWait {
        let elapsed = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let is_overdue = elapsed(self.waiting_since).is_some_and(|waited| waited >= OVERDUE);
        let is_rested = elapsed(self.opened_at).is_none_or(|open| open >= OPEN_MIN);
        match is_rested && (level > Level::Calm || is_overdue) {
            true => BuildsWait::Shut(SHUT_MAX),
            false => BuildsWait::Open(open_wait),
        }
    }

    /// Takes note of what came of a pass that waited so: whether a moment was found, if one was looked for, and whether the
    /// wait is over, for images had their moment or none is left. A moment that somebody else's build spoiled ends no wait, nor
    /// does a pass that looked for none.
    pub(crate) fn note(&mut self, wait: BuildsWait, is_found: Option<bool>, is_over: bool, now: Instant) {
        match is_found {
            _ if is_over => self.waiting_since = None,
            Some(false) => self.waiting_since = self.waiting_since.or(Some(now)),
            Some(true) | None => {}
        }
        if is_found.is_some() && matches!(wait, BuildsWait::Shut(_)) {
            self.opened_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASS: Duration = Duration::from_secs(15);
    const OPEN_WAIT: Duration = Duration::from_secs(20);

    /// Passes of a day beside builds that each last so long, one of which always runs while the door is open: when images
    /// went first, and for how long the door was shut in all.
    fn day(level: Level, build: Duration) -> (Option<Duration>, Duration) {
        let start = Instant::now();
        let (mut now, mut door) = (start, Door::default());
        let (mut went, mut shut) = (None, Duration::ZERO);
        while now - start < Duration::from_secs(24 * 3600) {
            let wait = door.wait(level, OPEN_WAIT, now);
            let is_found = match wait {
                BuildsWait::Open(time) => {
                    now += time;
                    false
                }
                BuildsWait::Shut(time) => {
                    let waited = time.min(build);
                    now += waited;
                    shut += waited;
                    build <= time
                }
            };
            door.note(wait, Some(is_found), is_found, now);
            went = went.or(is_found.then(|| now - start));
            // Another process goes on.
            door = Door::recall(&door.times(now), now);
            now += PASS;
        }
        (went, shut)
    }

    #[test]
    fn images_go_beside_builds_that_never_end_all_at_once() {
        let (went, shut) = day(Level::Calm, Duration::from_secs(60));
        assert!(went.is_some_and(|went| went < OVERDUE + Duration::from_secs(300)), "{went:?}");
        assert!(shut < Duration::from_secs(15 * 60), "twelve times a day for a minute: {shut:?}");
        let (went, shut) = day(Level::High, Duration::from_secs(60));
        assert!(went.is_some_and(|went| went < Duration::from_secs(120)), "{went:?}");
        assert!(shut < Duration::from_secs(24 * 3600 / 10), "{shut:?}");
        let (went, shut) = day(Level::Emergency, Duration::from_secs(1800));
        assert_eq!(went, None);
        assert!(shut < Duration::from_secs(24 * 3600 / 4), "builds get three quarters of the time: {shut:?}");
    }

    #[test]
    fn the_door_stays_open_where_images_wait_for_nothing() {
        let start = Instant::now();
        let mut door = Door::default();
        let at = |second| start + Duration::from_secs(second);
        let open = BuildsWait::Open(OPEN_WAIT);
        door.note(open, Some(false), false, at(0));
        assert_eq!(door.wait(Level::Calm, OPEN_WAIT, at(7199)), open);
        assert_eq!(door.wait(Level::Calm, OPEN_WAIT, at(7200)), BuildsWait::Shut(SHUT_MAX));
        door.note(open, None, true, at(7200));
        assert_eq!(door.wait(Level::Calm, OPEN_WAIT, at(7201)), open, "none is left");
    }

    #[test]
    fn who_has_waited_waits_on_until_images_had_their_moment() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let open = BuildsWait::Open(OPEN_WAIT);
        let check = |is_found: Option<bool>, is_over: bool, expected: bool| {
            let mut door = Door::default();
            door.note(open, Some(false), false, at(0));
            door.note(open, is_found, is_over, at(7000));
            let is_shut = door.wait(Level::Calm, OPEN_WAIT, at(7200)) != open;
            assert_eq!(is_shut, expected, "{is_found:?} {is_over}");
        };
        check(Some(false), false, true);
        check(Some(false), true, false);
        // Somebody else built in that moment.
        check(Some(true), false, true);
        check(Some(true), true, false);
        // The engine did not answer, or nothing was ripe.
        check(None, false, true);
        check(None, true, false);
        let mut door = Door::default();
        door.note(open, Some(true), false, at(0));
        assert_eq!(door.wait(Level::Calm, OPEN_WAIT, at(9000)), open, "no build of ours was in the way");
    }
}
