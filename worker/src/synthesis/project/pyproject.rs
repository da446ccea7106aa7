use toml::{Table, Value};

use super::model::{Content, Project, Source, Tier};
use crate::synthesis::text::{from_poetry, normalise, python_versions_in};
use crate::synthesis::tree::Tree;

const FILE: &str = "pyproject.toml";
/// How deep `include-group` is followed.
const INCLUDE_DEPTH_MAX: usize = 8;

pub(super) fn read(tree: &Tree, project: &mut Project) {
    let Some(text) = tree.read(FILE) else { return };
    let Ok(root) = text.parse::<Table>() else { return };
    if let Some(build) = table(&root, "build-system") {
        project.build.has_pyproject = true;
        project.build.backend = text_of(build, "build-backend");
        project.build.requires.extend(strings(build.get("requires")));
    }
    if let Some(metadata) = table(&root, "project") {
        project.build.has_pyproject = true;
        read_metadata(metadata, project);
    }
    for (name, group) in table(&root, "dependency-groups").into_iter().flatten() {
        let lines = group_lines(&root, group, 0);
        project.add_named(name, format!("dependency group {name}"), Content::Lines(lines));
    }
    if let Some(tool) = table(&root, "tool") {
        read_poetry(tool, project);
        read_flit(tool, project);
        read_hatch(tool, project);
        read_pdm_and_uv(tool, project);
    }
}

fn read_metadata(metadata: &Table, project: &mut Project) {
    project.name = text_of(metadata, "name").or(project.name.take());
    project.python_specs.extend(text_of(metadata, "requires-python").map(|spec| (spec, FILE)));
    let classifiers = strings(metadata.get("classifiers"));
    project.add_pythons(python_classifiers(&classifiers), "the classifiers in pyproject.toml");
    project.runtime.extend(strings(metadata.get("dependencies")));
    for (name, extra) in table(metadata, "optional-dependencies").into_iter().flatten() {
        let content = Content::Extra(name.clone(), strings(Some(extra)));
        project.add_named(name, format!("extra {name}"), content);
    }
}

/// The Pythons of `Programming Language :: Python :: 3.8` lines.
pub(super) fn python_classifiers(classifiers: &[String]) -> Vec<base_images::PythonVersion> {
    let lines =
        classifiers.iter().filter_map(|line| line.trim().strip_prefix("Programming Language :: Python :: "));
    lines.flat_map(python_versions_in).collect()
}

fn group_lines(root: &Table, group: &Value, depth: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in group.as_array().into_iter().flatten() {
        match entry {
            Value::String(line) => lines.push(line.clone()),
            Value::Table(include) if depth < INCLUDE_DEPTH_MAX => {
                let Some(name) = include.get("include-group").and_then(Value::as_str) else { continue };
                let groups = table(root, "dependency-groups").into_iter().flatten();
                let found = groups.filter(|(other, _)| normalise(other) == normalise(name));
                lines.extend(found.flat_map(|(_, other)| group_lines(root, other, depth + 1)));
            }
            _ => {}
        }
    }
    lines
}

fn read_poetry(tool: &Table, project: &mut Project) {
    let Some(poetry) = table(tool, "poetry") else { return };
    project.build.has_pyproject = true;
    project.name = project.name.take().or(text_of(poetry, "name"));
    let classifiers = strings(poetry.get("classifiers"));
    project.add_pythons(python_classifiers(&classifiers), "the classifiers in pyproject.toml");
    for (name, wanted) in table(poetry, "dependencies").into_iter().flatten() {
        match (name.as_str(), wanted) {
            ("python", Value::String(spec)) => project.python_specs.push((spec.clone(), FILE)),
            _ => project.runtime.extend(poetry_line(name, wanted)),
        }
    }
    for (name, extra) in table(poetry, "extras").into_iter().flatten() {
        let content = Content::Extra(name.clone(), strings(Some(extra)));
        project.add_named(name, format!("extra {name}"), content);
    }
    let old = table(poetry, "dev-dependencies").map(|lines| ("dev".to_owned(), lines));
    let groups = table(poetry, "group").into_iter().flatten();
    let groups =
        groups.filter_map(|(name, group)| Some((name.clone(), table(group.as_table()?, "dependencies")?)));
    for (name, wanted) in old.into_iter().chain(groups) {
        let lines = wanted.iter().filter_map(|(name, wanted)| poetry_line(name, wanted)).collect();
        project.add_named(&name, format!("poetry group {name}"), Content::Lines(lines));
    }
}

/// `pytest = "^6"` or `pytest = {version = "^6", extras = […], markers = "…", python = "…"}` as a requirement.
fn poetry_line(name: &str, wanted: &Value) -> Option<String> {
    let wanted = match wanted {
        // Alternatives by marker: the last is meant for the newest Python.
        Value::Array(alternatives) => alternatives.last()?,
        other => other,
    };
    match wanted {
        Value::String(constraint) => Some(format!("{name}{}", from_poetry(constraint))),
        Value::Table(details) => {
            let versions = from_poetry(&text_of(details, "version").unwrap_or_default());
            let extras = strings(details.get("extras"));
            let extras = if extras.is_empty() { String::new() } else { format!("[{}]", extras.join(",")) };
            let marker = text_of(details, "markers").map(|marker| format!(" ; {marker}")).unwrap_or_default();
            if details.contains_key("path") || details.contains_key("git") || details.contains_key("url") {
                return None;
            }
            Some(format!("{name}{extras}{versions}{marker}"))
        }
        _ => None,
    }
}

