use jiff::Timestamp;
use serde::Serialize;

use super::Outcome;

/// How fast tasks are settled, and when the open ones will be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pace {
    /// Tasks settled within the window.
    pub settled: usize,
    /// The window: the last hour, or less if nothing was worked on before.
    pub window_seconds: f64,
    /// Tasks an hour.
    pub settled_per_hour: f64,
    /// Until all open tasks are settled at this pace; `None` where none is open.
    pub eta_seconds: Option<f64>,
}

/// How far back the pace looks: long enough to even out tasks of minutes, short enough to follow a change.
const WINDOW_SECONDS: f64 = 3600.0;

impl Pace {
    /// From what was settled; `None` where nothing was within the window.
    #[must_use]
    pub fn of(outcomes: &[Outcome], open: usize, now: Timestamp) -> Option<Self> {
        let age = |at: Timestamp| now.duration_since(at).as_secs_f64().max(0.0);
        let recent: Vec<&Outcome> =
            outcomes.iter().filter(|o| age(o.finished_at) <= WINDOW_SECONDS).collect();
        let earliest = recent.iter().map(|o| o.started_at).min()?;
        // A window of almost nothing would promise too much.
        let window_seconds = age(earliest).clamp(1.0, WINDOW_SECONDS);
        #[expect(clippy::cast_precision_loss, reason = "counts of tasks are far below 2^52")]
        let (settled, open) = (recent.len() as f64, (open > 0).then_some(open as f64));
        let a_second = settled / window_seconds;
        Some(Self {
            settled: recent.len(),
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
        let now = Timestamp::from_second(100_000).expect("a time");
        let at = |ago: i64| Timestamp::from_second(100_000 - ago).expect("a time");
        let outcome =
            |start: i64, end: i64| Outcome { class: None, started_at: at(start), finished_at: at(end) };
        let check = |outcomes: &[Outcome], open, expected: Option<(usize, f64, f64, Option<f64>)>| {
            let pace = Pace::of(outcomes, open, now);
            let got = pace.map(|p| (p.settled, p.window_seconds, p.settled_per_hour, p.eta_seconds));
            assert_eq!(got, expected);
        };
        check(&[], 5, None);
        check(&[outcome(9000, 8000)], 5, None);
        check(&[outcome(600, 300), outcome(300, 10)], 4, Some((2, 600.0, 12.0, Some(1200.0))));
        check(&[outcome(7200, 1800), outcome(9000, 4000)], 0, Some((1, 3600.0, 1.0, None)));
        // A node whose clock runs ahead.
        check(&[outcome(0, -50)], 1, Some((1, 1.0, 3600.0, Some(1.0))));
    }
}
