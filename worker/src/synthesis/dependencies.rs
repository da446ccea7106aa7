use std::collections::BTreeSet;

use base_images::PythonVersion;

use super::modules;
use super::project::{Content, Project, Source, TOX_LABEL, Tier};
use super::text::{Requirement, RequirementLine, normalise};
use super::tree::Tree;

/// Tools that stand in development requirements and that no test needs; a test that does says so, and gets it.
const TOOLS: &str = include_str!("tables/tools.txt");
/// The most modules whose imports are looked at.
const SCANNED_MAX: usize = 40;

/// What to install beside the project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dependencies {
    /// Extras of the project.
    pub(super) extras: Vec<String>,
    /// Requirements for tests.
    pub(super) requirements: Vec<Requirement>,
    /// What the project itself needs, for when it is not installed as a distribution.
    pub(super) runtime: Vec<Requirement>,
    /// Where they stand.
    pub(super) facts: Vec<String>,
}

/// Collects requirements: everything named after tests until a test runner is among it, else what is named after
/// development, else what CI installs; pytest in any case, and the plugins that the configuration asks for.
pub(super) fn choose(
    tree: &Tree,
    project: &Project,
    python: PythonVersion,
    targets: &[String],
) -> Dependencies {
    let mut chosen =
        Chosen { python, own: project.name.as_deref().map(normalise), found: Dependencies::default() };
    let mut complete = false;
    for tier in [Tier::Test, Tier::Development, Tier::Incidental] {
        let mut sources: Vec<&Source> = project.sources.iter().filter(|source| source.tier == tier).collect();
        // With a runner first: of several lists for development one is enough.
        sources.sort_by_key(|source| tier != Tier::Test && !source.has_runner());
        for source in sources {
            if complete || (tier != Tier::Test && chosen.has_any() && !source.has_runner()) {
                continue;
            }
            chosen.take(source);
            complete |= source.has_runner();
        }
    }
    chosen.take_extras_of_test_runs(project);
    for line in &project.runtime {
        if let RequirementLine::Requirement(requirement) = RequirementLine::parse(line, python) {
            chosen.found.runtime.push(requirement);
        }
    }
    if !project.is_installable() {
        chosen.found.requirements.extend(chosen.found.runtime.clone());
    }
    chosen.add("pytest", "pytest runs the tests");
    for (name, why) in implied(tree, project, targets) {
        chosen.add(&name, &why);
    }
    let mut found = chosen.found;
    let mut seen = BTreeSet::new();
    found.requirements.retain(|requirement| seen.insert(requirement.text()));
    let mut seen = BTreeSet::new();
    found.extras.retain(|extra| seen.insert(normalise(extra)));
    found
}

struct Chosen {
    python: PythonVersion,
    own: Option<String>,
    found: Dependencies,
}

impl Chosen {
    fn has_any(&self) -> bool {
        !self.found.extras.is_empty() || !self.found.requirements.is_empty()
    }

    fn take(&mut self, source: &Source) {
        self.found.facts.push(format!("{} says what tests need", source.label));
        match &source.content {
            Content::Extra(name, _) => self.found.extras.push(normalise_extra(name)),
            Content::Lines(lines) => {
                for line in lines {
                    self.take_line(line);
                }
            }
        }
    }

    /// `.[testing,linkify]`: what tox or CI test with counts as a whole, even where the first is enough to begin.
    fn take_extras_of_test_runs(&mut self, project: &Project) {
        for source in &project.sources {
            let Content::Lines(lines) = &source.content else { continue };
            let of_tests = source.tier == Tier::Test && source.label.starts_with(TOX_LABEL);
            let mut extras: Vec<String> = Vec::new();
            for line in lines {
                if let RequirementLine::Project(found) = RequirementLine::parse(line, self.python) {
                    let named = found.iter().any(|extra| Tier::of_name(extra) == Some(Tier::Test));
                    extras.extend(if of_tests || named { found } else { Vec::new() });
                }
            }
            self.found.extras.extend(extras);
        }
    }

