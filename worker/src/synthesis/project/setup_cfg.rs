use super::model::{Content, Project};
use super::pyproject::python_classifiers;
use crate::synthesis::text::Ini;
use crate::synthesis::tree::Tree;

const FILE: &str = "setup.cfg";

pub(super) fn read(tree: &Tree, project: &mut Project) {
    let Some(text) = tree.read(FILE) else { return };
    let ini = Ini::parse(&text);
    let lines = |section: &str, key: &str| ini.get(section, key).map(list).unwrap_or_default();
    project.build.has_setup_cfg = ini.get("metadata", "name").is_some();
    project.name = project.name.take().or(ini.get("metadata", "name").map(str::to_owned));
    project
        .python_specs
        .extend(ini.get("options", "python_requires").map(|spec| (spec.trim().to_owned(), FILE)));
    let classifiers = [lines("metadata", "classifiers"), lines("metadata", "classifier")].concat();
    project.add_pythons(python_classifiers(&classifiers), "the classifiers in setup.cfg");
    project.build.requires.extend(lines("options", "setup_requires"));
    project.runtime.extend(lines("options", "install_requires"));
    for (name, extra) in ini.section("options.extras_require") {
        project.add_named(name, format!("extra {name}"), Content::Extra(name.to_owned(), list(extra)));
    }
    let tests = lines("options", "tests_require");
    if !tests.is_empty() {
        project.add_named("tests", "tests_require in setup.cfg".to_owned(), Content::Lines(tests));
    }
}

/// setuptools takes lists by line, or by `;` and `,` within one.
fn list(value: &str) -> Vec<String> {
    let lines: Vec<&str> = value.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.as_slice() {
        [one] if !one.contains("python_version") && !one.contains("sys_platform") => {
            one.split(';').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
        }
        lines => lines.iter().map(|line| (*line).to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_declarative_setup() {
        let (_root, tree) = Tree::of(&[(
            FILE,
            "[metadata]\nname = thing\nclassifiers =\n  Programming Language :: Python :: 3.6\n[options]\npython_requires = >=3.5\nsetup_requires = setuptools_scm\ninstall_requires =\n  six\ntests_require = mock; pytest\n[options.extras_require]\ntesting =\n  # upstream\n  pytest >= 3.5\ndocs =\n  sphinx\n",
        )]);
        let mut project = Project::default();
        read(&tree, &mut project);
        assert_eq!(project.name.as_deref(), Some("thing"));
        assert_eq!(project.build.requires, ["setuptools_scm"]);
        assert_eq!(project.runtime, ["six"]);
        let labels: Vec<&str> = project.sources.iter().map(|source| source.label.as_str()).collect();
        assert_eq!(labels, ["extra testing", "tests_require in setup.cfg"]);
        let Content::Lines(lines) = &project.sources[1].content else { panic!("{:?}", project.sources) };
        assert_eq!(lines, &["mock", "pytest"]);
        assert!(project.sources[0].has_runner());
    }
}
