use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Puts `labels` as a LABEL line after every FROM, so that intermediate containers and images carry them.
pub(super) fn with_labels(dockerfile: &str, labels: &HashMap<String, String>) -> String {
    let mut pairs: Vec<_> =
        labels.iter().map(|(key, value)| format!("{}={}", quoted(key), quoted(value))).collect();
    pairs.sort();
    let label_line = format!("LABEL {}\n", pairs.join(" "));
    let mut text = String::with_capacity(dockerfile.len() + label_line.len());
    let lines: Vec<&str> = dockerfile.split_inclusive('\n').collect();
    let mut next = 0;
    for instruction in instructions(&lines) {
        for line in &lines[next..instruction.lines.end] {
            text.push_str(line);
        }
        next = instruction.lines.end;
        if instruction.keyword == "FROM" {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&label_line);
        }
    }
    for line in &lines[next..] {
        text.push_str(line);
    }
    text
}

/// The images that a Dockerfile starts from or copies from, its own stages left out, in order.
pub(super) fn images(dockerfile: &str) -> Vec<String> {
    let lines: Vec<&str> = dockerfile.split_inclusive('\n').collect();
    let (mut images, mut stages) = (Vec::new(), HashSet::from(["scratch".to_owned()]));
    let mut stage_count = 0_usize;
    for instruction in instructions(&lines) {
        let (flags, words): (Vec<&str>, Vec<&str>) =
            instruction.words().partition(|word| word.starts_with("--"));
        let image = match instruction.keyword.as_str() {
            "FROM" => words.first().copied(),
            "COPY" => flags.iter().find_map(|flag| flag.strip_prefix("--from=")),
            _ => None,
        };
        images.extend(image.filter(|image| !stages.contains(&image.to_ascii_lowercase())).map(str::to_owned));
        if instruction.keyword == "FROM" {
            stages.insert(stage_count.to_string());
            stage_count += 1;
            if let [_, as_word, name, ..] = words[..]
                && as_word.eq_ignore_ascii_case("as")
            {
                stages.insert(name.to_ascii_lowercase());
            }
        }
    }
    images
}

struct Instruction {
    /// Upper case.
    keyword: String,
    arguments: String,
    lines: Range<usize>,
}

impl Instruction {
    fn words(&self) -> impl Iterator<Item = &str> {
        self.arguments.split_whitespace()
    }
}

/// Splits a Dockerfile as the engine's own parser does: comments and empty lines inside a continuation do not
/// end it, and the body of a here-document is no instruction.
fn instructions(lines: &[&str]) -> Vec<Instruction> {
    let escape = escape_character(lines);
    let is_comment = |line: &str| line.trim_start().starts_with('#');
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let start = at;
        if lines[at].trim().is_empty() || is_comment(lines[at]) {
            at += 1;
            continue;
        }
        let mut logical = String::new();
        while at < lines.len() {
            let line = lines[at].trim();
            at += 1;
            if line.is_empty() || is_comment(line) {
                continue;
            }
            match line.strip_suffix(escape) {
                Some(continued) => {
                    logical.push_str(continued);
                    logical.push(' ');
                }
                None => {
                    logical.push_str(line);
                    break;
                }
            }
        }
        let (keyword, arguments) = logical.split_once(char::is_whitespace).unwrap_or((&logical, ""));
        let keyword = keyword.to_ascii_uppercase();
        if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
            for terminator in here_documents(arguments) {
                // Engines that know no here-documents read the body as instructions: so do we if it never ends.
                at +=
                    lines[at..].iter().position(|line| line.trim() == terminator).map_or(0, |body| body + 1);
            }
        }
        found.push(Instruction { keyword, arguments: arguments.to_owned(), lines: start..at });
    }
    found
}

/// The parser directive `# escape=`, which only counts before anything else.
fn escape_character(lines: &[&str]) -> char {
    for line in lines {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('=')) else {
            break;
        };
        if name.trim().eq_ignore_ascii_case("escape") && value.trim() == "`" {
            return '`';
        }
    }
    '\\'
}

