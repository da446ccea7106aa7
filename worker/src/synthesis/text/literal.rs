/// How deep literals and the names in them are followed.
const DEPTH_MAX: usize = 12;

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

    fn get(&self, key: &str) -> Self {
        let Self::Map(entries) = self else { return Self::Unknown };
        let found = entries.iter().rev().find(|(k, _)| k.text() == Some(key));
        found.map_or(Self::Unknown, |(_, value)| value.clone())
    }

    fn plus(self, other: Self) -> Self {
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
    fn with_later_keys(&self, name: &str, value: Literal, depth: usize) -> Literal {
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

fn after_equals(text: &str) -> Option<&str> {
    let value = text.trim_start().strip_prefix('=')?;
    (!value.starts_with('=')).then_some(value)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blank(&mut self) {
        loop {
            let trimmed = self.rest().trim_start_matches(|c: char| c.is_whitespace() || c == '\\');
            self.at = self.text.len() - trimmed.len();
            if !self.rest().starts_with('#') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    /// `primary (+ primary)*`; leaves the reader behind it.
    fn expression(&mut self, depth: usize) -> Literal {
        let mut value = self.primary(depth);
        loop {
            self.skip_blank();
            if !self.rest().starts_with('+') {
                return value;
            }
            self.at += 1;
            value = value.plus(self.primary(depth));
        }
    }

    fn primary(&mut self, depth: usize) -> Literal {
        self.skip_blank();
        if depth > DEPTH_MAX {
            // Nobody writes this by hand: read no further.
            self.at = self.text.len();
            return Literal::Unknown;
        }
        let Some(first) = self.rest().chars().next() else { return Literal::Unknown };
        let value = match first {
            '[' | '(' => {
                self.at += 1;
                let close = if first == '[' { ']' } else { ')' };
                let mut items = self.items(close, depth + 1);
                // Parentheses around one value are no tuple.
                let grouped =
                    first == '(' && items.len() == 1 && !self.text[..self.at - 1].trim_end().ends_with(',');
                if grouped { items.remove(0) } else { Literal::List(items) }
            }
            '{' => {
                self.at += 1;
                self.map(depth + 1)
            }
            c if c == '"' || c == '\'' => self.strings(),
            c if c.is_alphabetic() || c == '_' => self.word(depth),
            _ => {
                self.at += first.len_utf8();
                Literal::Unknown
            }
        };
        self.trailer(value, depth)
    }

    /// What follows a value and makes another of it: `.split()`, `[0]`, `% name`.
    fn trailer(&mut self, mut value: Literal, depth: usize) -> Literal {
        loop {
            let rest = self.rest();
            if rest.starts_with(".split(") || rest.starts_with(".splitlines(") {
                value = match value {
                    Literal::Text(text) => {
                        Literal::List(text.split_whitespace().map(|w| Literal::Text(w.to_owned())).collect())
                    }
                    _ => Literal::Unknown,
                };
            }
            if let Some(attribute) = rest.strip_prefix('.') {
                let is_end = |c: char| !c.is_alphanumeric() && c != '_';
                self.at += 1 + attribute.find(is_end).unwrap_or(attribute.len());
                continue;
            }
            if rest.starts_with(['(', '[']) {
                let close = if rest.starts_with('(') { ')' } else { ']' };
                self.at += 1;
                let inside = self.items(close, depth + 1);
                if close == ']' {
                    let key = inside.first().and_then(|key| key.text().map(str::to_owned));
                    value = key.map_or(Literal::Unknown, |key| value.get(&key));
                }
                continue;
            }
            return value;
        }
    }

    fn word(&mut self, depth: usize) -> Literal {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let word = rest[..length].to_owned();
        let after = &rest[length..];
        if word.len() <= 2 && after.starts_with(['"', '\'']) {
            self.at += length;
            return self.strings();
        }
        self.at += length;
        match word.as_str() {
            "dict" if after.starts_with('(') => {
                self.at += 1;
                self.keywords(depth + 1)
            }
            "list" | "tuple" | "set" | "sorted" | "frozenset" if after.starts_with('(') => {
                self.at += 1;
                let mut items = self.items(')', depth + 1);
                if items.len() == 1 { items.remove(0) } else { Literal::Unknown }
            }
            _ if after.starts_with('(') => {
                self.at += 1;
                self.items(')', depth + 1);
                Literal::Unknown
            }
            _ => self.assigned(&word, depth),
        }
    }

    /// The value of a name from its assignment at the beginning of a line.
    fn assigned(&self, name: &str, depth: usize) -> Literal {
        for (at, _) in self.text.match_indices(name) {
            if at > 0 && !self.text[..at].ends_with('\n') {
                continue;
            }
            let after = &self.text[at + name.len()..];
            let after = after
                .strip_prefix(": ")
                .and_then(|typed| typed.find('=').map(|i| &typed[i..]))
                .unwrap_or(after);
            if let Some(value) = after_equals(after)
                && self.depth < DEPTH_MAX
            {
                let begin = self.text.len() - value.len();
                let mut reader = Reader { text: self.text, at: begin, depth: self.depth + 1 };
                let value = reader.expression(depth + 1);
                return PythonSource(self.text).with_later_keys(name, value, self.depth);
            }
        }
        Literal::Unknown
    }

    /// One or more strings side by side.
    fn strings(&mut self) -> Literal {
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let quote = &rest[..1];
            let triple = quote.repeat(3);
            let mark = if rest.starts_with(&triple) { triple.as_str() } else { quote };
            let body = &rest[mark.len()..];
            let mut end = 0;
            while end < body.len() && !body[end..].starts_with(mark) {
                let step = body[end..].chars().next().map_or(1, char::len_utf8);
                let escaped = body[end..].starts_with('\\');
                let next = body[end + step..].chars().next().map_or(0, char::len_utf8);
                if escaped {
                    text.push_str(&body[end + step..end + step + next]);
                } else {
                    text.push_str(&body[end..end + step]);
                }
                end += if escaped { step + next } else { step };
            }
            self.at += (mark.len() * 2 + end).min(rest.len());
            let before = self.at;
            self.skip_blank();
            if !self.rest().starts_with(['"', '\'']) {
                self.at = before;
                return Literal::Text(text);
            }
        }
    }

    fn items(&mut self, close: char, depth: usize) -> Vec<Literal> {
        let mut items = Vec::new();
        while self.at < self.text.len() {
            self.skip_blank();
            if self.rest().starts_with(close) {
                self.at += 1;
                break;
            }
            if self.rest().starts_with(',') {
                self.at += 1;
                continue;
            }
            if self.rest().starts_with([')', ']', '}']) {
                break;
            }
            let spread = self.rest().starts_with('*');
            self.at += usize::from(spread);
            match self.expression(depth) {
                Literal::List(inner) if spread => items.extend(inner),
                value => items.push(value),
            }
        }
        items
    }

    fn map(&mut self, depth: usize) -> Literal {
        let mut entries = Vec::new();
        let mut set = Vec::new();
        while self.at < self.text.len() {
            self.skip_blank();
            if self.rest().starts_with('}') {
                self.at += 1;
                break;
            }
            if self.rest().starts_with(',') {
                self.at += 1;
                continue;
            }
            if self.rest().starts_with([')', ']']) {
                break;
            }
            let key = self.expression(depth);
            self.skip_blank();
            if self.rest().starts_with(':') {
                self.at += 1;
                let value = self.expression(depth);
                entries.push((key, value));
            } else {
                set.push(key);
            }
        }
        if entries.is_empty() && !set.is_empty() { Literal::List(set) } else { Literal::Map(entries) }
    }

    fn keywords(&mut self, depth: usize) -> Literal {
        let mut entries = Vec::new();
        while self.at < self.text.len() {
            self.skip_blank();
            let rest = self.rest();
            if rest.starts_with(')') {
                self.at += 1;
                break;
            }
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let key = rest[..length].to_owned();
            match after_equals(&rest[length..]) {
                Some(value) if length > 0 => {
                    self.at = self.text.len() - value.len();
                    let value = self.expression(depth);
                    entries.push((Literal::Text(key), value));
                }
                _ => self.at += rest.chars().next().map_or(1, char::len_utf8),
            }
        }
        Literal::Map(entries)
    }
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
