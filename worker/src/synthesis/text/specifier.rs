use std::str::FromStr;

use base_images::PythonVersion;
use pep440_rs::{Version, VersionSpecifiers};

/// The highest patch release that is tried against an exact specifier.
const PATCH_MAX: u8 = 30;

/// Whether some patch release of a Python satisfies `requires-python`. What cannot be read excludes nothing.
pub(in crate::synthesis) fn python_spec_allows(spec: &str, python: PythonVersion) -> bool {
    // Poetry's and old setup scripts' ways of writing it.
    spec.split("||").any(|alternative| {
        let alternative = from_poetry(alternative.trim());
        let Ok(specifiers) = VersionSpecifiers::from_str(&alternative) else { return true };
        (0..=PATCH_MAX).any(|patch| {
            Version::from_str(&format!("{python}.{patch}")).is_ok_and(|version| specifiers.contains(&version))
        })
    })
}

/// The feature releases named in a text: `3.8`, `py38`, `3.8.1`, `python3.8`.
pub(in crate::synthesis) fn python_versions_in(text: &str) -> Vec<PythonVersion> {
    let mut found = Vec::new();
    let mut push = |major: &str, minor: &str| {
        if let Ok(version) = format!("{major}.{minor}").parse::<PythonVersion>()
            && matches!((version.major(), version.minor()), (2, 7) | (3, 2..=30))
            && !found.contains(&version)
        {
            found.push(version);
        }
    };
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let before = &rest[..at];
        let digits = rest[at..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| at + end);
        let (number, after) = (&rest[at..digits], &rest[digits..]);
        let glued = before.ends_with(|c: char| c.is_alphanumeric() || c == '.');
        let python = before.to_lowercase();
        let python = python.ends_with("py") || python.ends_with("python");
        let minor_end = after
            .strip_prefix('.')
            .map_or(0, |minor| minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len()));
        if (!glued || python) && minor_end > 0 && number.len() == 1 {
            push(number, &after[1..=minor_end]);
        } else if python && number.len() >= 2 {
            push(&number[..1], &number[1..]);
        }
        rest = &rest[digits..];
        // Patch numbers do not begin a version of their own.
        if minor_end > 0 {
            let version_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            rest = &rest[version_end..];
        }
    }
    found
}

/// A version constraint of Poetry's as PEP 440 has it: `^1.2` and `~1.2` become ranges, a bare version is exact.
pub(in crate::synthesis) fn from_poetry(constraint: &str) -> String {
    let first = constraint.split("||").next().unwrap_or_default();
    let parts = first.split(',').flat_map(|part| {
        part.split_whitespace().collect::<Vec<_>>().into_iter().fold(
            Vec::<String>::new(),
            |mut joined, word| {
                match joined.last_mut() {
                    // `>= 1.2` is one constraint, `>=1.2 <2` are two.
                    Some(last) if last.ends_with(['<', '>', '=', '~', '^', '!']) => last.push_str(word),
                    _ => joined.push(word.to_owned()),
                }
                joined
            },
        )
    });
    let parts: Vec<String> = parts.filter_map(|part| from_poetry_part(&part)).collect();
    parts.join(",")
}

fn from_poetry_part(part: &str) -> Option<String> {
    let part = part.trim();
    if part.is_empty() || part == "*" {
        return None;
    }
    let range = |version: &str, keep: usize| {
        let numbers: Vec<u64> = version.split('.').map_while(|n| n.parse().ok()).collect();
        let kept = numbers.get(..=keep.min(numbers.len().checked_sub(1)?))?;
        let mut upper = kept.to_vec();
        *upper.last_mut()? += 1;
        let upper: Vec<String> = upper.iter().map(ToString::to_string).collect();
        Some(format!(">={version},<{}", upper.join(".")))
    };
    if let Some(version) = part.strip_prefix('^') {
        let version = version.trim();
        let first_nonzero = version.split('.').position(|n| n != "0").unwrap_or(0);
        return range(version, first_nonzero);
    }
    if let Some(version) = part.strip_prefix('~').filter(|rest| !rest.starts_with('=')) {
        return range(version.trim(), 1);
    }
    if part.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(format!("=={part}"));
    }
    Some(part.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decides_whether_a_python_is_allowed() {
        let check = |spec: &str, allowed: &str, refused: &str| {
            for (list, expected) in [(allowed, true), (refused, false)] {
                for python in list.split_whitespace() {
                    assert_eq!(
                        python_spec_allows(spec, python.parse().unwrap()),
                        expected,
                        "{spec} {python}"
                    );
                }
            }
        };
        check(">=3.6", "3.6 3.14", "2.7 3.5");
        check(">=2.7, !=3.0.*, !=3.1.*", "2.7 3.6", "3.0 3.1");
        check(">=3.6.2,<4", "3.6 3.12", "3.5");
        check("~=3.7", "3.7 3.13", "3.6");
        check("^3.7", "3.7 3.13", "3.6 2.7");
        check("~2.7 || ^3.5", "2.7 3.5 3.9", "3.4");
        check(">=3.8,<3.12", "3.8 3.11", "3.12");
        check("==3.8.*", "3.8", "3.9");
        check(">= 3.6", "3.6", "3.5");
        check("nonsense", "3.6", "");
    }

    #[test]
    fn finds_the_pythons_that_a_text_names() {
        let check = |text: &str, expected: &str| {
            let found: Vec<String> = python_versions_in(text).iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), expected, "{text}");
        };
        check("py27, py36,py310", "2.7 3.6 3.10");
        check("python: ['3.8', '3.9.1', \"3.10\"]", "3.8 3.9 3.10");
        check("python3.11", "3.11");
        check("Programming Language :: Python :: 3", "");
        check("actions/checkout@v3.5 ubuntu-20.04", "");
        check("3.12-dev pypy-3.9", "3.12 3.9");
        check("1.2.3 13.7 0.3.7", "");
    }

    #[test]
    fn translates_poetry_constraints() {
        let check = |text: &str, expected: &str| assert_eq!(from_poetry(text), expected, "{text}");
        check("^1.2.3", ">=1.2.3,<2");
        check("^0.2.3", ">=0.2.3,<0.3");
        check("~1.2.3", ">=1.2.3,<1.3");
        check("*", "");
        check("1.2.3", "==1.2.3");
        check(">= 1.2, <2", ">=1.2,<2");
        check(">=1.2 <2", ">=1.2,<2");
        check("~=1.2", "~=1.2");
        check("4.*", "==4.*");
    }
}
