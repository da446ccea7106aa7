use super::patch::PatchedFile;
use super::project::Project;
use super::tree::Tree;

/// The most test modules that are taken for what only data or helpers of tests change.
const INDIRECT_MAX: usize = 60;
/// The most test modules that a data file adds to modules that are targeted anyway.
const MENTIONING_MAX: usize = 10;
/// Shorter stems, such as `a`, name nothing.
const STEM_CHARS_MIN: usize = 4;
/// Directories whose Python files are data.
const DATA_DIRECTORIES: &[&str] = &[
    "data",
    "testdata",
    "fixtures",
    "resources",
    "samples",
    "input",
    "inputs",
    "snippets",
    "functional",
    "regrtest_data",
];

/// What runs the tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Runner {
    /// pytest on the targets.
    Pytest,
    /// A command of the project's own, which names no tests.
    Command(String),
}

/// Which tests to run, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Targets {
    /// Files, relative to the root, as they are after the test patch.
    pub(super) files: Vec<String>,
    /// What runs them.
    pub(super) runner: Runner,
    /// The project's own runner, should pytest see nothing.
    pub(super) fallback: Option<String>,
    /// How they were found.
    pub(super) facts: Vec<String>,
}

/// The tests that a test patch is about: the modules it changes that the runner collects, and for data and helpers
/// the modules that use them.
pub(super) fn choose(tree: &Tree, project: &Project, patched: &[PatchedFile]) -> Targets {
    let (direct, indirect): (Vec<&PatchedFile>, Vec<&PatchedFile>) =
        patched.iter().filter(|file| !file.deleted).partition(|file| is_target(tree, project, file));
    let mut files: Vec<String> = direct.iter().map(|file| file.path.clone()).collect();
    let mut facts = Vec::new();
    let own = indirect.iter().find_map(|file| own_command(project, &file.path));
    if files.is_empty()
        && let Some(command) = &own
    {
        facts.push(format!("the test patch changes data of the project's own runner: {command}"));
        let files = indirect.iter().map(|file| file.path.clone()).collect();
        return Targets { files, runner: Runner::Command(command.clone()), fallback: None, facts };
    }
    let modules: Vec<&str> = tree.files().filter(|path| is_module_of_tests(project, path)).collect();
    for file in &indirect {
        let exact = mentioning(tree, &modules, &file.path, files.is_empty());
        let (found, how) = if !exact.is_empty() {
            (exact, "names it")
        } else if direct.is_empty() {
            (beside(&modules, &file.path), "lies beside it")
        } else {
            continue;
        };
        let limit = if direct.is_empty() { INDIRECT_MAX } else { MENTIONING_MAX };
        let fresh: Vec<String> = found.into_iter().filter(|path| !files.contains(path)).take(limit).collect();
        if let Some(first) = fresh.first() {
            let more = if fresh.len() > 1 { format!(" and {} more", fresh.len() - 1) } else { String::new() };
            facts.push(format!("{} is no module of tests, {first}{more} {how}", file.path));
        }
        files.extend(fresh);
    }
    files.truncate(INDIRECT_MAX.max(direct.len()));
    Targets { files, runner: Runner::Pytest, fallback: own, facts }
}

/// Whether the runner, given this file, finds tests in it.
fn is_target(tree: &Tree, project: &Project, file: &PatchedFile) -> bool {
    let name = file.path.rsplit('/').next().unwrap_or(&file.path);
    if !name.ends_with(".py") {
        return project.pytest.collects_text(&file.path);
    }
    if matches!(name, "conftest.py" | "__init__.py" | "setup.py") {
        return false;
    }
    let text = format!("{}\n{}", tree.read(&file.path).unwrap_or_default(), file.added_text);
    if project.pytest.collects(&file.path) && !in_data_directory(&file.path) {
        // Only a pattern as wide as `tests/*.py` also matches helpers.
        return has_tests(&text) || patch_default_name(name);
    }
    !in_data_directory(&file.path) && has_tests(&text)
}

fn patch_default_name(name: &str) -> bool {
    name.starts_with("test_") || name.ends_with("_test.py")
}

fn is_module_of_tests(project: &Project, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.ends_with(".py")
        && !matches!(name, "conftest.py" | "__init__.py")
        && project.pytest.collects(path)
        && !in_data_directory(path)
}

fn in_data_directory(path: &str) -> bool {
    let Some((directory, _)) = path.rsplit_once('/') else { return false };
    directory.split('/').any(|part| DATA_DIRECTORIES.contains(&part))
}

/// Whether a text defines tests, as pytest and unittest know them.
fn has_tests(text: &str) -> bool {
    text.lines().map(str::trim_start).any(|line| {
        let function = line.strip_prefix("async ").unwrap_or(line);
        function.starts_with("def test")
            || (line.starts_with("class ") && (line.contains("TestCase") || line.starts_with("class Test")))
    })
}

