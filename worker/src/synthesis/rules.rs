use std::collections::BTreeSet;

use base_images::PythonVersion;
use queue_format::{Condition, FailureReason, TestStatus, Verdict};

use super::patch::PatchedFile;
use super::recipe::Recipe;
use super::repair::{self, Repair, Surroundings};
use super::tree::Tree;
use super::{
    Analysis, Brain, BrainError, Dockerfile, EvalScript, Findings, Observation, Role, Subject, dependencies,
    dockerfile, eval_script, patch, project, python, recipe, targets,
};

use crate::evaluate::strip_escapes;

/// The most repairs of one attempt: together with the worker's limit on iterations it ends every attempt.
const REPAIRS_MAX: usize = 40;
/// The most files that are looked at for Django settings.
const SETTINGS_MAX: usize = 20;

/// The default brain: reads files, follows rules, learns from logs. It asks no model and no network, and of the
/// tree it runs nothing.
///
/// Its state is a recipe made from the files alone, and the repairs that logs asked for, in order; each iteration
/// applies all of them anew.
#[derive(Debug, Default)]
pub struct Rules {
    repairs: Vec<Repair>,
    explored: Option<Explored>,
}

/// What the files say, as of the Python that was chosen.
#[derive(Debug)]
struct Explored {
    recipe: Recipe,
    surroundings: Surroundings,
}

impl Rules {
    /// A brain that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn recipe(&self) -> Result<Recipe, BrainError> {
        let explored = self.explored.as_ref().ok_or_else(|| BrainError::Unsolvable {
            reason: FailureReason::Build,
            detail: "nothing was explored before an environment was asked for".to_owned(),
        })?;
        let mut recipe = explored.recipe.clone();
        for repair in &self.repairs {
            repair.apply(&mut recipe);
        }
        Ok(recipe)
    }

    fn refused(&self) -> Vec<PythonVersion> {
        let refused =
            |repair: &Repair| if let Repair::RefusePython(python) = repair { Some(*python) } else { None };
        self.repairs.iter().filter_map(refused).collect()
    }

    fn look(&mut self, subject: &Subject) -> Result<Findings, BrainError> {
        let instance = &subject.task.instance;
        let (tree, patched) = project_of(Tree::of_source(&subject.tree)?, patch::files(&instance.test_patch));
        let project = project::read(&tree);
        let targets = targets::choose(&tree, &project, &patched);
        if targets.files.is_empty() {
            return Err(BrainError::Unsolvable {
                reason: FailureReason::NoTests,
                detail: "the test patch changes no file in which a test runner finds tests, and none that tests use".to_owned(),
            });
        }
        let day = subject.date.to_zoned(jiff::tz::TimeZone::UTC).date();
        let (python, record) = python::choose(&project, day, &subject.pythons, &self.refused())?;
        let dependencies = dependencies::choose(&tree, &project, python, &targets.files);
        let mut facts = subject.notes.clone();
        facts.extend(project.pytest.file.as_ref().map(|file| format!("pytest is configured in {file}")));
        facts.extend(project.lock_file.map(|file| format!("{file} fixes {} versions", project.locked.len())));
        facts.extend(dependencies.facts.iter().cloned());
        facts.extend(targets.facts.iter().cloned());
        self.explored = Some(Explored {
            surroundings: Surroundings {
                local_modules: local_modules(&tree, &[&instance.patch, &instance.test_patch]),
                own_runner: targets.fallback.clone(),
                django_settings: django_settings(&tree),
                has_setup_py: project.build.has_setup_py,
                ..Surroundings::default()
            },
            recipe: Recipe::new(&tree, &project, python, subject.date, dependencies, &targets),
        });
        Ok(Findings { python: record, facts, targets: targets.files })
    }

    fn judge(&mut self, observation: &Observation) -> Result<Analysis, BrainError> {
        let recipe = self.recipe()?;
        let Some(explored) = &self.explored else { return Ok(Analysis::Final) };
        let is_new = |repair: &Repair| !self.repairs.contains(repair);
        let found = match observation {
            // The same again would take as long.
            Observation::BuildFailed { reason: FailureReason::Timeout, .. } => return Ok(Analysis::Final),
            Observation::BuildFailed { error, log, .. } => {
                let log = strip_escapes(&format!("{log}\n{error}\n"));
                let found = repair::diagnose_build(&recipe, &explored.surroundings, &log, is_new);
                if found.is_empty() {
                    return Ok(unsolvable(&log));
                }
                found
            }
            Observation::Evaluated { verdict: Verdict::Accepted { .. }, .. } => return Ok(Analysis::Final),
            Observation::Evaluated { evidence, logs, .. } => {
                let with_fix = |run: &&queue_format::RunRecord| run.condition == Condition::WithFix;
                let transitions = &evidence.transitions;
                let surroundings = Surroundings {
                    any_passed: evidence
                        .runs
                        .iter()
                        .filter(with_fix)
                        .any(|run| run.tests.values().any(|status| *status == TestStatus::Passed)),
                    no_difference: transitions.fail_to_pass.is_empty() && transitions.pass_to_fail.is_empty(),
                    ..explored.surroundings.clone()
                };
                let log = logs.iter().find(|(condition, _)| *condition == Condition::WithFix);
                let log = strip_escapes(log.map(|(_, log)| log.as_str()).unwrap_or_default());
                repair::diagnose_evaluation(&recipe, &surroundings, &log, is_new)
            }
        };
        Ok(self.learn(found))
    }

    fn learn(&mut self, found: Vec<Repair>) -> Analysis {
        let room = REPAIRS_MAX.saturating_sub(self.repairs.len());
        let found: Vec<Repair> = found.into_iter().take(room).collect();
        // Who comes first in the chain has to act: the stages after it follow.
        let role = found.iter().map(Repair::role).min_by_key(|role| match role {
            Role::Explore => 0,
            Role::Dockerfile => 1,
            Role::EvalScript => 2,
        });
        let Some(to) = role else { return Analysis::Final };
        let text = found.iter().map(Repair::text).collect::<Vec<_>>().join("; ");
        self.repairs.extend(found);
        Analysis::Feedback { to, text: format!("{}.", capitalised(&text)) }
    }
}

