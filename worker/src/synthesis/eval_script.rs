use base_images::PythonVersion;

use super::recipe::Recipe;
use super::targets::Runner;
use super::{EvalScript, REPORT_VARIABLE, ReportKind, TEST_PATCH_PLACEHOLDER};

/// The exit status of an evaluation script whose test patch did not apply.
pub const PATCH_FAILED_EXIT_CODE: i32 = 97;

/// Ends the test patch in the script; the test patch must not hold it as a line.
const TERMINATOR: &str = "EOF_114329324912";
/// Where the report goes without Bottega.
const REPORT_PATH: &str = "/tmp/bottega-report.xml";

/// Writes the script that applies the test patch and runs the targeted tests.
pub(super) fn write(recipe: &Recipe) -> EvalScript {
    let (command, report) = match &recipe.runner {
        Runner::Pytest => (pytest(recipe), ReportKind::JUnit),
        Runner::Command(command) => (command.clone(), ReportKind::ExitStatus),
    };
    let skeleton = skeleton(recipe.python, &recipe.directory, &[], &command);
    EvalScript { skeleton, report, targets: recipe.targets.clone() }
}

/// The script around a test command, whoever chose that: `setup` are commands before it.
pub(crate) fn skeleton(python: PythonVersion, directory: &str, setup: &[String], command: &str) -> String {
    let mut lines = vec![
        "#!/bin/bash".to_owned(),
        ". /opt/conda/etc/profile.d/conda.sh".to_owned(),
        "conda activate testbed".to_owned(),
        "cd /testbed".to_owned(),
    ];
    if may_have_old_git(python) {
        lines.push("# git before 2.35 does not know --allow-empty.".to_owned());
        lines.push("if ! git apply -h 2>&1 | grep -q allow-empty; then".to_owned());
        lines.push("    git() { command git \"${@/#--allow-empty/--verbose}\"; }".to_owned());
        lines.push("fi".to_owned());
    }
    lines.push(format!("git apply -v --allow-empty - <<'{TERMINATOR}'"));
    lines.push(TEST_PATCH_PLACEHOLDER.to_owned());
    lines.push(TERMINATOR.to_owned());
    lines.push(format!("if [ $? -ne 0 ]; then exit {PATCH_FAILED_EXIT_CODE}; fi"));
    if !directory.is_empty() {
        lines.push(format!("cd {}", quoted(directory)));
    }
    lines.extend_from_slice(setup);
    lines.push("echo '>>>>> Start Test Output'".to_owned());
    lines.push(command.to_owned());
    lines.push("rc=$?".to_owned());
    lines.push("echo '>>>>> End Test Output'".to_owned());
    lines.push("echo \"OPENSWE_EXIT_CODE=$rc\"".to_owned());
    lines.push("exit \"$rc\"".to_owned());
    lines.join("\n") + "\n"
}

fn pytest(recipe: &Recipe) -> String {
    let call = &recipe.pytest;
    let mut words = vec!["python -m pytest -rA".to_owned()];
    if !call.keeps_cache {
        words.push("-p no:cacheprovider".to_owned());
    }
    words.push(report_option());
    if let Some(addopts) = &call.addopts {
        let value = addopts.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        words.push(format!("-o {}", quoted(&format!("addopts={value}"))));
    }
    words.extend(call.arguments.iter().map(|word| quoted(word)));
    words.extend(recipe.targets.iter().map(|path| target(path)));
    words.join(" ")
}

/// Asks pytest for the report that tells each test.
pub(crate) fn report_option() -> String {
    format!("-o junit_family=xunit1 --junitxml=\"${{{REPORT_VARIABLE}:-{REPORT_PATH}}}\"")
}

/// A test file as an argument, never as an option.
pub(crate) fn target(path: &str) -> String {
    let path = if path.starts_with('-') { format!("./{path}") } else { path.to_owned() };
    quoted(&path)
}

/// For a shell; what no shell can hold is left out.
pub(crate) fn quoted(word: &str) -> String {
    let word: String = word.chars().filter(|c| *c != '\0' && *c != '\n').collect();
    shlex::try_quote(&word).map(std::borrow::Cow::into_owned).unwrap_or_default()
}

/// Debian 11, which one provider takes 3.9 from, has git 2.30.
fn may_have_old_git(python: PythonVersion) -> bool {
    python <= PythonVersion::new(3, 9)
}

#[cfg(test)]
mod tests {
    use super::super::recipe::tests::recipe;
    use super::*;

    #[test]
    fn writes_the_script_of_the_format() {
        let mut recipe = recipe(PythonVersion::new(3, 11));
        insta::assert_snapshot!("eval_script", write(&recipe).skeleton);
        recipe.python = PythonVersion::new(3, 9);
        recipe.pytest.keeps_cache = true;
        recipe.pytest.addopts = Some(vec!["-m".to_owned(), "not slow".to_owned()]);
        recipe.pytest.arguments = vec!["--no-cov".to_owned()];
        recipe.targets = vec!["tests/test it's.py".to_owned(), "-x.py".to_owned()];
        insta::assert_snapshot!("eval_script_with_options", write(&recipe).skeleton);
    }

    #[test]
    fn goes_where_the_project_is() {
        let mut recipe = recipe(PythonVersion::new(3, 11));
        recipe.directory = "python/thing".to_owned();
        let lines = write(&recipe).skeleton;
        assert!(
            lines.contains("\ncd python/thing\necho '>>>>> Start Test Output'\npython -m pytest"),
            "{lines}"
        );
    }

    #[test]
    fn runs_a_projects_own_runner() {
        let mut recipe = recipe(PythonVersion::new(3, 11));
        recipe.runner = Runner::Command("python tool.py --testsuite testsuite".to_owned());
        let script = write(&recipe);
        assert_eq!(script.report, ReportKind::ExitStatus);
        assert!(script.skeleton.contains("\npython tool.py --testsuite testsuite\nrc=$?\n"));
    }
}
