//! The words that an agent may have run: programs, modules, options and variables of our own lists, and files of the tree.

use super::answer::Choice;
use crate::synthesis::eval_script::quoted;
use crate::synthesis::patch::PatchedFile;
use crate::synthesis::tree::Tree;

/// Programs, and modules, that run the tests that they are told.
const RUNNERS: [&str; 4] = ["nosetests", "trial", "stestr", "unit2"];
const RUNNER_MODULES: [&str; 8] =
    ["unittest", "unittest2", "nose", "nose2", "twisted.trial", "zope.testrunner", "testtools.run", "stestr"];
/// pytest by its own name and as a module.
pub(super) const PYTEST: [&str; 2] = ["pytest", "py.test"];
/// How a Python is called.
const PYTHONS: [&str; 3] = ["python", "python2", "python3"];
/// What a runner is told beside tests, and options whose value follows them and names no test.
const SUBCOMMANDS: [&str; 3] = ["discover", "run", "."];
const WITH_VALUE: [&str; 10] =
    ["-k", "-p", "--pattern", "-W", "-a", "-A", "--attr", "--eval-attr", "--processes", "--verbosity"];
/// Where make looks, in its order.
const MAKEFILES: [&str; 3] = ["GNUmakefile", "makefile", "Makefile"];
/// What takes the report or the result out of our hands, or passes tests that did not run: each with its abbreviations,
/// and with whatever begins with it.
const REFUSED_OPTIONS: [&str; 13] = [
    "--junit",
    "--collect",
    "--setup-",
    "--fixtures",
    "--funcargs",
    "--assert",
    "--pyargs",
    "--version",
    "--help",
    "--markers",
    "--cache-show",
    "--plugins",
    "--list-tests",
];
/// The shortest abbreviation that is taken for one.
const ABBREVIATION_BYTES_MIN: usize = 4;
/// Parts of pytest that are not to be missed.
const ESSENTIAL: [&str; 9] = [
    "assertion",
    "junitxml",
    "main",
    "python",
    "runner",
    "skipping",
    "terminal",
    "terminalreporter",
    "unittest",
];
/// What an image's own variables would change in every command.
pub(super) const CLEAN: &str = "unset PYTEST_ADDOPTS PYTEST_PLUGINS PYTEST_DISABLE_PLUGIN_AUTOLOAD PYTHONOPTIMIZE PYTHONSTARTUP MAKEFLAGS MAKEFILES GNUMAKEFLAGS";

/// Where words are looked up.
pub(super) struct Place<'a> {
    pub(super) tree: &'a Tree,
    pub(super) patched: &'a [PatchedFile],
    /// The directory that commands run in, with a slash at its end; empty for the root.
    pub(super) prefix: String,
}

impl Place<'_> {
    /// Whether this is a file of the tree itself.
    fn has(&self, path: &str) -> bool {
        self.tree.has(&self.at(path))
    }

    /// Whether this is a file of the tree, or will be one by the test patch.
    pub(super) fn will_have(&self, path: &str) -> bool {
        let at = self.at(path);
        self.tree.has(&at) || self.patched.iter().any(|file| file.path == at && !file.deleted)
    }

    fn has_directory(&self, path: &str) -> bool {
        let at = self.at(path);
        path == "." || at.is_empty() || self.tree.has_directory(at.trim_end_matches('/'))
    }

    /// Whether `python -m` finds this module in the tree, before any that is installed.
    fn has_module(&self, name: &str) -> bool {
        let path = name.replace('.', "/");
        self.has(&format!("{path}.py")) || self.has(&format!("{path}/__main__.py"))
    }

    /// Whether a dotted name begins with a module or a package of the tree, as that of a test does.
    fn has_dotted(&self, name: &str) -> bool {
        let parts: Vec<&str> = name.split('.').collect();
        (1..=parts.len()).rev().any(|count| {
            let path = parts[..count].join("/");
            self.will_have(&format!("{path}.py")) || (count == parts.len() && self.has_directory(&path))
        })
    }

    fn at(&self, path: &str) -> String {
        match path.strip_prefix("/testbed/") {
            Some(path) => path.to_owned(),
            None => format!("{}{}", self.prefix, path.strip_prefix("./").unwrap_or(path)).replace("/./", "/"),
        }
    }

    /// Checks that a word leads nowhere but into the tree.
    fn stays_inside(&self, word: &str) -> Result<(), String> {
        let value = word.split_once('=').map_or(word, |(_, value)| value);
        let value = match value.as_bytes() {
            [b'-', letter, ..] if letter.is_ascii_alphabetic() => &value[2..],
            _ => value,
        };
        let path = value.split("::").next().unwrap_or_default();
        let leaves = (path.starts_with('/') && path != "/testbed" && !path.starts_with("/testbed/"))
            || path.starts_with('~')
            || path.split('/').any(|part| part == "..");
        if leaves {
            return Err(format!("{word:?} leads out of the tree"));
        }
        match path.ends_with(".py") && !path.contains(['*', '?', '[']) && !self.will_have(path) {
            true => Err(format!("{word:?} is neither a file of the tree nor of the test patch")),
            false => Ok(()),
        }
    }
}

