/// Text from untrusted code made safe for a terminal: no escape sequences, no control characters but line breaks
/// and tabs, nothing that reorders what is read.
#[must_use]
pub fn clean(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string().chars().filter(|c| is_harmless(*c)).collect()
}

/// As [`clean`], in one line.
#[must_use]
pub fn clean_line(text: &str) -> String {
    clean(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_harmless(c: char) -> bool {
    match c {
        '\n' | '\t' => true,
        // Marks that reverse the reading direction (Unicode, "Trojan Source").
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        c => !c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        let check = |text: &str, expected: &str| assert_eq!(clean(text), expected, "{text:?}");
        check("plain é 漢 text\n\tindented\n", "plain é 漢 text\n\tindented\n");
        check("\u{1b}[31mred\u{1b}[0m", "red");
        check("\u{1b}]0;owned\u{7}title", "title");
        check("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link");
        check("a\u{8}\u{7}\rb", "ab");
        check("\u{9b}2Jx", "2Jx");
        check("\u{202e}gnp.exe", "gnp.exe");
        check("\u{1b}[2J\u{1b}[H\u{1b}Pq#0\u{1b}\\end", "end");
        assert_eq!(clean_line(" a\n b\u{1b}[1m\tc "), "a b c");
    }
}
