//! Dockerfiles as every build takes them: read as the engine reads them, held to rules whoever wrote them, and given
//! the labels of ours.

mod expand;
mod lint;
mod parse;

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub(super) use parse::DOCKERFILE_BYTES_MAX;
pub use parse::{Instruction, parse};

/// The most complaints that are told at once.
const COMPLAINTS_MAX: usize = 20;
/// How much of an instruction is shown.
const SHOWN_CHARS_MAX: usize = 80;

/// Reads a Dockerfile and holds it to the rules; `bases` are the images it may start from. Whoever writes one may ask
/// this before a build does.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub fn check(dockerfile: &str, bases: &[String]) -> Result<Vec<Instruction>, Refused> {
    let instructions = parse(dockerfile)?;
    let complaints = lint::complaints(&instructions, bases);
    if complaints.is_empty() { Ok(instructions) } else { Err(Refused { complaints }) }
}

/// A Dockerfile that is not built: its author's to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// In order of their lines.
    pub complaints: Vec<Complaint>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the Dockerfile is refused")?;
        for complaint in self.complaints.iter().take(COMPLAINTS_MAX) {
            write!(f, "\n{complaint}")?;
        }
        match self.complaints.len().saturating_sub(COMPLAINTS_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// One thing that is wrong with a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complaint {
    /// Where its instruction begins, counted from 1.
    pub line: usize,
    /// The beginning of the instruction, fit to be shown.
    pub instruction: String,
    /// What is wrong with it.
    pub why: String,
    /// What to write instead.
    pub remedy: String,
}

impl Complaint {
    fn new(line: usize, instruction: &str, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        let shown = instruction.trim().chars().take(SHOWN_CHARS_MAX);
        let instruction = shown.map(|c| if parse::is_plain(c) { c } else { '\u{fffd}' }).collect();
        Self { line, instruction, why: why.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, instruction, why, remedy } = self;
        write!(f, "line {line}: {instruction}: {why}; {remedy}")
    }
}

/// Puts `labels` as a LABEL line after every FROM, so that intermediate containers and images carry them.
pub(super) fn with_labels(
    dockerfile: &str,
    instructions: &[Instruction],
    labels: &HashMap<String, String>,
) -> String {
    let mut pairs: Vec<_> =
        labels.iter().map(|(key, value)| format!("{}={}", quoted(key), quoted(value))).collect();
    pairs.sort();
    let label_line = format!("LABEL {}\n", pairs.join(" "));
    let mut lines = dockerfile.split_inclusive('\n');
    let mut text = String::with_capacity(dockerfile.len() + label_line.len());
    let mut copied = 0;
    for from in instructions.iter().filter(|instruction| instruction.keyword == "FROM") {
        text.extend(lines.by_ref().take(from.lines.end - copied));
        copied = from.lines.end;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&label_line);
    }
    text.extend(lines);
    text
}

/// The base images that a checked Dockerfile starts from, its own stages left out.
pub(super) fn bases<'a>(instructions: &'a [Instruction], bases: &'a [String]) -> Vec<&'a str> {
    let froms = instructions.iter().filter(|instruction| instruction.keyword == "FROM");
    froms
        .filter_map(|from| from.arguments.split_whitespace().next())
        .filter(|image| lint::is_base(image, bases))
        .collect()
}

fn quoted(text: &str) -> String {
    format!(
        "\"{}\"",
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace(['\n', '\r'], " ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(dockerfile: &str, value: &str) -> String {
        let labels = HashMap::from([("k".to_owned(), value.to_owned())]);
        with_labels(dockerfile, &parse(dockerfile).unwrap(), &labels)
    }

    #[test]
    fn labels_follow_every_from() {
        for (dockerfile, expected) in [
            ("FROM a\nRUN b\n", "FROM a\n@\nRUN b\n"),
            ("FROM a", "FROM a\n@\n"),
            ("  from a AS x\nRUN b\nFrom x\n", "  from a AS x\n@\nRUN b\nFrom x\n@\n"),
            ("# why\nARG V=1\n\nFROM a\n", "# why\nARG V=1\n\nFROM a\n@\n"),
            ("FROM \\\n  # why\n\n  a\nRUN b\n", "FROM \\\n  # why\n\n  a\n@\nRUN b\n"),
            ("FROM a\nRUN x \\\nFROM y\n", "FROM a\n@\nRUN x \\\nFROM y\n"),
            ("FROM a\n# FROM b\nRUN c\n", "FROM a\n@\n# FROM b\nRUN c\n"),
        ] {
            assert_eq!(labelled(dockerfile, "v w").replace("LABEL \"k\"=\"v w\"\n", "@\n"), expected);
        }
    }

    #[test]
    fn label_values_cannot_break_out() {
        let text = labelled("FROM a\n", "a\"\nRUN $X \\");
        assert_eq!(text, "FROM a\nLABEL \"k\"=\"a\\\" RUN \\$X \\\\\"\n");
    }

    #[test]
    fn a_refusal_names_line_instruction_and_remedy() {
        let many = format!("FROM a\n{}", "VOLUME /x\u{7}\n".repeat(30));
        let refused = check(&many, &["a".to_owned()]).unwrap_err().to_string();
        assert!(refused.contains("\nline 2: VOLUME /x\u{fffd}: it has the character U+0007"), "{refused}");
        let refused = check(&many.replace('\u{7}', ""), &["a".to_owned()]).unwrap_err().to_string();
        assert!(refused.contains("\nline 21: VOLUME /x: its volumes would outlive"), "{refused}");
        assert!(refused.ends_with("\nand 10 more"), "{refused}");
    }

    #[test]
    fn bases_are_those_from_outside() {
        let known = ["a".to_owned(), "b".to_owned()];
        let instructions =
            check("FROM a AS x\nFROM b:latest\nFROM x\nCOPY --from=1 /x /y\n", &known).unwrap();
        assert_eq!(bases(&instructions, &known), ["a", "b:latest"]);
    }
}
