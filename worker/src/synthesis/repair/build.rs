use super::{Diagnosis, Repair, Surroundings, capture, captures, first_new, packages, tail};
use crate::synthesis::modules;
use crate::synthesis::recipe::{Install, Recipe};
use crate::synthesis::text::normalise;

/// What a failed build asks for, the most certain first; `is_new` tells which repairs were not made yet.
pub(in crate::synthesis) fn diagnose(
    recipe: &Recipe,
    surroundings: &Surroundings,
    log: &str,
    is_new: impl Fn(&Repair) -> bool,
) -> Vec<Repair> {
    let diagnoses: &[Diagnosis] = &[
        |_, _, log| network(log, 1),
        |_, _, log| network(log, 2),
        system,
        not_a_distribution,
        packages::builds,
        build_tools,
        packages::resolution,
        version,
    ];
    let found = first_new(diagnoses, recipe, surroundings, tail(log), &is_new);
    if !found.is_empty() {
        return found;
    }
    // Nothing known is wrong: another way to do the step that failed.
    let another = match capture(FAILED_STEP, log) {
        Some(step) if step.contains(DATED_STEP) => packages::loosen(recipe).into_iter().collect(),
        Some(step) if step.contains("uv pip install") && !step.contains("-e .") => {
            vec![Repair::LooseBuildTools]
        }
        _ => recipe.next_install(surroundings.has_setup_py).map(Repair::InstallBy).into_iter().collect(),
    };
    another.into_iter().filter(is_new).collect()
}

/// What the engine says of the step that failed.
const FAILED_STEP: &str = r"The command '([^\n]*)' returned a non-zero code";
/// What only the step has that installs dependencies.
const DATED_STEP: &str = "--upgrade";

/// A package index or mirror that did not answer.
fn network(log: &str, time: u8) -> Vec<Repair> {
    let told = [
        "Connection reset by peer",
        "error sending request",
        "operation timed out",
        "Temporary failure in name resolution",
        "Temporary failure resolving",
        "Read timed out",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "429 Too Many Requests",
        "Could not connect to",
    ];
    if told.iter().any(|text| log.contains(text)) { vec![Repair::TryAgain(time)] } else { Vec::new() }
}

/// Headers, libraries and programs.
fn system(_: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
    let unavailable =
        [r"Unable to locate package ([\w.+-]+)", r"Package '?([\w.+-]+)'? has no installation candidate"];
    let unavailable: Vec<&str> = unavailable.iter().flat_map(|pattern| captures(pattern, log)).collect();
    if !unavailable.is_empty() {
        return unavailable.into_iter().map(|package| Repair::DropSystem(package.to_owned())).collect();
    }
    let patterns = [
        r"fatal error: ([\w./+-]+\.h(?:pp)?): No such file",
        r"(?:error: command|unable to execute) '([\w+.-]+)'(?: failed)?: No such file",
        r"(?:/bin/sh: \d+: |sh: \d*:? ?)([\w.+-]+): not found",
        r"FileNotFoundError: \[Errno 2\] No such file or directory: '([\w+.-]+)'",
        r"([\w]+-config)(?: executable)? not found",
        r"error: .*?\b([\w.-]+): (?:command )?not found",
    ];
    let wanted = patterns.iter().flat_map(|pattern| captures(pattern, log));
    let packages =
        wanted.filter_map(modules::system_packages).map(|packages| Repair::System(packages.to_owned()));
    let told = [
        ("Please make sure the libxml2 and libxslt development packages", "libxml2-dev libxslt1-dev"),
        ("is Rust installed", "rustc cargo"),
        ("install pkg-config", "pkg-config libicu-dev"),
    ];
    let told = told
        .iter()
        .filter(|(text, _)| log.contains(text))
        .map(|(_, packages)| Repair::System((*packages).to_owned()));
    packages.chain(told).collect()
}

