use base_images::{Installer, PythonVersion};

use super::Dockerfile;
use super::recipe::{Install, Recipe};
use super::text::Requirement;

/// Where the worker finds what was installed.
const LOCK: &str = "/opt/bottega/requirements.lock";
const CONSTRAINTS: &str = "/opt/bottega/constraints.txt";
/// The project's name: nothing may install it from an index in place of the tree.
const PROJECT_NAME: &str = "/opt/bottega/project-name.txt";
const PROJECT_REQUIREMENTS: &str = "/opt/bottega/project-requirements.txt";
/// What the build needed, at its versions.
const BUILD_TOOLS: &str = "/opt/bottega/build-tools.txt";
const ALL_REQUIREMENTS: &str = "/opt/bottega/requirements.txt";

/// Writes a recipe down. What depends on the tree comes after `COPY`, so that tasks share the layers before it.
pub(super) fn write(recipe: &Recipe) -> Dockerfile {
    let mut lines = vec![format!("FROM {}", recipe.python.image())];
    if recipe.python.installer() == Installer::UvWithoutEditable {
        lines.push("# uv's byte-compiler needs a newer Python than this.".to_owned());
        lines.push("ENV UV_COMPILE_BYTECODE=0".to_owned());
    }
    lines.extend(
        recipe.environment.iter().map(|(name, value)| format!("ENV {name}={}", double_quoted(value))),
    );
    if !recipe.system_packages.is_empty() {
        let packages: Vec<&str> = recipe.system_packages.iter().map(String::as_str).collect();
        lines.push(format!(
            "RUN apt-get update && apt-get install --yes --no-install-recommends {} && rm -rf /var/lib/apt/lists/*",
            packages.join(" ")
        ));
    }
    if !recipe.build_tools.is_empty() {
        lines.push(login_shell(&format!("{} {}", undated_install(recipe), quoted_list(&recipe.build_tools))));
    }
    if !recipe.constraints.is_empty() {
        let constraints: Vec<String> = recipe.constraints.iter().cloned().collect();
        lines.push(login_shell(&format!(
            "mkdir -p /opt/bottega && printf \"%s\\n\" {} > {CONSTRAINTS}",
            quoted_list(&constraints)
        )));
    }
    lines.push("COPY --chown=1000:1000 repo /testbed".to_owned());
    lines.push(format!("WORKDIR {}/", recipe.workdir()));
    lines.extend(install(recipe).into_iter().map(|command| login_shell(&command)));
    if !recipe.undated.is_empty() {
        lines.push(login_shell(&format!("{} {}", undated_install(recipe), quoted_list(&recipe.undated))));
    }
    lines.push(login_shell(&finish(recipe)));
    Dockerfile(lines.join("\n") + "\n")
}

/// The project first, with the build tools of today; then what it and its tests need, as of the date.
fn install(recipe: &Recipe) -> Vec<String> {
    let project = match recipe.install {
        Install::Editable => "uv pip install --no-deps --no-build-isolation -e .".to_owned(),
        Install::PipEditable => "python -m pip install --no-deps --no-build-isolation -e .".to_owned(),
        Install::Develop => "python setup.py develop --no-deps".to_owned(),
        Install::PlainAndPath => {
            format!("python -m pip install --no-deps --no-build-isolation . && {}", path_file(recipe))
        }
        Install::Path => path_file(recipe),
    };
    let tell_name = match &recipe.name {
        Some(name) => format!("echo {name}"),
        None if recipe.install == Install::Path => "echo".to_owned(),
        // Computed by the setup script: only running it tells.
        None => "python setup.py --quiet --name | tail -n 1".to_owned(),
    };
    let prepare = format!("mkdir -p /opt/bottega && {tell_name} > {PROJECT_NAME}");
    let wanted = requirement_list(&recipe.requirements);
    if recipe.install == Install::Path {
        let wanted = format!("{} {wanted}", requirement_list(&recipe.runtime));
        return vec![format!("{project} && {prepare}"), dated(recipe, wanted.trim())];
    }
    let declared =
        format!("{} \"$(cat {PROJECT_NAME})\" > {PROJECT_REQUIREMENTS}", declared_requirements(recipe));
    vec![
        format!("{project} && {prepare} && {declared}"),
        dated(recipe, &format!("-r {PROJECT_REQUIREMENTS} {wanted}")),
    ]
}

