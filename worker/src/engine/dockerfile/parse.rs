use std::ops::Range;

use super::{Complaint, Refused};

/// The largest Dockerfile, in bytes.
pub(crate) const DOCKERFILE_BYTES_MAX: usize = 256 << 10;
/// The longest line; engines read none of 64 KiB.
const LINE_BYTES_MAX: usize = 60_000;
/// Each may become a layer; engines take some 125.
const INSTRUCTIONS_MAX: usize = 100;
/// What a comment before the first instruction may tell an engine to do.
const DIRECTIVES: [&str; 4] = ["syntax", "escape", "check", "platform"];
/// Characters that cannot be seen and are neither control characters nor white space: joiners, marks of direction, …
const INVISIBLE: [Range<u32>; 10] = [
    0xad..0xae,
    0x34f..0x350,
    0x61c..0x61d,
    0x115f..0x1161,
    0x17b4..0x17b6,
    0x180b..0x1810,
    0x200b..0x2010,
    0x202a..0x2070,
    0xfe00..0xfe10,
    0xfff0..0xfffe,
];

/// One instruction of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its first word, upper case.
    pub keyword: String,
    /// The rest of it, its lines joined as the engine joins them.
    pub arguments: String,
    /// Its lines, counted from 0.
    pub lines: Range<usize>,
}

impl Instruction {
    /// Its first line, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.lines.start + 1
    }
}

/// Splits a Dockerfile into instructions as every engine does. What engines read in different ways is refused: parser
/// directives, here-documents, doubled backslashes at a line's end, odd characters.
///
/// # Errors
/// The text is too large, or has some of these.
pub fn parse(dockerfile: &str) -> Result<Vec<Instruction>, Refused> {
    let lines: Vec<&str> = dockerfile.lines_fed().collect();
    let mut complaints = complaints_of_text(dockerfile, &lines);
    if complaints.is_empty() {
        let instructions = split(&lines);
        complaints = complaints_of_form(&lines, &instructions);
        if complaints.is_empty() {
            return Ok(instructions);
        }
    }
    Err(Refused { complaints })
}

trait Lines {
    fn lines_fed(&self) -> impl Iterator<Item = &str>;
}

impl Lines for str {
    /// Unlike [`str::lines`], takes no carriage return for a part of the line's end.
    fn lines_fed(&self) -> impl Iterator<Item = &str> {
        self.strip_suffix('\n').unwrap_or(self).split('\n')
    }
}

/// Whether a character can stand in a Dockerfile.
pub(super) fn is_plain(c: char) -> bool {
    let is_invisible = || {
        let code = u32::from(c);
        INVISIBLE.iter().any(|range| range.contains(&code)) || c == '\u{feff}' || code >= 0xe_0000
    };
    c == '\t' || c == ' ' || !(c.is_control() || c.is_whitespace() || is_invisible())
}

fn complaints_of_text(dockerfile: &str, lines: &[&str]) -> Vec<Complaint> {
    if dockerfile.len() > DOCKERFILE_BYTES_MAX {
        let why = format!("it has more than {DOCKERFILE_BYTES_MAX} bytes");
        return vec![Complaint::new(1, lines[0], why, "put files into the context, and COPY them")];
    }
    let mut complaints = Vec::new();
    for (line, number) in lines.iter().zip(1..) {
        if line.len() > LINE_BYTES_MAX {
            let why = format!("the line has more than {LINE_BYTES_MAX} bytes");
            complaints.push(Complaint::new(number, line, why, "break it with backslashes"));
        }
        if let Some(odd) = line.chars().find(|c| !is_plain(*c)) {
            let why = format!("it has the character U+{:04X}", u32::from(odd));
            let remedy = "write plain text, with spaces, and line feeds alone at the ends of lines";
            complaints.push(Complaint::new(number, line, why, remedy));
        }
    }
    complaints
}

