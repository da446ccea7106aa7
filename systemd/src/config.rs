//! One TOML file for all daemons of a node: the spool, a section for each, and nothing in it is silently ignored.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::span::{key_at, line_at, offset_of};

/// The sections that a file may have: one a daemon, and that of `bottega ingest`.
pub const SECTIONS: &[&str] = &["ingest", "janitor", "master", "worker"];

/// The key above the sections that says where the spool lies. `bottega-generator` reads it too.
pub const SPOOL: &str = "spool";

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
    #[error("{}, line {line}: there is no key {key:?}{}", path.display(), hint(key, suggestion.as_deref()))]
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
    /// A value that its daemon cannot work with.
    #[error("{}{}: {detail}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Where, from 1; nowhere, where it is a default beside what the file says.
        line: Option<usize>,
        /// The key, and what is expected.
        detail: String,
    },
    /// More than one thing, each in a line.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<ConfigError>),
    /// Nobody says which spool.
    #[error("say which spool: --spool DIR, or spool = \"DIR\" in the configuration")]
    NoSpool,
    /// A configuration that TOML cannot express.
    #[error("cannot write the configuration as TOML: {0}")]
    Print(#[from] toml::ser::Error),
}

fn hint(key: &str, suggestion: Option<&str>) -> String {
    let is_spool = key.rsplit_once('.').is_some_and(|(_, last)| last == SPOOL);
    match suggestion {
        _ if is_spool => format!("; {SPOOL} stands above all sections"),
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
    match text_of(source)? {
        Some(text) => parse(source.path(), &text, section),
        None => Ok(T::default()),
    }
}

/// As [`load`], of what `check` finds fit too: what it says is wrong is a line for each key, which it begins with.
///
/// # Errors
/// As for [`load`], and what is not fit.
pub fn load_checked<T>(
    source: &Source,
    section: &str,
    check: impl Fn(&T) -> Result<(), String>,
) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let config = load(source, section)?;
    let Err(wrong) = check(&config) else { return Ok(config) };
    let path = source.path();
    let text = text_of(source)?.unwrap_or_default();
    let root = table(path, &text)?;
    let errors = wrong.lines().map(|detail| {
        let key: Vec<&str> = detail.split(' ').next().unwrap_or_default().split('.').collect();
        let line = offset_of(&root, &key).map(|offset| line_at(&text, offset));
        ConfigError::Unfit { path: path.to_owned(), line, detail: detail.to_owned() }
    });
    one_or_several(config, errors.collect())
}

/// As [`load`], of a text; `path` is what errors call it.
///
/// # Errors
/// As for [`load`].
pub fn parse<T>(path: &Path, text: &str, section: &str) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let document = Document { path, text, root: table(path, text)? };
    let mut errors = document.strangers();
    let Some(value) = document.root.get(section) else { return one_or_several(T::default(), errors) };
    match document.section(section, value.clone()) {
        Ok(config) => return one_or_several(config, errors),
        Err(found) => errors.extend(found),
    }
    // What stands first may hide the others: each key by itself.
    if let DeValue::Table(table) = value.get_ref() {
        for (key, entry) in table {
            let mut alone = DeTable::new();
            alone.insert(key.clone(), entry.clone());
            let alone = Spanned::new(value.span(), DeValue::Table(alone));
            errors.extend(document.section::<T>(section, alone).err().into_iter().flatten());
        }
    }
    let mut said = BTreeSet::new();
    errors.retain(|error| said.insert(error.to_string()));
    one_or_several(T::default(), errors)
}

/// Where the spool lies, if the file says so. A file that nobody asked for may be missing.
///
/// # Errors
/// The file cannot be read, is not TOML, or says something else than an absolute path.
pub fn spool(source: &Source) -> Result<Option<PathBuf>, ConfigError> {
    let Some(text) = text_of(source)? else { return Ok(None) };
    let path = source.path();
    let root = table(path, &text)?;
    let Some(value) = root.get(SPOOL) else { return Ok(None) };
    match value.get_ref().as_str().filter(|_| is_plain(&text, value)) {
        Some(spool) => Ok(Some(spool.into())),
        None => Err(not_a_path(path, &text, value.span().start)),
    }
}

/// The spool that was named on the command line, or else the one that the file says.
///
/// # Errors
/// As for [`spool`]; [`ConfigError::NoSpool`] where neither says one.
pub fn named_or_said_spool(named: Option<PathBuf>, source: &Source) -> Result<PathBuf, ConfigError> {
    named.map_or_else(|| spool(source), |named| Ok(Some(named)))?.ok_or(ConfigError::NoSpool)
}

/// Whether `bottega-generator`, which is a shell script, reads the same: it wants an absolute path of few characters, in
/// a pair of quotes, after a bare key.
fn is_plain(text: &str, value: &Spanned<DeValue<'_>>) -> bool {
    let Some(path) = value.get_ref().as_str() else { return false };
    let is_known = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    let span = value.span();
    let line_begin = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
    let key = text[line_begin..span.start].trim_matches([' ', '\t']).strip_suffix('=');
    path.starts_with('/')
        && path.chars().all(is_known)
        && ['"', '\''].iter().any(|quote| text[span.clone()] == format!("{quote}{path}{quote}"))
        && key.is_some_and(|key| key.trim_end_matches([' ', '\t']) == SPOOL)
}

