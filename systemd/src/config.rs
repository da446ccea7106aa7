//! One TOML file for all daemons of a node: each has a section, and nothing in it is silently ignored.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, ValueDeserializer};

use crate::span::{key_at, line_at, offset_of};

/// The sections that a file may have, one a daemon and one for the base images.
pub const SECTIONS: &[&str] = &["images", "janitor", "master", "worker"];

/// Where the file lies if nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/bottega/bottega.toml";

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Which file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It was asked for: it must be there.
    Named(PathBuf),
    /// Nobody asked for it: where it is missing, defaults hold.
    Default(PathBuf),
}

impl Source {
    /// The file of a `--config` argument, or [`DEFAULT_PATH`].
    #[must_use]
    pub fn named_or_default(named: Option<PathBuf>) -> Self {
        named.map_or_else(|| Self::Default(DEFAULT_PATH.into()), Self::Named)
    }

    pub(crate) fn path(&self) -> &Path {
        let (Self::Named(path) | Self::Default(path)) = self;
        path
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not TOML.
    #[error("{}, line {line}: {detail}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What the parser said.
        detail: String,
    },
    /// A key that means nothing.
    #[error("{}, line {line}: there is no key {key:?}{}", path.display(), hint(suggestion.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// The key, with the tables around it: `worker.slot.cores`.
        key: String,
        /// The nearest key that means something, written in the same way.
        suggestion: Option<String>,
    },
    /// A value that does not fit.
    #[error("{}, line {line}: {key}: {detail}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// The key, with the tables around it.
        key: String,
        /// What was expected.
        detail: String,
    },
    /// A configuration that TOML cannot express.
    #[error("cannot write the configuration as TOML: {0}")]
    Print(#[from] toml::ser::Error),
}

fn hint(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(key) => format!("; did you mean {key:?}?"),
        None => "; bottega config prints all keys".to_owned(),
    }
}

/// Reads one daemon's section. A file without it, and a missing default file, give `T::default()`.
///
/// `T` and the structs in it are marked `#[serde(default)]`, so that a section may name a few keys only.
///
/// # Errors
/// The file cannot be read, is not TOML, or has a key or value that `T` does not know.
pub fn load<T>(source: &Source, section: &str) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    match read(source.path()) {
        Ok(text) => parse(source.path(), &text, section),
        Err(e) if e.kind() == io::ErrorKind::NotFound && matches!(source, Source::Default(_)) => {
            Ok(T::default())
        }
        Err(error) => Err(ConfigError::Read { path: source.path().to_owned(), source: error }),
    }
}

/// As [`load`], of a text; `path` is what errors call it.
///
/// # Errors
/// As for [`load`].
pub fn parse<T>(path: &Path, text: &str, section: &str) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let root = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_at(text, error.span().map_or(0, |span| span.start)),
        detail: error.message().to_owned(),
    })?;
    let root = root.into_inner();
    let unknown =
        |key: &str, known: Option<serde_json::Value>| unknown_key(path, text, &root, key, known.as_ref());
    if let Some(stranger) = root.keys().find(|key| !SECTIONS.contains(&key.get_ref().as_ref())) {
        let sections = SECTIONS.iter().map(|name| ((*name).to_owned(), serde_json::Value::Null)).collect();
        return Err(unknown(stranger.get_ref(), Some(serde_json::Value::Object(sections))));
    }
    let Some(value) = root.get(section) else { return Ok(T::default()) };
    let mut ignored = Vec::new();
    let parsed = serde_ignored::deserialize(ValueDeserializer::from(value.clone()), |key| {
        ignored.push(key.to_string());
    });
    let config: T = parsed.map_err(|error| {
        let offset = error.span().map_or(value.span().start, |span| span.start);
        let key = key_at(&root, offset).unwrap_or_else(|| section.to_owned());
        if error.message().starts_with("unknown field") {
            // T denies unknown fields itself; the answer is the same.
            return unknown(&key, serde_json::to_value(T::default()).ok());
        }
        let (line, detail) = (line_at(text, offset), error.message().to_owned());
        ConfigError::Value { path: path.to_owned(), line, key, detail }
    })?;
    match ignored.first() {
        None => Ok(config),
        Some(key) => {
            let known = serde_json::to_value(T::default()).ok();
            Err(unknown(&format!("{section}.{}", key.replace("?.", "")), known))
        }
    }
}

/// The effective configuration, as a file would say it.
///
/// # Errors
/// TOML cannot express it.
pub fn print<T: Serialize>(config: &T, section: &str) -> Result<String, ConfigError> {
    Ok(toml::to_string_pretty(&std::collections::BTreeMap::from([(section, config)]))?)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// `known` holds a section's keys (JSON, not TOML, for it keeps those without a value).
fn unknown_key(
    path: &Path,
    text: &str,
    root: &DeTable<'_>,
    key: &str,
    known: Option<&serde_json::Value>,
) -> ConfigError {
    let parts: Vec<&str> = key.split('.').collect();
    let (table, last) = parts.split_at(parts.len() - 1);
    let siblings = table.iter().skip(1).try_fold(known, |at, part| Some(at?.get(part))).flatten();
    let names = siblings.and_then(serde_json::Value::as_object).into_iter().flat_map(|map| map.keys());
    let nearest = crate::nearest(last[0], names.map(String::as_str));
    let suggestion = nearest.map(|name| [table, &[name]].concat().join("."));
    let line = line_at(text, offset_of(root, &parts).unwrap_or(0));
    ConfigError::UnknownKey { path: path.to_owned(), line, key: key.to_owned(), suggestion }
}

#[cfg(test)]
mod tests;