fn complaints_of_form(lines: &[&str], instructions: &[Instruction]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let first = instructions.first().map_or(lines.len(), |instruction| instruction.lines.start);
    for (line, number) in lines[..first].iter().zip(1..) {
        if is_directive(line) {
            let why = "it tells engines how to read the file, each in its own way";
            complaints.push(Complaint::new(number, line, why, "leave the line out"));
        }
    }
    let code = |(_, line): &(usize, &&str)| !is_comment(line) && !line.trim().is_empty();
    let last = lines.iter().enumerate().rev().find(code);
    if let Some((at, line)) = last.filter(|(_, line)| line.trim_end().ends_with('\\')) {
        let why = "it goes on beyond the end of the file";
        complaints.push(Complaint::new(at + 1, line, why, "leave the last backslash out"));
    }
    for Instruction { keyword, arguments, lines: range } in instructions {
        for (line, number) in lines[range.clone()].iter().zip(range.start + 1..) {
            if !is_comment(line) && line.trim_end().ends_with("\\\\") {
                let why = "it ends in two backslashes, which only some engines take for a continuation";
                complaints.push(Complaint::new(
                    number,
                    line,
                    why,
                    "write one backslash, or something after them",
                ));
            }
        }
        if has_here_document(arguments) {
            let why = "it has a here-document (<<), whose body engines take for instructions";
            let remedy = "write RUN printf '%s\\n' 'line' 'line' > file, or put the file into the context; as an operator, write << without spaces";
            complaints.push(Complaint::new(range.start + 1, &format!("{keyword} {arguments}"), why, remedy));
        }
    }
    if instructions.len() > INSTRUCTIONS_MAX {
        let at = &instructions[INSTRUCTIONS_MAX];
        let why = format!("it is more than {INSTRUCTIONS_MAX} instructions");
        complaints.push(Complaint::new(at.line(), &at.keyword, why, "join RUN lines with &&"));
    }
    complaints
}

fn split(lines: &[&str]) -> Vec<Instruction> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let start = at;
        let mut logical = String::new();
        let mut goes_on = true;
        while goes_on && at < lines.len() {
            // White space before a continued line is a part of it; before an instruction it is nothing.
            let line = if at == start { lines[at].trim_start() } else { lines[at] };
            at += 1;
            if is_comment(line) || line.trim().is_empty() {
                goes_on = at - 1 > start;
                continue;
            }
            let continued = line.trim_end().strip_suffix('\\');
            goes_on = continued.is_some();
            logical.push_str(continued.unwrap_or(line));
        }
        let logical = logical.trim();
        if logical.is_empty() {
            continue;
        }
        let (keyword, arguments) = logical.split_once(char::is_whitespace).unwrap_or((logical, ""));
        found.push(Instruction {
            keyword: keyword.to_ascii_uppercase(),
            arguments: arguments.trim().to_owned(),
            lines: start..at,
        });
    }
    found
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn is_directive(line: &str) -> bool {
    let Some((name, _)) = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('=')) else {
        return false;
    };
    DIRECTIVES.iter().any(|known| name.trim().eq_ignore_ascii_case(known))
}

/// A word that begins with `<<`, which may have a number before it; not `<<<`. Newer engines take the name from after a
/// space too, and look once more at what they have expanded: within `${…}` backslashes and quotes may be gone by then.
fn has_here_document(arguments: &str) -> bool {
    let begins_one = |word: &str| {
        let marked = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<");
        marked.is_some_and(|name| !name.starts_with('<'))
    };
    let has_one = |text: &str| text.split_whitespace().any(begins_one);
    has_one(arguments) || has_one(&arguments.replace('\\', "")) || has_one(&expanded(arguments))
}

