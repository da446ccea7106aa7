use base_images::Installer;

use super::Dockerfile;
use super::recipe::{Install, Recipe};
use super::text::Requirement;

/// Where the worker finds what was installed.
const LOCK: &str = "/opt/bottega/requirements.lock";
const CONSTRAINTS: &str = "/opt/bottega/constraints.txt";
const PROJECT_REQUIREMENTS: &str = "/opt/bottega/project.txt";
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
    lines.push("WORKDIR /testbed/".to_owned());
    lines.extend(install(recipe).into_iter().map(|command| login_shell(&command)));
    if !recipe.undated.is_empty() {
        lines.push(login_shell(&format!("{} {}", undated_install(recipe), quoted_list(&recipe.undated))));
    }
    lines.push(login_shell(&finish(recipe)));
    Dockerfile(lines.join("\n") + "\n")
}

fn install(recipe: &Recipe) -> Vec<String> {
    let wanted = requirement_list(&recipe.requirements);
    match recipe.install {
        Install::Editable => {
            // The name is needed before the build tells it, so that only what the project needs is built in isolation.
            let project = match &recipe.name {
                Some(name) => {
                    format!(
                        "--no-build-isolation-package {name} -e \"{name}{} @ file:///testbed\"",
                        extras(recipe)
                    )
                }
                None => format!("--no-build-isolation -e \".{}\"", extras(recipe)),
            };
            vec![format!("{} {project} {wanted}", dated_install(recipe))]
        }
        Install::PipEditable => {
            let project = "python -m pip install --no-deps --no-build-isolation -e .".to_owned();
            vec![project, then_requirements(recipe, &wanted)]
        }
        Install::Develop => {
            vec!["python setup.py develop --no-deps".to_owned(), then_requirements(recipe, &wanted)]
        }
        Install::PlainAndPath => {
            let project = "python -m pip install --no-deps --no-build-isolation .".to_owned();
            vec![format!("{project} && {}", path_file(recipe)), then_requirements(recipe, &wanted)]
        }
        Install::Path => {
            let wanted = format!("{} {wanted}", requirement_list(&recipe.runtime));
            vec![path_file(recipe), dated(recipe, wanted.trim())]
        }
    }
}

/// Reads what the installed project declares, and installs it with the rest.
fn then_requirements(recipe: &Recipe, wanted: &str) -> String {
    let Some(name) = &recipe.name else {
        return dated(recipe, &format!("{} {wanted}", requirement_list(&recipe.runtime)));
    };
    let extras: Vec<String> = recipe.extras.iter().map(|extra| format!("\\\"{extra}\\\"")).collect();
    let read = format!(
        "python -W ignore -c \"import pkg_resources; print(*pkg_resources.get_distribution(\\\"{name}\\\").requires([{}]), sep=\\\"\\n\\\")\"",
        extras.join(", ")
    );
    // Python 2's print is no function.
    let read = if recipe.python.major() == 2 {
        read.replace("import pkg_resources;", "from __future__ import print_function; import pkg_resources;")
    } else {
        read
    };
    format!(
        "mkdir -p /opt/bottega && {read} > {PROJECT_REQUIREMENTS} && {}",
        dated(recipe, &format!("-r {PROJECT_REQUIREMENTS} {wanted}"))
    )
}

/// Puts the tree before everything else that is installed: a line of a path file that begins with `import` runs.
fn path_file(recipe: &Recipe) -> String {
    format!(
        "echo \"import sys; sys.path.insert(0, \\\"{}\\\")\" > \"$(python -c \"import sysconfig; print(sysconfig.get_paths()[\\\"purelib\\\"])\")/testbed.pth\"",
        recipe.source_dir
    )
}

/// Installs as of the date: with uv, or for Pythons that uv cannot enter by a lock that uv resolves for them.
fn dated(recipe: &Recipe, wanted: &str) -> String {
    if recipe.python.installer() != Installer::PipFromLock {
        return format!("{} {wanted}", dated_install(recipe));
    }
    let (files, names): (Vec<&str>, Vec<&str>) =
        wanted.split_whitespace().filter(|word| *word != "-r").partition(|word| word.starts_with('/'));
    let gather = format!("printf \"%s\\n\" {} > {ALL_REQUIREMENTS}", names.join(" "));
    let gather =
        files.iter().fold(gather, |gather, file| format!("{gather} && cat {file} >> {ALL_REQUIREMENTS}"));
    format!(
        "mkdir -p /opt/bottega && {gather} && uv pip compile --quiet --python /usr/bin/python3 --python-version {} {} {ALL_REQUIREMENTS} --output-file {ALL_REQUIREMENTS}.lock && python -m pip install --no-deps -r {ALL_REQUIREMENTS}.lock",
        recipe.python,
        cut(recipe)
    )
}

fn dated_install(recipe: &Recipe) -> String {
    let constraints =
        if recipe.constraints.is_empty() { String::new() } else { format!(" -c {CONSTRAINTS}") };
    format!("uv pip install --upgrade {}{constraints}", cut(recipe)).trim_end().to_owned()
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
        "mkdir -p /opt/bottega && {freeze} | sed /file:/d > {LOCK} && git checkout --quiet -- . && find /testbed ! -user 1000 -exec chown -h 1000:1000 {{}} +"
    )
}

fn extras(recipe: &Recipe) -> String {
    if recipe.extras.is_empty() { String::new() } else { format!("[{}]", recipe.extras.join(",")) }
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
