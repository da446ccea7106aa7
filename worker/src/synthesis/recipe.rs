use std::collections::{BTreeMap, BTreeSet};

use base_images::{Installer, PythonVersion};
use jiff::{Timestamp, ToSpan};

use super::dependencies::Dependencies;
use super::project::Project;
use super::targets::{Runner, Targets};
use super::text::{Requirement, RequirementLine};
use super::tree::Tree;

/// Distributions whose files were uploaded anew long after they came out, so that a date cut hides them.
const UPLOADED_ANEW: &[(&str, &str)] = &[("atomicwrites", "2022-07-10T00:00:00Z")];
/// Builds in isolation ask for setuptools 40.8, whatever the day.
const FIRST_BUILD_SETUPTOOLS: (&str, &str) = ("setuptools", "2019-03-01T00:00:00Z");
/// The last setuptools with pkg_resources, which old packages build with.
pub(super) const LAST_COMPLETE_SETUPTOOLS: (&str, &str) = ("setuptools", "2026-02-01T00:00:00Z");
/// How much later than the base commit a dependency may have come out.
const DATE_SLACK_HOURS: i64 = 24;

/// Everything that a Dockerfile and an evaluation script are written from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    /// The Python.
    pub(super) python: PythonVersion,
    /// The distribution's name, where it is known.
    pub(super) name: Option<String>,
    /// How the project enters the environment.
    pub(super) install: Install,
    /// Extras of the project.
    pub(super) extras: Vec<String>,
    /// The project's directory in the tree; empty where it is the root.
    pub(super) directory: String,
    /// Packages lie in its `src/`.
    pub(super) has_src: bool,
    /// What the project needs, for an installation by path.
    pub(super) runtime: Vec<Requirement>,
    /// Requirements for tests, as of the date.
    pub(super) requirements: Vec<Requirement>,
    /// Requirements that no date holds for.
    pub(super) undated: Vec<String>,
    /// Nothing newer than this is installed, build tools apart; `None` for no cut.
    pub(super) exclude_newer: Option<Timestamp>,
    /// Distributions that the cut does not hold for, and their own.
    pub(super) exclude_newer_package: BTreeMap<String, String>,
    /// `name==version` lines of a lock file.
    pub(super) constraints: BTreeSet<String>,
    /// What the build needs.
    pub(super) build_tools: Vec<String>,
    /// Debian packages.
    pub(super) system_packages: BTreeSet<String>,
    /// Environment variables.
    pub(super) environment: BTreeMap<String, String>,
    /// How pytest is called.
    pub(super) pytest: PytestCall,
    /// What runs.
    pub(super) runner: Runner,
    /// The targeted files.
    pub(super) targets: Vec<String>,
}

/// How the project enters the environment, from the best way to the last resort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Install {
    /// One `uv pip install -e` with everything else.
    Editable,
    /// `pip install -e`, then the rest.
    PipEditable,
    /// `setup.py develop`, for setuptools without editable builds.
    Develop,
    /// A plain installation for the metadata, and the tree before it on the path.
    PlainAndPath,
    /// The tree on the path.
    Path,
}

/// pytest's options beside the usual ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PytestCall {
    /// Words before the targets.
    pub(super) arguments: Vec<String>,
    /// The project's own options conflict with `-p no:cacheprovider`.
    pub(super) keeps_cache: bool,
    /// Replaces the project's `addopts`.
    pub(super) addopts: Option<Vec<String>>,
}

