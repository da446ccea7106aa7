//! Templates with `{{name}}` in them, each filled in whole: a name that is missing, or unknown, does not compile.

use super::llm::Tool;
use super::tools::described;

/// Whether a template has these placeholders, all of them and no other.
pub(super) const fn has_exactly(template: &str, names: &[&str]) -> bool {
    let text = template.as_bytes();
    let (mut at, mut nth) = (0, 0);
    while nth < names.len() {
        if !mentions(text, names[nth].as_bytes()) {
            return false;
        }
        nth += 1;
    }
    while at + 1 < text.len() {
        if text[at] == b'{' && text[at + 1] == b'{' {
            let mut known = false;
            let mut nth = 0;
            while nth < names.len() {
                known = known || is_at(text, at, names[nth].as_bytes());
                nth += 1;
            }
            if !known {
                return false;
            }
        }
        at += 1;
    }
    true
}

const fn mentions(text: &[u8], name: &[u8]) -> bool {
    let mut at = 0;
    while at < text.len() {
        if is_at(text, at, name) {
            return true;
        }
        at += 1;
    }
    false
}

/// Whether `{{name}}` begins there.
const fn is_at(text: &[u8], at: usize, name: &[u8]) -> bool {
    let end = at + name.len() + 4;
    if end > text.len() || text[at] != b'{' || text[at + 1] != b'{' {
        return false;
    }
    let mut nth = 0;
    while nth < name.len() {
        if text[at + 2 + nth] != name[nth] {
            return false;
        }
        nth += 1;
    }
    text[end - 2] == b'}' && text[end - 1] == b'}'
}

/// Fills a template in, in one pass: what a value says is never taken for a placeholder.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut parts = template.split("{{");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").unwrap_or((part, ""));
        let value = values.iter().find(|(known, _)| *known == name);
        text.push_str(value.map_or("", |(_, value)| value));
        text.push_str(rest);
    }
    text
}

/// `prompt!(TEMPLATE, name = value, …)`: the template filled in, if it has exactly these placeholders.
macro_rules! prompt {
    ($template:expr $(, $name:ident = $value:expr)* $(,)?) => {{
        const _: () = assert!(
            $crate::agents::prompt::has_exactly($template, &[$(stringify!($name)),*]),
            "the template has other placeholders"
        );
        $crate::agents::prompt::fill($template, &[$((stringify!($name), $value)),*])
    }};
}
pub(super) use prompt;

/// What every agent is told first.
pub(super) const HOUSE: &str = include_str!("prompts/house.md");
/// The exploration agent's instructions, and what it is shown.
pub(super) const EXPLORE: &str = include_str!("prompts/explore.md");
/// The Dockerfile agent's.
pub(super) const DOCKERFILE: &str = include_str!("prompts/dockerfile.md");
/// The evaluation-script agent's.
pub(super) const SCRIPT: &str = include_str!("prompts/script.md");
/// The test-analysis agent's.
pub(super) const ANALYSIS: &str = include_str!("prompts/analysis.md");
/// What is said to an answer that cannot be used.
pub(super) const REPAIR: &str = include_str!("prompts/repair.md");

/// BLAKE3 of all templates, and of what is said of tools: results name the words that led to them.
#[must_use]
pub fn digest() -> String {
    digest_of(&[HOUSE, EXPLORE, DOCKERFILE, SCRIPT, ANALYSIS, REPAIR], &described())
}

fn digest_of(templates: &[&str], tools: &[Tool]) -> String {
    let mut hasher = blake3::Hasher::new();
    let parts = tools
        .iter()
        .flat_map(|tool| [tool.name.clone(), tool.description.clone(), tool.parameters.to_string()]);
    for part in templates.iter().map(|template| (*template).to_owned()).chain(parts) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_exactly_its_placeholders() {
        let check = |template: &str, names: &[&str], expected: bool| {
            assert_eq!(has_exactly(template, names), expected, "{template:?} {names:?}");
        };
        check("a {{b}} c {{d}}", &["b", "d"], true);
        check("a {{b}} c {{d}}", &["b"], false);
        check("a {{b}}", &["b", "d"], false);
        check("a {{bb}}", &["b"], false);
        check("a {{ b }}", &["b"], false);
        check("a {{b", &["b"], false);
        check("{ {b} }", &[], true);
        check("", &[], true);
    }

    #[test]
    fn every_word_counts_in_the_digest() {
        let tools = described();
        let whole = digest_of(&[HOUSE, EXPLORE], &tools);
        let mut others = vec![digest_of(&[HOUSE], &tools), digest_of(&[EXPLORE, HOUSE], &tools)];
        others.push(digest_of(&[HOUSE, EXPLORE], &tools[1..]));
        for change in [
            |tool: &mut Tool| tool.name.push('x'),
            |tool: &mut Tool| tool.description.push('x'),
            |tool: &mut Tool| tool.parameters = serde_json::Value::Null,
        ] {
            let mut changed = tools.clone();
            change(&mut changed[1]);
            others.push(digest_of(&[HOUSE, EXPLORE], &changed));
        }
        others.push(whole);
        let count = others.len();
        assert_eq!(others.into_iter().collect::<std::collections::HashSet<_>>().len(), count);
    }

    #[test]
    fn values_are_never_read_as_placeholders() {
        assert_eq!(fill("{{a}}-{{b}}", &[("a", "{{b}}"), ("b", "x}}")]), "{{b}}-x}}");
        assert_eq!(prompt!("say {{what}}", what = "{{house}}"), "say {{house}}");
    }
}
