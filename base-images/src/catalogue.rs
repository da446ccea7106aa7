//! Which Pythons there are, since when, and which one a project of a given day should get.

use jiff::civil::{Date, date};

use crate::version::PythonVersion;

/// A Python feature release and the day its `x.y.0` came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The feature release.
    pub version: PythonVersion,
    /// The day of `x.y.0` (python.org's release list).
    pub released: Date,
}

/// The Pythons that images exist for, oldest first: 2.7 and 3.5 to 3.14 (arXiv 2603.13023).
pub const CATALOGUE: [Release; 11] = [
    release(2, 7, date(2010, 7, 3)),
    release(3, 5, date(2015, 9, 13)),
    release(3, 6, date(2016, 12, 23)),
    release(3, 7, date(2018, 6, 27)),
    release(3, 8, date(2019, 10, 14)),
    release(3, 9, date(2020, 10, 5)),
    release(3, 10, date(2021, 10, 4)),
    release(3, 11, date(2022, 10, 24)),
    release(3, 12, date(2023, 10, 2)),
    release(3, 13, date(2024, 10, 7)),
    release(3, 14, date(2025, 10, 7)),
];

const fn release(major: u8, minor: u8, released: Date) -> Release {
    Release { version: PythonVersion::new(major, minor), released }
}

/// The catalogue's entry for a version.
pub fn release_of(version: PythonVersion) -> Option<Release> {
    CATALOGUE.into_iter().find(|release| release.version == version)
}

/// What came of choosing a Python among those that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The best Python that the project allows and its day knew, whether it is there or not.
    pub wanted: PythonVersion,
    /// The Python to use: `wanted`, or the nearest one that is there and that the project allows.
    pub chosen: PythonVersion,
}

impl Choice {
    /// Whether the project gets another Python than it should have had.
    pub fn is_substitute(self) -> bool {
        self.wanted != self.chosen
    }
}

/// The highest Python that `allows` accepts and that was out on `day`; of those in `available` the nearest to it.
///
/// Nearest: the next lower one, else the next higher, also one that came out after `day`.
/// `None` if the project allows no Python of the catalogue, or none that is available.
pub fn choose(
    day: Date,
    available: &[PythonVersion],
    allows: impl Fn(PythonVersion) -> bool,
) -> Option<Choice> {
    let allowed = || CATALOGUE.into_iter().filter(|release| allows(release.version));
    let wanted = allowed()
        .rfind(|release| release.released <= day)
        .or_else(|| allowed().next())
        .map(|release| release.version)?;
    let candidates: Vec<PythonVersion> =
        available.iter().copied().filter(|version| allows(*version)).collect();
    let chosen = nearest(wanted, &candidates).first().copied()?;
    Some(Choice { wanted, chosen })
}

/// `candidates` by nearness to `wanted`: itself, the lower ones downwards, then the higher ones upwards;
/// a candidate of the same major version always before one of another.
///
/// A lower Python that a project allows is one it was tested with; a higher one may have come out after it.
pub fn nearest(wanted: PythonVersion, candidates: &[PythonVersion]) -> Vec<PythonVersion> {
    let mut sorted = candidates.to_vec();
    sorted.sort_by_key(|version| {
        let other_major = version.major() != wanted.major();
        let higher = *version > wanted;
        (other_major, higher, version.minor().abs_diff(wanted.minor()))
    });
    sorted.dedup();
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(text: &str) -> Vec<PythonVersion> {
        text.split_whitespace().map(|version| version.parse().unwrap()).collect()
    }

    #[test]
    fn catalogue_is_sorted_by_version_and_by_day_after_2_7() {
        assert!(CATALOGUE.is_sorted_by(|a, b| a.version < b.version && a.released < b.released));
    }

    #[test]
    fn chooses_the_highest_of_the_day() {
        let check =
            |day: Date, available: &str, lowest: &str, highest: &str, expected: Option<(&str, &str)>| {
                let (lowest, highest) = (versions(lowest)[0], versions(highest)[0]);
                let choice =
                    choose(day, &versions(available), |version| lowest <= version && version <= highest);
                let found = choice.map(|choice| (choice.wanted.to_string(), choice.chosen.to_string()));
                let expected = expected.map(|(wanted, chosen)| (wanted.to_owned(), chosen.to_owned()));
                assert_eq!(found, expected, "{day} {available} {lowest}-{highest}");
            };
        let all = "2.7 3.5 3.6 3.7 3.8 3.9 3.10 3.11 3.12 3.13 3.14";
        check(date(2022, 10, 23), all, "3.6", "3.14", Some(("3.10", "3.10")));
        check(date(2022, 10, 24), all, "3.6", "3.14", Some(("3.11", "3.11")));
        check(date(2026, 1, 1), all, "2.7", "2.7", Some(("2.7", "2.7")));
        check(date(2022, 12, 1), "3.9 3.12", "3.6", "3.14", Some(("3.11", "3.9")));
        check(date(2022, 12, 1), "3.12 3.13", "3.6", "3.14", Some(("3.11", "3.12")));
        check(date(2026, 1, 1), "2.7 3.6", "3.5", "3.5", None);
        check(date(2016, 1, 1), "2.7 3.6", "2.7", "3.9", Some(("3.5", "3.6")));
        check(date(2016, 1, 1), all, "3.8", "3.14", Some(("3.8", "3.8")));
        check(date(2022, 1, 1), "", "2.7", "3.14", None);
    }
}