impl Recipe {
    /// What the files alone suggest.
    pub(super) fn new(
        tree: &Tree,
        project: &Project,
        python: PythonVersion,
        date: Timestamp,
        dependencies: Dependencies,
        targets: &Targets,
    ) -> Self {
        let cut = date.checked_add(DATE_SLACK_HOURS.hours()).unwrap_or(date);
        let mut requirements = dependencies.requirements;
        // Environments had setuptools in them until then; today's would bring its own plugins into old test runs.
        if python < PythonVersion::new(3, 12) && !requirements.iter().any(|r| r.name == "setuptools") {
            requirements.push(Requirement::any("setuptools"));
        }
        let anew = UPLOADED_ANEW
            .iter()
            .chain([&FIRST_BUILD_SETUPTOOLS])
            .filter(|(_, uploaded)| cut.to_string().as_str() < *uploaded);
        Self {
            python,
            name: project.name.clone().filter(|name| is_plain(name)),
            install: first_install(project, python),
            extras: dependencies.extras.into_iter().filter(|extra| is_plain(extra)).collect(),
            directory: tree.directory().to_owned(),
            has_src: project.build.has_src,
            runtime: dependencies.runtime,
            requirements,
            undated: Vec::new(),
            exclude_newer: Some(cut),
            exclude_newer_package: anew
                .map(|(name, date)| ((*name).to_owned(), (*date).to_owned()))
                .collect(),
            constraints: project.locked.iter().cloned().collect(),
            build_tools: build_tools(project, python),
            system_packages: BTreeSet::new(),
            environment: BTreeMap::new(),
            pytest: PytestCall::new(tree, project),
            runner: targets.runner.clone(),
            targets: targets.files.clone(),
        }
    }

    /// The project's directory in a container.
    pub(super) fn workdir(&self) -> String {
        format!("/testbed/{}", self.directory).trim_end_matches('/').to_owned()
    }

    /// Where its packages are imported from.
    pub(super) fn source_dir(&self) -> String {
        if self.has_src { format!("{}/src", self.workdir()) } else { self.workdir() }
    }

    /// The next way to install after this one failed.
    pub(super) fn next_install(&self, has_setup_py: bool) -> Option<Install> {
        match self.install {
            Install::Editable => Some(Install::PipEditable),
            Install::PipEditable if has_setup_py => Some(Install::Develop),
            Install::PipEditable | Install::Develop => Some(Install::PlainAndPath),
            Install::PlainAndPath => Some(Install::Path),
            Install::Path => None,
        }
    }
}

/// Whether a name can stand in a Dockerfile as it is: those of distributions and extras can.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn first_install(project: &Project, python: PythonVersion) -> Install {
    if !project.is_installable() {
        return Install::Path;
    }
    let old_setuptools = project.build.setuptools_below.and_then(|version| version.parse::<u32>().ok());
    match python.installer() {
        _ if old_setuptools.is_some_and(|version| version <= 64) && project.build.has_setup_py => {
            Install::Develop
        }
        Installer::Uv => Install::Editable,
        Installer::UvWithoutEditable | Installer::PipFromLock => Install::PipEditable,
    }
}

/// What the base image has of setuptools; measured on the images.
fn base_setuptools(python: PythonVersion) -> &'static str {
    match (python.major(), python.minor()) {
        (2, _) => "44.1.1",
        (3, ..=5) => "50.3.2",
        (3, 6) => "59.6.0",
        (3, 7) => "68.0.0",
        (3, 8) => "75.3.0",
        _ => "80.10.2",
    }
}

/// The build requirements that the base image does not satisfy.
fn build_tools(project: &Project, python: PythonVersion) -> Vec<String> {
    let mut tools = Vec::new();
    for line in &project.build.requires {
        let RequirementLine::Requirement(requirement) = RequirementLine::parse(line, python) else {
            continue;
        };
        let there = match requirement.name.as_str() {
            "setuptools" => satisfies(&requirement.versions, base_setuptools(python)),
            "wheel" | "pip" => true,
            _ => false,
        };
        let text = requirement.text();
        if !there && !tools.contains(&text) {
            tools.push(text);
        }
    }
    let below = project.build.setuptools_below.or(has_old_specifiers(project).then_some("66"));
    if let Some(below) = below {
        let fits = satisfies(&format!("<{below}"), base_setuptools(python));
        tools.extend((!fits).then(|| format!("setuptools<{below}")));
    }
    let backend = project.build.backend.as_deref().and_then(|backend| backend.split(['.', ':']).next());
    let named = |name: &str| tools.iter().any(|tool| tool.starts_with(name));
    let missing = match backend {
        Some("poetry") if !named("poetry") => Some("poetry-core"),
        Some("flit_core") if !named("flit") => Some("flit-core"),
        // It asks for the second only when it builds something editable.
        Some("hatchling") if named("hatchling") => Some("editables"),
        Some("hatchling") => Some("hatchling editables"),
        _ => None,
    };
    tools.extend(missing.unwrap_or_default().split_whitespace().map(str::to_owned));
    tools
}

