//! From an agent's choice to an evaluation script. The agent gives words, never shell: what a script must not do cannot be
//! said in them.

use base_images::PythonVersion;

use super::answer::{Choice, Report};
use super::words::{CLEAN, PYTEST, Place, check_pytest, own_runner, setup_command};
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

/// The longest script, in bytes: so much the analyst can be shown whole, whatever else it is shown.
const SCRIPT_BYTES_MAX: usize = 16 << 10;

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
    let place = Place { tree, patched, prefix };
    if let Some(path) = choice.targets.iter().find(|path| !place.will_have(path)) {
        return Err(format!("target {path:?} is neither a file of the tree nor of the test patch"));
    }
    let mut setup = vec![CLEAN.to_owned()];
    for words in &choice.setup {
        setup.push(setup_command(words, &place)?);
    }
    let command = match choice.report {
        Report::Junit => pytest(choice, &place)?,
        Report::ExitStatus => own_runner(choice, &place)?,
    };
    let report = match choice.report {
        Report::Junit => ReportKind::JUnit,
        Report::ExitStatus => ReportKind::ExitStatus,
    };
    let skeleton = skeleton(python, &choice.directory, &setup, &command);
    if skeleton.len() > SCRIPT_BYTES_MAX {
        return Err(format!(
            "its script has {} bytes, and {SCRIPT_BYTES_MAX} at most are judged: use fewer and shorter words",
            skeleton.len()
        ));
    }
    Ok(EvalScript { skeleton, report, targets: choice.targets.clone() })
}

fn check_directory(directory: &str, tree: &Tree) -> Result<(), String> {
    match directory.is_empty() || tree.has_directory(directory) {
        true => Ok(()),
        false => Err(format!("directory {directory:?} is not in the tree; write \"\" for /testbed")),
    }
}

