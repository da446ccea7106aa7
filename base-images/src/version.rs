//! A Python feature release such as `3.11`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A Python feature release: major and minor, without the patch number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PythonVersion {
    major: u8,
    minor: u8,
}

/// Text that is no Python feature release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no Python feature release; write it like 3.11")]
pub struct ParsePythonVersionError {
    text: String,
}

impl PythonVersion {
    /// `PythonVersion::new(3, 11)` is Python 3.11.
    pub const fn new(major: u8, minor: u8) -> Self {
        Self { major, minor }
    }

    /// The `3` of 3.11.
    pub const fn major(self) -> u8 {
        self.major
    }

    /// The `11` of 3.11.
    pub const fn minor(self) -> u8 {
        self.minor
    }

    /// The image that holds this Python: `openswe-python-3.11`, without a tag.
    pub fn image(self) -> String {
        format!("{IMAGE_PREFIX}{self}")
    }

    /// The Python of an image name, with or without the tag `latest`.
    pub fn from_image(image: &str) -> Option<Self> {
        let image = image.strip_suffix(":latest").unwrap_or(image);
        image.strip_prefix(IMAGE_PREFIX)?.parse().ok()
    }

    /// How packages enter this Python's environment.
    pub const fn installer(self) -> Installer {
        match (self.major, self.minor) {
            (2, _) | (3, 0..=5) => Installer::PipFromLock,
            (3, 6) => Installer::UvWithoutEditable,
            _ => Installer::Uv,
        }
    }
}

/// What every base image's name starts with; the Python follows.
pub const IMAGE_PREFIX: &str = "openswe-python-";

/// What can install into an environment; measured with uv 0.13 and the newest pip of each Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installer {
    /// `uv pip install` does everything, editable installs included.
    Uv,
    /// `uv pip install` does everything but `-e`: the newest setuptools of this Python has no editable build,
    /// so that step is `python -m pip install --no-deps --no-build-isolation -e .`.
    UvWithoutEditable,
    /// uv cannot inspect this interpreter. It still resolves for it, with the system's own Python:
    /// `uv pip compile --python /usr/bin/python3 --python-version 2.7 …`; then
    /// `python -m pip install --no-deps -r LOCK`.
    PipFromLock,
}

impl fmt::Display for PythonVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for PythonVersion {
    type Err = ParsePythonVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| {
            let plain =
                part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            plain.then(|| part.parse().ok()).flatten()
        };
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self { major: number(major)?, minor: number(minor)? }))
            .ok_or_else(|| ParsePythonVersionError { text: text.to_owned() })
    }
}

impl TryFrom<String> for PythonVersion {
    type Error = ParsePythonVersionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PythonVersion> for String {
    fn from(version: PythonVersion) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_feature_releases_only() {
        let check = |text: &str, expected: Option<(u8, u8)>| {
            let parsed = text.parse::<PythonVersion>().ok().map(|version| (version.major(), version.minor()));
            assert_eq!(parsed, expected, "{text:?}");
        };
        check("3.11", Some((3, 11)));
        check("2.7", Some((2, 7)));
        check("3.0", Some((3, 0)));
        check("3.11.4", None);
        check("3", None);
        check("", None);
        check("3.", None);
        check("3.08", None);
        check("3.+8", None);
        check(" 3.8", None);
        check("3.999", None);
    }

    #[test]
    fn orders_by_number_not_by_text() {
        let mut versions: Vec<PythonVersion> =
            ["3.10", "2.7", "3.9"].iter().map(|text| text.parse().unwrap()).collect();
        versions.sort();
        assert_eq!(versions.iter().map(ToString::to_string).collect::<Vec<_>>(), ["2.7", "3.9", "3.10"]);
    }

    #[test]
    fn names_its_image_and_reads_it_back() {
        let check = |image: &str, expected: Option<&str>| {
            assert_eq!(
                PythonVersion::from_image(image).map(|version| version.to_string()).as_deref(),
                expected
            );
        };
        assert_eq!(PythonVersion::new(3, 9).image(), "openswe-python-3.9");
        check("openswe-python-3.9", Some("3.9"));
        check("openswe-python-3.9:latest", Some("3.9"));
        check("openswe-python-3.9:old", None);
        check("openswe-python-", None);
        check("python-3.9", None);
    }
}
