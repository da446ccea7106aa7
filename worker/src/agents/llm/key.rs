use std::fmt;
use std::io::{self, Read};
use std::path::Path;

/// The longest key that is read, in bytes.
const KEY_BYTES_MAX: u64 = 16 << 10;
/// What stands in the place of a key wherever something is told.
const HIDDEN: &str = "[key]";

/// A key of an endpoint. It is shown to nobody: not by `Debug`, not in errors, and nothing can write it to a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No credentials were given to this process.
    #[error("the credential {0} is wanted, but $CREDENTIALS_DIRECTORY is not set; see docs/agents.md")]
    NoCredentials(String),
    /// It cannot be read.
    #[error("cannot read the credential {name}: {source}")]
    Read {
        /// Which.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is no key.
    #[error("the credential {0} is no key: expected one line of visible characters")]
    NoKey(String),
}

impl Key {
    /// Reads a credential.
    ///
    /// # Errors
    /// There is none of this name, or it is no key.
    pub fn read(credentials_dir: Option<&Path>, name: &str) -> Result<Self, KeyError> {
        let dir = credentials_dir.ok_or_else(|| KeyError::NoCredentials(name.to_owned()))?;
        let read = |source| KeyError::Read { name: name.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(dir.join(name)).map_err(read)?;
        file.take(KEY_BYTES_MAX).read_to_string(&mut text).map_err(read)?;
        let key = text.trim();
        match !key.is_empty() && key.chars().all(|c| c.is_ascii_graphic()) {
            true => Ok(Self(key.to_owned())),
            false => Err(KeyError::NoKey(name.to_owned())),
        }
    }

    /// The value of the `Authorization` header, which HTTP logs leave out.
    pub(super) fn header(&self) -> Option<reqwest::header::HeaderValue> {
        let mut value = reqwest::header::HeaderValue::from_str(&format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// A text without the key, for endpoints like to repeat it: neither as it is, nor as JSON may have it, which is read later.
    pub(super) fn scrub(&self, text: &str) -> String {
        let text = text.replace(&self.0, HIDDEN);
        let (mut scrubbed, mut rest) = (String::with_capacity(text.len()), text.as_str());
        while let Some(c) = rest.chars().next() {
            let after = self.0.chars().try_fold(rest, after_json);
            scrubbed.push_str(if after.is_some() { HIDDEN } else { &rest[..c.len_utf8()] });
            rest = after.unwrap_or(&rest[c.len_utf8()..]);
        }
        scrubbed
    }
}

/// What follows a character, as it stands within a string of JSON.
fn after_json(text: &str, c: char) -> Option<&str> {
    let Some(escaped) = text.strip_prefix('\\') else { return text.strip_prefix(c) };
    if let Some(digits) = escaped.strip_prefix('u').and_then(|digits| digits.get(..4)) {
        return (u32::from_str_radix(digits, 16) == Ok(c.into())).then(|| &escaped[5..]);
    }
    escaped.strip_prefix(c).filter(|_| matches!(c, '"' | '\\' | '/'))
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_line_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let check = |text: &str, expected: bool| {
            std::fs::write(dir.path().join("k"), text).unwrap();
            let key = Key::read(Some(dir.path()), "k");
            assert_eq!(key.is_ok(), expected, "{text:?}");
            assert!(!format!("{key:?}").contains("sk-secret"));
        };
        check("sk-secret\n", true);
        check("sk-secret\nsk-secret\n", false);
        check("", false);
        check("sk-secret\u{7}", false);
        assert!(matches!(Key::read(None, "k"), Err(KeyError::NoCredentials(_))));
        let key = Key("sk-secret".to_owned());
        assert_eq!(key.scrub("Incorrect key: sk-secret."), "Incorrect key: [key].");
        assert_eq!(key.scrub(r#"{"a":"\u0073k\u002Dsec\u0072et, s"}"#), r#"{"a":"[key], s"}"#);
        let odd = Key(r#"a/b"\+$1"#.to_owned());
        assert_eq!(odd.scrub(r#"a/b"\+$1 a\/b\"\\+\u00241 a/b+$1 \u00"#), r"[key] [key] a/b+$1 \u00");
        assert_eq!(key.scrub("grün \\usk-secre\\u0074"), "grün \\u[key]");
        assert!(!format!("{:?}", key.header()).contains("sk-secret"));
    }
}