fn read_flit(tool: &Table, project: &mut Project) {
    let Some(metadata) = table(tool, "flit").and_then(|flit| table(flit, "metadata")) else { return };
    project.build.has_pyproject = true;
    let name = text_of(metadata, "dist-name").or(text_of(metadata, "module"));
    project.name = project.name.take().or(name);
    project.python_specs.extend(text_of(metadata, "requires-python").map(|spec| (spec, FILE)));
    let classifiers = strings(metadata.get("classifiers"));
    project.add_pythons(python_classifiers(&classifiers), "the classifiers in pyproject.toml");
    project.runtime.extend(strings(metadata.get("requires")));
    for (name, extra) in table(metadata, "requires-extra").into_iter().flatten() {
        let content = Content::Extra(name.clone(), strings(Some(extra)));
        project.add_named(name, format!("extra {name}"), content);
    }
    let dev = strings(metadata.get("dev-requires"));
    if !dev.is_empty() {
        project.add_named("dev", "flit's dev-requires".to_owned(), Content::Lines(dev));
    }
}

fn read_hatch(tool: &Table, project: &mut Project) {
    let Some(environments) = table(tool, "hatch").and_then(|hatch| table(hatch, "envs")) else { return };
    for (name, environment) in environments {
        let Some(environment) = environment.as_table() else { continue };
        let mut lines = strings(environment.get("dependencies"));
        lines.extend(strings(environment.get("extra-dependencies")));
        for feature in strings(environment.get("features")) {
            lines.push(format!(".[{feature}]"));
        }
        // hatch runs tests in `default` where nothing else is named.
        let tier = if name == "default" { Some(Tier::Development) } else { Tier::of_name(name) };
        if let (Some(tier), false) = (tier, lines.is_empty()) {
            project.sources.push(Source {
                label: format!("hatch environment {name}"),
                tier,
                content: Content::Lines(lines),
            });
        }
    }
}

fn read_pdm_and_uv(tool: &Table, project: &mut Project) {
    let pdm = table(tool, "pdm").and_then(|pdm| table(pdm, "dev-dependencies"));
    for (name, lines) in pdm.into_iter().flatten() {
        project.add_named(name, format!("pdm group {name}"), Content::Lines(strings(Some(lines))));
    }
    let uv = strings(table(tool, "uv").and_then(|uv| uv.get("dev-dependencies")));
    if !uv.is_empty() {
        project.add_named("dev", "uv's dev-dependencies".to_owned(), Content::Lines(uv));
    }
}

fn table<'a>(parent: &'a Table, key: &str) -> Option<&'a Table> {
    parent.get(key)?.as_table()
}

fn text_of(parent: &Table, key: &str) -> Option<String> {
    parent.get(key)?.as_str().map(str::to_owned)
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(text: &str) -> Project {
        let (_root, tree) = Tree::of(&[(FILE, text)]);
        let mut project = Project::default();
        read(&tree, &mut project);
        project
    }

    #[test]
    fn reads_every_way_to_declare_requirements_for_tests() {
        let check = |text: &str, label: &str, expected: &[&str]| {
            let project = project(text);
            let source = project.sources.iter().find(|source| source.label == label);
            let source = source.unwrap_or_else(|| panic!("no {label} in {:?}", project.sources));
            let (Content::Extra(_, lines) | Content::Lines(lines)) = &source.content;
            assert_eq!(lines, expected, "{text}");
        };
        check(
            "[project]\nname='a'\n[project.optional-dependencies]\ntest=['pytest']\n",
            "extra test",
            &["pytest"],
        );
        check(
            "[dependency-groups]\nlint=['ruff']\nbase=['x']\ntests=['pytest', {include-group='Base'}]\n",
            "dependency group tests",
            &["pytest", "x"],
        );
        check(
            "[tool.poetry.dev-dependencies]\npytest='^6.1'\nmock={version='*', markers='os_name==\"nt\"'}\nz={path='..'}\n",
            "poetry group dev",
            &["mock ; os_name==\"nt\"", "pytest>=6.1,<7"],
        );
        check("[tool.poetry.group.test.dependencies]\npytest='7.0'\n", "poetry group test", &["pytest==7.0"]);
        check(
            "[tool.flit.metadata]\nmodule='m'\n[tool.flit.metadata.requires-extra]\ntest=['pytest']\n",
            "extra test",
            &["pytest"],
        );
        check(
            "[tool.hatch.envs.test]\nextra-dependencies=['p']\nfeatures=['x']\n",
            "hatch environment test",
            &["p", ".[x]"],
        );
        check(
            "[tool.hatch.envs.default]\ndependencies=['pytest']\n",
            "hatch environment default",
            &["pytest"],
        );
        check("[tool.pdm.dev-dependencies]\ntest=['pytest']\n", "pdm group test", &["pytest"]);
        check("[tool.uv]\ndev-dependencies=['pytest']\n", "uv's dev-dependencies", &["pytest"]);
    }

    #[test]
    fn ends_where_groups_include_one_another() {
        let project = project("[dependency-groups]\ntest=['x', {include-group='test'}]\n");
        assert_eq!(project.sources.len(), 1);
    }

    #[test]
    fn reads_names_pythons_and_the_build_system() {
        let project = project(
            "[build-system]\nrequires=['flit_core >=3.2,<4']\nbuild-backend='flit_core.buildapi'\n[project]\nname='itsdangerous'\nrequires-python='>=3.7'\nclassifiers=['Programming Language :: Python :: 3.9', 'Programming Language :: Python :: 3 :: Only']\n",
        );
        assert_eq!(project.name.as_deref(), Some("itsdangerous"));
        assert_eq!(project.python_specs, [(">=3.7".to_owned(), FILE)]);
        assert_eq!(project.python_lists[0].0, [base_images::PythonVersion::new(3, 9)]);
        assert_eq!(project.build.requires, ["flit_core >=3.2,<4"]);
        assert_eq!(project.build.backend.as_deref(), Some("flit_core.buildapi"));
    }
}