/// Whether a setup script's `python_requires` is written as only setuptools before 66 takes it, such as `>=3.5.*`.
fn has_old_specifiers(project: &Project) -> bool {
    let of_setuptools = project.python_specs.iter().filter(|(_, file)| file.starts_with("setup."));
    of_setuptools.into_iter().any(|(spec, _)| spec.parse::<pep440_rs::VersionSpecifiers>().is_err())
}

fn satisfies(specifiers: &str, version: &str) -> bool {
    let specifiers = specifiers.parse::<pep440_rs::VersionSpecifiers>();
    let version = version.parse::<pep440_rs::Version>();
    match (specifiers, version) {
        (Ok(specifiers), Ok(version)) => specifiers.contains(&version),
        _ => true,
    }
}

impl PytestCall {
    fn new(tree: &Tree, project: &Project) -> Self {
        let addopts = project.pytest.addopts();
        let any = |options: &[&str]| {
            addopts.iter().any(|word| options.contains(&word.split('=').next().unwrap_or(word)))
        };
        let cache_options = [
            "--lf",
            "--last-failed",
            "--ff",
            "--failed-first",
            "--nf",
            "--new-first",
            "--sw",
            "--stepwise",
            "--cache-clear",
            "--cache-show",
        ];
        let mut arguments = Vec::new();
        if project.sources.iter().any(|source| source.lists("pytest-randomly")) {
            // Another order in each run tells nothing about the fix.
            arguments.extend(["-p".to_owned(), "no:randomly".to_owned()]);
        }
        if any(&["-x", "--exitfirst", "--maxfail"]) {
            // All targeted tests have to tell their status.
            arguments.push("--maxfail=0".to_owned());
        }
        if addopts.iter().any(|word| word.starts_with("--cov")) && demands_coverage(tree, &addopts) {
            // A part of the tests never covers what all of them do.
            arguments.push("--no-cov".to_owned());
        }
        // Paths there would run beside the targets.
        let is_path = |word: &String| !word.starts_with('-') && (tree.has(word) || tree.has_directory(word));
        let after_option =
            |at: usize| at > 0 && addopts[at - 1].starts_with('-') && !addopts[at - 1].contains('=');
        let kept: Vec<String> = addopts
            .iter()
            .enumerate()
            .filter(|(at, word)| !is_path(word) || (after_option(*at) && takes_a_path(&addopts[*at - 1])))
            .map(|(_, word)| word.clone())
            .collect();
        Self {
            arguments,
            keeps_cache: any(&cache_options) || project.pytest.has("cache_dir"),
            addopts: (kept.len() < addopts.len()).then_some(kept),
        }
    }
}

fn takes_a_path(option: &str) -> bool {
    matches!(
        option,
        "--cov"
            | "--ignore"
            | "--rootdir"
            | "--confcutdir"
            | "-c"
            | "--basetemp"
            | "--cov-config"
            | "-p"
            | "-k"
            | "-m"
    )
}