/// The command of a project's own runner.
pub(super) fn own_runner(choice: &Choice, place: &Place<'_>) -> Result<String, String> {
    let words: Vec<&str> = choice.command.iter().map(String::as_str).collect();
    let Some((program, rest)) = words.split_first() else { return Err("command is empty".to_owned()) };
    let command = match (*program, rest) {
        ("make", targets) => make(targets, place)?,
        (program, tests) if RUNNERS.contains(&program) => {
            names_a_target(tests, choice, place)?;
            joined(&words)
        }
        (python, ["-m", module, tests @ ..]) if PYTHONS.contains(&python) => {
            if PYTEST.contains(module) {
                return Err("pytest has the report \"junit\": what each test did is to be seen".to_owned());
            }
            if RUNNER_MODULES.contains(module) {
                names_a_target(tests, choice, place)?;
            } else if !place.has_module(module) {
                return Err(format!(
                    "python -m {module}: expected a module of the tree, or one of {}",
                    RUNNER_MODULES.join(", ")
                ));
            }
            joined(&words)
        }
        (python, [script, ..]) if PYTHONS.contains(&python) && place.has(script) => joined(&words),
        (python, _) if PYTHONS.contains(&python) => {
            return Err("python runs -m and a module, or a script of the tree; never -c".to_owned());
        }
        // A name without a slash would be looked for where the image says.
        (script, _) if place.has(script) && !script.contains('/') => format!("./{}", joined(&words)),
        (script, _) if place.has(script) => joined(&words),
        _ => {
            return Err(format!(
                "{program:?} is no test runner: expected a script of the tree, python, make, or one of {}",
                RUNNERS.join(", ")
            ));
        }
    };
    refuse_options(rest)?;
    rest.iter().try_for_each(|word| place.stays_inside(word))?;
    Ok(command)
}

/// A command before the tests.
pub(super) fn setup_command(words: &[String], place: &Place<'_>) -> Result<String, String> {
    let plain: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["export", assignment] = plain.as_slice() {
        let may = assignment.split_once('=').is_some_and(|(name, value)| may_export(name, value));
        return if may { Ok(joined(&plain)) } else { Err(no_setup(words)) };
    }
    let command = match plain.as_slice() {
        ["make", targets @ ..] => make(targets, place)?,
        ["python", "setup.py", what, ..]
            if place.has("setup.py") && (what.starts_with("build") || *what == "develop") =>
        {
            joined(&plain)
        }
        ["python", "-m", module, ..] if *module == "compileall" || place.has_module(module) => joined(&plain),
        ["python", script, ..] if *script != "setup.py" && place.has(script) => joined(&plain),
        ["mkdir", ..] => joined(&plain),
        _ => return Err(no_setup(words)),
    };
    plain[1..].iter().try_for_each(|word| place.stays_inside(word))?;
    Ok(command)
}

fn no_setup(words: &[String]) -> String {
    format!(
        "set-up command {words:?}: expected export NAME=VALUE (of a variable that changes no program and no report), python \
         with a module or a script of the tree, mkdir or make"
    )
}

/// Checks what pytest is told beside the targets.
pub(super) fn check_pytest(options: &[&str], place: &Place<'_>) -> Result<(), String> {
    refuse_options(options)?;
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let (name, attached) = parted(word);
        let mut value = || attached.or_else(|| words.next().copied()).unwrap_or_default();
        let is = |full: &str| name.len() >= ABBREVIATION_BYTES_MIN && full.starts_with(name);
        let may = match name {
            "-h" | "-V" => false,
            "-p" => match value() {
                plugin if plugin.starts_with("no:") => !ESSENTIAL.contains(&&plugin[3..]),
                plugin => place.has_module(plugin),
            },
            "-c" => place.will_have(value()),
            "-o" => may_override(value(), place)?,
            _ if is("--config-file") => place.will_have(value()),
            _ if is("--rootdir") || is("--confcutdir") => {
                place.has_directory(value().trim_start_matches("/testbed"))
            }
            _ if is("--override-ini") => may_override(value(), place)?,
            _ => {
                place.stays_inside(word)?;
                true
            }
        };
        if !may {
            return Err(format!(
                "{word:?}: plugins, configuration and roots are those of the tree, and no part of pytest is left out"
            ));
        }
    }
    Ok(())
}

