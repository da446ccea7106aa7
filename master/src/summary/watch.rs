use std::collections::VecDeque;
use std::time::{Duration, Instant};

use queue_format::{Counts, Pace, PathError, Spool, Tally};

/// How far back the pace looks: long enough to even out tasks of minutes, short enough to follow a change.
const WINDOW: Duration = Duration::from_secs(3600);

/// Between two looks that are remembered.
const STEP: Duration = Duration::from_secs(10);

/// What one who looks at a spool again and again remembers of it.
#[derive(Debug, Default)]
pub struct Watch {
    tally: Tally,
    settled_last: Option<usize>,
    /// Tasks seen to be settled since the first look, whatever people had done again.
    settled: usize,
    /// What that number was, oldest first, within the window.
    looks: VecDeque<(Instant, usize)>,
}

impl Watch {
    /// Counts, and tells how fast tasks are settled; `None` where none was, as far as this watch goes back.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn look(&mut self, spool: &Spool, now: Instant) -> Result<(Counts, Option<Pace>), PathError> {
        let counts = spool.count(&mut self.tally, now)?;
        let pace = self.pace(counts.settled(), counts.open(), now);
        Ok((counts, pace))
    }

    fn pace(&mut self, settled: usize, open: usize, now: Instant) -> Option<Pace> {
        self.settled += settled.saturating_sub(self.settled_last.unwrap_or(settled));
        self.settled_last = Some(settled);
        while self.looks.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.looks.pop_front();
        }
        if self.looks.back().is_none_or(|(at, _)| now.duration_since(*at) >= STEP) {
            self.looks.push_back((now, self.settled));
        }
        let (since, before) = *self.looks.front()?;
        let gained = self.settled - before;
        // A window of almost nothing would promise too much.
        let window_seconds = now.duration_since(since).as_secs_f64().max(1.0);
        #[expect(clippy::cast_precision_loss, reason = "counts of tasks are far below 2^52")]
        let (a_second, open) = (gained as f64 / window_seconds, (open > 0).then_some(open as f64));
        (gained > 0).then_some(Pace {
            settled: gained,
            window_seconds,
            settled_per_hour: a_second * 3600.0,
            eta_seconds: open.map(|open| open / a_second),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_back_an_hour_at_most() {
        let begin = Instant::now();
        let mut watch = Watch::default();
        let mut check = |at: u64, settled, open, expected: Option<(usize, f64, f64, Option<f64>)>| {
            let pace = watch.pace(settled, open, begin + Duration::from_secs(at));
            let got = pace.map(|p| (p.settled, p.window_seconds, p.settled_per_hour, p.eta_seconds));
            assert_eq!(got, expected, "at {at} s");
        };
        // What was settled before the first look counts for nothing.
        check(0, 1000, 50, None);
        check(1, 1000, 50, None);
        check(2, 1001, 49, Some((1, 2.0, 1800.0, Some(98.0))));
        check(600, 1010, 40, Some((10, 600.0, 60.0, Some(2400.0))));
        // Failed tasks that a person retries were settled all the same.
        check(1200, 900, 150, Some((10, 1200.0, 30.0, Some(18_000.0))));
        check(3600, 960, 0, Some((70, 3600.0, 70.0, None)));
        check(4300, 960, 0, Some((60, 3100.0, 60.0 / 3100.0 * 3600.0, None)));
        check(9000, 960, 0, None);
    }
}
