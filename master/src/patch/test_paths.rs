/// Which paths are tests: those that have one of some words in them, as OpenSWE (section 3.2) tells them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestPaths {
    words: Vec<String>,
}

impl TestPaths {
    /// Paths that have one of `words` anywhere, in whatever case.
    #[must_use]
    pub fn new<S: AsRef<str>>(words: &[S]) -> Self {
        Self { words: words.iter().map(|word| word.as_ref().to_ascii_lowercase()).collect() }
    }

    /// Whether this path is a test.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        let path = path.to_ascii_lowercase();
        self.words.iter().any(|word| path.contains(word.as_str()))
    }
}