/// Prints what the installed project declares, of the wanted extras too; the project's name is its argument.
fn declared_requirements(recipe: &Recipe) -> String {
    let mut extras: Vec<String> = recipe.extras.iter().map(|extra| format!("\"{extra}\"")).collect();
    let program = if recipe.python >= PythonVersion::new(3, 8) {
        extras.push("\"\"".to_owned());
        format!(
            "import sys; from importlib.metadata import requires; from pip._vendor.packaging.requirements import Requirement as R; \
             print(*[l.split(\";\")[0] for l in requires(sys.argv[1]) or [] if R(l).marker is None or \
             any(R(l).marker.evaluate({{\"extra\": e}}) for e in [{}])], sep=\"\\n\")",
            extras.join(", ")
        )
    } else {
        format!(
            "from __future__ import print_function; import sys, pkg_resources; \
             print(*[str(r).split(\";\")[0] for r in pkg_resources.get_distribution(sys.argv[1]).requires([{}])], sep=\"\\n\")",
            extras.join(", ")
        )
    };
    format!("python -W ignore -c \"{}\"", program.replace('"', "\\\""))
}

/// Puts the tree before everything else that is installed: a line of a path file that begins with `import` runs.
fn path_file(recipe: &Recipe) -> String {
    format!(
        "echo \"import sys; sys.path.insert(0, \\\"{}\\\")\" > \"$(python -c \"import sysconfig; print(sysconfig.get_paths()[\\\"purelib\\\"])\")/testbed.pth\"",
        recipe.source_dir()
    )
}

/// Installs as of the date: with uv, or for Pythons that uv cannot enter by a lock that uv resolves for them.
fn dated(recipe: &Recipe, wanted: &str) -> String {
    if recipe.python.installer() != Installer::PipFromLock {
        return format!("{} && {} {wanted}", without_build_tools(recipe), dated_install(recipe));
    }
    let (files, names): (Vec<&str>, Vec<&str>) =
        wanted.split_whitespace().filter(|word| *word != "-r").partition(|word| word.starts_with('/'));
    let gather = format!("printf \"%s\\n\" {} > {ALL_REQUIREMENTS}", names.join(" "));
    let gather =
        files.iter().fold(gather, |gather, file| format!("{gather} && cat {file} >> {ALL_REQUIREMENTS}"));
    format!(
        "mkdir -p /opt/bottega && {gather} && uv pip compile --quiet --excludes {PROJECT_NAME} --python /usr/bin/python3 --python-version {} {} {ALL_REQUIREMENTS} --output-file {ALL_REQUIREMENTS}.lock && python -m pip install --no-deps -r {ALL_REQUIREMENTS}.lock",
        recipe.python,
        cut(recipe)
    )
}

/// Takes away what only the build needed: the resolver would keep whatever is there, however new. From Python 3.12 on
/// environments have no setuptools of their own, so today's may stay for those who still expect one.
fn without_build_tools(recipe: &Recipe) -> String {
    let kept = if recipe.python < PythonVersion::new(3, 12) { "pip" } else { "\\(pip\\|setuptools\\)" };
    format!(
        "uv pip freeze --exclude-editable | sed \"/^{kept}=/d; /file:/d\" > {BUILD_TOOLS} && uv pip uninstall -r {BUILD_TOOLS}"
    )
}

fn dated_install(recipe: &Recipe) -> String {
    let constraints =
        if recipe.constraints.is_empty() { String::new() } else { format!(" -c {CONSTRAINTS}") };
    format!("uv pip install --upgrade {} --excludes {PROJECT_NAME}{constraints}", cut(recipe))
}

