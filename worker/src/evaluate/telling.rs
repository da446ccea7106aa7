use std::sync::LazyLock;

use regex::Regex;

/// How many lines are shown of a log, and how much of each.
const LINES_MAX: usize = 12;
const LINE_CHARS_MAX: usize = 300;
/// Where nothing is telling, the last lines are.
const LAST_LINES: usize = 6;

static ESCAPE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    // CSI sequences, OSC sequences up to their end, and two-character escapes.
    Regex::new(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]").ok()
});

static EXCEPTION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^(?:[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning|Failure|Failed)\b|AssertionError|assert )").ok()
});

static TELLING: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let patterns = [
        r"^E\s+\S",
        r"^[A-Za-z_][\w.]*(?:Error|Exception)\b.*:",
        r"^(?:error|fatal|ERROR|FATAL)\b",
        r"^(?:FAILED|ERROR) \S+",
        r"No module named",
        r"command not found|No such file or directory|Permission denied|cannot execute",
        r"Segmentation fault|Fatal Python error|Killed$|core dumped",
        r"patch does not apply|patch failed",
        r"unrecognized arguments|no tests ran|not found in|killed at its",
        r"Cannot allocate memory|No space left on device",
    ];
    Regex::new(&patterns.join("|")).ok()
});

/// The first lines of a log that tell why, terminal escapes stripped; the last lines where none does.
#[must_use]
pub fn telling_lines(log: &str) -> Vec<String> {
    let log = strip_escapes(log);
    let shown = |line: &str| line.trim_end().chars().take(LINE_CHARS_MAX).collect::<String>();
    let mut lines: Vec<String> = Vec::new();
    for line in log.lines().filter(|line| matches(&TELLING, line)) {
        let line = shown(line);
        if !lines.contains(&line) {
            lines.push(line);
        }
        if lines.len() == LINES_MAX {
            break;
        }
    }
    if lines.is_empty() {
        lines =
            log.lines().rev().filter(|line| !line.trim().is_empty()).take(LAST_LINES).map(shown).collect();
        lines.reverse();
    }
    lines
}

/// A text without what a terminal would obey; newlines and tabs stay.
#[must_use]
pub fn strip_escapes(text: &str) -> String {
    let plain = ESCAPE.as_ref().map_or_else(|| text.into(), |escape| escape.replace_all(text, ""));
    plain.replace("\r\n", "\n").chars().filter(|&c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// The line of a traceback that has the exception: the last of pytest's `E` lines that looks like one.
pub(super) fn exception_line(traceback: &str) -> String {
    let traceback = strip_escapes(traceback);
    let marked: Vec<&str> =
        traceback.lines().filter_map(|line| line.strip_prefix("E ")).map(str::trim).collect();
    let exception = marked.iter().rev().find(|line| matches(&EXCEPTION, line)).or(marked.first()).copied();
    let last = || traceback.lines().map(str::trim).rfind(|line| !line.is_empty());
    exception.or_else(last).unwrap_or("no reason given").chars().take(LINE_CHARS_MAX).collect()
}

fn matches(pattern: &LazyLock<Option<Regex>>, line: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_telling_lines_are_found() {
        for (log, expected) in [
            ("", vec![]),
            ("a\nb\n\n", vec!["a", "b"]),
            ("1\n2\n3\n4\n5\n6\n7\n", vec!["2", "3", "4", "5", "6", "7"]),
            ("x\n\x1b[1m\x1b[31mE   AssertionError: no\x1b[0m\ny\n", vec!["E   AssertionError: no"]),
            ("E   a\nE   a\nE   b\n", vec!["E   a", "E   b"]),
            ("error: patch failed: x.py:1\nok\n", vec!["error: patch failed: x.py:1"]),
            ("bash: line 1: tox: command not found\n", vec!["bash: line 1: tox: command not found"]),
            (
                "run\nModuleNotFoundError: No module named 'x'\n",
                vec!["ModuleNotFoundError: No module named 'x'"],
            ),
        ] {
            assert_eq!(telling_lines(log), expected, "{log:?}");
        }
        let flood = "E   x\u{7}y\n".to_owned()
            + &(0..100).map(|i| format!("E   {i}{}\n", "z".repeat(999))).collect::<String>();
        let lines = telling_lines(&flood);
        assert_eq!((lines.len(), lines[0].as_str()), (LINES_MAX, "E   xy"));
        assert!(lines.iter().all(|line| line.chars().count() <= LINE_CHARS_MAX));
    }

    #[test]
    fn escapes_are_stripped() {
        for (text, expected) in [
            ("a\x1b[31;1mb\x1b[0m", "ab"),
            ("\x1b]0;title\x07x\x1b]8;;http://y\x1b\\z", "xz"),
            ("a\x08\x00\u{9b}b\r\nc\rd\te", "ab\ncd\te"),
            ("\x1bcx\x1b(By", "cx(By"),
        ] {
            assert_eq!(strip_escapes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_exception_is_found() {
        for (traceback, expected) in [
            ("x\nE   ImportError: no\n", "ImportError: no"),
            ("E     File \"x\"\nE       x =\nE   SyntaxError: invalid\n", "SyntaxError: invalid"),
            ("E   RuntimeError: one\nE   two\n", "RuntimeError: one"),
            ("E   odd\nE   two\n", "odd"),
            ("a\nb\n\n", "b"),
            ("", "no reason given"),
        ] {
            assert_eq!(exception_line(traceback), expected, "{traceback:?}");
        }
    }
}
