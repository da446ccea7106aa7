//! From a log to what would have made it better: pure functions of text, and the changes they ask for.

mod build;
mod evaluation;
mod packages;

use std::collections::BTreeSet;

use base_images::PythonVersion;

use super::Role;
use super::recipe::{Install, LAST_COMPLETE_SETUPTOOLS, Recipe};
use super::targets::Runner;
use super::text::{Requirement, RequirementLine};

pub(super) use build::diagnose as diagnose_build;
pub(super) use evaluation::diagnose as diagnose_evaluation;

/// The most of a log that is looked at, in bytes, from its end.
const LOG_BYTES_MAX: usize = 1 << 20;

/// What a diagnosis has to know beside the log.
#[derive(Clone, Debug, Default)]
pub(in crate::synthesis) struct Surroundings {
    /// Top-level modules that the tree or one of the patches holds: never to be had from an index.
    pub(in crate::synthesis) local_modules: BTreeSet<String>,
    /// The project's own runner, should pytest see nothing.
    pub(in crate::synthesis) own_runner: Option<String>,
    /// Modules of Django settings for tests, the likeliest first.
    pub(in crate::synthesis) django_settings: Vec<String>,
    /// There is a `setup.py`.
    pub(in crate::synthesis) has_setup_py: bool,
    /// Some test of the run with the fix passed.
    pub(in crate::synthesis) any_passed: bool,
    /// Both runs agree on every test.
    pub(in crate::synthesis) no_difference: bool,
}

/// From a log to the repairs that one kind of line asks for.
type Diagnosis = fn(&Recipe, &Surroundings, &str) -> Vec<Repair>;

/// One change to a recipe. Each is made at most once in an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    /// Nothing is wrong with the recipe: the network failed, for the so many-th time.
    TryAgain(u8),
    /// The tests or what they need do not work with this Python.
    RefusePython(PythonVersion),
    /// Something is missing; as of the date.
    Require(String),
    /// Something is missing, and the date must not hold for it.
    RequireUndated(String),
    /// The date must not hold for this one: RFC 3339 time up to which it may be newer.
    Uncut(String, String),
    /// No date holds.
    NoDate,
    /// The lock file contradicts the rest.
    DropLock,
    /// The versions in lists of requirements contradict one another.
    DropPins,
    /// This one cannot be had.
    DropRequirement(String),
    /// The extras cannot be had.
    DropExtras,
    /// The build needs it.
    BuildTool(String),
    /// The build tools cannot be had in these versions.
    LooseBuildTools,
    /// Debian packages.
    System(String),
    /// Debian does not have it.
    DropSystem(String),
    /// Install the project in another way.
    InstallBy(Install),
    /// An environment variable.
    Environment(&'static str, String),
    /// Words for pytest.
    PytestArguments(&'static [&'static str]),
    /// pytest needs its cache plugin.
    KeepCache,
    /// The project's own options cannot be satisfied.
    ClearAddopts,
    /// Run the project's own runner.
    OwnRunner(String),
}

impl Repair {
    /// Who has to act.
    pub(super) fn role(&self) -> Role {
        match self {
            Self::RefusePython(_) => Role::Explore,
            Self::PytestArguments(_) | Self::KeepCache | Self::ClearAddopts | Self::OwnRunner(_) => {
                Role::EvalScript
            }
            _ => Role::Dockerfile,
        }
    }

    /// What was learnt, as a part of a sentence.
    pub(super) fn text(&self) -> String {
        match self {
            Self::TryAgain(_) => "the network failed, so try the same again".to_owned(),
            Self::RefusePython(python) => {
                format!("Python {python} does not suit the day's packages, so take another")
            }
            Self::Require(what) => format!("{what} is missing, so install it as of the date"),
            Self::RequireUndated(what) => format!("{what} is needed, whatever the date"),
            Self::Uncut(what, until) => format!("let {what} be as new as {until}"),
            Self::NoDate => "nothing of the day fits together, so install without a date".to_owned(),
            Self::DropLock => "the lock file contradicts the requirements, so leave it out".to_owned(),
            Self::DropPins => "the required versions contradict one another, so take the day's".to_owned(),
            Self::DropRequirement(what) => format!("{what} cannot be had, so leave it out"),
            Self::DropExtras => "the extras cannot be had, so leave them out".to_owned(),
            Self::BuildTool(what) => format!("the build needs {what}"),
            Self::LooseBuildTools => {
                "the build tools cannot be had in these versions, so take any".to_owned()
            }
            Self::System(what) => format!("install Debian's {what}"),
            Self::DropSystem(what) => format!("Debian has no {what}, so leave it out"),
            Self::InstallBy(install) => format!("the installation failed, so install by {install:?}"),
            Self::Environment(name, value) => format!("set {name} to {value}"),
            Self::PytestArguments(words) => format!("call pytest with {}", words.join(" ")),
            Self::KeepCache => "pytest needs its cache here".to_owned(),
            Self::ClearAddopts => "the configured options cannot be satisfied, so do without".to_owned(),
            Self::OwnRunner(command) => format!("pytest sees none of these tests, so run {command}"),
        }
    }

