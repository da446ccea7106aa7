use super::model::{Content, Project, Source, Tier};
use super::requirement_files::flatten;
use crate::synthesis::text::{Ini, python_versions_in};
use crate::synthesis::tree::Tree;

/// How labels of what tox installs begin.
pub(in crate::synthesis) const LABEL: &str = "deps of ";
/// How often a reference like `{[testenv]deps}` is followed.
const REFERENCES_MAX: usize = 5;

pub(super) fn read(tree: &Tree, project: &mut Project) {
    let (file, text) = match tree.read("tox.ini") {
        Some(text) => ("tox.ini", text),
        None => match legacy(tree) {
            Some(text) => ("pyproject.toml", text),
            None => return native(tree, project),
        },
    };
    let ini = Ini::parse(&text);
    let environments = ["envlist", "env_list"].iter().find_map(|key| ini.get("tox", key)).unwrap_or_default();
    project.add_pythons(python_versions_in(&expand(environments)), "tox's list of environments");
    for section in ini.names().filter(|name| name.starts_with("testenv")) {
        let name = section.strip_prefix("testenv:").unwrap_or("testenv");
        let Some(tier) = environment_tier(name) else { continue };
        let lines = resolve(&ini, section, "deps").unwrap_or_default();
        let mut lines: Vec<String> = lines.lines().filter_map(unconditional).collect();
        for extra in ini.get(section, "extras").unwrap_or_default().split([',', '\n']) {
            lines.extend((!extra.trim().is_empty()).then(|| format!(".[{}]", extra.trim())));
        }
        let lines = flatten(tree, &lines, "", 0);
        if !lines.is_empty() {
            let label = format!("{LABEL}[{section}] in {file}");
            project.sources.push(Source { label, tier, content: Content::Lines(lines) });
        }
        let commands = resolve(&ini, section, "commands").unwrap_or_default();
        project.commands.extend(
            joined(&commands).iter().filter_map(|line| unconditional(line)).map(|line| plain_command(&line)),
        );
    }
}

fn legacy(tree: &Tree) -> Option<String> {
    let root = tree.read("pyproject.toml")?.parse::<toml::Table>().ok()?;
    Some(root.get("tool")?.get("tox")?.get("legacy_tox_ini")?.as_str()?.to_owned())
}