impl Brain for Rules {
    async fn explore(&mut self, subject: &Subject) -> Result<Findings, BrainError> {
        self.look(subject)
    }

    async fn dockerfile(&mut self, _subject: &Subject) -> Result<Dockerfile, BrainError> {
        Ok(dockerfile::write(&self.recipe()?))
    }

    async fn eval_script(&mut self, _subject: &Subject) -> Result<EvalScript, BrainError> {
        Ok(eval_script::write(&self.recipe()?))
    }

    async fn analyse(
        &mut self,
        _subject: &Subject,
        observation: &Observation,
    ) -> Result<Analysis, BrainError> {
        self.judge(observation)
    }

    fn name(&self) -> &'static str {
        "rules"
    }
}

/// The directory of the project that the tests belong to: the root where that can be installed, else the nearest
/// directory above all tests that can. The patched files are those below it.
fn project_of(tree: Tree, patched: Vec<PatchedFile>) -> (Tree, Vec<PatchedFile>) {
    let is_project = |directory: &str| {
        let at =
            |file: &str| if directory.is_empty() { file.to_owned() } else { format!("{directory}/{file}") };
        tree.has(&at("setup.py")) || tree.has(&at("pyproject.toml")) || tree.has(&at("setup.cfg"))
    };
    let mut directory = common_directory(&patched);
    while !directory.is_empty() && !is_project(&directory) {
        directory.truncate(directory.rfind('/').unwrap_or(0));
    }
    let is_plain = directory.split('/').all(recipe::is_plain);
    if directory.is_empty() || !is_plain || is_project("") {
        return (tree, patched);
    }
    let prefix = format!("{directory}/");
    let below = patched.into_iter().filter_map(|file| {
        let path = file.path.strip_prefix(&prefix)?.to_owned();
        Some(PatchedFile { path, ..file })
    });
    (tree.below(&directory), below.collect())
}