fn pytest(choice: &Choice, place: &Place<'_>) -> Result<String, String> {
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
    check_pytest(options, place)?;
    let mut command = vec!["python -m pytest -rA".to_owned(), report_option()];
    // A target that is named twice would run twice.
    let more = options.iter().filter(|word| !choice.targets.iter().any(|target| target == *word));
    command.extend(more.map(|word| quoted(word)));
    command.extend(choice.targets.iter().map(|path| target(path)));
    Ok(command.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(json: &str) -> Result<String, String> {
        let files = [
            "tests/test_a.py",
            "tests/test_b.py",
            "tests/run.py",
            "sub/t.py",
            "run.sh",
            "Makefile",
            "setup.py",
        ];
        let (_guard, tree) = Tree::of(&files.map(|path| (path, "")));
        let added = PatchedFile { path: "tests/test_new.py".to_owned(), ..PatchedFile::default() };
        let choice: Choice = serde_json::from_str(json).unwrap();
        let script = write(&choice, PythonVersion::new(3, 11), &tree, &[added])?;
        let lines: Vec<&str> = script.skeleton.lines().collect();
        let at = |mark: &str| lines.iter().position(|line| line.contains(mark)).unwrap();
        let from = at("exit 97") + 1;
        Ok(lines[from..at("rc=$?")]
            .iter()
            .filter(|l| !l.contains("Start Test") && **l != CLEAN)
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
        check(
            r#"{"command":["pytest","-p","no:cacheprovider","-o","addopts=-q","--color=no","-rA"],"targets":["tests/test_a.py"]}"#,
            &format!("{report} -p no:cacheprovider -o 'addopts=-q' '--color=no' -rA tests/test_a.py"),
        );
        let own = |command: &str, expected: &str| {
            let json =
                format!(r#"{{"command":{command},"targets":["tests/test_a.py"],"report":"exit-status"}}"#);
            check(&json, expected);
        };
        own(
            r#"["python","-m","unittest","-v","tests.test_a.A.test_x"]"#,
            "python -m unittest -v tests.test_a.A.test_x",
        );
        own(
            r#"["python","-m","unittest","tests.test_new","tests/test_a.py"]"#,
            "python -m unittest tests.test_new tests/test_a.py",
        );
        own(
            r#"["python","-m","unittest","discover","-s","tests","-p","*_a.py"]"#,
            "python -m unittest discover -s tests -p '*_a.py'",
        );
        own(r#"["python","-m","tests.run","queries"]"#, "python -m tests.run queries");
        own(r#"["make","test"]"#, "make -f Makefile test");
        own(r#"["run.sh","a"]"#, "./run.sh a");
        let set_up = |words: &str, expected: &str| {
            let json = format!(r#"{{"command":["pytest"],"targets":["tests/test_a.py"],"setup":[{words}]}}"#);
            check(&json, &format!("{expected}; {report} tests/test_a.py"));
        };
        set_up(r#"["export","PYTHONPATH=.:lib"]"#, "export 'PYTHONPATH=.:lib'");
        set_up(r#"["export","DJANGO_SETTINGS_MODULE=a.b"]"#, "export 'DJANGO_SETTINGS_MODULE=a.b'");
        set_up(r#"["python","setup.py","build_ext","--inplace"]"#, "python setup.py build_ext --inplace");
        set_up(r#"["make","ext"]"#, "make -f Makefile ext");
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
        let words = |bytes: usize| vec![format!("\"-k{}\"", "x".repeat(bytes)); WORDS_MAX - 3].join(",");
        let long =
            |bytes| format!(r#"{{"command":["pytest",{}],"targets":["tests/test_a.py"]}}"#, words(bytes));
        assert!(line_of(&long(100)).is_ok());
        check(&long(400), "at most are judged");
        check(&own(r#"["python","-c","exit(0)"]"#), "never -c");
        check(&own(r#"["python","/opt/cheat.py"]"#), "never -c");
        check(&own("[]"), "command is empty");
        check(&own(r#"["make","--eval=x:; grep -q fixed calc.py","x"]"#), "targets alone");
        check(&own(r#"["make","-f","/opt/x.mk","x"]"#), "targets alone");
        check(&own(r#"["make","SHELL=true","x"]"#), "targets alone");
        check(
            &own(r#"["python","-m","timeit","-n1","-r1","open('calc.py')"]"#),
            "expected a module of the tree",
        );
        check(&own(r#"["python","-m","pdb","-c","x","tests/run.py"]"#), "expected a module of the tree");
        check(&own(r#"["python","-m","pytest","tests/test_a.py"]"#), "has the report");
        check(&own(r#"["python","-m","unittest","tests.test_b"]"#), "none of the targets");
        check(&own(r#"["python","-m","unittest","tests.test_a","cheat.test_x"]"#), "no test of the tree");
        check(&own(r#"["python","-m","unittest","discover","-s/opt/cheat"]"#), "leads out");
        check(&own(r#"["trial","--help"]"#), "are to run");
        check(&own(r#"["tests/run.py","../opt/cheat.py"]"#), "leads out");
        check(&own(r#"["cheat.py"]"#), "no test runner");
        let pytest = |command: &str, more: &str| {
            format!(r#"{{"command":{command},"targets":["tests/test_a.py"]{more}}}"#)
        };
        check(&pytest(r#"["cp","pass.xml","report"]"#, ""), "begins with python -m pytest");
        check(&pytest(r#"["pytest","--junitxml=/dev/null"]"#, ""), "asked for by us");
        check(&pytest(r#"["pytest","--collect-only"]"#, ""), "are to run");
        check(&pytest(r#"["pytest","a\nb"]"#, ""), "control character");
        for option in [
            "--setup-only",
            "--setup-o",
            "--collect-o",
            "--co",
            "--fixtures-per-test",
            "--assert=plain",
            "--pyargs",
        ] {
            check(&pytest(&format!(r#"["pytest","{option}"]"#), ""), "are to run");
        }
        for words in [
            r#""-p","cheat""#,
            r#""-pcheat""#,
            r#""-xp","cheat""#,
            r#""-p","no:assertion""#,
            r#""-c","/opt/x.ini""#,
            r#""-qc/opt/x.ini""#,
            r#""--rootdir=/opt""#,
            r#""-o","junit_family=legacy""#,
            r#""-h""#,
        ] {
            check(&pytest(&format!(r#"["pytest",{words}]"#), ""), "those of the tree");
        }
        check(&pytest(r#"["pytest","-o","addopts=--setup-only"]"#, ""), "are to run");
        check(&pytest(r#"["pytest","/opt/test_cheat.py"]"#, ""), "leads out");
        check(&pytest(r#"["pytest","build/test_cheat.py::test_x"]"#, ""), "neither a file");
        for assignment in [
            "PYTEST_ADDOPTS=--setup-only",
            "PYTHONOPTIMIZE=1",
            "PYTHONPATH=/opt/cheat",
            "PYTHONPATH=..",
            "PYTHONHOME=/opt",
            "SHELLOPTS=x",
            "MAKEFLAGS=x",
            "LD_LIBRARY_PATH=/opt",
        ] {
            let more = format!(r#","setup":[["export","{assignment}"]]"#);
            check(&pytest(r#"["pytest"]"#, &more), "set-up command");
        }
        for (words, expected) in [
            (r#""python","../opt/cheat.py""#, "set-up command"),
            (r#""mkdir","../opt""#, "leads out"),
            (r#""python","opt/cheat""#, "set-up command"),
            (r#""python","-m","timeit","x""#, "set-up command"),
            (r#""python","-m","pip","install","x""#, "set-up command"),
            (r#""make","--eval=x:; sed -i s/1/2/ calc.py","x""#, "targets alone"),
        ] {
            check(&pytest(r#"["pytest"]"#, &format!(r#","setup":[[{words}]]"#)), expected);
        }
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