/// Trees that are no distribution at all, or not for this Python: the path serves them.
fn not_a_distribution(_: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
    let told = [
        "Multiple top-level packages discovered in a flat-layout",
        "Multiple top-level modules discovered in a flat-layout",
        "not possible in non-package mode",
        "does not satisfy Python",
        "requires a different Python",
        "does not appear to be a Python project",
        "Unable to determine which files to ship inside the wheel",
        "No file/folder found for package",
    ];
    if told.iter().any(|text| log.contains(text)) {
        vec![Repair::InstallBy(Install::Path)]
    } else {
        Vec::new()
    }
}

/// What the project's own build lacks.
fn build_tools(recipe: &Recipe, surroundings: &Surroundings, log: &str) -> Vec<Repair> {
    if log.contains("use_2to3 is invalid") {
        return vec![Repair::BuildTool("setuptools<58".to_owned()), Repair::InstallBy(Install::Develop)];
    }
    if log.contains("cannot import name 'Feature' from 'setuptools'") {
        return vec![Repair::BuildTool("setuptools<46".to_owned()), Repair::InstallBy(Install::Develop)];
    }
    let strict = [
        "Invalid specifier",
        "InvalidSpecifier",
        "InvalidVersion",
        "InvalidRequirement",
        "must be a string containing valid version specifiers",
        "Expected end or semicolon",
    ];
    if strict.iter().any(|text| log.contains(text)) {
        // Versions and requirements were read more leniently once; 64 is the first that can install editably.
        return vec![Repair::BuildTool("setuptools<66".to_owned())];
    }
    if log.contains("No module named 'setuptools.command.test'") {
        return vec![Repair::BuildTool("setuptools<72".to_owned())];
    }
    if log.contains("No module named 'pkg_resources'") {
        return vec![Repair::BuildTool("setuptools<81".to_owned())];
    }
    let missing = captures(r"(?:ModuleNotFoundError|ImportError): No module named '?([\w.]+)'?", log);
    let is_local =
        |module: &&str| surroundings.local_modules.contains(module.split('.').next().unwrap_or(module));
    if missing.iter().any(is_local) && surroundings.has_setup_py {
        // The script imports the project, which a build backend does not find.
        return vec![Repair::InstallBy(Install::Develop)];
    }
    let backends = captures(r"(?:BackendUnavailable|Cannot import) .*?'?([a-z_]+)[.']", log);
    let found =
        missing.into_iter().chain(backends).filter(|module| !is_own(recipe, module) && !is_local(module));
    found.filter_map(modules::distribution).map(Repair::BuildTool).collect()
}

fn is_own(recipe: &Recipe, module: &str) -> bool {
    let top = module.split('.').next().unwrap_or(module);
    recipe.name.as_deref().is_some_and(|name| normalise(name) == normalise(top))
}

/// Versions that are taken from tags.
fn version(_: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
    let unknown = [
        "unable to detect version",
        "PBR_VERSION",
        "could not determine version",
        "Versioning for this project requires",
    ];
    if !unknown.iter().any(|text| log.contains(text)) {
        return Vec::new();
    }
    let version = "1.0.0".to_owned();
    if log.contains("PBR_VERSION") || log.contains("Versioning for this project requires") {
        return vec![Repair::Environment("PBR_VERSION", version)];
    }
    vec![Repair::Environment("SETUPTOOLS_SCM_PRETEND_VERSION", version)]
}

#[cfg(test)]
mod tests {
    use base_images::PythonVersion;

    use super::super::super::recipe::tests::recipe;
    use super::*;

    fn check(recipe: &Recipe, log: &str, done: &[Repair], expected: &[Repair]) {
        let surroundings = Surroundings {
            has_setup_py: true,
            local_modules: ["thing".to_owned()].into(),
            ..Surroundings::default()
        };
        let found = diagnose(recipe, &surroundings, log, |repair| !done.contains(repair));
        assert_eq!(found, expected, "{log}");
    }