fn cut(recipe: &Recipe) -> String {
    let Some(date) = recipe.exclude_newer else { return String::new() };
    let mut options = vec![format!("--exclude-newer {date}")];
    options.extend(
        recipe
            .exclude_newer_package
            .iter()
            .map(|(name, date)| format!("--exclude-newer-package {name}={date}")),
    );
    options.join(" ")
}

fn undated_install(recipe: &Recipe) -> &'static str {
    match recipe.python.installer() {
        Installer::PipFromLock => "python -m pip install",
        Installer::Uv | Installer::UvWithoutEditable => "uv pip install",
    }
}

/// Writes the lock, undoes what the installation did to tracked files, and gives the tree to the tests' user.
fn finish(recipe: &Recipe) -> String {
    let freeze = match recipe.python.installer() {
        Installer::PipFromLock => "python -m pip freeze --exclude-editable",
        Installer::Uv | Installer::UvWithoutEditable => "uv pip freeze --exclude-editable",
    };
    format!(
        "mkdir -p /opt/bottega && {freeze} | sed /file:/d > {LOCK} && git -C /testbed checkout --quiet -- . && find /testbed ! -user 1000 -exec chown -h 1000:1000 {{}} +"
    )
}

fn requirement_list(requirements: &[Requirement]) -> String {
    quoted_list(&requirements.iter().map(Requirement::text).collect::<Vec<_>>())
}

fn quoted_list(words: &[String]) -> String {
    words.iter().map(|word| double_quoted(word)).collect::<Vec<_>>().join(" ")
}

/// In double quotes, so that it can stand inside the single quotes of a login shell.
fn double_quoted(word: &str) -> String {
    let plain: String = word.chars().filter(|c| !c.is_control() && !"'\"\\$`".contains(*c)).collect();
    format!("\"{plain}\"")
}

fn login_shell(command: &str) -> String {
    format!("RUN bash -lc '{command}'")
}

#[cfg(test)]
mod tests {
    use super::super::recipe::tests::recipe;
    use super::*;
    use crate::engine::dockerfile::check;

    /// What is written, which every build would take.
    fn text_of(recipe: &Recipe) -> String {
        let text = write(recipe).0;
        let checked = check(&text, &[recipe.python.image()]);
        assert!(checked.is_ok(), "{checked:?}");
        text
    }

    #[test]
    fn writes_a_dockerfile_that_a_person_can_read() {
        let mut recipe = recipe(PythonVersion::new(3, 9));
        recipe.system_packages.insert("libxml2-dev".to_owned());
        recipe.build_tools.push("setuptools-scm>=3.4".to_owned());
        recipe.extras.push("test".to_owned());
        recipe.environment.insert("SETUPTOOLS_SCM_PRETEND_VERSION".to_owned(), "1.0.0".to_owned());
        insta::assert_snapshot!("dockerfile", text_of(&recipe));
    }

    #[test]
    fn writes_what_each_python_can_do() {
        let mut recipe = recipe(PythonVersion::new(3, 6));
        recipe.install = Install::PipEditable;
        insta::assert_snapshot!("dockerfile_python_3_6", text_of(&recipe));
        recipe.python = PythonVersion::new(2, 7);
        recipe.name = None;
        insta::assert_snapshot!("dockerfile_python_2_7", text_of(&recipe));
        recipe.python = PythonVersion::new(3, 11);
        recipe.install = Install::Path;
        recipe.exclude_newer = None;
        recipe.constraints.insert("mock==2.0".to_owned());
        insta::assert_snapshot!("dockerfile_by_path", text_of(&recipe));
    }

    #[test]
    fn lets_nothing_out_of_its_quotes() {
        for (word, expected) in [("pytest>=6", "\"pytest>=6\""), ("a\"'$(rm -rf /)`\\\n", "\"a(rm -rf /)\"")]
        {
            assert_eq!(double_quoted(word), expected);
        }
    }
}
