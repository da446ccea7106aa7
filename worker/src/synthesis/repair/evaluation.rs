use super::{Diagnosis, Repair, Surroundings, capture, captures, first_new, tail};
use crate::synthesis::modules;
use crate::synthesis::recipe::Recipe;
use crate::synthesis::targets::Runner;
use crate::synthesis::text::normalise;

/// What the run with the fix asks for. The run without it is no witness: what it misses, the fix may add.
pub(in crate::synthesis) fn diagnose(
    recipe: &Recipe,
    surroundings: &Surroundings,
    log: &str,
    is_new: impl Fn(&Repair) -> bool,
) -> Vec<Repair> {
    let diagnoses: &[Diagnosis] =
        if recipe.runner == Runner::Pytest { OF_PYTEST } else { &[missing_modules] };
    first_new(diagnoses, recipe, surroundings, tail(log), is_new)
}

/// In the order of their certainty; the last ones only guess.
const OF_PYTEST: &[Diagnosis] = &[
    unknown_options,
    cache,
    runner_version,
    missing_modules,
    missing_fixtures,
    asynchronous,
    system,
    collection,
    django,
    warnings,
    skipped,
    nothing_collected,
    too_new_a_python,
];

fn unknown_options(_: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
    let Some(options) = capture(r"error: unrecognized arguments?: ([^\n]+)", log) else {
        let no_such = capture(r"error: (?:no such option|ambiguous option): (\S+)", log);
        return no_such.map(|_| Repair::ClearAddopts).into_iter().collect();
    };
    let plugins: Vec<Repair> = options
        .split_whitespace()
        .filter_map(modules::option_plugin)
        .map(|plugin| Repair::Require(plugin.to_owned()))
        .collect();
    // A plugin that is there and still does not know the option is too old or too new for it.
    if plugins.is_empty() { vec![Repair::ClearAddopts] } else { [plugins, vec![]].concat() }
}

fn cache(_: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
    let conflicts = [
        "'Config' object has no attribute 'cache'",
        "fixture 'cache' not found",
        "unrecognized arguments: --lf",
        "unrecognized arguments: --ff",
        "Unknown config option: cache_dir",
        "unrecognized arguments: --cache-clear",
    ];
    if conflicts.iter().any(|text| log.contains(text)) { vec![Repair::KeepCache] } else { Vec::new() }
}

/// pytest itself is too old for the Python or for the project, or too new for its tests.
fn runner_version(recipe: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
    if let Some(wanted) = capture(r"requires pytest-([\d.]+)", log) {
        return vec![Repair::RequireUndated(format!("pytest>={wanted}"))];
    }
    let too_old = [
        "required field \"lineno\" missing from alias",
        "required field \"end_lineno\" missing",
        "module 'ast' has no attribute 'Str'",
        "'AssertionRewritingHook' object has no attribute 'find_spec'",
    ];
    let in_pytest = log.contains("_pytest/assertion/rewrite.py") && log.contains("No module named 'imp'");
    if in_pytest
        || too_old.iter().any(|text| log.contains(text))
        || capture(r"(pytest.*generator raised StopIteration)", log).is_some()
    {
        let enough = if recipe.python >= base_images::PythonVersion::new(3, 12) {
            "pytest>=7.4"
        } else {
            "pytest>=6.2.5"
        };
        return vec![Repair::RequireUndated(enough.to_owned())];
    }
    let plugin_needs_newer = capture(r"cannot import name '(\w+)' from 'pytest'", log).is_some();
    if plugin_needs_newer {
        return vec![Repair::RequireUndated("pytest".to_owned())];
    }
    let nose_style =
        log.contains("Support for nose tests is deprecated") || log.contains("Plain unittest.SkipTest");
    let yield_tests = log.contains("yield tests were removed in pytest 4.0");
    let called_directly = log.contains("called directly. Fixtures are not meant to be called directly");
    let removed = log.contains("PytestRemovedIn") && log.contains("Warning");
    if yield_tests || called_directly {
        return vec![Repair::Require("pytest<4".to_owned())];
    }
    if nose_style || removed {
        return vec![Repair::Require("pytest<8".to_owned())];
    }
    let nose_setup = log.contains("has no attribute '")
        && log.contains("def setup(self")
        && recipe.requirements.iter().any(|r| r.name == "nose");
    if nose_setup { vec![Repair::Require("pytest<8".to_owned())] } else { Vec::new() }
}

