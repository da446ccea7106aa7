use super::reader::Reader;

/// A value written out in Python source; whatever is computed is `Unknown`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::synthesis) enum Literal {
    /// A string, adjacent ones joined.
    Text(String),
    /// A list, tuple or set.
    List(Vec<Literal>),
    /// A dictionary.
    Map(Vec<(Literal, Literal)>),
    /// Anything else.
    Unknown,
}

impl Literal {
    /// The string.
    pub(in crate::synthesis) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// All strings in a list, or the lines of one string: setuptools takes both.
    pub(in crate::synthesis) fn strings(&self) -> Vec<String> {
        match self {
            Self::Text(text) => text.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect(),
            Self::List(items) => items.iter().flat_map(Self::strings).collect(),
            Self::Map(_) | Self::Unknown => Vec::new(),
        }
    }

    pub(super) fn get(&self, key: &str) -> Self {
        let Self::Map(entries) = self else { return Self::Unknown };
        let found = entries.iter().rev().find(|(k, _)| k.text() == Some(key));
        found.map_or(Self::Unknown, |(_, value)| value.clone())
    }

    pub(super) fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => Self::Text(a + &b),
            (Self::List(a), Self::List(b)) => Self::List([a, b].concat()),
            // Half of a list is better than none of it.
            (Self::List(known), Self::Unknown) | (Self::Unknown, Self::List(known)) => Self::List(known),
            _ => Self::Unknown,
        }
    }
}

/// Python source that is read for its literals, never run.
#[derive(Clone, Copy, Debug)]
pub(in crate::synthesis) struct PythonSource<'a>(pub(in crate::synthesis) &'a str);

impl PythonSource<'_> {
    /// The value of `name=…` or `"name": …`, wherever it stands first.
    pub(in crate::synthesis) fn value(&self, name: &str) -> Option<Literal> {
        let found = self.argument(name)?;
        Some(self.with_later_keys(name, found, 0))
    }

    /// Every string given to calls of `function`.
    pub(in crate::synthesis) fn call_strings(&self, function: &str) -> Vec<String> {
        let pattern = format!("{function}(");
        let mut found = Vec::new();
        for (at, _) in self.0.match_indices(&pattern) {
            let mut reader = Reader { text: self.0, at: at + pattern.len(), depth: 0 };
            found.extend(reader.items(')', 0).iter().flat_map(Literal::strings));
        }
        found
    }

    fn argument(&self, name: &str) -> Option<Literal> {
        let mut best = None;
        for (at, _) in self.0.match_indices(name) {
            let before = self.0[..at].chars().next_back();
            let quoted = before.is_some_and(|c| c == '"' || c == '\'');
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.') {
                continue;
            }
            let rest = &self.0[at + name.len()..];
            let rest = if quoted { rest.get(1..).unwrap_or_default() } else { rest };
            let trimmed = rest.trim_start();
            let value = if quoted {
                trimmed.strip_prefix(':').or_else(|| trimmed.strip_prefix("]").and_then(after_equals))
            } else {
                after_equals(trimmed)
            };
            let Some(value) = value else { continue };
            let mut reader = Reader { text: self.0, at: self.0.len() - value.len(), depth: 0 };
            match reader.expression(0) {
                Literal::Unknown => best = best.or(Some(Literal::Unknown)),
                known => return Some(known),
            }
        }
        best
    }

    /// `extras["dev"] = …` after `extras = {…}`.
    ///
    /// Only the outermost name's: those of names within could refer to one another for ever.
    pub(super) fn with_later_keys(&self, name: &str, value: Literal, depth: usize) -> Literal {
        let Literal::Map(mut entries) = value else { return value };
        if depth > 0 {
            return Literal::Map(entries);
        }
        for (at, _) in self.0.match_indices(&format!("{name}[")) {
            let mut reader = Reader { text: self.0, at: at + name.len() + 1, depth: 1 };
            let key = reader.expression(0);
            let rest = self.0[reader.at..].trim_start();
            let Some(value) = rest.strip_prefix(']').map(str::trim_start).and_then(after_equals) else {
                continue;
            };
            reader.at = self.0.len() - value.len();
            let value = reader.expression(0);
            entries.push((key, value));
        }
        Literal::Map(entries)
    }
}

pub(super) fn after_equals(text: &str) -> Option<&str> {
    let value = text.trim_start().strip_prefix('=')?;
    (!value.starts_with('=')).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_from_a_setup_script() {
        let check = |source: &str, name: &str, expected: &[&str]| {
            let found = PythonSource(source).value(name).map(|value| value.strings()).unwrap_or_default();
            assert_eq!(found, expected, "{source}");
        };
        check("setup(tests_require=['pytest', \"mock>=2\"])", "tests_require", &["pytest", "mock>=2"]);
        check("setup(\n  tests_require = [\n 'a', # first\n 'b',\n ],\n)", "tests_require", &["a", "b"]);
        check("REQ = ['a']\nsetup(install_requires=REQ + ['b'])", "install_requires", &["a", "b"]);
        check("REQ = ('a', 'b')\nsetup(install_requires=list(REQ))", "install_requires", &["a", "b"]);
        check("setup(install_requires='a b'.split())", "install_requires", &["a", "b"]);
        check("setup(install_requires='''\na\nb\n''')", "install_requires", &["a", "b"]);
        check("setup(install_requires=read('req.txt'))", "install_requires", &[]);
        check("setup(**{'install_requires': ['a']})", "install_requires", &["a"]);
        check("my_install_requires = ['x']\nsetup(install_requires=['a'])", "install_requires", &["a"]);
        check("setup(python_requires='>=3.6' ', <4')", "python_requires", &[">=3.6, <4"]);
        check(
            "if install_requires == ['q']: pass\nsetup(install_requires=['a'])",
            "install_requires",
            &["a"],
        );
        check(&format!("setup(install_requires={}", "f(".repeat(100_000)), "install_requires", &[]);
        check("A = {'a': A}\nA['b'] = A['a']\nsetup(install_requires=A)", "install_requires", &[]);
        check("X = Y\nY = X\nsetup(install_requires=X)", "install_requires", &[]);
        check("setup(install_requires=['a', ", "install_requires", &["a"]);
        check("setup(install_requires=[*BASE, 'b'])\nBASE = ['a']\n", "install_requires", &["a", "b"]);
    }

    #[test]
    fn reads_extras_in_the_ways_people_write_them() {
        let check = |source: &str, key: &str, expected: &[&str]| {
            let found = PythonSource(source).value("extras_require").unwrap();
            assert_eq!(found.get(key).strings(), expected, "{source}");
        };
        check("setup(extras_require={'test': ['pytest'], 'dev': []})", "test", &["pytest"]);
        check("setup(extras_require=dict(test=['pytest']))", "test", &["pytest"]);
        check(
            "E = {'tests': ['a']}\nE['dev'] = E['tests'] + ['tox']\nsetup(extras_require=E)",
            "dev",
            &["a", "tox"],
        );
        check("extras_require = {'t': ['a']}\nsetup(extras_require=extras_require)", "t", &["a"]);
        check(
            "setup(extras_require={':python_version<\"3\"': ['x'], 'test': T})\nT = ['y']\n",
            "test",
            &["y"],
        );
    }

    #[test]
    fn reads_the_strings_of_calls() {
        let source = PythonSource("session.install('pytest', \"-r\", 'x.txt')\nsession.install('.')");
        assert_eq!(source.call_strings("session.install"), ["pytest", "-r", "x.txt", "."]);
    }
}
