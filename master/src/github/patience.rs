use std::time::Duration;

/// How long what fails is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// What follows the first failure of a request; twice as much follows each further one.
    pub pause: Duration,
    /// The longest of these pauses.
    pub pause_max: Duration,
    /// What a server gets to recover from the first query that was too heavy; twice as much each further time.
    pub heavy_pause: Duration,
    /// The longest of these pauses.
    pub heavy_pause_max: Duration,
    /// How long a server that answers nothing at all, or cannot be reached, is waited for.
    pub outage_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            pause: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
            heavy_pause: Duration::from_millis(250),
            heavy_pause_max: Duration::from_secs(30),
            outage_max: Duration::from_secs(30 * 60),
        }
    }
}

impl Patience {
    /// The pause after so many failures in a row.
    pub(super) fn after(&self, failures: u32) -> Duration {
        doubled(self.pause, failures).min(self.pause_max)
    }

    /// The pause after so many queries in a row that were too heavy.
    pub(super) fn after_heavy(&self, heavy: u32) -> Duration {
        doubled(self.heavy_pause, heavy).min(self.heavy_pause_max)
    }
}

/// As it is the first time, and twice as much each further one.
fn doubled(pause: Duration, times: u32) -> Duration {
    pause.saturating_mul(1 << times.saturating_sub(1).min(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let patience = Patience::default();
        let check = |failures, expected_seconds| {
            assert_eq!(patience.after(failures), Duration::from_secs(expected_seconds), "{failures}");
        };
        check(0, 1);
        check(1, 1);
        check(2, 2);
        check(6, 32);
        check(7, 60);
        check(1000, 60);
        assert_eq!(patience.after_heavy(2), Duration::from_millis(500));
        assert_eq!(patience.after_heavy(40), Duration::from_secs(30));
    }
}
