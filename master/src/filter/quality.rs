use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use crate::patch::{FileDiff, files};

/// The field of a row that holds its scores.
pub const QUALITY_FIELD: &str = "quality";

/// Added lines with fewer letters and digits are no quotation: `else:` stands in every issue.
const QUOTED_LETTERS_MIN: usize = 8;

/// Shorter names say nothing: `x`, `id`.
const NAME_CHARS_MIN: usize = 3;

/// The most names of an issue that are looked for.
const NAMES_MAX: usize = 1000;

/// How far a row is from what a task should be, by rules alone: signs of triviality and of misalignment, which OpenSWE
/// (section 3.10) names as risks of collected pull requests. Each score is from 0, as it should be, to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// The share of the fix's added lines that stand in the issue: 1 where the issue tells the fix.
    pub issue_quotes_patch: f64,
    /// Whether the issue names a file that the fix changes (0.5), and a line of the change in it (1).
    pub issue_names_place: f64,
    /// The share of the names in the issue that the fix does not touch: 1 where it is about something else; `None` where
    /// the issue names nothing.
    pub patch_misses_issue: Option<f64>,
}

impl Quality {
    /// Of an issue's text and the fix.
    #[must_use]
    pub fn of(issue: &str, fix: &str) -> Self {
        let parts = files(fix);
        Self {
            issue_quotes_patch: quoted_share(issue, fix),
            issue_names_place: parts.iter().map(|part| place_named(issue, part)).fold(0.0, f64::max),
            patch_misses_issue: missed_share(issue, fix),
        }
    }
}

fn quoted_share(issue: &str, fix: &str) -> f64 {
    let added =
        fix.lines().filter(|line| !line.starts_with("+++ ")).filter_map(|line| line.strip_prefix('+'));
    let lines: BTreeSet<&str> = added.map(str::trim).filter(|line| says_something(line)).collect();
    if lines.is_empty() {
        return 0.0;
    }
    share(lines.iter().filter(|line| issue.contains(**line)).count(), lines.len())
}

fn says_something(line: &str) -> bool {
    line.chars().filter(|c| c.is_alphanumeric()).count() >= QUOTED_LETTERS_MIN
}

fn place_named(issue: &str, part: &FileDiff<'_>) -> f64 {
    let path = part.path();
    let file = path.rsplit('/').next().unwrap_or(path);
    // Every package has one of these: only the whole path names it.
    let is_common = matches!(file, "__init__.py" | "setup.py" | "README.md") || !file.contains('.');
    if !(issue.contains(path) || !is_common && issue.contains(file)) {
        return 0.0;
    }
    let lines: HashSet<u64> = named_lines(issue).collect();
    let changed = part.text.lines().filter_map(old_range);
    let is_named = changed
        .into_iter()
        .any(|(first, count)| lines.iter().any(|line| (first..first + count).contains(line)));
    if is_named { 1.0 } else { 0.5 }
}

/// The lines of the old file in a hunk: `@@ -12,7 +12,9 @@`.
fn old_range(header: &str) -> Option<(u64, u64)> {
    let range = header.strip_prefix("@@ -")?.split(' ').next()?;
    let (first, count) = range.split_once(',').unwrap_or((range, "1"));
    Some((first.parse().ok()?, count.parse().ok()?))
}

/// Numbers that people mean as lines: `line 12`, `file.py:12`, `file.py#L12`.
fn named_lines(issue: &str) -> impl Iterator<Item = u64> {
    ["line ", "lines ", ".py:", "#L"].into_iter().flat_map(move |mark| {
        issue.match_indices(mark).filter_map(move |(at, _)| {
            let rest = &issue[at + mark.len()..];
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse().ok()
        })
    })
}

fn missed_share(issue: &str, fix: &str) -> Option<f64> {
    let names = names_of(issue);
    if names.is_empty() {
        return None;
    }
    // The lines around a change are what it touches, too; so are the names of its files.
    let touched: HashSet<&str> = words(fix).map(|(word, _)| word).collect();
    Some(share(names.iter().filter(|name| !touched.contains(**name)).count(), names.len()))
}

/// What an issue names: words in code spans, with an underscore, a capital within, or a call's parenthesis. Of dotted
/// names and paths it is the parts.
fn names_of(issue: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (index, span) in issue.split('`').enumerate() {
        let is_code = index % 2 == 1;
        for (word, next) in words(span) {
            let is_name = is_code || next == Some('(') || word.contains('_') || has_capital_within(word);
            let is_word = word.chars().any(|c| c.is_ascii_alphabetic()) && word.len() >= NAME_CHARS_MIN;
            if is_name && is_word && names.len() < NAMES_MAX {
                names.insert(word);
            }
        }
    }
    names
}

fn has_capital_within(word: &str) -> bool {
    word.as_bytes().windows(2).any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase())
}

/// The words that could be identifiers, each with the character after it.
fn words(text: &str) -> impl Iterator<Item = (&str, Option<char>)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = &rest[rest.find(is_part)?..];
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        Some((word, after.chars().next()))
    })
}

fn share(some: usize, all: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of lines and names are far below 2^52")]
    let share = some as f64 / all as f64;
    // What is written into a row should be readable.
    (share * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIX: &str = "diff --git a/pkg/core.py b/pkg/core.py\n--- a/pkg/core.py\n+++ b/pkg/core.py\n@@ -10,3 +10,4 @@ def parse_one(text):\n     if not text:\n-        return text\n+        raise ValueError(text)\n+        log_it_all(text)\n     x = 1\n";

    #[test]
    fn each_score_tells_what_it_is_for() {
        let check = |issue: &str, quotes: f64, place: f64, misses: Option<f64>| {
            let expected =
                Quality { issue_quotes_patch: quotes, issue_names_place: place, patch_misses_issue: misses };
            assert_eq!(Quality::of(issue, FIX), expected, "{issue}");
        };
        check("It breaks when I press the button.", 0.0, 0.0, None);
        check("Please write raise ValueError(text) there", 0.5, 0.0, Some(0.0));
        check("raise ValueError(text)\nlog_it_all(text)", 1.0, 0.0, Some(0.0));
        check("core.py is wrong", 0.0, 0.5, None);
        check("File \"pkg/core.py\", line 11, in it", 0.0, 1.0, None);
        check("see https://forge.example/o/n/blob/main/pkg/core.py#L12", 0.0, 1.0, None);
        check("pkg/core.py:99 is wrong", 0.0, 0.5, None);
        check("`parse_one` fails, and so does other_thing()", 0.0, 0.0, Some(0.5));
        check("The FooBar class misbehaves", 0.0, 0.0, Some(1.0));
    }

    #[test]
    fn scores_of_nothing_are_no_division_by_it() {
        let none = Quality { issue_quotes_patch: 0.0, issue_names_place: 0.0, patch_misses_issue: None };
        assert_eq!(Quality::of("", ""), none);
    }
}
