use std::time::Duration;

/// Failures in a row after which an endpoint is left alone.
const STRIKES_MAX: u32 = 5;
/// How long at first, and at most; each time it fails the one call that tries it then, twice as long.
const REST_MIN: Duration = Duration::from_secs(2);
const REST_MAX: Duration = Duration::from_secs(300);

/// Whether an endpoint is asked: after failures in a row it rests, and then one call tries it.
///
/// ```text
/// closed ──5 failures──► resting ──time──► tried by one call ──answer──► closed
///                           ▲                     │
///                           └──────failure────────┘
/// ```
#[derive(Debug, Default)]
pub(super) struct Fuse {
    strikes: u32,
    rests: u32,
    until: Option<Duration>,
    is_tried: bool,
}

impl Fuse {
    /// How long it rests yet; none where a call may be made, which then must end in [`Fuse::answered`],
    /// [`Fuse::failed`] or [`Fuse::left`].
    pub(super) fn enter(&mut self, now: Duration) -> Duration {
        match self.until {
            None => Duration::ZERO,
            Some(until) if now < until => until - now,
            // Somebody else is trying it: soon we know.
            Some(_) if self.is_tried => REST_MIN / 4,
            Some(_) => {
                self.is_tried = true;
                Duration::ZERO
            }
        }
    }

    /// How long it rests yet, without entering.
    pub(super) fn rest(&self, now: Duration) -> Duration {
        match self.until {
            Some(until) if now < until => until - now,
            Some(_) if self.is_tried => REST_MIN / 4,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// A failure; `random` is from 0 to 1. `at_once`: nothing but a person can mend it.
    pub(super) fn failed(&mut self, now: Duration, at_once: bool, random: f64) {
        self.strikes += 1;
        if self.is_tried || at_once || (self.until.is_none() && self.strikes >= STRIKES_MAX) {
            let rest = if at_once { REST_MAX } else { REST_MIN * 2_u32.pow(self.rests.min(10)) };
            self.until = Some(now + rest.min(REST_MAX).mul_f64(0.5 + random / 2.0));
            self.rests += 1;
            self.is_tried = false;
        }
    }

    /// The call ended with nothing that speaks for or against it.
    pub(super) fn left(&mut self) {
        self.is_tried = false;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.until.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_after_failures_and_is_tried_by_one() {
        let (mut fuse, mut now) = (Fuse::default(), Duration::from_secs(10));
        for _ in 1..STRIKES_MAX {
            fuse.failed(now, false, 1.0);
            assert_eq!(fuse.enter(now), Duration::ZERO);
        }
        fuse.failed(now, false, 1.0);
        assert_eq!(fuse.enter(now), REST_MIN);
        now += REST_MIN;
        assert_eq!(fuse.enter(now), Duration::ZERO, "one tries");
        assert!(fuse.enter(now) > Duration::ZERO, "the others wait");
        fuse.failed(now, false, 1.0);
        assert_eq!(fuse.rest(now), REST_MIN * 2);
        now += REST_MIN * 2;
        assert_eq!(fuse.enter(now), Duration::ZERO);
        fuse.left();
        assert_eq!(fuse.enter(now), Duration::ZERO, "the next may try");
        fuse.answered();
        assert!(fuse.is_closed() && fuse.enter(now) == Duration::ZERO && fuse.enter(now) == Duration::ZERO);
        for _ in 0..50 {
            fuse.failed(now, true, 1.0);
        }
        assert_eq!(fuse.rest(now), REST_MAX);
    }
}