fn missing_modules(recipe: &Recipe, surroundings: &Surroundings, log: &str) -> Vec<Repair> {
    let missing = captures(r"(?:ModuleNotFoundError|ImportError): No module named '?([\w.]+)'?", log);
    let mut repairs = Vec::new();
    for module in missing {
        let top = module.split('.').next().unwrap_or(module);
        match top {
            "pkg_resources" => repairs.push(Repair::RequireUndated("setuptools<81".to_owned())),
            // The standard library had these once; setuptools still brings the first.
            "distutils" => repairs.push(Repair::RequireUndated("setuptools".to_owned())),
            "imp" | "asyncore" | "asynchat" | "smtpd" | "cgi" | "telnetlib" | "pipes" | "crypt"
            | "imghdr" => {
                repairs.push(Repair::RefusePython(recipe.python));
            }
            _ if surroundings.local_modules.contains(top) => {
                if recipe.has_src {
                    let path = format!("{}:{}", recipe.source_dir(), recipe.workdir());
                    repairs.push(Repair::Environment("PYTHONPATH", path));
                }
            }
            _ => repairs
                .extend(modules::distribution(module).filter(|d| !is_own(recipe, d)).map(Repair::Require)),
        }
    }
    for library in captures(r"ImportError: (lib[\w.+-]+\.so[\d.]*): cannot open shared object file", log) {
        repairs.extend(modules::system_packages(library).map(|packages| Repair::System(packages.to_owned())));
    }
    repairs
}

fn is_own(recipe: &Recipe, distribution: &str) -> bool {
    recipe.name.as_deref().map(normalise).as_deref() == Some(distribution)
}

fn missing_fixtures(_: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
    let fixtures = captures(r"fixture '(\w+)' not found", log);
    fixtures
        .into_iter()
        .filter_map(modules::fixture_plugin)
        .map(|plugin| Repair::Require(plugin.to_owned()))
        .collect()
}

fn asynchronous(_: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
    let unsupported = log.contains("async def functions are not natively supported")
        || log.contains("PytestUnhandledCoroutineWarning")
        || log.contains("was never awaited");
    if !unsupported {
        return Vec::new();
    }
    let marks = captures(r"Unknown pytest\.mark\.(\w+)", log);
    let plugins: Vec<&str> = marks.into_iter().filter_map(modules::mark_plugin).collect();
    let plugins = if plugins.is_empty() { vec!["pytest-asyncio"] } else { plugins };
    plugins.into_iter().map(|plugin| Repair::Require(plugin.to_owned())).collect()
}

fn system(_: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
    let programs = captures(r"FileNotFoundError: \[Errno 2\] No such file or directory: '([\w+.-]+)'", log);
    let shells = captures(r"(?:/bin/sh: \d+: |sh: line \d+: )([\w.+-]+): (?:command )?not found", log);
    let found = programs.into_iter().chain(shells).filter_map(modules::system_packages);
    let mut repairs: Vec<Repair> = found.map(|packages| Repair::System(packages.to_owned())).collect();
    if log.contains("ZoneInfoNotFoundError")
        || log.contains("No time zone found with key")
        || log.contains("Can not find any timezone configuration")
    {
        repairs.push(Repair::System("tzdata".to_owned()));
        repairs.push(Repair::Require("tzdata".to_owned()));
    }
    repairs
}

/// Tests of Django code need settings before anything is imported.
fn django(recipe: &Recipe, surroundings: &Surroundings, log: &str) -> Vec<Repair> {
    let unconfigured =
        log.contains("ImproperlyConfigured: Requested setting") || log.contains("Apps aren't loaded yet");
    let Some(settings) = surroundings.django_settings.first().filter(|_| unconfigured) else {
        return Vec::new();
    };
    vec![
        Repair::Require("pytest-django".to_owned()),
        Repair::Environment("DJANGO_SETTINGS_MODULE", settings.clone()),
        Repair::Environment("PYTHONPATH", recipe.workdir()),
    ]
}

fn collection(_: &Recipe, surroundings: &Surroundings, log: &str) -> Vec<Repair> {
    if log.contains("import file mismatch") || log.contains("ImportPathMismatchError") {
        return vec![Repair::PytestArguments(&["--import-mode=importlib"])];
    }
    let coverage_only = log.contains("Coverage failure") || log.contains("Required test coverage of");
    if coverage_only && surroundings.any_passed {
        return vec![Repair::PytestArguments(&["--no-cov"])];
    }
    if log.contains("INTERNALERROR") && log.contains("xdist") {
        return vec![Repair::PytestArguments(&["-p", "no:xdist"]), Repair::ClearAddopts];
    }
    Vec::new()
}