/// tox 4's own tables in `tox.toml` or `pyproject.toml`.
fn native(tree: &Tree, project: &mut Project) {
    let parse = |file: &str| tree.read(file)?.parse::<toml::Table>().ok();
    let nested = || parse("pyproject.toml")?.get("tool")?.get("tox")?.as_table().cloned();
    let Some(root) = parse("tox.toml").or_else(nested) else { return };
    let strings = |value: Option<&toml::Value>| -> Vec<String> {
        let items = value.and_then(toml::Value::as_array).into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let names = strings(root.get("env_list").or(root.get("envlist"))).join(" ");
    project.add_pythons(python_versions_in(&names), "tox's list of environments");
    let Some(base) = root.get("env_run_base").and_then(toml::Value::as_table) else { return };
    let mut lines = flatten(tree, &strings(base.get("deps")), "", 0);
    lines.extend(strings(base.get("extras")).iter().map(|extra| format!(".[{extra}]")));
    if !lines.is_empty() {
        let label = format!("{LABEL}tox's env_run_base");
        project.sources.push(Source { label, tier: Tier::Test, content: Content::Lines(lines) });
    }
}

fn environment_tier(name: &str) -> Option<Tier> {
    let of_python = name.starts_with("py");
    match name {
        "testenv" => Some(Tier::Test),
        // `py38` and `py{37,38}` test; `py38-something` may do anything.
        _ if of_python && !name.contains('-') => Some(Tier::Test),
        _ => Tier::of_name(name),
    }
}

/// A value with its references to other sections filled in.
fn resolve(ini: &Ini, section: &str, key: &str) -> Option<String> {
    let mut value = ini.get(section, key)?.to_owned();
    for _ in 0..REFERENCES_MAX {
        let Some(begin) = value.find("{[") else { break };
        let Some(length) = value[begin..].find('}') else { break };
        let reference = &value[begin + 2..begin + length];
        let Some((section, key)) = reference.split_once(']') else { break };
        let found = ini.get(section, &key.to_lowercase()).unwrap_or_default().to_owned();
        value.replace_range(begin..=begin + length, &found);
    }
    Some(value)
}

/// A line whose condition, if it has one, is not about an old Python or a special environment.
fn unconditional(line: &str) -> Option<String> {
    let line = line.trim();
    let Some((condition, rest)) = line.split_once(": ").or_else(|| line.split_once(":\t")) else {
        return (!line.is_empty()).then(|| line.to_owned());
    };
    let is_condition = condition.chars().all(|c| c.is_ascii_alphanumeric() || "!,{}-._".contains(c));
    if !is_condition {
        return Some(line.to_owned());
    }
    (condition.starts_with('!') && !condition.contains(',')).then(|| rest.trim().to_owned())
}

/// Lines that end in a backslash go on in the next.
fn joined(commands: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut open = false;
    for line in commands.lines() {
        let (text, goes_on) =
            line.trim().strip_suffix('\\').map_or((line.trim(), false), |text| (text.trim(), true));
        match lines.last_mut() {
            Some(last) if open => *last = format!("{last} {text}"),
            _ => lines.push(text.to_owned()),
        }
        open = goes_on;
    }
    lines
}

/// `{posargs:default}` becomes its default, other substitutions what they stand for in an activated environment.
fn plain_command(line: &str) -> String {
    let mut line = line.trim_start_matches(['-', '@']).trim().to_owned();
    for (name, value) in [
        ("{envpython}", "python"),
        ("{envbindir}/", ""),
        ("{toxinidir}/", ""),
        ("{toxinidir}", "."),
        ("{/}", "/"),
    ] {
        line = line.replace(name, value);
    }
    while let Some(begin) = line.find('{') {
        let Some(length) = line[begin..].find('}') else { break };
        let inside = &line[begin + 1..begin + length];
        let default = inside.strip_prefix("posargs:").unwrap_or_default().to_owned();
        line.replace_range(begin..=begin + length, &default);
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `py{36,37}-{a,b}` becomes `py36,py37-…`: enough to see the Pythons.
fn expand(environments: &str) -> String {
    let mut text = String::new();
    for part in environments.split_inclusive('}') {
        match part.split_once('{') {
            Some((before, inside)) => {
                let prefix = before.rsplit([',', '\n', ' ']).next().unwrap_or_default();
                text.push_str(before);
                for alternative in inside.trim_end_matches('}').split(',') {
                    text.push_str(&format!(",{prefix}{},", alternative.trim()));
                }
            }
            None => text.push_str(part),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pythons_deps_and_commands() {
        let (_root, tree) = Tree::of(&[
            (
                "tox.ini",
                "[tox]\nenvlist = py{27,36,37}-{old,new}, pypy, py310, lint\n[base]\ndeps = mock\n[testenv]\nextras = test\ndeps =\n  {[base]deps}\n  -rrequirements-test.txt\n  py27: unittest2\n  pytest # runner\ncommands =\n  {envpython} tool.py --testsuite \\\n     testsuite\n  pytest {posargs:tests} --cov={envsitepackagesdir}\n[testenv:lint]\ndeps = flake8\n",
            ),
            ("requirements-test.txt", "responses\n"),
        ]);
        let mut project = Project::default();
        read(&tree, &mut project);
        let pythons: Vec<String> = project.python_lists[0].0.iter().map(ToString::to_string).collect();
        assert_eq!(pythons.join(" "), "2.7 3.6 3.7 3.10");
        let [source] = project.sources.as_slice() else { panic!("{:?}", project.sources) };
        let Content::Lines(lines) = &source.content else { panic!("{source:?}") };
        assert_eq!(lines, &["mock", "responses", "pytest", ".[test]"]);
        assert_eq!(project.commands, ["python tool.py --testsuite testsuite", "pytest tests --cov="]);
    }

    #[test]
    fn reads_the_new_tables_too() {
        let (_root, tree) = Tree::of(&[(
            "tox.toml",
            "env_list = ['3.12', 'py313', 'lint']\n[env_run_base]\nextras = ['test']\ndeps = ['pytest']\n",
        )]);
        let mut project = Project::default();
        read(&tree, &mut project);
        assert_eq!(project.sources.len(), 1);
        assert_eq!(project.python_lists[0].0.len(), 2);
    }
}
