//! From an agent's choice to an evaluation script. The agent gives words, never shell: what a script must not do cannot be
//! said in them.

use base_images::PythonVersion;

use super::answer::{Choice, Report};
use crate::synthesis::eval_script::{quoted, report_option, skeleton, target};
use crate::synthesis::patch::PatchedFile;
use crate::synthesis::tree::Tree;
use crate::synthesis::{EvalScript, ReportKind};

/// Words of a command, commands of a set-up, files that are run.
const WORDS_MAX: usize = 60;
const SETUP_MAX: usize = 10;
const TARGETS_MAX: usize = 200;
/// The longest word, in bytes.
const WORD_BYTES_MAX: usize = 1000;

/// Programs that a project's own runner may be started by.
const RUNNERS: [&str; 8] = ["python", "python2", "python3", "make", "nosetests", "trial", "stestr", "unit2"];
/// Modules of pytest that are asked for by their own name.
const PYTEST: [&str; 2] = ["pytest", "py.test"];
/// Options that take the report or the result out of our hands.
const REFUSED_OPTIONS: [&str; 7] =
    ["--junitxml", "--junit-xml", "--collect-only", "--co", "--setup-plan", "--fixtures", "--version"];

/// Checks a choice and writes its script.
///
/// # Errors
/// What is wrong with the choice, for its author.
pub(super) fn write(
    choice: &Choice,
    python: PythonVersion,
    tree: &Tree,
    patched: &[PatchedFile],
) -> Result<EvalScript, String> {
    let words = std::iter::once(&choice.command).chain(&choice.setup).flatten().chain(&choice.targets);
    if words.clone().any(|word| word.len() > WORD_BYTES_MAX || word.chars().any(char::is_control)) {
        return Err(format!("a word has a control character, or more than {WORD_BYTES_MAX} bytes"));
    }
    if choice.command.len() > WORDS_MAX
        || choice.setup.len() > SETUP_MAX
        || choice.targets.len() > TARGETS_MAX
    {
        return Err(format!(
            "at most {WORDS_MAX} words, {SETUP_MAX} set-up commands and {TARGETS_MAX} targets"
        ));
    }
    check_directory(&choice.directory, tree)?;
    if choice.targets.is_empty() {
        return Err("targets is empty: name the test files that show the fix".to_owned());
    }
    let prefix = if choice.directory.is_empty() { String::new() } else { format!("{}/", choice.directory) };
    for path in &choice.targets {
        let at = format!("{prefix}{path}");
        let is_there = tree.has(&at) || patched.iter().any(|file| file.path == at && !file.deleted);
        if !is_there {
            return Err(format!("target {path:?} is neither a file of the tree nor of the test patch"));
        }
    }
    let setup = choice.setup.iter().map(|words| setup_command(words)).collect::<Result<Vec<_>, _>>()?;
    let command = match choice.report {
        Report::Junit => pytest(choice)?,
        Report::ExitStatus => own_runner(choice, tree, &prefix)?,
    };
    let report = match choice.report {
        Report::Junit => ReportKind::JUnit,
        Report::ExitStatus => ReportKind::ExitStatus,
    };
    let skeleton = skeleton(python, &choice.directory, &setup, &command);
    Ok(EvalScript { skeleton, report, targets: choice.targets.clone() })
}

fn check_directory(directory: &str, tree: &Tree) -> Result<(), String> {
    match directory.is_empty() || tree.has_directory(directory) {
        true => Ok(()),
        false => Err(format!("directory {directory:?} is not in the tree; write \"\" for /testbed")),
    }
}

fn pytest(choice: &Choice) -> Result<String, String> {
    let words: Vec<&str> = choice.command.iter().map(String::as_str).collect();
    let options = match words.as_slice() {
        [python, "-m", name, options @ ..] if python.starts_with("python") && PYTEST.contains(name) => {
            options
        }
        [name, options @ ..] if PYTEST.contains(name) => options,
        _ => {
            return Err("with the report \"junit\" the command begins with python -m pytest; a project that cannot be \
                        run by it has the report \"exit-status\""
                .to_owned());
        }
    };
    refuse_options(options)?;
    let mut command = vec!["python -m pytest -rA".to_owned(), report_option()];
    // A target that is named twice would run twice.
    let more = options.iter().filter(|word| !choice.targets.iter().any(|target| target == *word));
    command.extend(more.map(|word| quoted(word)));
    command.extend(choice.targets.iter().map(|path| target(path)));
    Ok(command.join(" "))
}

