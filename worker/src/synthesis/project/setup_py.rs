use super::model::{Content, Project};
use super::pyproject::python_classifiers;
use crate::synthesis::text::{Literal, PythonSource};
use crate::synthesis::tree::Tree;

const FILE: &str = "setup.py";

/// What a setup script uses, and below which setuptools it still works.
const SETUPTOOLS_BELOW: &[(&str, &str)] = &[("use_2to3", "58"), ("Feature(", "46")];

pub(super) fn read(tree: &Tree, project: &mut Project) {
    project.build.has_src = tree.files().any(|file| {
        file.strip_prefix("src/").is_some_and(|rest| rest.ends_with(".py") && rest.matches('/').count() <= 2)
    });
    let Some(text) = tree.read(FILE) else { return };
    project.build.has_setup_py = true;
    let below = SETUPTOOLS_BELOW.iter().filter(|(feature, _)| text.contains(feature));
    project.build.setuptools_below = below.map(|(_, version)| *version).min();
    let source = PythonSource(&text);
    let list = |name: &str| source.value(name).map(|value| value.strings()).unwrap_or_default();
    let name = source.value("name").and_then(|value| value.text().map(str::to_owned));
    project.name = project.name.take().or(name.filter(|name| is_name(name)));
    let spec = source.value("python_requires").and_then(|value| value.text().map(str::to_owned));
    project.python_specs.extend(spec.map(|spec| (spec, FILE)));
    let mut classifiers = list("classifiers");
    if classifiers.is_empty() {
        // Computed in some way: the lines still stand somewhere in the script.
        classifiers =
            text.lines().map(|line| line.trim().trim_matches(['"', '\'', ',']).to_owned()).collect();
    }
    project.add_pythons(python_classifiers(&classifiers), "the classifiers in setup.py");
    project.build.requires.extend(list("setup_requires"));
    project.runtime.extend(list("install_requires"));
    if let Some(Literal::Map(extras)) = source.value("extras_require") {
        for (name, lines) in &extras {
            let Some(name) = name.text().filter(|name| is_name(name)) else { continue };
            project.add_named(
                name,
                format!("extra {name}"),
                Content::Extra(name.to_owned(), lines.strings()),
            );
        }
    }
    for key in ["tests_require", "test_requires"] {
        let tests = list(key);
        if !tests.is_empty() {
            project.add_named("tests", format!("{key} in setup.py"), Content::Lines(tests));
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_setup_script_without_running_it() {
        let (_root, tree) = Tree::of(&[
            (
                FILE,
                "from setuptools import setup\ntests_require = ['pytest', 'mock']\nsetup(\n    name='thing',\n    python_requires='>=2.7, !=3.0.*',\n    classifiers=['Programming Language :: Python :: 3.7'],\n    tests_require=tests_require,\n    extras_require={':os_name==\"nt\"': ['x'], 'testing': tests_require, 'docs': []},\n    setup_requires=['pytest-runner'],\n    use_2to3=True,\n)\n",
            ),
            ("src/thing/__init__.py", ""),
        ]);
        let mut project = Project::default();
        read(&tree, &mut project);
        assert_eq!(project.name.as_deref(), Some("thing"));
        assert_eq!(project.build.setuptools_below, Some("58"));
        assert!(project.build.has_src && project.build.has_setup_py);
        assert_eq!(project.build.requires, ["pytest-runner"]);
        let labels: Vec<&str> = project.sources.iter().map(|source| source.label.as_str()).collect();
        assert_eq!(labels, ["extra testing", "tests_require in setup.py"]);
        assert!(project.sources.iter().all(super::super::Source::has_runner));
    }
}