/// The modules that name a file, or else a helper module, or else its directory.
fn mentioning(tree: &Tree, modules: &[&str], path: &str, also_directory: bool) -> Vec<String> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let is_package_file = matches!(name, "__init__.py" | "conftest.py");
    let last = directory.rsplit('/').next().unwrap_or_default();
    let mut keys: Vec<(&str, Match)> = Vec::new();
    if !is_package_file {
        keys.push((name, Match::Anywhere));
        if stem.len() >= STEM_CHARS_MIN {
            keys.push((stem, Match::Word));
        }
        if also_directory && !matches!(last, "" | "tests" | "test" | "testing") {
            keys.push((last, Match::Word));
        }
    }
    if keys.is_empty() {
        return Vec::new();
    }
    let texts: Vec<(&str, String)> = modules.iter().map(|m| (*m, tree.read(m).unwrap_or_default())).collect();
    for (key, how) in keys {
        let names = |text: &str| match how {
            Match::Anywhere => text.contains(key),
            Match::Word => contains_word(text, key),
        };
        let found: Vec<String> =
            texts.iter().filter(|(_, text)| names(text)).map(|(m, _)| (*m).to_owned()).collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// How a text names a file.
#[derive(Clone, Copy)]
enum Match {
    Anywhere,
    Word,
}

/// The modules in the nearest directory upwards that has any, itself or below.
fn beside(modules: &[&str], path: &str) -> Vec<String> {
    let mut directory = path;
    while let Some((parent, _)) = directory.rsplit_once('/') {
        let prefix = format!("{parent}/");
        let below: Vec<&&str> = modules.iter().filter(|module| module.starts_with(&prefix)).collect();
        let here: Vec<&&str> =
            below.iter().filter(|module| !module[prefix.len()..].contains('/')).copied().collect();
        let found = if here.is_empty() { below } else { here };
        if !found.is_empty() {
            return found.into_iter().map(|module| (*module).to_owned()).collect();
        }
        directory = parent;
    }
    Vec::new()
}

/// A command of the project that is given this file's directory and is no runner that names its tests.
fn own_command(project: &Project, path: &str) -> Option<String> {
    let (directory, _) = path.rsplit_once('/')?;
    let top = directory.split('/').next()?;
    let given = |command: &&String| {
        command
            .split_whitespace()
            .skip(1)
            .any(|word| word.trim_start_matches("./").trim_end_matches('/') == top || word == directory)
    };
    let found = project.commands.iter().filter(|command| is_own_runner(command)).find(given)?;
    Some(found.strip_prefix("coverage run ").map_or_else(|| found.clone(), |rest| format!("python {rest}")))
}

/// `python tool.py --testsuite …`, but neither pytest, nor unittest, nor nose.
fn is_own_runner(command: &str) -> bool {
    let known = ["pytest", "py.test", "unittest", "nose", "tox", "setup.py", "-m build", "doctest", " -c "];
    (command.starts_with("python ") || command.starts_with("coverage run "))
        && !known.iter().any(|name| command.contains(name))
}

/// Whether a word stands in a text with nothing that belongs to a name on either side.
fn contains_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        ![before, after].into_iter().flatten().any(|c| c.is_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::super::project;
    use super::*;

    fn patch_of(paths: &[&str]) -> Vec<PatchedFile> {
        let file = |path: &&str| PatchedFile { path: (*path).to_owned(), ..PatchedFile::default() };
        paths.iter().map(file).collect()
    }

    #[test]
    fn gives_the_runner_only_what_it_collects() {
        let check = |files: &[(&str, &str)], patched: &[&str], expected: &[&str]| {
            let (_root, tree) = Tree::of(files);
            let project = project::read(&tree);
            let targets = choose(&tree, &project, &patch_of(patched));
            assert_eq!(targets.files, expected, "{patched:?}");
            assert_eq!(targets.runner, Runner::Pytest);
        };
        let test = "def test_x(): pass\n";
        check(&[("tests/test_a.py", test)], &["tests/test_a.py"], &["tests/test_a.py"]);
        check(&[("pkg/tests/tests.py", test)], &["pkg/tests/tests.py"], &["pkg/tests/tests.py"]);
        check(
            &[("tests/test_a.py", test), ("tests/helpers.py", "x")],
            &["tests/test_a.py", "tests/helpers.py"],
            &["tests/test_a.py"],
        );
        check(
            &[
                ("tests/test_a.py", "load('defs.txt')"),
                ("tests/test_b.py", test),
                ("tests/fixtures/defs.txt", ""),
            ],
            &["tests/fixtures/defs.txt"],
            &["tests/test_a.py"],
        );
        check(
            &[("tests/test_a.py", test), ("tests/test_b.py", test), ("tests/__init__.py", "")],
            &["tests/__init__.py"],
            &["tests/test_a.py", "tests/test_b.py"],
        );
        check(
            &[
                ("test/test_normal.py", test),
                ("test/conftest.py", ""),
                ("test/issue_files/allowed.py", "def test(): x"),
            ],
            &["test/issue_files/allowed.py"],
            &["test/issue_files/allowed.py"],
        );
        check(
            &[
                ("tests/test_data.py", "glob('testing/data/*')"),
                ("tests/test_b.py", test),
                ("testing/data/E72.py", "def test(): x"),
            ],
            &["testing/data/E72.py"],
            &["tests/test_data.py"],
        );
        check(
            &[("docs/a.md", ""), ("pytest.ini", "[pytest]\naddopts = --doctest-glob=*.md")],
            &["docs/a.md"],
            &["docs/a.md"],
        );
    }

    #[test]
    fn finds_a_projects_own_runner() {
        let (_root, tree) = Tree::of(&[
            (
                "tox.ini",
                "[testenv]\ncommands =\n  {envpython} setup.py install\n  coverage run -m tool --testsuite testsuite\n  python setup.py test\n",
            ),
            ("testsuite/W60.py", "x"),
            ("testsuite/test_all.py", "def test(): pass"),
        ]);
        let project = project::read(&tree);
        let targets = choose(&tree, &project, &patch_of(&["testsuite/W60.py"]));
        assert_eq!(targets.runner, Runner::Command("python -m tool --testsuite testsuite".to_owned()));
        assert_eq!(targets.files, ["testsuite/W60.py"]);
    }
}
