//! What agents say, checked and put into the form that every brain gives.

use queue_format::PythonRecord;

use super::answer::Found;
use crate::engine::dockerfile::check;
use crate::synthesis::patch::PatchedFile;
use crate::synthesis::tree::Tree;
use crate::synthesis::{Dockerfile, Findings, Subject};

/// Facts kept of one exploration, and the longest.
const FACTS_MAX: usize = 40;
const FACT_CHARS_MAX: usize = 500;
/// The longest Dockerfile of an agent, in bytes: so much the analyst can be shown whole, whatever else it is shown.
const DOCKERFILE_BYTES_MAX: usize = 16 << 10;
/// What follows every Dockerfile of an agent: what was installed is written down, and the tree is the tests' user's. Last of
/// all tracked files and git's own are as the context has them, whatever stands in the image: the engine copies them, and
/// nothing of the image runs after it.
const FINISH: &str = "USER root\nRUN [\"bash\", \"-lc\", \"mkdir -p /opt/bottega && (uv pip freeze --exclude-editable || python -m pip freeze --exclude-editable) | sed /file:/d > /opt/bottega/requirements.lock && rm -rf /testbed/.git && find /testbed ! -user 1000 -exec chown -h 1000:1000 {} +\"]\nCOPY --chown=1000:1000 repo /testbed\n";

/// The Pythons that there are images for.
pub(super) fn pythons(subject: &Subject) -> String {
    subject.pythons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Checks what an explorer says against what there is.
pub(super) fn check_findings(
    found: &Found,
    subject: &Subject,
    tree: &Tree,
    patched: &[PatchedFile],
) -> Result<(), String> {
    if !subject.pythons.iter().any(|python| python.to_string() == found.python) {
        return Err(format!(
            "there is no image of Python {:?}: choose of {}",
            found.python,
            pythons(subject)
        ));
    }
    let is_there = |path: &&String| tree.has(path) || patched.iter().any(|file| file.path == **path);
    match found.targets.iter().find(|path| !is_there(path)) {
        Some(path) => Err(format!("target {path:?} is neither a file of the tree nor of the test patch")),
        None => Ok(()),
    }
}

/// Findings as every brain gives them.
pub(super) fn findings_of(found: Found, of_rules: Option<&Findings>) -> Findings {
    let fact = |fact: String| fact.chars().take(FACT_CHARS_MAX).collect();
    let wanted = of_rules.map_or_else(|| found.python.clone(), |findings| findings.python.wanted.clone());
    Findings {
        python: PythonRecord { wanted, used: found.python, why: fact(found.why) },
        facts: found.facts.into_iter().take(FACTS_MAX).map(fact).collect(),
        targets: found.targets,
    }
}

/// A Dockerfile that can be built, with what follows every one; the rules' own has that already.
pub(super) fn finished(
    text: &str,
    bases: &[String],
    of_rules: Option<&Dockerfile>,
) -> Result<Dockerfile, String> {
    let text = text.trim_end().to_owned() + "\n";
    if text.len() > DOCKERFILE_BYTES_MAX {
        return Err(format!(
            "it has {} bytes, and {DOCKERFILE_BYTES_MAX} at most are judged: be briefer",
            text.len()
        ));
    }
    check(&text, bases).map_err(|refused| refused.to_string())?;
    if let Some(same) = of_rules.filter(|dockerfile| dockerfile.0 == text) {
        return Ok(same.clone());
    }
    // It would take what follows for its own.
    if text.trim_end().ends_with('\\') {
        return Err("its last line ends with a backslash".to_owned());
    }
    let has_tree = text
        .lines()
        .any(|line| line.starts_with("COPY") && line.contains("repo") && line.contains("/testbed"));
    if !has_tree {
        return Err("the tree is missing: COPY --chown=1000:1000 repo /testbed".to_owned());
    }
    let text = text + FINISH;
    check(&text, bases).map_err(|refused| refused.to_string())?;
    Ok(Dockerfile(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_is_linted_and_finished() {
        let bases = ["openswe-python-3.11".to_owned()];
        let good = "FROM openswe-python-3.11\nCOPY repo /testbed\nRUN bash -lc 'pip install -e .'\n";
        let of_rules = Dockerfile(format!("{good}RUN bash -lc 'git -C /testbed checkout --quiet -- .'\n"));
        let check = |text: &str, expected: Result<bool, &str>| match (
            finished(text, &bases, Some(&of_rules)),
            expected,
        ) {
            (Ok(dockerfile), Ok(is_added)) => {
                assert_eq!(dockerfile.0.ends_with(FINISH), is_added, "{text}");
            }
            (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
            (got, _) => panic!("{text}: {got:?}"),
        };
        check(good, Ok(true));
        check(of_rules.0.trim(), Ok(false));
        check(&of_rules.0.replace("-- .", "-- . && sed -i s/1/2/ t.py"), Ok(true));
        check("FROM python:3.11\nCOPY repo /testbed", Err("no base image"));
        check("FROM openswe-python-3.11\nADD https://x /testbed", Err("ADD"));
        check("FROM openswe-python-3.11\nRUN git clone x /testbed", Err("tree is missing"));
        check("FROM openswe-python-3.11\nCOPY repo /testbed\nRUN true \\", Err("backslash"));
        check("", Err("FROM"));
        let with = |bytes: usize| format!("{good}ENV A={}", "x".repeat(bytes - good.len() - 7));
        check(&with(DOCKERFILE_BYTES_MAX), Ok(true));
        check(&with(DOCKERFILE_BYTES_MAX + 1), Err("be briefer"));
    }
}
