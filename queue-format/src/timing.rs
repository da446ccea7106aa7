use serde::{Deserialize, Serialize};

/// How soon a silent daemon gives up itself, and how much later others do: the same for all of a spool, and so
/// kept in its `spool.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// Between two beats of a heartbeat.
    pub beat_seconds: u64,
    /// Without a beat for this long, by a clock that counts suspended time too, a worker ends all that it runs.
    pub fence_seconds: u64,
    /// A heartbeat that has stood still for this long, by the judge's own clock, is a dead one's.
    pub silence_seconds: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { beat_seconds: 10, fence_seconds: 120, silence_seconds: 180 }
    }
}

impl Timing {
    /// Checks that a worker gives up well before others give it up.
    ///
    /// # Errors
    /// The key that is wrong, and what is expected.
    pub fn check(&self) -> Result<(), String> {
        const SECONDS_MAX: u64 = 24 * 3600;
        let Self { beat_seconds, fence_seconds, silence_seconds } = *self;
        if !(1..=SECONDS_MAX).contains(&beat_seconds) {
            return Err(format!("timing.beat_seconds is {beat_seconds}, expected 1 to {SECONDS_MAX}"));
        }
        if !(3 * beat_seconds..=SECONDS_MAX).contains(&fence_seconds) {
            return Err(format!(
                "timing.fence_seconds is {fence_seconds}, expected {} (3 beats) to {SECONDS_MAX}",
                3 * beat_seconds
            ));
        }
        let least = fence_seconds + fence_seconds / 2;
        if !(least..=2 * SECONDS_MAX).contains(&silence_seconds) {
            return Err(format!(
                "timing.silence_seconds is {silence_seconds}, expected {least} (1.5 × fence_seconds) to {}",
                2 * SECONDS_MAX
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_gives_up_before_others_give_it_up() {
        let check = |beat_seconds, fence_seconds, silence_seconds, wrong: Option<&str>| {
            let timing = Timing { beat_seconds, fence_seconds, silence_seconds };
            let why = timing.check().err();
            let key = why.as_deref().and_then(|why| why.strip_prefix("timing.")?.split(' ').next());
            assert_eq!(key, wrong, "{why:?}");
        };
        check(10, 120, 180, None);
        check(1, 3, 4, None);
        check(0, 120, 180, Some("beat_seconds"));
        check(10, 29, 180, Some("fence_seconds"));
        check(10, 120, 179, Some("silence_seconds"));
        check(u64::MAX / 4, 120, 180, Some("beat_seconds"));
        assert_eq!(Timing::default().check(), Ok(()));
    }
}
