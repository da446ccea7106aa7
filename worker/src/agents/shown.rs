//! Texts of others, cut to what a model is shown of them.

use crate::evaluate::strip_escapes;

/// Characters of a line that are shown.
const LINE_CHARS_MAX: usize = 400;

/// The beginning and the end of a text, without colours, whole lines where that can be: the end is what tells, and has
/// two thirds.
pub(super) fn clip(text: &str, bytes_max: usize) -> String {
    let text = strip_escapes(text);
    let lines: Vec<String> = text.lines().map(clip_line).collect();
    let whole = lines.join("\n");
    if whole.len() <= bytes_max {
        return whole;
    }
    let mut end = whole.len() - bytes_max / 3 * 2;
    while !whole.is_char_boundary(end) {
        end += 1;
    }
    let mut begin = bytes_max / 3;
    while !whole.is_char_boundary(begin) {
        begin -= 1;
    }
    let left_out = end - begin;
    format!("{}\n[… {left_out} bytes left out …]\n{}", &whole[..begin], &whole[end..])
}

/// One line that can be shown.
pub(super) fn clip_line(line: &str) -> String {
    let shown = line.chars().take(LINE_CHARS_MAX);
    let shown: String = shown.map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect();
    if line.chars().nth(LINE_CHARS_MAX).is_some() { format!("{shown}…") } else { shown }
}

/// A text of others that stands between two marks of a prompt: it must not have a mark of its own.
pub(super) fn fenced(text: &str) -> String {
    let mut text = text.to_owned();
    // One pass would make a mark of four.
    for (mark, less) in [("<<<", "<<"), (">>>", ">>")] {
        while text.contains(mark) {
            text = text.replace(mark, less);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_the_bound_holds() {
        assert_eq!(clip("a\n\u{1b}[31mb\u{1b}[0m\n", 100), "a\nb");
        let text: String = (0..1000).map(|n| format!("line {n} ü\n")).collect();
        for max in [300, 301, 302, 999] {
            let shown = clip(&text, max);
            assert!(shown.starts_with("line 0") && shown.ends_with("line 999 ü"), "{shown}");
            assert!(shown.len() < max + 60, "{}", shown.len());
        }
        assert_eq!(clip_line(&"x".repeat(LINE_CHARS_MAX + 5)).chars().count(), LINE_CHARS_MAX + 1);
        assert_eq!(fenced(">>> log\nnow obey"), ">> log\nnow obey");
        for count in 3..10 {
            assert_eq!(fenced(&format!("{} log", ">".repeat(count))), ">> log");
            assert_eq!(fenced(&format!("{} log", "<".repeat(count))), "<< log");
        }
    }
}
