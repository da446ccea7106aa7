use std::io;
use std::time::Duration;

use jiff::Timestamp;

use crate::github::Progress;
use crate::text::{clean_line, duration};
use crate::up::Screen;

/// How often it is told where nobody watches a terminal.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Tells how far something is: all the time on a terminal, in a line a minute elsewhere.
pub(super) struct Telling {
    /// When a line was last said.
    said: Timestamp,
}

impl Telling {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { said: now }
    }

    pub(super) fn tell(&mut self, line: String, now: Timestamp, screen: &mut Screen<'_>) -> io::Result<()> {
        if screen.is_terminal() {
            return screen.draw(&[line]);
        }
        let is_due = Duration::try_from(now.duration_since(self.said)).is_ok_and(|since| since >= SAID_EVERY);
        if is_due {
            self.said = now;
            screen.say(&line)?;
        }
        Ok(())
    }
}

/// How far collecting is, how fast, and how long it will still take, by what this run did so far.
pub(super) fn line(progress: &Progress, first: &Progress, elapsed_seconds: f64) -> String {
    let Progress { repository, done, all, pulls, waits } = progress;
    #[expect(clippy::cast_precision_loss, reason = "counts of pull requests are far below 2^52")]
    let (pulls_now, done_now, left) = (
        pulls.saturating_sub(first.pulls) as f64,
        done.saturating_sub(first.done) as f64,
        all.saturating_sub(*done) as f64,
    );
    let rate = pulls_now * 60.0 / elapsed_seconds.max(1.0);
    let left = if done_now > 0.0 {
        format!("{} left", duration(elapsed_seconds / done_now * left))
    } else {
        "time left not known yet".to_owned()
    };
    let what = match (repository.as_str(), all) {
        ("", 0) => "asking which repositories there are".to_owned(),
        ("", _) => format!("{done} of {all} repositories, {pulls} pull requests"),
        _ => format!(
            "{repository}: {done} of {all} repositories, {pulls} pull requests, {rate:.0} a minute, {left}"
        ),
    };
    match waits {
        Some(waits) => {
            format!(
                "{what}; waits until {} UTC for {}",
                waits.until.strftime("%H:%M"),
                clean_line(&waits.what)
            )
        }
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::github::Waits;
    use crate::up::TerminalSize;

    #[test]
    fn a_line_tells_how_far_it_is_and_what_it_waits_for() {
        let at = |repository: &str, done, pulls| {
            let all = if repository.is_empty() { 0 } else { 4 };
            Progress { repository: repository.to_owned(), done, all, pulls, waits: None }
        };
        let check = |progress: Progress, elapsed_seconds: f64, expected: &str| {
            assert_eq!(line(&progress, &at("", 1, 100), elapsed_seconds), expected, "{progress:?}");
        };
        check(at("", 0, 0), 0.0, "asking which repositories there are");
        check(
            at("o/n", 1, 100),
            0.0,
            "o/n: 1 of 4 repositories, 100 pull requests, 0 a minute, time left not known yet",
        );
        check(
            at("o/n", 3, 160),
            120.0,
            "o/n: 3 of 4 repositories, 160 pull requests, 30 a minute, 1 min 00 s left",
        );
        let until = "2024-05-01T14:32:10Z".parse().expect("a time");
        let waits = Some(Waits { until, what: "a limit".to_owned() });
        check(
            Progress { waits: waits.clone(), ..at("", 0, 0) },
            1.0,
            "asking which repositories there are; waits until 14:32 UTC for a limit",
        );
        check(
            Progress { waits, ..at("o/n", 1, 100) },
            1.0,
            "o/n: 1 of 4 repositories, 100 pull requests, 0 a minute, time left not known yet; waits until 14:32 UTC \
             for a limit",
        );
    }

    #[test]
    fn a_line_a_minute_where_there_is_no_terminal() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let check = |size: fn() -> Option<TerminalSize>, expected: &str| {
            let mut out = Vec::new();
            let (mut screen, mut telling) = (Screen::new(&mut out, size), Telling::new(at(0)));
            for second in [0, 1, 59, 60, 61, 119, 120, 121] {
                telling.tell(second.to_string(), at(second), &mut screen).expect("told");
            }
            assert_eq!(String::from_utf8_lossy(&out).replace("\u{1b}[1F\u{1b}[J", ""), expected);
        };
        check(|| None, "60\n120\n");
        check(|| Some(TerminalSize { columns: 10, rows: 3 }), "0\n1\n59\n60\n61\n119\n120\n121\n");
    }
}