/// Warnings that are errors by configuration, and come from what is newer or older than the project knew.
fn warnings(_: &Recipe, surroundings: &Surroundings, log: &str) -> Vec<Repair> {
    let raised = capture(
        r"^E\s+((?:Pending)?DeprecationWarning|(?:\w+\.)*Pytest\w*Warning|ResourceWarning|FutureWarning|SyntaxWarning|UserWarning): ",
        log,
    );
    if raised.is_none() || surroundings.any_passed && !surroundings.no_difference {
        return Vec::new();
    }
    vec![Repair::PytestArguments(&[
        "-W",
        "ignore::DeprecationWarning",
        "-W",
        "ignore::PendingDeprecationWarning",
        "-W",
        "ignore::UserWarning",
        "-W",
        "ignore::ResourceWarning",
    ])]
}

/// Tests that were skipped since something optional is not there, where nothing else told the two runs apart.
fn skipped(_: &Recipe, surroundings: &Surroundings, log: &str) -> Vec<Repair> {
    if !surroundings.no_difference {
        return Vec::new();
    }
    let missing = captures(r"SKIPPED .*?could not import '([\w.]+)'", log).into_iter().chain(captures(
        r"(?i)SKIPPED .*?(?:requires?|needs?|no|missing|without) (?:the )?`?([\w-]+)`?(?: (?:is )?(?:not )?(?:to be )?(?:installed|available|package|module|library))",
        log,
    ));
    missing
        .filter(|module| !surroundings.local_modules.contains(*module))
        .filter_map(|module| modules::known_distribution(module))
        .map(|distribution| Repair::Require(distribution.to_owned()))
        .collect()
}

/// pytest found nothing to run.
fn nothing_collected(_: &Recipe, surroundings: &Surroundings, log: &str) -> Vec<Repair> {
    let nothing = log.contains("collected 0 items")
        || log.contains("no tests ran")
        || log.contains("found no collectors");
    if !nothing && !surroundings.no_difference {
        return Vec::new();
    }
    surroundings.own_runner.iter().map(|command| Repair::OwnRunner(command.clone())).collect()
}