/// The directory that all Python files of a patch lie in.
fn common_directory(patched: &[PatchedFile]) -> String {
    let mut directories = patched
        .iter()
        .filter(|file| file.path.ends_with(".py"))
        .map(|file| file.path.rsplit_once('/').map_or("", |(d, _)| d));
    let mut common = directories.next().unwrap_or_default();
    for directory in directories {
        while !common.is_empty() && directory != common && !directory.starts_with(&format!("{common}/")) {
            common = common.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }
    common.to_owned()
}

/// Names that tests can import from the tree or from a patch: what lies at the root, below `src` and beside tests.
fn local_modules(tree: &Tree, patches: &[&String]) -> BTreeSet<String> {
    let patched: Vec<String> = patches
        .iter()
        .flat_map(|patch| patch::files(patch))
        .filter(|file| !file.deleted)
        .map(|file| file.path)
        .collect();
    let paths =
        tree.files().chain(patched.iter().map(String::as_str)).filter_map(|path| path.strip_suffix(".py"));
    let mut names = BTreeSet::new();
    for path in paths {
        let parts: Vec<&str> = path.split('/').collect();
        names.extend(match parts.as_slice() {
            ["src" | "lib" | "tests" | "test" | "testing", inner, ..] => vec![parts[0], *inner],
            [first, .., "tests" | "test", last] => vec![*first, *last],
            [first, ..] => vec![*first],
            [] => Vec::new(),
        });
    }
    names.into_iter().map(str::to_owned).collect()
}

/// Modules that look like Django settings, those of tests first.
fn django_settings(tree: &Tree) -> Vec<String> {
    let named = |path: &&str| {
        path.ends_with(".py") && path.rsplit('/').next().is_some_and(|name| name.contains("settings"))
    };
    let mut paths: Vec<&str> = tree.files().filter(named).take(SETTINGS_MAX).collect();
    paths.retain(|path| {
        tree.read(path).is_some_and(|text| text.contains("INSTALLED_APPS") || text.contains("DATABASES"))
    });
    paths.sort_by_key(|path| (!path.contains("test"), path.matches('/').count()));
    paths.into_iter().map(|path| path.trim_end_matches(".py").replace('/', ".")).collect()
}

fn unsolvable(log: &str) -> Analysis {
    let telling = |line: &str| {
        ["rror:", "rror ", "No solution", "cause:", "failed"].iter().any(|text| line.contains(text))
            && !line.contains("returned a non-zero")
    };
    let lines: Vec<&str> = log.lines().map(str::trim).collect();
    let detail =
        lines.iter().rev().copied().find(|line| telling(line)).or(lines.last().copied()).unwrap_or_default();
    let reason =
        if log.contains("No solution found") { FailureReason::Dependencies } else { FailureReason::Build };
    Analysis::Unsolvable { reason, detail: detail.chars().take(400).collect() }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_project_that_tests_belong_to() {
        let check = |files: &[(&str, &str)], patched: &[&str], directory: &str, paths: &[&str]| {
            let (_root, tree) = Tree::of(files);
            let file = |path: &&str| PatchedFile { path: (*path).to_owned(), ..PatchedFile::default() };
            let (tree, below) = project_of(tree, patched.iter().map(file).collect());
            assert_eq!(tree.directory(), directory, "{files:?}");
            assert_eq!(below.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), paths);
        };
        let inner = [("python/thing/setup.py", ""), ("python/thing/tests/test_a.py", ""), ("README", "")];
        check(&inner, &["python/thing/tests/test_a.py", "README"], "python/thing", &["tests/test_a.py"]);
        let both = [("pyproject.toml", ""), ("sub/setup.py", ""), ("sub/test_a.py", "")];
        check(&both, &["sub/test_a.py"], "", &["sub/test_a.py"]);
        check(&[("tests/test_a.py", "")], &["tests/test_a.py"], "", &["tests/test_a.py"]);
        check(&[("a $b/setup.py", "")], &["a $b/test_a.py"], "", &["a $b/test_a.py"]);
    }

    #[test]
    fn knows_django_settings() {
        let (_root, tree) = Tree::of(&[
            ("example/settings.py", "INSTALLED_APPS = []"),
            ("tests/settings.py", "DATABASES = {}"),
            ("thing/settings.py", "X = 1"),
        ]);
        assert_eq!(django_settings(&tree), ["tests.settings", "example.settings"]);
    }
}