fn own_runner(choice: &Choice, tree: &Tree, prefix: &str) -> Result<String, String> {
    let Some((program, rest)) = choice.command.split_first() else {
        return Err("command is empty".to_owned());
    };
    let own = program.strip_prefix("./").unwrap_or(program);
    let is_own = tree.has(&format!("{prefix}{own}"));
    if !is_own && !RUNNERS.contains(&program.as_str()) {
        return Err(format!(
            "{program:?} is no test runner: expected a script of the tree, or one of {}",
            RUNNERS.join(", ")
        ));
    }
    if program.starts_with("python") {
        match rest.first().map(String::as_str) {
            Some("-m") => {}
            Some(script) if tree.has(&format!("{prefix}{}", script.strip_prefix("./").unwrap_or(script))) => {
            }
            _ => return Err("python runs -m and a module, or a script of the tree; never -c".to_owned()),
        }
    }
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    refuse_options(&rest)?;
    Ok(choice.command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}

fn refuse_options(words: &[&str]) -> Result<(), String> {
    let name = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    match words.iter().find(|word| REFUSED_OPTIONS.contains(&name(word).as_str())) {
        Some(word) => Err(format!("{word:?}: the report is asked for by us, and the tests are to run")),
        None => Ok(()),
    }
}

fn setup_command(words: &[String]) -> Result<String, String> {
    let plain: Vec<&str> = words.iter().map(String::as_str).collect();
    let may = match plain.as_slice() {
        ["export", value] => value.split_once('=').is_some_and(|(name, _)| is_variable(name)),
        ["python", "setup.py", what, ..] => what.starts_with("build") || *what == "develop",
        ["python", "-m", module, ..] => !PYTEST.contains(module),
        ["python", script, ..] => !script.starts_with(['-', '/']),
        ["mkdir" | "make", ..] => true,
        _ => false,
    };
    if !may {
        return Err(format!(
            "set-up command {words:?}: expected export NAME=VALUE, python with a module or a script of the tree, mkdir or make"
        ));
    }
    let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    Ok(quoted.join(" "))
}

fn is_variable(name: &str) -> bool {
    // These change what runs, not how.
    const REFUSED: [&str; 6] =
        ["PATH", "LD_PRELOAD", "PYTHONSTARTUP", "PYTEST_PLUGINS", "BASH_ENV", "BOTTEGA_REPORT"];
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !REFUSED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(json: &str) -> Result<String, String> {
        let (_guard, tree) = Tree::of(&[("tests/test_a.py", ""), ("tests/run.py", ""), ("sub/t.py", "")]);
        let added = PatchedFile { path: "tests/test_new.py".to_owned(), ..PatchedFile::default() };
        let choice: Choice = serde_json::from_str(json).unwrap();
        let script = write(&choice, PythonVersion::new(3, 11), &tree, &[added])?;
        let lines: Vec<&str> = script.skeleton.lines().collect();
        let at = |mark: &str| lines.iter().position(|line| line.contains(mark)).unwrap();
        let from = at("exit 97") + 1;
        Ok(lines[from..at("rc=$?")]
            .iter()
            .filter(|l| !l.contains("Start Test"))
            .copied()
            .collect::<Vec<_>>()
            .join("; "))
    }

    #[test]
    fn words_become_one_command_each() {
        let check = |json: &str, expected: &str| assert_eq!(line_of(json).as_deref(), Ok(expected), "{json}");
        let report = "python -m pytest -rA -o junit_family=xunit1 --junitxml=\"${BOTTEGA_REPORT:-/tmp/bottega-report.xml}\"";
        check(
            r#"{"command":["pytest","-x"],"targets":["tests/test_a.py"]}"#,
            &format!("{report} -x tests/test_a.py"),
        );
        check(
            r#"{"command":["python","-m","pytest","-k","a b; $(rm -rf /)"],"targets":["tests/test_new.py"]}"#,
            &format!("{report} -k 'a b; $(rm -rf /)' tests/test_new.py"),
        );
        check(
            r#"{"command":["python","tests/run.py","a"],"targets":["tests/test_a.py"],"report":"exit-status","setup":[["export","A=b c"]]}"#,
            "export 'A=b c'; python tests/run.py a",
        );
        check(
            r#"{"command":["pytest"],"directory":"sub","targets":["t.py"]}"#,
            &format!("cd sub; {report} t.py"),
        );
    }

    #[test]
    fn what_could_cheat_cannot_be_said() {
        let check = |json: &str, expected: &str| {
            let why = line_of(json).expect_err(json);
            assert!(why.contains(expected), "{json}: {why}");
        };
        let own = |command: &str| {
            format!(r#"{{"command":{command},"targets":["tests/test_a.py"],"report":"exit-status"}}"#)
        };
        check(&own(r#"["bash","-c","grep -q fix a.py"]"#), "no test runner");
        check(&own(r#"["grep","-q","fix","a.py"]"#), "no test runner");
        check(&own(r#"["true"]"#), "no test runner");
        check(&own(r#"["python","-c","exit(0)"]"#), "never -c");
        check(&own(r#"["python","/opt/cheat.py"]"#), "never -c");
        check(&own("[]"), "command is empty");
        let pytest = |command: &str, more: &str| {
            format!(r#"{{"command":{command},"targets":["tests/test_a.py"]{more}}}"#)
        };
        check(&pytest(r#"["cp","pass.xml","report"]"#, ""), "begins with python -m pytest");
        check(&pytest(r#"["pytest","--junitxml=/dev/null"]"#, ""), "asked for by us");
        check(&pytest(r#"["pytest","--collect-only"]"#, ""), "are to run");
        check(&pytest(r#"["pytest","a\nb"]"#, ""), "control character");
        check(
            &pytest(r#"["pytest"]"#, r#","setup":[["sed","-i","s/1/2/","tests/test_a.py"]]"#),
            "set-up command",
        );
        check(&pytest(r#"["pytest"]"#, r#","setup":[["export","PATH=/opt/cheat"]]"#), "set-up command");
        check(&pytest(r#"["pytest"]"#, r#","setup":[["export","A;b=1"]]"#), "set-up command");
        check(&pytest(r#"["pytest"]"#, r#","directory":"../etc""#), "not in the tree");
        check(r#"{"command":["pytest"],"targets":["/etc/passwd"]}"#, "neither a file");
        check(r#"{"command":["pytest"],"targets":[]}"#, "targets is empty");
    }
}
