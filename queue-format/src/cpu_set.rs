use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The kernel's own bound lies far below (`NR_CPUS` is 8192 at most): a larger number is damage.
const NUMBER_MAX: u32 = 1 << 16;

/// A set of CPUs, or of NUMA nodes, as the kernel writes it: `0-3,8`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuSet(BTreeSet<u32>);

/// Not a set as the kernel writes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no set of CPUs; expected one like 0-3,8")]
pub struct CpuSetError(String);

impl CpuSet {
    /// Its numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a number is in it.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        self.0.contains(&number)
    }

    /// The smallest.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.0.first().copied()
    }

    /// What both have.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(&self.0 & &other.0)
    }

    /// What this has and the other has not.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self(&self.0 - &other.0)
    }

    /// Whether both have a number.
    #[must_use]
    pub fn touches(&self, other: &Self) -> bool {
        !self.0.is_disjoint(&other.0)
    }

    /// Whether all of it is in the other.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        Self(numbers.into_iter().collect())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<u32> = self.iter().collect();
        for (n, run) in numbers.chunk_by(|a, b| *b == a + 1).enumerate() {
            let comma = if n > 0 { "," } else { "" };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [one] => write!(f, "{comma}{one}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

impl FromStr for CpuSet {
    type Err = CpuSetError;

    fn from_str(text: &str) -> Result<Self, CpuSetError> {
        let wrong = || CpuSetError(text.chars().take(80).collect());
        let number =
            |part: &str| part.parse::<u32>().ok().filter(|number| *number < NUMBER_MAX).ok_or_else(wrong);
        let mut set = BTreeSet::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong());
            }
            set.extend(first..=last);
        }
        Ok(Self(set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_sets_as_the_kernel_does() {
        let check = |numbers: &[u32], expected: &str| {
            let set: CpuSet = numbers.iter().copied().collect();
            assert_eq!(set.to_string(), expected);
            assert_eq!(expected.parse(), Ok(set));
        };
        check(&[0], "0");
        check(&[0, 1, 2, 3], "0-3");
        check(&[8, 0, 2, 3], "0,2-3,8");
        check(&[], "");
        assert_eq!(" 0-1,1,4\n".parse::<CpuSet>().map(|set| set.to_string()), Ok("0-1,4".to_owned()));
        for bad in ["x", "1-", "-1", "3-1", "0-4294967295", "99999", "1 2"] {
            assert!(bad.parse::<CpuSet>().is_err(), "{bad}");
        }
    }
}