fn table<'t>(path: &Path, text: &'t str) -> Result<DeTable<'t>, ConfigError> {
    let root = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_at(text, error.span().map_or(0, |span| span.start)),
        detail: error.message().to_owned(),
    })?;
    Ok(root.into_inner())
}

fn not_a_path(path: &Path, text: &str, offset: usize) -> ConfigError {
    let detail =
        "expected spool = \"/a/path\" in a line of its own, an absolute path of letters, digits and ._/-"
            .to_owned();
    ConfigError::Value { path: path.to_owned(), line: line_at(text, offset), key: SPOOL.to_owned(), detail }
}

fn one_or_several<T>(config: T, mut errors: Vec<ConfigError>) -> Result<T, ConfigError> {
    match errors.len() {
        0 => Ok(config),
        1 => Err(errors.remove(0)),
        _ => Err(ConfigError::Several(errors)),
    }
}

struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    root: DeTable<'a>,
}

impl Document<'_> {
    /// What stands above the sections, and sections, that mean nothing.
    fn strangers(&self) -> Vec<ConfigError> {
        let wrong = self.root.iter().filter_map(|(key, value)| match key.get_ref().as_ref() {
            SPOOL if is_plain(self.text, value) => None,
            SPOOL => Some(not_a_path(self.path, self.text, value.span().start)),
            name if SECTIONS.contains(&name) => None,
            name => Some(self.unknown(name, SECTIONS.iter().copied().chain([SPOOL]))),
        });
        wrong.collect()
    }

    fn section<T>(&self, section: &str, value: Spanned<DeValue<'_>>) -> Result<T, Vec<ConfigError>>
    where
        T: Serialize + DeserializeOwned + Default,
    {
        let begin = value.span().start;
        let mut ignored = Vec::new();
        let parsed =
            serde_ignored::deserialize(ValueDeserializer::from(value), |key| ignored.push(key.to_string()));
        let config: T = parsed.map_err(|error| {
            let offset = error.span().map_or(begin, |span| span.start);
            let key = key_at(&self.root, offset).unwrap_or_else(|| section.to_owned());
            if error.message().starts_with("unknown field") {
                // T denies unknown fields itself, and names those that it knows; the answer is the same.
                let names = error.message().split('`').skip(3).step_by(2);
                return vec![self.unknown(&key, names)];
            }
            let (line, detail) = (line_at(self.text, offset), in_toml_words(error.message()));
            vec![ConfigError::Value { path: self.path.to_owned(), line, key, detail }]
        })?;
        if ignored.is_empty() {
            return Ok(config);
        }
        let known = serde_json::to_value(T::default()).unwrap_or_default();
        let wrong = ignored.iter().map(|key| {
            let key = key.replace("?.", "");
            let tables = key.rsplit_once('.').map(|(tables, _)| tables.split('.'));
            let table = tables.into_iter().flatten().try_fold(&known, |at, part| at.get(part));
            let names = table.and_then(serde_json::Value::as_object).into_iter().flat_map(|map| map.keys());
            self.unknown(&format!("{section}.{key}"), names.map(String::as_str))
        });
        Err(wrong.collect())
    }

    /// A dotted key that means nothing, in a table that has these.
    fn unknown<'n>(&self, key: &str, names: impl Iterator<Item = &'n str>) -> ConfigError {
        let parts: Vec<&str> = key.split('.').collect();
        let (table, last) = parts.split_at(parts.len() - 1);
        let nearest = crate::nearest(last[0], names);
        let suggestion = nearest.map(|name| [table, &[name]].concat().join("."));
        let line = line_at(self.text, offset_of(&self.root, &parts).unwrap_or(0));
        ConfigError::UnknownKey { path: self.path.to_owned(), line, key: key.to_owned(), suggestion }
    }
}

/// A parser's sentence, with what it expects as TOML calls it.
fn in_toml_words(sentence: &str) -> String {
    let Some((found, expected)) = sentence.rsplit_once("expected ") else { return sentence.to_owned() };
    let expected = match expected {
        "f32" | "f64" => "a number",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, not below 0",
        "a sequence" => "an array",
        name if name.starts_with("struct ") => "a table",
        other => other,
    };
    format!("{found}expected {expected}")
}

/// The effective configuration, as a file would say it.
///
/// # Errors
/// TOML cannot express it.
pub fn print<T: Serialize>(config: &T, section: &str) -> Result<String, ConfigError> {
    Ok(toml::to_string_pretty(&std::collections::BTreeMap::from([(section, config)]))?)
}

/// What the file says; `None` where nobody asked for it and it is missing.
fn text_of(source: &Source) -> Result<Option<String>, ConfigError> {
    match read(source.path()) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound && matches!(source, Source::Default(_)) => Ok(None),
        Err(error) => Err(ConfigError::Read { path: source.path().to_owned(), source: error }),
    }
}

fn read(path: &Path) -> io::Result<String> {
    // A pipe would be waited for.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
