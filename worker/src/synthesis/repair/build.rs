use super::{Diagnosis, Repair, Surroundings, capture, captures, first_new, tail};
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
    let diagnoses: &[Diagnosis] =
        &[system, not_a_distribution, build_tools, resolution, dependency_builds, version];
    let found = first_new(diagnoses, recipe, surroundings, tail(log), &is_new);
    if !found.is_empty() {
        return found;
    }
    // Nothing known is wrong: another way to install, as far as the log blames the installation.
    recipe.next_install(surroundings.has_setup_py).map(Repair::InstallBy).filter(is_new).into_iter().collect()
}

/// Headers, libraries and programs.
fn system(_: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
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
    if log.contains("No module named 'setuptools.command.test'") {
        return vec![Repair::BuildTool("setuptools<72".to_owned())];
    }
    if log.contains("No module named 'pkg_resources'") {
        return vec![Repair::BuildTool("setuptools<81".to_owned())];
    }
    if names_other_build(recipe, log) {
        return Vec::new();
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

/// Whether what failed to build is something the project needs, and not the project.
fn names_other_build(recipe: &Recipe, log: &str) -> bool {
    let failed = capture(r"Failed to (?:download and )?build `?([\w.-]+)(?:==| @)", log);
    failed.is_some_and(|name| recipe.name.as_deref().map(normalise) != Some(normalise(name)))
}

fn is_own(recipe: &Recipe, module: &str) -> bool {
    let top = module.split('.').next().unwrap_or(module);
    recipe.name.as_deref().is_some_and(|name| normalise(name) == normalise(top))
}

/// The resolver's own words.
fn resolution(recipe: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
    let unsolved = log.contains("No solution found")
        || log.contains("ResolutionImpossible")
        || log.contains("No matching distribution");
    if !unsolved {
        return Vec::new();
    }
    if !recipe.constraints.is_empty() {
        return vec![Repair::DropLock];
    }
    let mut repairs = Vec::new();
    for name in captures(r"Because ([\w.-]+) was not found in the package registry", log) {
        repairs.push(Repair::DropRequirement(normalise(name)));
    }
    let filtered = r"`([\w.-]+)` was filtered by `exclude-newer`[^\n]*published at [\dT:.-]+Z?";
    for name in captures(filtered, log) {
        let pattern = format!(
            r"`{}` was filtered by `exclude-newer`[^\n]*published at ([\dT:-]+)",
            regex::escape(name)
        );
        let Some(published) = capture(&pattern, log) else { continue };
        repairs.push(if name == "setuptools" {
            Repair::complete_setuptools()
        } else {
            Repair::Uncut(normalise(name), format!("{}Z", next_second(published)))
        });
    }
    if let Some(name) = capture(r"No matching distribution found for ([\w.-]+)", log) {
        repairs.push(Repair::DropRequirement(normalise(name)));
    }
    // Each of these is tried only after those before it.
    let has_pins = recipe.requirements.iter().any(|requirement| !requirement.versions.is_empty());
    if repairs.is_empty() && has_pins {
        repairs.push(Repair::DropPins);
    } else if repairs.is_empty() && recipe.exclude_newer.is_some() {
        repairs.push(Repair::NoDate);
    } else if repairs.is_empty() && !recipe.extras.is_empty() {
        repairs.push(Repair::DropExtras);
    }
    repairs
}

/// The end of the minute that a time lies in: the cut is exclusive.
fn next_second(published: &str) -> String {
    published.get(..16).map_or_else(|| published.to_owned(), |minute| format!("{minute}:59"))
}

/// A dependency that the day's tools cannot build here.
fn dependency_builds(recipe: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
    if !names_other_build(recipe, log) {
        return Vec::new();
    }
    let Some(name) = capture(r"Failed to (?:download and )?build `?([\w.-]+)(?:==| @)", log) else {
        return Vec::new();
    };
    let setuptools = Repair::complete_setuptools();
    let Repair::Uncut(package, until) = &setuptools else { return Vec::new() };
    if recipe.exclude_newer_package.get(package) != Some(until) {
        return vec![setuptools];
    }
    // A newer one may come as a wheel.
    vec![Repair::Uncut(normalise(name), until.clone())]
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
                "error: Multiple top-level packages discovered in a flat-layout: ['a', 'b'].\n",
                vec![Repair::InstallBy(Install::Path)],
            ),
            ("AttributeError: something else\n", vec![Repair::InstallBy(Install::PipEditable)]),
        ] {
            check(&recipe, log, &[], &expected);
        }
    }

    #[test]
    fn reads_the_resolver() {
        let mut recipe = recipe(PythonVersion::new(3, 9));
        let unsolved = "error: No solution found when resolving dependencies\n  cause: ";
        let filtered = format!(
            "{unsolved}Because only pytest<=5.3.2 is available and you require pytest>=7, …\n\nhint: `pytest` was filtered by `exclude-newer` to only include packages uploaded before 2020-01-01T00:00:00Z. The latest version satisfying the requirement is v9.2.0, published at 2026-10-27T21:30:19Z. Consider …\n"
        );
        check(
            &recipe,
            &filtered,
            &[],
            &[Repair::Uncut("pytest".to_owned(), "2026-10-27T21:30:59Z".to_owned())],
        );
        let gone = format!(
            "{unsolved}Because no-such-dist was not found in the package registry and you require no-such-dist, …\n"
        );
        check(&recipe, &gone, &[], &[Repair::DropRequirement("no-such-dist".to_owned())]);
        let conflict = format!(
            "{unsolved}Because you require mock<4 and mock>5, we can conclude that your requirements are unsatisfiable.\n"
        );
        check(&recipe, &conflict, &[], &[Repair::DropPins]);
        recipe.constraints.insert("mock==3.0".to_owned());
        check(&recipe, &conflict, &[], &[Repair::DropLock]);
        recipe.constraints.clear();
        Repair::DropPins.apply(&mut recipe);
        check(&recipe, &conflict, &[Repair::DropPins], &[Repair::NoDate]);
    }

    #[test]
    fn blames_a_dependency_for_its_own_build() {
        let recipe = recipe(PythonVersion::new(3, 9));
        let log = "error: Failed to build `future==0.16.0`\n  cause: The build backend returned an error\n AttributeError: 'HTMLParser' object has no attribute 'unescape'\n";
        let first = Repair::complete_setuptools();
        check(&recipe, log, &[], std::slice::from_ref(&first));
        let mut repaired = recipe.clone();
        first.apply(&mut repaired);
        let Repair::Uncut(_, until) = &first else { panic!("{first:?}") };
        check(
            &repaired,
            log,
            std::slice::from_ref(&first),
            &[Repair::Uncut("future".to_owned(), until.clone())],
        );
        let own = log.replace("future==0.16.0", "thing @ file:///testbed");
        check(&recipe, &own, &[], &[Repair::InstallBy(Install::PipEditable)]);
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