/// Names that newer Pythons no longer have.
fn too_new_a_python(recipe: &Recipe, surroundings: &Surroundings, log: &str) -> Vec<Repair> {
    let gone = [
        r"cannot import name '(Mapping|MutableMapping|Iterable|Callable|Sequence|Hashable|Iterator|Set)' from 'collections'",
        r"module 'collections' has no attribute '(\w+)'",
        r"module 'inspect' has no attribute '(getargspec|formatargspec)'",
        r"module '(?:time|asyncio|unittest|configparser|gettext|fractions|base64|cgi|html|platform)' has no attribute '(\w+)'",
        r"'(?:HTMLParser|TestCase|ElementTree|Element|Thread|array\.array)' object has no attribute '(unescape|assertEquals|assertItemsEqual|assertRaisesRegexp|assertRegexpMatches|assertNotEquals|assert_|failUnless|getchildren|getiterator|isAlive|tostring)'",
        r"cannot import name '(\w+)' from '(?:asyncio|inspect|typing|importlib|locale|unittest|fractions|ast|configparser)'",
    ];
    let told = gone.iter().any(|pattern| capture(pattern, log).is_some());
    if told && !surroundings.any_passed { vec![Repair::RefusePython(recipe.python)] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use base_images::PythonVersion;

    use super::super::super::recipe::tests::recipe;
    use super::*;

    fn check(surroundings: &Surroundings, log: &str, expected: &[Repair]) {
        let found = diagnose(&recipe(PythonVersion::new(3, 9)), surroundings, log, |_| true);
        assert_eq!(found, expected, "{log}");
    }

    #[test]
    fn knows_what_a_run_with_the_fix_lacks() {
        let require = |what: &str| vec![Repair::Require(what.to_owned())];
        let undated = |what: &str| vec![Repair::RequireUndated(what.to_owned())];
        let surroundings =
            Surroundings { local_modules: ["helpers".to_owned()].into(), ..Surroundings::default() };
        for (log, expected) in [
            (
                "ERROR: usage: pytest [options]\npytest: error: unrecognized arguments: --cov=x --cov-report=xml\n",
                require("pytest-cov"),
            ),
            ("pytest: error: unrecognized arguments: --frobnicate\n", vec![Repair::ClearAddopts]),
            ("E   ModuleNotFoundError: No module named 'yaml'\n", require("pyyaml")),
            ("E   ModuleNotFoundError: No module named 'helpers'\n", vec![]),
            ("E   ModuleNotFoundError: No module named 'thing.new'\n", vec![]),
            ("E   ModuleNotFoundError: No module named 'os.nothing'\n", vec![]),
            ("E   ModuleNotFoundError: No module named 'pkg_resources'\n", undated("setuptools<81")),
            (
                "E   ModuleNotFoundError: No module named 'asyncore'\n",
                vec![Repair::RefusePython(PythonVersion::new(3, 9))],
            ),
            ("E       fixture 'mocker' not found\n", require("pytest-mock")),
            ("E       fixture 'own_thing' not found\n", vec![]),
            ("async def functions are not natively supported.\n", require("pytest-asyncio")),
            (
                "PytestUnknownMarkWarning: Unknown pytest.mark.trio - is this a typo?\nasync def functions are not natively supported.\n",
                require("pytest-trio"),
            ),
            (
                "E   FileNotFoundError: [Errno 2] No such file or directory: 'hg'\n",
                vec![Repair::System("mercurial".to_owned())],
            ),
            ("E   FileNotFoundError: [Errno 2] No such file or directory: 'data.txt'\n", vec![]),
            (
                "E   ImportError: libGL.so.1: cannot open shared object file: No such file or directory\n",
                vec![Repair::System("libgl1".to_owned())],
            ),
            ("TypeError: required field \"lineno\" missing from alias\n", undated("pytest>=6.2.5")),
            ("ERROR: tox.ini:7: requires pytest-6.1, actual pytest-5.4.3\n", undated("pytest>=6.1")),
            ("E   import file mismatch:\n", vec![Repair::PytestArguments(&["--import-mode=importlib"])]),
            ("AttributeError: 'Config' object has no attribute 'cache'\n", vec![Repair::KeepCache]),
            (
                "E   ImportError: cannot import name 'Mapping' from 'collections' (/opt/…)\n",
                vec![Repair::RefusePython(PythonVersion::new(3, 9))],
            ),
            ("E   assert 1 == 2\n", vec![]),
        ] {
            check(&surroundings, log, &expected);
        }
    }

    #[test]
    fn gives_django_its_settings() {
        let log = "E   django.core.exceptions.ImproperlyConfigured: Requested setting USE_I18N, but settings are not configured.\n";
        let settings = |modules: &[&str]| Surroundings {
            django_settings: modules.iter().map(|module| (*module).to_owned()).collect(),
            ..Surroundings::default()
        };
        check(&settings(&[]), log, &[]);
        let repairs = [
            Repair::Require("pytest-django".to_owned()),
            Repair::Environment("DJANGO_SETTINGS_MODULE", "tests.settings".to_owned()),
            Repair::Environment("PYTHONPATH", "/testbed".to_owned()),
        ];
        check(&settings(&["tests.settings", "example.settings"]), log, &repairs);
        check(&settings(&["tests.settings"]), "E   assert 0\n", &[]);
    }

    #[test]
    fn looks_further_only_where_the_runs_do_not_differ() {
        let own =
            Surroundings { own_runner: Some("python run.py tests".to_owned()), ..Surroundings::default() };
        let same = Surroundings { no_difference: true, any_passed: true, ..own.clone() };
        let runner = [Repair::OwnRunner("python run.py tests".to_owned())];
        check(&own, "collected 0 items\n\n===== no tests ran in 0.01s =====\n", &runner);
        check(&same, "==== 5 passed in 0.1s ====\n", &runner);
        let differs = Surroundings { any_passed: true, ..own.clone() };
        check(&differs, "==== 5 passed in 0.1s ====\n", &[]);
        let skipped = "SKIPPED [1] tests/test_a.py:3: could not import 'lxml': No module named 'lxml'\n";
        check(
            &Surroundings { no_difference: true, ..Surroundings::default() },
            skipped,
            &[Repair::Require("lxml".to_owned())],
        );
        check(&differs, skipped, &[]);
    }
}