/// What may become of `${NAME:-word}` and its like, at most: the word alone.
fn expanded(arguments: &str) -> String {
    let mut parts = arguments.split("${");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || "_:-+?#%/".contains(c);
        let is_whole =
            part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').starts_with('}');
        // A name alone stays where it stands, or is nothing there.
        text.push(if is_whole { '$' } else { ' ' });
        text.push_str(&part.trim_start_matches(is_of_name).replace(['\\', '"', '\'', '}'], ""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dockerfile: &str, expected: &[(&str, &str)]) {
        let instructions = parse(dockerfile).unwrap();
        let found: Vec<_> =
            instructions.iter().map(|found| (found.keyword.as_str(), found.arguments.as_str())).collect();
        assert_eq!(found, expected, "{dockerfile:?}");
    }

    #[test]
    fn reads_as_engines_do() {
        check("", &[]);
        check("\n \n# x\n", &[]);
        check("from a\nRun\tb  c \n", &[("FROM", "a"), ("RUN", "b  c")]);
        check("RUN a\\\nb\\  \n c", &[("RUN", "ab c")]);
        check("RUN a \\\n# x \\\n\n  # y\n  b\nRUN c", &[("RUN", "a   b"), ("RUN", "c")]);
        check("FR\\\nOM a\n", &[("FROM", "a")]);
        check("# x \\\nRUN a\n", &[("RUN", "a")]);
        check("\\\nRUN a\n", &[("RUN", "a")]);
        check("RUN a <<< b; echo $((1<<2))", &[("RUN", "a <<< b; echo $((1<<2))")]);
        check("RUN a<<b '<<' ${C:-d e}$((1<<2))", &[("RUN", "a<<b '<<' ${C:-d e}$((1<<2))")]);
        check("RUN a $((${B}<<2))", &[("RUN", "a $((${B}<<2))")]);
        check("RUN a\n# syntax=b\n", &[("RUN", "a")]);
        check("# a=b\n# why: syntax\nRUN é\n", &[("RUN", "é")]);
    }

    #[test]
    fn what_engines_read_differently_is_refused() {
        for (dockerfile, line, expected) in [
            ("# syntax=docker/dockerfile:1\nFROM a", 1, "tells engines how to read"),
            ("# x\n #\tEscape = `\nFROM a", 2, "tells engines how to read"),
            ("FROM a\nRUN b \\\\\nFROM c", 2, "two backslashes"),
            ("FROM a\nRUN b \\\n", 2, "beyond the end"),
            ("FROM a \\\n# x\n\n", 1, "beyond the end"),
            ("FROM a\nRUN <<EOF\nFROM b\nEOF\n", 2, "here-document"),
            ("FROM a\nRUN b 3<<-'X'\n", 2, "here-document"),
            ("FROM a\nRUN : << 'B\\'\nRUN : \\\nB\\\nLABEL c=d\n", 2, "here-document"),
            ("FROM a\nRUN b << c\n", 2, "here-document"),
            ("FROM a\nRUN b 1<<- c\n", 2, "here-document"),
            ("FROM a\nRUN b <<\\\n c\n", 2, "here-document"),
            ("FROM a\nRUN : '<<' ${B:- <\\<'C\\' }\n", 2, "here-document"),
            ("FROM a\nRUN : ${B:- \\<<'A\\' }\nRUN : \\\nA\\\nFROM c\n", 2, "here-document"),
            ("FROM a\nRUN 1\\<<A\n", 2, "here-document"),
            ("FROM a\nRUN : ${B:-<\"<\"A}\n", 2, "here-document"),
            ("FROM a\nRUN : ${B-3<<A}\n", 2, "here-document"),
            ("FROM a\r\nRUN b\r\n", 1, "U+000D"),
            ("\u{feff}FROM a\n", 1, "U+FEFF"),
            ("FROM a\n\u{a0}RUN b\n", 2, "U+00A0"),
            ("FROM a\nRUN b \u{202e}c\n", 2, "U+202E"),
            ("FROM a\nRUN b\u{85}LABEL c\n", 2, "U+0085"),
            ("FROM a\nRUN \u{0}\n", 2, "U+0000"),
            ("FROM a\nRUN \u{e0041}\n", 2, "U+E0041"),
            ("FROM a\nRUN \u{fffd}\n", 2, "U+FFFD"),
        ] {
            let refused = parse(dockerfile).unwrap_err();
            let first = &refused.complaints[0];
            assert!(first.line == line && first.why.contains(expected), "{dockerfile:?}: {refused}");
        }
        let long = |text: String, expected: &str| {
            let refused = parse(&text).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        };
        long(format!("FROM a\nRUN {}", "x".repeat(LINE_BYTES_MAX)), "line 2: RUN xxx");
        long("# x\n".repeat(DOCKERFILE_BYTES_MAX / 4 + 1), "line 1: # x: it has more than");
        long("RUN x\n".repeat(INSTRUCTIONS_MAX + 1), "line 101: RUN: it is more than");
    }
}