fn may_override(setting: &str, place: &Place<'_>) -> Result<bool, String> {
    let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
    if name.trim() == "addopts" {
        check_pytest(&value.split_whitespace().collect::<Vec<_>>(), place)?;
    }
    value.split_whitespace().try_for_each(|word| place.stays_inside(word))?;
    Ok(!name.trim().starts_with("junit"))
}

/// An option, and what is written into the same word: of letters in a row, the first that takes a value.
fn parted(word: &str) -> (&str, Option<&str>) {
    if word.starts_with("--") || !word.starts_with('-') {
        return word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    }
    let flags = word[1..].chars().take_while(|letter| "vqxsl".contains(*letter)).count();
    match word[1 + flags..].chars().next() {
        // The letter stands behind a dash, or we say that it does.
        Some(letter) => {
            let name = ["-p", "-c", "-o", "-h", "-V"].into_iter().find(|name| name.ends_with(letter));
            let attached = &word[1 + flags + letter.len_utf8()..];
            (name.unwrap_or("-"), (!attached.is_empty()).then_some(attached))
        }
        None => (word, None),
    }
}

fn refuse_options(words: &[&str]) -> Result<(), String> {
    let is_refused = |word: &str| {
        let name = word.split('=').next().unwrap_or_default();
        let is_long = name.starts_with("--") && name.len() >= ABBREVIATION_BYTES_MIN;
        is_long
            && REFUSED_OPTIONS.iter().any(|refused| name.starts_with(refused) || refused.starts_with(name))
    };
    match words.iter().find(|word| is_refused(word)) {
        Some(word) => Err(format!("{word:?}: the report is asked for by us, and the tests are to run")),
        None => Ok(()),
    }
}

/// Targets of make, by a file of the tree: nothing that makes a rule of its own.
fn make(targets: &[&str], place: &Place<'_>) -> Result<String, String> {
    let Some(file) = MAKEFILES.into_iter().find(|file| place.has(file)) else {
        return Err("make: there is no makefile in the tree".to_owned());
    };
    match targets.iter().find(|word| word.starts_with('-') || word.contains('=')) {
        Some(word) => Err(format!("make is given targets alone, no options or variables: {word:?}")),
        None => Ok(joined(&[&["make", "-f", file], targets].concat())),
    }
}

/// Checks that tests of the tree are run, one of the targets among them; or all, where none is named.
fn names_a_target(words: &[&str], choice: &Choice, place: &Place<'_>) -> Result<(), String> {
    let (mut named, mut is_value) = (Vec::new(), false);
    for word in words {
        if !word.starts_with('-') && !is_value && !SUBCOMMANDS.contains(word) {
            if !place.will_have(word) && !place.has_directory(word) && !place.has_dotted(word) {
                return Err(format!("{word:?} is no test of the tree"));
            }
            named.push(*word);
        }
        is_value = WITH_VALUE.contains(word);
    }
    let covers = |word: &str| choice.targets.iter().any(|target| names(word, target));
    match named.is_empty() || named.into_iter().any(covers) {
        true => Ok(()),
        false => Err("none of the targets is among the command's words".to_owned()),
    }
}

/// Whether a word stands for a file: by its path, its directory, its module, or a test in it.
fn names(word: &str, file: &str) -> bool {
    let parts = |text: &str| -> Vec<String> {
        let text = text.trim_start_matches("./").trim_end_matches('/');
        let text = text.strip_suffix(".py").unwrap_or(text);
        text.split(['/', '.']).map(str::to_owned).collect()
    };
    let (word, file) = (parts(word), parts(file));
    word.starts_with(&file) || file.starts_with(&word) || file.ends_with(&word)
}

fn may_export(name: &str, value: &str) -> bool {
    // These change what runs, not how.
    const REFUSED: [&str; 6] = ["PATH", "ENV", "IFS", "CDPATH", "BOTTEGA_REPORT", "MFLAGS"];
    const REFUSED_BEGINNINGS: [&str; 9] =
        ["LD_", "PYTEST_", "BASH", "SHELL", "GIT_", "MAKE", "GNUMAKE", "NOSE", "CONDA"];
    const PYTHON: [&str; 8] = [
        "PYTHONASYNCIODEBUG",
        "PYTHONDEVMODE",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHASHSEED",
        "PYTHONIOENCODING",
        "PYTHONUNBUFFERED",
        "PYTHONUTF8",
        "PYTHONWARNINGS",
    ];
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_inside = |part: &str| {
        let leaves = part.starts_with('/') && part != "/testbed" && !part.starts_with("/testbed/");
        !leaves && part.split('/').all(|step| step != "..")
    };
    match name {
        "PYTHONPATH" => value.split(':').all(is_inside),
        _ if name.starts_with("PYTHON") => PYTHON.contains(&name),
        _ => {
            is_name
                && !REFUSED.contains(&name)
                && !REFUSED_BEGINNINGS.iter().any(|begin| name.starts_with(begin))
        }
    }
}

fn joined(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}