fn here_documents(arguments: &str) -> Vec<&str> {
    let mut terminators = Vec::new();
    let mut rest = arguments;
    while let Some(at) = rest.find("<<") {
        rest = &rest[at + 2..];
        let word = rest.trim_start_matches('-').trim_start_matches(['"', '\'']);
        let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(word.len());
        if end > 0 {
            terminators.push(&word[..end]);
        }
    }
    terminators
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

    fn check_labels(dockerfile: &str, expected: &str) {
        let labels = HashMap::from([("k".to_owned(), "v w".to_owned())]);
        assert_eq!(with_labels(dockerfile, &labels).replace("LABEL \"k\"=\"v w\"\n", "@\n"), expected);
    }

    #[test]
    fn labels_follow_every_from() {
        for (dockerfile, expected) in [
            ("FROM a\nRUN b\n", "FROM a\n@\nRUN b\n"),
            ("FROM a", "FROM a\n@\n"),
            ("  from a AS x\nRUN b\nFrom x\n", "  from a AS x\n@\nRUN b\nFrom x\n@\n"),
            ("# syntax=x\nARG V=1\n\nFROM a\n", "# syntax=x\nARG V=1\n\nFROM a\n@\n"),
            ("FROM \\\n  # why\n\n  a\nRUN b\n", "FROM \\\n  # why\n\n  a\n@\nRUN b\n"),
            ("FROM a\nRUN x \\\nFROM y\n", "FROM a\n@\nRUN x \\\nFROM y\n"),
            ("FROM a\n# FROM b\nRUN c\n", "FROM a\n@\n# FROM b\nRUN c\n"),
            ("FROM a\nRUN <<EOF\nFROM b\nEOF\nFROM c\n", "FROM a\n@\nRUN <<EOF\nFROM b\nEOF\nFROM c\n@\n"),
            (
                "FROM a\nCOPY <<-'X' <<Y /d\nFROM 1\nX\nFROM 2\nY\n",
                "FROM a\n@\nCOPY <<-'X' <<Y /d\nFROM 1\nX\nFROM 2\nY\n",
            ),
            ("FROM a\nRUN echo <<NEVER\nFROM b\n", "FROM a\n@\nRUN echo <<NEVER\nFROM b\n@\n"),
            ("# escape=`\nFROM a\nRUN x `\nFROM y\n", "# escape=`\nFROM a\n@\nRUN x `\nFROM y\n"),
            ("# escape=`\nFROM a\nRUN x \\\nFROM y\n", "# escape=`\nFROM a\n@\nRUN x \\\nFROM y\n@\n"),
            ("FROM a\r\nRUN x \\\r\nFROM y\r\n", "FROM a\r\n@\nRUN x \\\r\nFROM y\r\n"),
            ("FROMAGE a\n", "FROMAGE a\n"),
            ("", ""),
        ] {
            check_labels(dockerfile, expected);
        }
    }

    #[test]
    fn label_values_cannot_break_out() {
        let labels = HashMap::from([("k".to_owned(), "a\"\nRUN $X \\".to_owned())]);
        assert_eq!(with_labels("FROM a\n", &labels), "FROM a\nLABEL \"k\"=\"a\\\" RUN \\$X \\\\\"\n");
    }

    #[test]
    fn images_are_those_from_outside() {
        for (dockerfile, expected) in [
            ("FROM a:1\nRUN x\n", vec!["a:1"]),
            (
                "from --platform=linux/amd64 a AS One\nFROM one\nCOPY --from=0 /x /y\nCOPY --from=b /x /y\n",
                vec!["a", "b"],
            ),
            ("FROM scratch\n", vec![]),
            ("ARG V\nFROM a-${V}\n", vec!["a-${V}"]),
        ] {
            assert_eq!(images(dockerfile), expected, "{dockerfile}");
        }
    }
}
