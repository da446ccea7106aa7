use std::collections::BTreeSet;

use super::model::{Content, Project, Source, Tier};
use crate::synthesis::tree::Tree;

/// How deep `-r` is followed.
const INCLUDE_DEPTH_MAX: usize = 6;
/// The most lines of one file with its includes.
const LINES_MAX: usize = 400;
/// Where requirement files lie.
const DIRECTORIES: &[&str] =
    &["", "requirements/", "requirement/", "reqs/", "tests/", "test/", "testing/", "ci/", ".github/"];

pub(super) fn read(tree: &Tree, project: &mut Project) {
    for file in tree.files() {
        let Some(directory) = DIRECTORIES.iter().rev().find(|directory| file.starts_with(*directory)) else {
            continue;
        };
        let name = &file[directory.len()..];
        let Some((stem, extension)) = name.rsplit_once('.') else { continue };
        let listed = matches!(extension, "txt" | "pip" | "in") && !name.contains('/');
        // A compiled file beside its source says more.
        let compiled = extension == "in" && tree.has(&format!("{directory}{stem}.txt"));
        let named = directory.starts_with("req") || name.contains("req") || directory.starts_with("test");
        if !listed || compiled || !named || (directory.starts_with("test") && !name.contains("req")) {
            continue;
        }
        let stem = if directory.starts_with("test") { format!("{directory}{stem}") } else { stem.to_owned() };
        if Tier::of_name(&stem.replace('/', "-")).is_some() {
            let lines = flatten(tree, &[format!("-r {file}")], "", 0);
            project.add_named(&stem.replace('/', "-"), file.to_owned(), Content::Lines(lines));
        }
    }
    let mixed = flatten(tree, &["-r requirements.txt".to_owned()], "", 0);
    let source = Source {
        label: "requirements.txt".to_owned(),
        tier: Tier::Development,
        content: Content::Lines(mixed),
    };
    // What a package needs at run time stands there too; a test runner among it says that it is for developers.
    if source.has_runner() {
        project.sources.push(source);
    }
    if project.runtime.is_empty() && tree.has("requirements.txt") {
        project.runtime = flatten(tree, &["-r requirements.txt".to_owned()], "", 0);
    }
    pipfile(tree, project);
}

/// Replaces `-r file` by the file's lines; paths are relative to `directory`.
pub(super) fn flatten(tree: &Tree, lines: &[String], directory: &str, depth: usize) -> Vec<String> {
    let mut flat = Vec::new();
    for line in lines {
        let trimmed = line.trim();
        let included = ["--requirement", "-r"].iter().find_map(|option| {
            let path = trimmed.strip_prefix(option)?.trim_start_matches(['=', ' ', '\t']);
            let path = path.split(" #").next()?.trim();
            (!path.is_empty()).then(|| join(directory, path.trim_start_matches("{toxinidir}/")))
        });
        match included {
            Some(path) if depth < INCLUDE_DEPTH_MAX => {
                let inner: Vec<String> =
                    tree.read(&path).unwrap_or_default().lines().map(str::to_owned).collect();
                let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                flat.extend(flatten(tree, &inner, parent, depth + 1));
            }
            Some(_) => {}
            None if trimmed.is_empty() || trimmed.starts_with('#') => {}
            None => flat.push(trimmed.to_owned()),
        }
        if flat.len() > LINES_MAX {
            break;
        }
    }
    let mut seen = BTreeSet::new();
    flat.retain(|line| seen.insert(line.clone()));
    flat.truncate(LINES_MAX);
    flat
}

/// `directory/path` without `.` and `..`; the tree reads nothing outside itself anyway.
fn join(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn pipfile(tree: &Tree, project: &mut Project) {
    let Some(text) = tree.read("Pipfile") else { return };
    let Ok(root) = text.parse::<toml::Table>() else { return };
    let Some(packages) = root.get("dev-packages").and_then(toml::Value::as_table) else { return };
    let lines = packages.iter().filter_map(|(name, wanted)| {
        let versions = match wanted {
            toml::Value::String(text) => text.as_str(),
            toml::Value::Table(details) => details.get("version").and_then(toml::Value::as_str)?,
            _ => return None,
        };
        Some(format!("{name}{}", if versions == "*" { "" } else { versions }))
    });
    project.add_named("dev", "Pipfile's dev-packages".to_owned(), Content::Lines(lines.collect()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_requirement_files_and_follows_their_includes() {
        let (_root, tree) = Tree::of(&[
            ("requirements.txt", "six\n"),
            ("requirements-dev.txt", "-r requirements.txt\n# why\npytest==5\n"),
            ("requirements/tests.txt", "-r ../requirements.txt\n-rtests.txt\nmock\n"),
            ("requirements/tests.in", "mock\n"),
            ("requirements/docs.txt", "sphinx\n"),
            ("tests/requirements.txt", "responses\n"),
            ("tests/data/req.txt", "evil\n"),
            ("notes-dev.txt", "hello\n"),
            ("Pipfile", "[dev-packages]\npytest = '*'\nmock = {version='>=2'}\n"),
        ]);
        let mut project = Project::default();
        read(&tree, &mut project);
        let found: Vec<(&str, Vec<String>)> = project
            .sources
            .iter()
            .map(|source| {
                let (Content::Extra(_, lines) | Content::Lines(lines)) = &source.content;
                (source.label.as_str(), lines.clone())
            })
            .collect();
        let expected = [
            ("requirements-dev.txt", vec!["six", "pytest==5"]),
            ("requirements/tests.txt", vec!["six", "mock"]),
            ("tests/requirements.txt", vec!["responses"]),
            ("Pipfile's dev-packages", vec!["mock>=2", "pytest"]),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((label, lines), (expected_label, expected_lines)) in found.iter().zip(&expected) {
            assert_eq!(label, expected_label);
            assert_eq!(lines, expected_lines);
        }
        assert_eq!(project.runtime, ["six"]);
    }
}
