use std::time::Duration;

/// What flows at most at a steady rate, with a minute's worth at once: calls, or tokens.
///
/// Taking more than there is makes a debt, and tells how long to wait until it is paid: so what is large passes too, and
/// whoever comes first waits least.
#[derive(Debug)]
pub(super) struct Pace {
    /// 0: no limit.
    per_minute: f64,
    level: f64,
    at: Duration,
}

impl Pace {
    pub(super) fn new(per_minute: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let per_minute = per_minute as f64;
        Self { per_minute, level: per_minute, at: Duration::ZERO }
    }

    /// Takes so much; gives how long to wait before using it.
    pub(super) fn take(&mut self, amount: u64, now: Duration) -> Duration {
        if self.per_minute <= 0.0 {
            return Duration::ZERO;
        }
        self.flow(now);
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let amount = amount as f64;
        self.level -= amount;
        match self.level < 0.0 {
            true => Duration::from_secs_f64(-self.level * 60.0 / self.per_minute),
            false => Duration::ZERO,
        }
    }

    /// Puts right what was guessed.
    pub(super) fn correct(&mut self, guessed: u64, used: u64) {
        if self.per_minute > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let more = used as f64 - guessed as f64;
            self.level = (self.level - more).min(self.per_minute);
        }
    }

    fn flow(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.level = (self.level + passed * self.per_minute / 60.0).min(self.per_minute);
        self.at = now.max(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_worth_passes_at_once_and_the_rest_at_its_rate() {
        let mut pace = Pace::new(60);
        let at = Duration::from_secs(1000);
        let waits: Vec<u64> = (0..63).map(|_| pace.take(1, at).as_secs()).collect();
        assert_eq!(waits[..60], [0; 60]);
        assert_eq!(waits[60..], [1, 2, 3]);
        // A minute later three of the sixty have been paid for already.
        let later = at + Duration::from_secs(60);
        assert_eq!(pace.take(57, later), Duration::ZERO);
        assert_eq!(pace.take(1, later).as_secs(), 1);
    }

    #[test]
    fn guesses_are_put_right() {
        let mut pace = Pace::new(600);
        assert_eq!(pace.take(600, Duration::ZERO), Duration::ZERO);
        pace.correct(600, 300);
        assert_eq!(pace.take(300, Duration::ZERO), Duration::ZERO);
        pace.correct(300, 400);
        assert_eq!(pace.take(0, Duration::ZERO), Duration::from_secs(10));
        let mut free = Pace::new(0);
        assert_eq!(free.take(u64::MAX, Duration::ZERO), Duration::ZERO);
    }
}