    /// Makes the change.
    pub(super) fn apply(&self, recipe: &mut Recipe) {
        match self {
            // Python is chosen before there is a recipe.
            Self::TryAgain(_) | Self::RefusePython(_) => {}
            Self::Require(what) => {
                if let RequirementLine::Requirement(new) = RequirementLine::parse(what, recipe.python) {
                    recipe.requirements.push(new);
                }
            }
            Self::RequireUndated(what) => {
                if let RequirementLine::Requirement(new) = RequirementLine::parse(what, recipe.python) {
                    recipe.requirements.retain(|known| known.name != new.name);
                    recipe.undated.push(new.text());
                }
            }
            Self::Uncut(name, until) => {
                recipe.exclude_newer_package.insert(name.clone(), until.clone());
            }
            Self::NoDate => {
                recipe.exclude_newer = None;
                recipe.exclude_newer_package.clear();
            }
            Self::DropLock => recipe.constraints.clear(),
            Self::DropPins => {
                for requirement in &mut recipe.requirements {
                    requirement.versions.clear();
                }
            }
            Self::DropRequirement(name) => {
                recipe.requirements.retain(|requirement| requirement.name != *name);
            }
            Self::DropExtras => recipe.extras.clear(),
            Self::BuildTool(what) => {
                let name =
                    Requirement::any(what.split(['<', '>', '=', '~', '!']).next().unwrap_or(what)).name;
                recipe.build_tools.retain(|tool| {
                    !matches!(RequirementLine::parse(tool, recipe.python), RequirementLine::Requirement(r) if r.name == name)
                });
                recipe.build_tools.push(what.clone());
            }
            Self::LooseBuildTools => {
                for tool in &mut recipe.build_tools {
                    let name = tool.find(['<', '>', '=', '~', '!']).unwrap_or(tool.len());
                    tool.truncate(name);
                }
            }
            Self::DropSystem(package) => {
                recipe.system_packages.remove(package);
            }
            Self::System(packages) => {
                recipe.system_packages.extend(packages.split_whitespace().map(str::to_owned));
            }
            Self::InstallBy(install) => recipe.install = *install,
            Self::Environment(name, value) => {
                recipe.environment.insert((*name).to_owned(), value.clone());
            }
            Self::PytestArguments(words) => {
                recipe.pytest.arguments.extend(words.iter().map(|word| (*word).to_owned()));
            }
            Self::KeepCache => recipe.pytest.keeps_cache = true,
            Self::ClearAddopts => recipe.pytest.addopts = Some(Vec::new()),
            Self::OwnRunner(command) => recipe.runner = Runner::Command(command.clone()),
        }
    }

    fn complete_setuptools() -> Self {
        let (name, until) = LAST_COMPLETE_SETUPTOOLS;
        Self::Uncut(name.to_owned(), until.to_owned())
    }
}

/// What the first diagnosis that has something new says.
fn first_new(
    diagnoses: &[Diagnosis],
    recipe: &Recipe,
    surroundings: &Surroundings,
    log: &str,
    is_new: impl Fn(&Repair) -> bool,
) -> Vec<Repair> {
    for diagnosis in diagnoses {
        let mut found: Vec<Repair> = Vec::new();
        for repair in diagnosis(recipe, surroundings, log) {
            if is_new(&repair) && !found.contains(&repair) {
                found.push(repair);
            }
        }
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// The end of a log, cut at a line.
fn tail(log: &str) -> &str {
    let mut start = log.len().saturating_sub(LOG_BYTES_MAX);
    while !log.is_char_boundary(start) {
        start += 1;
    }
    &log[start..]
}

/// All first groups of a pattern, without repetitions.
fn captures<'a>(pattern: &str, log: &'a str) -> Vec<&'a str> {
    let Ok(pattern) = regex::RegexBuilder::new(pattern).multi_line(true).build() else { return Vec::new() };
    let mut found = Vec::new();
    for capture in pattern.captures_iter(log).filter_map(|captures| captures.get(1)) {
        if !found.contains(&capture.as_str()) {
            found.push(capture.as_str());
        }
    }
    found
}

fn capture<'a>(pattern: &str, log: &'a str) -> Option<&'a str> {
    captures(pattern, log).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_a_pattern() {
        // `captures` passes over what is none: a row of each table keeps the patterns honest, this one the helper.
        assert_eq!(captures("^a(.)$", "ab\nac\nab"), ["b", "c"]);
        assert_eq!(capture("(", "x"), None);
    }

    #[test]
    fn reads_the_end_of_long_logs() {
        let log = format!("{}é end", "x".repeat(LOG_BYTES_MAX));
        assert!(tail(&log).ends_with("é end") && tail(&log).len() <= LOG_BYTES_MAX);
    }
}