fn demands_coverage(tree: &Tree, addopts: &[String]) -> bool {
    let files = [".coveragerc", "setup.cfg", "pyproject.toml", "tox.ini"];
    addopts.iter().any(|word| word.starts_with("--cov-fail-under"))
        || files.iter().any(|file| tree.read(file).is_some_and(|text| text.contains("fail_under")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::patch::PatchedFile;
    use super::super::project;
    use super::*;

    /// A recipe of a small project `thing`.
    pub(in crate::synthesis) fn recipe(python: PythonVersion) -> Recipe {
        let (_root, tree) = Tree::of(&[
            (
                "setup.py",
                "from setuptools import setup\nsetup(name='thing', extras_require={'test': ['six']}, tests_require=['mock>=2'])\n",
            ),
            ("thing/__init__.py", ""),
            ("tests/test_thing.py", "def test_thing(): pass\n"),
        ]);
        let project = project::read(&tree);
        let patch = [PatchedFile { path: "tests/test_thing.py".to_owned(), ..PatchedFile::default() }];
        let targets = super::super::targets::choose(&tree, &project, &patch);
        let dependencies = super::super::dependencies::choose(&tree, &project, python, &targets.files);
        let date = "2020-05-01T12:00:00Z".parse().unwrap();
        Recipe::new(&tree, &project, python, date, dependencies, &targets)
    }

    #[test]
    fn installs_only_the_build_tools_that_the_base_image_lacks() {
        let check = |pyproject: &str, python: PythonVersion, expected: &[&str]| {
            let (_root, tree) = Tree::of(&[("pyproject.toml", pyproject)]);
            assert_eq!(build_tools(&project::read(&tree), python), expected, "{pyproject}");
        };
        let python = PythonVersion::new(3, 9);
        check("[build-system]\nrequires=['setuptools>=42','wheel']\n", python, &[]);
        check("[build-system]\nrequires=['setuptools<60','wheel']\n", python, &["setuptools<60"]);
        check(
            "[build-system]\nrequires=['setuptools','setuptools_scm[toml]>=3.4']\n",
            python,
            &["setuptools-scm[toml]>=3.4"],
        );
        check(
            "[build-system]\nrequires=['flit_core >=2,<4']\nbuild-backend='flit_core.buildapi'\n",
            python,
            &["flit-core>=2,<4"],
        );
        check("[build-system]\nbuild-backend='poetry.masonry.api'\n", python, &["poetry-core"]);
        check("[build-system]\nrequires=['setuptools>=42']\n", PythonVersion::new(2, 7), &[]);
    }

    #[test]
    fn knows_what_only_old_setuptools_take() {
        let check = |spec: &str, expected: &[&str]| {
            let script = format!("setup(name='a', python_requires='{spec}')");
            let (_root, tree) = Tree::of(&[("setup.py", &script)]);
            assert_eq!(build_tools(&project::read(&tree), PythonVersion::new(3, 8)), expected, "{spec}");
        };
        check(">=3.5.*", &["setuptools<66"]);
        check(">=3.5, !=3.6.*", &[]);
    }

    #[test]
    fn keeps_the_order_of_tests() {
        let (_root, tree) = Tree::of(&[("requirements-test.txt", "pytest_randomly==3.5  # why\n")]);
        assert_eq!(PytestCall::new(&tree, &project::read(&tree)).arguments, ["-p", "no:randomly"]);
    }

    #[test]
    fn answers_options_that_would_hide_results() {
        let check = |addopts: &str, arguments: &[&str], keeps_cache: bool, replaced: Option<&[&str]>| {
            let ini = format!("[pytest]\naddopts = {addopts}\n");
            let (_root, tree) = Tree::of(&[("pytest.ini", &ini), ("tests/test_a.py", ""), ("pkg/a.py", "")]);
            let call = PytestCall::new(&tree, &project::read(&tree));
            assert_eq!(call.arguments, arguments, "{addopts}");
            assert_eq!(call.keeps_cache, keeps_cache, "{addopts}");
            let words =
                call.addopts.as_ref().map(|words| words.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(words.as_deref(), replaced, "{addopts}");
        };
        check("-v", &[], false, None);
        check("--maxfail=2 -rf", &["--maxfail=0"], false, None);
        check("--ff", &[], true, None);
        check(
            "-v --cov=pkg tests --cov-fail-under=100",
            &["--no-cov"],
            false,
            Some(&["-v", "--cov=pkg", "--cov-fail-under=100"]),
        );
        check("--cov pkg", &[], false, None);
        check("-m slow --ignore tests", &[], false, None);
    }
}