    #[test]
    fn knows_what_a_failed_build_lacks() {
        let system = |packages: &str| vec![Repair::System(packages.to_owned())];
        let tool = |tool: &str| vec![Repair::BuildTool(tool.to_owned())];
        let recipe = recipe(PythonVersion::new(3, 9));
        for (log, expected) in [
            (
                "src/x.c:4:10: fatal error: libxml/xpath.h: No such file or directory\n",
                system("libxml2-dev libxslt1-dev"),
            ),
            ("error: command 'swig' failed: No such file or directory", system("swig")),
            ("/bin/sh: 1: pg_config: not found\n", system("libpq-dev")),
            ("FileNotFoundError: [Errno 2] No such file or directory: 'cmake'\n", system("cmake")),
            ("    ModuleNotFoundError: No module named 'Cython'\n", tool("cython")),
            ("ModuleNotFoundError: No module named 'yaml'\n", tool("pyyaml")),
            ("ModuleNotFoundError: No module named 'pkg_resources'\n", tool("setuptools<81")),
            ("ModuleNotFoundError: No module named 'thing'\n", vec![Repair::InstallBy(Install::Develop)]),
            (
                "error in thing setup command: use_2to3 is invalid.\n",
                vec![Repair::BuildTool("setuptools<58".to_owned()), Repair::InstallBy(Install::Develop)],
            ),
            (
                "LookupError: setuptools-scm was unable to detect version for /testbed.\n",
                vec![Repair::Environment("SETUPTOOLS_SCM_PRETEND_VERSION", "1.0.0".to_owned())],
            ),
            (
                "packaging.specifiers.InvalidSpecifier: Invalid specifier: '>=3.5.*'\n",
                vec![Repair::BuildTool("setuptools<66".to_owned())],
            ),
            (
                "error: Multiple top-level packages discovered in a flat-layout: ['a', 'b'].\n",
                vec![Repair::InstallBy(Install::Path)],
            ),
            ("AttributeError: something else\n", vec![Repair::InstallBy(Install::PipEditable)]),
        ] {
            check(&recipe, log, &[], &expected);
        }
    }

    #[test]
    fn tries_again_where_the_network_failed_but_not_for_ever() {
        let recipe = recipe(PythonVersion::new(3, 9));
        let log = "error: Request failed after 3 retries\n  cause: error sending request for url\n";
        let (once, twice) = (Repair::TryAgain(1), Repair::TryAgain(2));
        check(&recipe, log, &[], std::slice::from_ref(&once));
        check(&recipe, log, std::slice::from_ref(&once), std::slice::from_ref(&twice));
        check(&recipe, log, &[once, twice], &[Repair::InstallBy(Install::PipEditable)]);
    }

    #[test]
    fn mends_the_step_that_failed() {
        let recipe = recipe(PythonVersion::new(3, 9));
        let failed =
            |step: &str| format!("error: odd\nThe command '/bin/sh -c {step}' returned a non-zero code: 1\n");
        check(
            &recipe,
            &failed("bash -lc 'uv pip install --upgrade --exclude-newer …'"),
            &[],
            &[Repair::DropPins],
        );
        check(&recipe, &failed("bash -lc 'uv pip install \"hatchling<1\"'"), &[], &[Repair::LooseBuildTools]);
        let project = failed("bash -lc 'uv pip install --no-deps --no-build-isolation -e . && …'");
        check(&recipe, &project, &[], &[Repair::InstallBy(Install::PipEditable)]);
        let gone = "E: Unable to locate package brz\n";
        check(&recipe, gone, &[], &[Repair::DropSystem("brz".to_owned())]);
    }

    #[test]
    fn ends_when_every_way_to_install_was_tried() {
        let mut recipe = recipe(PythonVersion::new(3, 9));
        let mut done = Vec::new();
        let mut ways = Vec::new();
        while let Some(repair) =
            diagnose(&recipe, &Surroundings::default(), "error: odd", |repair| !done.contains(repair)).pop()
        {
            repair.apply(&mut recipe);
            ways.push(recipe.install);
            done.push(repair);
        }
        assert_eq!(ways, [Install::PipEditable, Install::PlainAndPath, Install::Path]);
    }
}
