//! What the explorer may ask of the tree. Every path is looked up in a list of regular files that was made without
//! following a link: what is not in it does not exist, however it is written.

use std::fmt::Write;

use regex::RegexBuilder;
use serde::Deserialize;
use serde_json::{Value, json};

use super::llm::Tool;
use super::shown::{clip, clip_line};
use crate::synthesis::tree::Tree;

/// Entries of a directory that are shown.
const ENTRIES_MAX: usize = 120;
/// Lines that a search shows, and files that it reads.
const HITS_MAX: usize = 40;
const FILES_MAX: usize = 4000;
/// The largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Things looked at in one turn.
pub(super) const LOOKS_MAX: usize = 6;

/// Words of lines that tell of set-up and tests.
const TELLING: [&str; 22] = [
    "install", "requir", "depend", "python", "test", "tox", "nox", "pip", "conda", "poetry", "apt", "brew",
    "uv ", "setup", "venv", "make", "extras", "env", "django", "compile", "lib", "version",
];

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Look {
    /// What lies in a directory.
    Browse(String),
    /// Where something is said.
    Search(Search),
    /// What a file says.
    Digest(String),
}

/// A search.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Search {
    pattern: String,
    #[serde(default, rename = "in")]
    path_part: String,
}

/// The same as tools of the protocol.
pub(super) fn described() -> Vec<Tool> {
    let tool = |name: &str, description: &str, properties: Value, required: &str| Tool {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters: json!({ "type": "object", "properties": properties, "required": [required] }),
    };
    let path = || json!({ "path": { "type": "string" } });
    let search = json!({ "pattern": { "type": "string" }, "in": { "type": "string" } });
    vec![
        tool("browse", "Lists a directory of the tree, \"\" the root.", path(), "path"),
        tool("search", "Finds a regular expression in files whose path contains `in`.", search, "pattern"),
        tool("digest", "Shows a file, of a large one what it says about set-up and tests.", path(), "path"),
    ]
}

/// Looks, and shows at most so many bytes.
pub(super) fn look(tree: &Tree, look: &Look, bytes_max: usize) -> String {
    let (title, text) = match look {
        Look::Browse(path) => (format!("browse {path:?}"), browse(tree, path)),
        Look::Search(asked) => {
            (format!("search {:?} in {:?}", asked.pattern, asked.path_part), search(tree, asked))
        }
        Look::Digest(path) => (format!("digest {path:?}"), digest(tree, path, bytes_max)),
    };
    format!("# {}\n{}\n", clip_line(&title), clip(&text, bytes_max))
}

/// The first levels of the tree.
pub(super) fn browse(tree: &Tree, path: &str) -> String {
    let path = path.trim_start_matches("./").trim_matches('/');
    let path = if path == "." { "" } else { path };
    if !path.is_empty() && !tree.has_directory(path) {
        return "there is no such directory in the tree".to_owned();
    }
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    let mut entries: Vec<(String, usize)> = Vec::new();
    for rest in tree.files().filter_map(|file| file.strip_prefix(&prefix)) {
        let name = rest.split_once('/').map_or_else(|| rest.to_owned(), |(dir, _)| format!("{dir}/"));
        // Files are sorted: those of one directory follow each other.
        match entries.last_mut().filter(|(known, _)| *known == name) {
            Some((_, files)) => *files += 1,
            None => entries.push((name, 1)),
        }
    }
    let mut text = String::new();
    for (name, files) in entries.iter().take(ENTRIES_MAX) {
        let count = if name.ends_with('/') { format!("  {files} files") } else { String::new() };
        let _ = writeln!(text, "{}{count}", clip_line(name));
    }
    if entries.len() > ENTRIES_MAX {
        let _ = writeln!(text, "and {} more", entries.len() - ENTRIES_MAX);
    }
    text
}

