use super::model::{Content, Project, Source, Tier};
use super::requirement_files::flatten;
use crate::synthesis::text::{PythonSource, python_versions_in};
use crate::synthesis::tree::Tree;

/// The most files of CI that are read.
const FILES_MAX: usize = 12;

/// Reads what CI and nox do: which Pythons they name, what they install, how they run tests.
pub(super) fn read(tree: &Tree, project: &mut Project) {
    if let Some(text) = tree.read("noxfile.py") {
        nox(tree, project, &text);
    }
    let known = |file: &str| {
        matches!(
            file,
            ".travis.yml"
                | "azure-pipelines.yml"
                | ".gitlab-ci.yml"
                | ".circleci/config.yml"
                | "appveyor.yml"
        ) || (file.starts_with(".github/workflows/") && (file.ends_with(".yml") || file.ends_with(".yaml")))
    };
    let mut pythons = Vec::new();
    let mut installs = Vec::new();
    for file in tree.files().filter(|file| known(file)).take(FILES_MAX) {
        let text = tree.read(file).unwrap_or_default();
        pythons.extend(named_pythons(&text));
        installs.extend(text.lines().flat_map(pip_install_arguments));
        project.commands.extend(text.lines().filter_map(test_command));
    }
    if let Some(text) = tree.read("Makefile") {
        project.commands.extend(text.lines().filter_map(test_command));
    }
    project.add_pythons(pythons, "the CI configuration");
    let lines = flatten(tree, &installs, "", 0);
    if !lines.is_empty() {
        let label = "what CI installs".to_owned();
        project.sources.push(Source { label, tier: Tier::Incidental, content: Content::Lines(lines) });
    }
}

fn nox(tree: &Tree, project: &mut Project, text: &str) {
    project.add_pythons(
        text.lines().filter(|line| line.contains("python")).flat_map(python_versions_in).collect(),
        "noxfile.py",
    );
    // Only the sessions for tests: a session ends where the next begins.
    let sessions = text.split("@nox.session").filter(|session| {
        let name = session.split("def ").nth(1).and_then(|rest| rest.split('(').next()).unwrap_or_default();
        Tier::of_name(name) == Some(Tier::Test)
    });
    let mut words = Vec::new();
    for session in sessions {
        words.extend(PythonSource(session).call_strings("session.install"));
        words.extend(PythonSource(session).call_strings("session._session.install"));
    }
    let lines = flatten(tree, &arguments(words.iter().map(String::as_str)), "", 0);
    if !lines.is_empty() {
        let label = "what noxfile.py installs".to_owned();
        project.sources.push(Source { label, tier: Tier::Development, content: Content::Lines(lines) });
    }
}

/// Versions in lines of YAML that speak of Python, and in the lists below them.
fn named_pythons(text: &str) -> Vec<base_images::PythonVersion> {
    let mut found = Vec::new();
    let mut in_list = false;
    for line in text.lines() {
        let bare = line.trim();
        let speaks = bare.contains("python")
            || bare.contains("toxenv")
            || bare.contains("TOXENV")
            || bare.contains("env: py");
        let item = bare.starts_with("- ");
        if speaks || (in_list && item) {
            found.extend(python_versions_in(bare));
        }
        in_list = (speaks && bare.ends_with(':')) || (in_list && (item || bare.is_empty()));
    }
    found
}

/// What a line with `pip install` installs.
fn pip_install_arguments(line: &str) -> Vec<String> {
    let Some((_, rest)) = line.split_once("pip install ") else { return Vec::new() };
    let rest = rest.split(['&', ';', '|', '#']).next().unwrap_or_default();
    let words = shlex::split(rest).unwrap_or_default();
    arguments(words.iter().map(String::as_str))
}

/// Joins options with their values and leaves out those that are not about what is installed.
fn arguments<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found = Vec::new();
    let mut words = words;
    while let Some(word) = words.next() {
        match word {
            "-r" | "--requirement" => found.extend(words.next().map(|file| format!("-r {file}"))),
            "-c" | "--constraint" | "-i" | "--index-url" | "--extra-index-url" | "-f" | "--find-links"
            | "-t" => {
                words.next();
            }
            "-e" | "--editable" => found.extend(words.next().map(|path| format!("-e {path}"))),
            word if word.starts_with('-') && !word.starts_with("-r") => {}
            word if word.contains(['$', '{', '`', '*', '%']) => {}
            "pip" | "wheel" | "setuptools" | "tox" | "tox-travis" | "poetry" | "nox" | "build" | "twine" => {}
            word => found.push(word.to_owned()),
        }
    }
    found
}

/// A line that runs tests, without what leads to it in YAML or a makefile.
fn test_command(line: &str) -> Option<String> {
    let bare =
        line.trim().trim_start_matches("- ").trim_start_matches("run:").trim_start_matches("script:").trim();
    let bare = bare.trim_start_matches(['@', '-']).trim().trim_matches(['"', '\'']);
    let runs = ["python ", "pytest", "py.test", "coverage run", "nosetests", "make test"]
        .iter()
        .any(|p| bare.starts_with(p));
    (runs && bare.contains("test") && !bare.contains(['$', '`'])).then(|| bare.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_workflows() {
        let (_root, tree) = Tree::of(&[
            (
                ".travis.yml",
                "language: python\npython:\n  - \"2.7\"\n  - 3.6\ninstall:\n  - pip install -U pip pytest mock && true\n  - pip install -r req.txt -e .[test]\nscript:\n  - python tool.py --testsuite testsuite\n",
            ),
            (
                ".github/workflows/a.yml",
                "jobs:\n  t:\n    strategy:\n      matrix:\n        python-version: ['3.8', \"3.9\"]\n    steps:\n      - uses: actions/checkout@v3.1\n",
            ),
            ("req.txt", "six\n"),
        ]);
        let mut project = Project::default();
        read(&tree, &mut project);
        let pythons: Vec<String> = project.python_lists[0].0.iter().map(ToString::to_string).collect();
        assert_eq!(pythons.join(" "), "3.8 3.9 2.7 3.6");
        let Content::Lines(lines) = &project.sources[0].content else { panic!() };
        assert_eq!(lines, &["pytest", "mock", "six", "-e .[test]"]);
        assert_eq!(project.commands, ["python tool.py --testsuite testsuite"]);
    }

    #[test]
    fn reads_the_test_sessions_of_nox() {
        let (_root, tree) = Tree::of(&[
            (
                "noxfile.py",
                "import nox\n@nox.session(python=['3.8', '3.9'])\ndef tests(session):\n    session.install('pytest', 'mock')\n    session.install('-r', 'dev.txt')\n@nox.session\ndef lint(session):\n    session.install('flake8')\n",
            ),
            ("dev.txt", "six\n"),
        ]);
        let mut project = Project::default();
        read(&tree, &mut project);
        let Content::Lines(lines) = &project.sources[0].content else { panic!() };
        assert_eq!(lines, &["pytest", "mock", "six"]);
        assert_eq!(project.python_lists[0].0.len(), 2);
    }
}
