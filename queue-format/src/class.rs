use std::fmt;
use std::str::FromStr;

use crate::Resources;

const MIB: u64 = 1 << 20;

/// `<priority>-<kind>`: the directory of like tasks under `pending/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// 0 (first) … 9.
    pub priority: u8,
    /// The kind of work, and for some what it needs: `build`, `run`, `run-2c-4096m`, `native-1c`.
    pub kind: String,
}

/// What a class says its tasks need; where it says nothing, any slot will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// CPUs: `2c`.
    pub cores: Option<u32>,
    /// Memory, in a name rounded up to whole MiB: `4096m`.
    pub memory_bytes: Option<u64>,
}

impl Class {
    /// The class of tasks that do `work` with `resources`.
    #[must_use]
    pub fn shaped(priority: u8, work: &str, resources: &Resources) -> Self {
        let cores = resources.cores.map(|cores| format!("-{cores}c")).unwrap_or_default();
        let memory = resources.memory_bytes.map(|bytes| format!("-{}m", bytes.div_ceil(MIB)));
        Self { priority, kind: format!("{work}{cores}{}", memory.unwrap_or_default()) }
    }

    /// The kind of work alone: `run` of `run-2c-4096m`.
    #[must_use]
    pub fn work(&self) -> &str {
        self.split().0
    }

    /// What its tasks need: two cores and 4 GiB of `run-2c-4096m`.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.split().1
    }

    fn split(&self) -> (&str, Shape) {
        let (mut work, mut shape) = (self.kind.as_str(), Shape::default());
        while let Some((before, part)) = work.rsplit_once('-') {
            let count = |unit| part.strip_suffix(unit).filter(|digits| !digits.starts_with('+'));
            if let Some(cores) = count('c').and_then(|digits| digits.parse().ok()) {
                shape.cores = Some(cores);
            } else if let Some(mib) = count('m').and_then(|digits| digits.parse::<u64>().ok()) {
                shape.memory_bytes = Some(mib.saturating_mul(MIB));
            } else {
                break;
            }
            work = before;
        }
        (work, shape)
    }
}

impl Shape {
    /// Whether so many cores with so much memory are enough.
    #[must_use]
    pub fn fits(&self, cores: usize, memory_bytes: u64) -> bool {
        self.cores.is_none_or(|asked| asked as usize <= cores)
            // A class names whole MiB: of what is rounded up, less than one is missing.
            && self.memory_bytes.is_none_or(|asked| asked <= memory_bytes.next_multiple_of(MIB))
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.priority, self.kind)
    }
}

impl FromStr for Class {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (priority, kind) = text.split_once('-').ok_or(())?;
        let legal = priority.len() == 1
            && !kind.is_empty()
            && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let priority = priority.parse().map_err(|_| ())?;
        if legal { Ok(Self { priority, kind: kind.to_owned() }) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_its_tasks_need() {
        let check = |name: &str, work: &str, cores: Option<u32>, mib: Option<u64>| {
            let class: Class = name.parse().expect("a class");
            let shape = Shape { cores, memory_bytes: mib.map(|mib| mib << 20) };
            assert_eq!((class.work(), class.shape(), class.to_string().as_str()), (work, shape, name));
        };
        check("5-build", "build", None, None);
        check("0-run-2c-4096m", "run", Some(2), Some(4096));
        check("5-run-4096m", "run", None, Some(4096));
        check("5-native-1c", "native", Some(1), None);
        check("5-run-c", "run-c", None, None);
        check("5-run-2x", "run-2x", None, None);
        check("5-run-2c-x", "run-2c-x", None, None);
        check("5-2c", "2c", None, None);
        check("5-run-99999999999c", "run-99999999999c", None, None);
    }

    #[test]
    fn a_name_is_made_of_what_is_asked() {
        let check = |cores, memory_bytes, expected: &str| {
            let resources = Resources { cores, memory_bytes, timeout_seconds: Some(1) };
            let class = Class::shaped(5, "run", &resources);
            assert_eq!(class.to_string(), expected);
            assert!(class.shape().fits(4, 8 << 30));
            let (cores, memory) = (cores.unwrap_or(1) as usize, memory_bytes.unwrap_or(1));
            assert!(class.shape().fits(cores, memory), "a slot of exactly that size does");
        };
        check(None, None, "5-run");
        check(Some(2), Some(4 << 30), "5-run-2c-4096m");
        check(None, Some((64 << 20) + 1), "5-run-65m");
        let large: Class = "5-run-5c-9000m".parse().expect("a class");
        assert!(!large.shape().fits(4, 16 << 30) && !large.shape().fits(8, 8 << 30));
    }
}
