use super::literal::{Literal, PythonSource, after_equals};

/// How deep literals and the names in them are followed.
const DEPTH_MAX: usize = 12;

/// Reads one expression of Python after the other, as far as it is written out.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    pub(super) depth: usize,
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
    pub(super) fn expression(&mut self, depth: usize) -> Literal {
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

    pub(super) fn items(&mut self, close: char, depth: usize) -> Vec<Literal> {
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