    fn take_line(&mut self, line: &str) {
        match RequirementLine::parse(line, self.python) {
            RequirementLine::Requirement(requirement) => {
                if Some(&requirement.name) == self.own.as_ref() {
                    self.found.extras.extend(requirement.extras);
                } else if !TOOLS.lines().any(|tool| tool == requirement.name) {
                    self.found.requirements.push(requirement);
                }
            }
            RequirementLine::Project(extras) => self.found.extras.extend(extras),
            RequirementLine::Foreign(what) => {
                self.found.facts.push(format!("left out, since it comes from no package index: {what}"));
            }
            RequirementLine::NotHere
            | RequirementLine::Include(_)
            | RequirementLine::Constraints(_)
            | RequirementLine::Nothing => {}
        }
    }

    fn add(&mut self, requirement: &str, why: &str) {
        let RequirementLine::Requirement(requirement) = RequirementLine::parse(requirement, self.python)
        else {
            return;
        };
        if Some(&requirement.name) == self.own.as_ref()
            || self.found.requirements.iter().any(|r| r.name == requirement.name)
        {
            return;
        }
        self.found.facts.push(format!("{}: {why}", requirement.name));
        self.found.requirements.push(requirement);
    }
}

/// Extras keep their underscores where a setup script may compare them by text; nothing else may stand in them.
fn normalise_extra(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect()
}

/// What configuration, marks, fixtures and imports of the targeted tests ask for.
fn implied(tree: &Tree, project: &Project, targets: &[String]) -> Vec<(String, String)> {
    let mut implied = Vec::new();
    let mut push = |name: &str, why: String| implied.push((name.to_owned(), why));
    for word in project.pytest.addopts() {
        if let Some(plugin) = modules::option_plugin(&word) {
            push(plugin, format!("pytest is configured with {word}"));
        }
    }
    for (key, plugin) in modules::plugin_keys().filter(|(key, _)| project.pytest.has(key)) {
        push(plugin, format!("pytest is configured with {key}"));
    }
    for plugin in project.pytest.words("required_plugins") {
        push(&plugin, "pytest is configured to require it".to_owned());
    }
    for path in scanned(tree, targets) {
        let text = tree.read(&path).unwrap_or_default();
        for line in text.lines() {
            for module in imported(line).into_iter().filter(|module| !is_local(tree, &path, module)) {
                if let Some(distribution) =
                    modules::known_distribution(&module).filter(|_| !modules::is_standard(&module))
                {
                    push(distribution, format!("{path} imports {module}"));
                }
            }
            if let Some(mark) = line.split("pytest.mark.").nth(1).map(leading_word)
                && let Some(plugin) = modules::mark_plugin(mark)
            {
                push(plugin, format!("{path} uses the mark {mark}"));
            }
            for fixture in parameters(line) {
                if let Some(plugin) =
                    modules::fixture_plugin(fixture).filter(|_| !text.contains(&format!("def {fixture}(")))
                {
                    push(plugin, format!("{path} uses the fixture {fixture}"));
                }
            }
        }
    }
    implied
}

/// The targets and the conftest files above them.
fn scanned(tree: &Tree, targets: &[String]) -> Vec<String> {
    let mut paths: Vec<String> =
        targets.iter().filter(|path| path.ends_with(".py")).take(SCANNED_MAX).cloned().collect();
    let mut conftests = BTreeSet::new();
    for target in &paths {
        let mut directory = target.as_str();
        while let Some((parent, _)) = directory.rsplit_once('/') {
            conftests.insert(format!("{parent}/conftest.py"));
            directory = parent;
        }
        conftests.insert("conftest.py".to_owned());
    }
    paths.extend(conftests.into_iter().filter(|path| tree.has(path)));
    paths
}

/// The modules of an import at the beginning of a line: guarded ones are indented.
fn imported(line: &str) -> Vec<String> {
    if let Some(rest) = line.strip_prefix("from ") {
        let module = rest.split_whitespace().next().unwrap_or_default();
        return if module.starts_with('.') || !rest.contains(" import") {
            Vec::new()
        } else {
            vec![module.to_owned()]
        };
    }
    let Some(rest) = line.strip_prefix("import ") else { return Vec::new() };
    let rest = rest.split('#').next().unwrap_or_default();
    rest.split(',').filter_map(|part| part.split_whitespace().next().map(str::to_owned)).collect()
}

