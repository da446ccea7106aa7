/// What directories and files with tests are called, alone or beside other words.
///
/// Fewer than OpenSWE's (section 3.2: `*test*`, `*spec*`, `*e2e*`), which only count, while these part a patch: a fix of
/// `inspect.py` that is taken for a test stands in front of whoever is to find it, and is missing in what is learnt.
pub const TEST_WORDS: [&str; 6] = ["test", "testing", "unittest", "testdata", "conftest", "e2e"];

/// Files of these kinds tell of tests; those in a directory of tests belong to them.
const PROSE: [&str; 5] = [".md", ".rst", ".txt", ".adoc", ".html"];

/// Which paths are tests: those of which a directory or the file has one of some words in its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestPaths {
    words: Vec<String>,
}

impl Default for TestPaths {
    fn default() -> Self {
        Self::new(&TEST_WORDS)
    }
}

impl TestPaths {
    /// Paths that have one of `words` in them, or its plural, in whatever case.
    #[must_use]
    pub fn new<S: AsRef<str>>(words: &[S]) -> Self {
        Self { words: words.iter().map(|word| word.as_ref().to_ascii_lowercase()).collect() }
    }

    /// Whether this path is a test.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        let (dirs, file) = path.rsplit_once('/').unwrap_or(("", path));
        let is_prose = PROSE.iter().any(|end| file.to_ascii_lowercase().ends_with(end));
        dirs.split('/').chain((!is_prose).then_some(file)).any(|name| self.is_said_by(name))
    }

    /// Whether a name has one of the words in it: `test` is in `test_x`, `x-tests`, `TestX`, not in `latest` and `inspect`.
    fn is_said_by(&self, name: &str) -> bool {
        let lower = name.to_ascii_lowercase();
        self.words.iter().any(|word| {
            lower.match_indices(word.as_str()).any(|(begin, _)| {
                let end = begin + word.len();
                let end = if lower[end..].starts_with('s') { [end, end + 1] } else { [end, end] };
                is_border(name, begin) && end.into_iter().any(|end| is_border(name, end))
            })
        })
    }
}

/// Whether a word can begin or end there: beside what is no letter, and before a capital that follows a small letter.
fn is_border(name: &str, at: usize) -> bool {
    let (before, after) = (name[..at].chars().next_back(), name[at..].chars().next());
    match (before, after) {
        (Some(before), Some(after)) => {
            let is_inside = before.is_alphabetic() && after.is_alphabetic();
            !is_inside || before.is_lowercase() && after.is_uppercase()
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_people_call_tests() {
        let known = TestPaths::default();
        for test in [
            "test.py",
            "tests.py",
            "a/test_b.py",
            "a/b_test.py",
            "a/b-tests/c.py",
            "tests/data/x.txt",
            "Tests/x.rst",
            "conftest.py",
            "pkg/testing/x.py",
            "pkg/_testing/x.py",
            "TestThat.py",
            "a/ThatTest.py",
            "test2/x",
            "integration_tests_slow/x",
            "src/testdata/x.json",
            "e2e/x.py",
            "web/e2e-run.ts",
            "é/test_é.py",
        ] {
            assert!(known.has(test), "{test}");
        }
        for other in [
            "",
            "a/b.py",
            "latest.py",
            "contest.py",
            "docs/test.md",
            "docs/testing.rst",
            "requirements-test.txt",
            "attest/x.py",
            "sphinx/util/inspect.py",
            "packaging/specifiers.py",
            "openapi/spec.py",
            "src/_pytest/python.py",
            "greatestHits.py",
            "x/testé.py",
            "one2e2.py",
        ] {
            assert!(!known.has(other), "{other}");
        }
    }

    #[test]
    fn other_words_can_be_named() {
        let words = TestPaths::new(&["Spec"]);
        assert!(words.has("spec/a.rb") && words.has("a.specs.ts") && !words.has("inspect.py"));
        assert!(!words.has("tests/x.py"));
    }
}