fn search(tree: &Tree, asked: &Search) -> String {
    let pattern = RegexBuilder::new(&asked.pattern).size_limit(PATTERN_BYTES_MAX).build();
    let pattern = match pattern {
        Ok(pattern) => pattern,
        Err(error) => return format!("this is no regular expression: {error}"),
    };
    let mut text = String::new();
    let mut hits = 0;
    for path in tree.files().filter(|path| path.contains(&asked.path_part)).take(FILES_MAX) {
        let Some(content) = tree.read(path) else { continue };
        for (nth, line) in content.lines().enumerate().filter(|(_, line)| pattern.is_match(line)) {
            if hits == HITS_MAX {
                text.push_str("and more; search for something rarer, or in fewer files\n");
                return text;
            }
            let _ = writeln!(text, "{path}:{}: {}", nth + 1, clip_line(line.trim()));
            hits += 1;
        }
    }
    if hits == 0 { "nothing is found".to_owned() } else { text }
}

fn digest(tree: &Tree, path: &str, bytes_max: usize) -> String {
    let path = path.trim_start_matches("./");
    let Some(content) = tree.read(path) else {
        return "there is no such file in the tree, or it is too large to be read".to_owned();
    };
    if content.len() <= bytes_max {
        return content;
    }
    let mut text = String::new();
    for (nth, line) in content.lines().enumerate() {
        let lower = line.to_ascii_lowercase();
        if TELLING.iter().any(|word| lower.contains(word)) {
            let _ = writeln!(text, "{}: {}", nth + 1, clip_line(line));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 2000;

    fn asked(json: &str) -> Look {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn shows_what_lies_where_and_what_it_says() {
        let long = format!("{}install it with pip\n", "nothing to see\n".repeat(500));
        let (_guard, tree) =
            Tree::of(&[("setup.py", "x = 1\n"), ("docs/a.rst", "pytest -x\n"), ("docs/b/c.rst", &long)]);
        let check = |json: &str, expected: &str| {
            let shown = look(&tree, &asked(json), MAX);
            assert!(shown.contains(expected) && shown.len() < MAX + 200, "{json}\n{shown}");
        };
        check(r#"{"browse":""}"#, "docs/  2 files\nsetup.py\n");
        check(r#"{"browse":"./docs/"}"#, "a.rst\nb/  1 files\n");
        check(r#"{"browse":"doc"}"#, "no such directory");
        check(r#"{"search":{"pattern":"^pytest"}}"#, "docs/a.rst:1: pytest -x");
        check(r#"{"search":{"pattern":"pytest","in":"setup"}}"#, "nothing is found");
        check(r#"{"search":{"pattern":"("}}"#, "no regular expression");
        check(r#"{"search":{"pattern":"x{1000}{1000}{1000}"}}"#, "no regular expression");
        check(r#"{"search":{"pattern":"nothing"}}"#, "and more");
        check(r#"{"digest":"setup.py"}"#, "x = 1");
        check(r#"{"digest":"docs/b/c.rst"}"#, "501: install it with pip");
    }

    #[test]
    fn no_path_leaves_the_tree() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "sk-key").unwrap();
        let (root, _) = Tree::of(&[("in/here.txt", "x")]);
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), root.path().join("in/file")).unwrap();
        let tree = Tree::open(root.path()).unwrap();
        let absolute = outside.path().join("secret").display().to_string();
        for path in
            ["../secret", "in/../../secret", "link/secret", "in/file", "./link/secret", absolute.as_str()]
        {
            for json in [format!("{{\"digest\":{path:?}}}"), format!("{{\"browse\":{path:?}}}")] {
                let shown = look(&tree, &asked(&json), MAX);
                assert!(shown.contains("there is no such"), "{json}: {shown}");
            }
        }
        for path in ["..", "/", "/etc", "link", "in/.."] {
            let shown = look(&tree, &asked(&format!("{{\"browse\":{path:?}}}")), MAX);
            assert!(shown.contains("there is no such") || shown.contains("in/  1 files"), "{path}: {shown}");
        }
        let shown = look(&tree, &asked(r#"{"search":{"pattern":"sk-"}}"#), MAX);
        assert!(shown.contains("nothing is found"), "{shown}");
    }
}