/// Whether a module comes from the tree itself.
pub(super) fn is_local(tree: &Tree, importer: &str, module: &str) -> bool {
    let top = module.split('.').next().unwrap_or(module);
    let beside = importer.rsplit_once('/').map(|(directory, _)| format!("{directory}/"));
    let roots = ["", "src/", "lib/", "tests/", "test/"].into_iter().map(str::to_owned).chain(beside);
    roots.into_iter().any(|root| {
        tree.has(&format!("{root}{top}.py"))
            || tree.has(&format!("{root}{top}/__init__.py"))
            || (tree.has_directory(&format!("{root}{top}"))
                && tree.files().any(|file| {
                    file.strip_prefix(&format!("{root}{top}/"))
                        .is_some_and(|rest| rest.ends_with(".py") && !rest.contains('/'))
                }))
    })
}

fn leading_word(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// The parameters of a test or a fixture on one line.
fn parameters(line: &str) -> Vec<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("async ").unwrap_or(line);
    let Some((_, list)) = line.strip_prefix("def ").and_then(|rest| rest.split_once('(')) else {
        return Vec::new();
    };
    let list = list.split(')').next().unwrap_or_default();
    list.split(',').map(|parameter| leading_word(parameter.trim())).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::project;
    use super::*;

    #[test]
    fn takes_what_is_meant_for_tests() {
        let check = |files: &[(&str, &str)], extras: &[&str], requirements: &[&str]| {
            let (_root, tree) = Tree::of(files);
            let found = choose(
                &tree,
                &project::read(&tree),
                PythonVersion::new(3, 9),
                &["tests/test_a.py".to_owned()],
            );
            assert_eq!(found.extras, extras, "{files:?}");
            let found: Vec<String> = found.requirements.iter().map(Requirement::text).collect();
            assert_eq!(found, requirements, "{files:?}");
        };
        check(
            &[("setup.py", "setup(name='a', extras_require={'test': ['pytest']})")],
            &["test"],
            &["pytest"],
        );
        check(
            &[
                ("setup.py", "setup(name='a', tests_require=['mock'])"),
                ("tox.ini", "[testenv]\ndeps=pytest<5\n tox\n"),
            ],
            &[],
            &["mock", "pytest<5"],
        );
        check(
            &[
                ("setup.py", "setup(name='a')"),
                ("requirements-dev.txt", "pytest==5.0\nblack\nsphinx\n"),
                ("dev-requirements.txt", "x\n"),
            ],
            &[],
            &["pytest==5.0"],
        );
        check(
            &[("setup.py", "setup(name='a')"), (".travis.yml", "install: pip install nose pytest\n")],
            &[],
            &["nose", "pytest"],
        );
        check(
            &[
                ("setup.py", "setup(name='a', extras_require={'testing': ['pytest'], 'linkify': []})"),
                (
                    "tox.ini",
                    "[testenv:py{36,37}]\nextras = linkify\n  testing\n[testenv:py36-bench]\nextras = compare\n",
                ),
                (".travis.yml", "install: pip install -e .[testing,code] && pip install .[docs]\n"),
            ],
            &["testing", "linkify", "code"],
            &["pytest"],
        );
        check(&[("requirements.txt", "six\n"), ("a.py", "")], &[], &["six", "pytest"]);
        check(
            &[("pyproject.toml", "[project]\nname='a'\n[dependency-groups]\ntest=['pytest', 'a[cli]']\n")],
            &["cli"],
            &["pytest"],
        );
        check(
            &[
                ("pytest.ini", "[pytest]\naddopts = --cov=x -n auto\ntimeout = 9\n"),
                (
                    "tests/test_a.py",
                    "import yaml, os\nfrom helpers import x\ntry:\n    import numpy\nexcept ImportError: pass\nimport pkg\n@pytest.mark.asyncio\nasync def test_a(mocker, x): pass\n",
                ),
                ("tests/helpers.py", ""),
                ("pkg/__init__.py", ""),
            ],
            &[],
            &[
                "pytest",
                "pytest-cov",
                "pytest-xdist",
                "pytest-timeout",
                "pyyaml",
                "pytest-asyncio",
                "pytest-mock",
            ],
        );
    }
}
