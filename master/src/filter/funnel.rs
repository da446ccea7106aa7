use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::Stage;
use crate::text::table;

/// How many rows each stage turned away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Funnel {
    read: u64,
    counts: BTreeMap<Stage, Counts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    rejected: u64,
    unknown: u64,
}

/// One stage of a funnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which.
    pub stage: Stage,
    /// What it asks.
    pub asks: &'static str,
    /// Rows that came to it.
    pub entered: u64,
    /// Rows that it turned away.
    pub rejected: u64,
    /// Rows that it let pass, because they do not have what it asks for.
    pub unknown: u64,
}

impl Funnel {
    /// Counts a row: the stages that did not know, and the one that turned it away, if one did.
    pub fn count(&mut self, unknown: &[Stage], rejected: Option<Stage>) {
        self.read += 1;
        for stage in unknown {
            self.counts.entry(*stage).or_default().unknown += 1;
        }
        if let Some(stage) = rejected {
            self.counts.entry(stage).or_default().rejected += 1;
        }
    }

    /// Rows that were read.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Rows that passed every stage.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.read - self.counts.values().map(|counts| counts.rejected).sum::<u64>()
    }

    /// Every stage, in order.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let mut entered = self.read;
        let step = |stage: Stage| {
            let Counts { rejected, unknown } = self.counts.get(&stage).copied().unwrap_or_default();
            let step = Step { stage, asks: stage.asks(), entered, rejected, unknown };
            entered -= rejected;
            step
        };
        Stage::ALL.into_iter().map(step).collect()
    }

    /// As a table for people.
    #[must_use]
    pub fn text(&self, columns: Option<usize>) -> String {
        let mut table = table(columns);
        table.set_header(["stage", "rows", "rejected", "left", "not known"]);
        for Step { asks, entered, rejected, unknown, .. } in self.steps() {
            let left = entered - rejected;
            table.add_row([
                asks.to_owned(),
                grouped(entered),
                grouped(rejected),
                grouped(left),
                grouped(unknown),
            ]);
        }
        table.to_string()
    }

    /// As a chart: a bar for what each stage left.
    #[must_use]
    pub fn svg(&self) -> String {
        const ROW: usize = 26;
        const LABELS: usize = 200;
        const BARS: usize = 420;
        let steps = self.steps();
        let height = (steps.len() + 1) * ROW + 40;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" viewBox=\"0 0 760 {height}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        let first = ("read", self.read, 0);
        let bars = steps.iter().map(|step| (step.asks, step.entered - step.rejected, step.rejected));
        for (index, (label, left, rejected)) in std::iter::once(first).chain(bars).enumerate() {
            let (y, read) = (20 + index * ROW, self.read.max(1));
            let width = |rows: u64| u128::from(rows) * BARS as u128 / u128::from(read);
            let (kept, lost) = (width(left), width(left + rejected));
            // Writing to a string does not fail.
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
                LABELS - 10,
                y + 14
            );
            let _ = writeln!(
                svg,
                "<rect x=\"{LABELS}\" y=\"{y}\" width=\"{lost}\" height=\"18\" fill=\"#e4d3c8\"/>"
            );
            let _ = writeln!(
                svg,
                "<rect x=\"{LABELS}\" y=\"{y}\" width=\"{kept}\" height=\"18\" fill=\"#3b6ea5\"/>"
            );
            let lost_text = if rejected > 0 { format!(" (−{})", grouped(rejected)) } else { String::new() };
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\">{}{lost_text}</text>",
                LABELS + BARS + 10,
                y + 14,
                grouped(left)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// `572114` → `572,114`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn funnel() -> Funnel {
        let mut funnel = Funnel::default();
        (0..1200).for_each(|_| funnel.count(&[], Some(Stage::Stars)));
        (0..30).for_each(|_| funnel.count(&[Stage::Stars], Some(Stage::Duplicate)));
        (0..4).for_each(|_| funnel.count(&[Stage::Stars, Stage::Language], None));
        funnel
    }

    #[test]
    fn what_enters_is_what_the_one_before_left() {
        let funnel = funnel();
        let steps = funnel.steps();
        assert_eq!((funnel.read(), funnel.accepted(), steps.len()), (1234, 4, Stage::ALL.len()));
        let of =
            |stage| steps.iter().find(|step| step.stage == stage).map(|s| (s.entered, s.rejected, s.unknown));
        assert_eq!(of(Stage::Stars), Some((1234, 1200, 34)));
        assert_eq!(of(Stage::Language), Some((34, 0, 4)));
        assert_eq!(of(Stage::Duplicate), Some((34, 30, 0)));
    }

    #[test]
    fn is_drawn_and_printed() {
        insta::assert_snapshot!("funnel_text", funnel().text(Some(100)));
        insta::assert_snapshot!("funnel_svg", funnel().svg());
    }

    #[test]
    fn digits_are_grouped() {
        let check = |number, expected: &str| assert_eq!(grouped(number), expected);
        check(0, "0");
        check(999, "999");
        check(1000, "1,000");
        check(572_114, "572,114");
        check(1_234_567, "1,234,567");
    }
}
