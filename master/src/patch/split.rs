use std::collections::HashMap;

use super::{FileDiff, files};

/// A patch in two: applied to the base in either order, both give what the whole gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// What is no test.
    pub fix: String,
    /// What is.
    pub test: String,
    /// The paths of the tests.
    pub test_paths: Vec<String>,
}

/// Splits a patch by file.
///
/// Files that depend on each other stay together: those that share a path (a file that became a link, a copy of a file
/// that changes too), and those of which one lies where the other was a file. Together they are tests if every path
/// that they write or remove is one, so that a file which moves from the code to the tests belongs to the fix.
#[must_use]
pub fn split(patch: &str, is_test: impl Fn(&str) -> bool) -> Split {
    let parts = files(patch);
    let mut groups = Groups::new(&parts);
    let mut is_test_group = vec![true; parts.len()];
    for (index, part) in parts.iter().enumerate() {
        let group = groups.find(index);
        // A part whose paths are not understood is no test.
        is_test_group[group] &= part.written().next().is_some() && part.written().all(&is_test);
    }
    let mut split = Split::default();
    for (index, part) in parts.iter().enumerate() {
        if is_test_group[groups.find(index)] {
            split.test.push_str(part.text);
            split.test_paths.push(part.path().to_owned());
        } else {
            split.fix.push_str(part.text);
        }
    }
    // Only the last part may lack it, and may now stand in the middle of what people put together.
    for side in [&mut split.fix, &mut split.test] {
        if !side.is_empty() && !side.ends_with('\n') {
            side.push('\n');
        }
    }
    split
}

/// Which parts belong together: a forest in which each points to an earlier one, or to itself.
struct Groups(Vec<usize>);

impl Groups {
    fn new(parts: &[FileDiff<'_>]) -> Self {
        let mut groups = Self((0..parts.len()).collect());
        let mut by_path: HashMap<&str, usize> = HashMap::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            for path in part.written().chain(part.copied()) {
                let first = *by_path.entry(path).or_insert(index);
                groups.join(first, index);
            }
        }
        for (index, part) in parts.iter().enumerate() {
            for path in part.written() {
                for (slash, _) in path.match_indices('/') {
                    if let Some(&above) = by_path.get(&path[..slash]) {
                        groups.join(above, index);
                    }
                }
            }
        }
        groups
    }

    fn find(&mut self, mut index: usize) -> usize {
        while self.0[index] != index {
            self.0[index] = self.0[self.0[index]];
            index = self.0[index];
        }
        index
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::TestPaths;

    fn check(parts: &[&str], tests: &[usize]) {
        let words = TestPaths::new(&["test", "spec", "e2e"]);
        let got = split(&parts.concat(), |path| words.has(path));
        let side = |is_test: bool| {
            let on_side = |index: &usize| tests.contains(index) == is_test;
            (0..parts.len()).filter(on_side).map(|index| parts[index]).collect::<String>()
        };
        assert_eq!((got.fix, got.test), (side(false), side(true)), "{parts:?}");
    }

    const FIX: &str = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n";
    const TEST: &str =
        "diff --git a/Tests/x.py b/Tests/x.py\n--- a/Tests/x.py\n+++ b/Tests/x.py\n@@ -1 +1 @@\n-a\n+b\n";

    #[test]
    fn tests_go_one_way_and_the_rest_another() {
        check(&[], &[]);
        check(&[FIX], &[]);
        check(&[TEST], &[0]);
        check(&[TEST, FIX, TEST], &[0, 2]);
        check(&["diff --git a/e2e/x b/e2e/x\nold mode 100644\nnew mode 100755\n", FIX], &[0]);
    }

    #[test]
    fn what_depends_on_each_other_stays_together() {
        let rename = |from: &str, to: &str, how: &str| {
            format!("diff --git a/{from} b/{to}\nsimilarity index 100%\n{how} from {from}\n{how} to {to}\n")
        };
        check(&[&rename("test_a.py", "tests/a.py", "rename"), FIX], &[0]);
        check(&[&rename("helpers.py", "tests/helpers.py", "rename"), TEST], &[1]);
        check(&[&rename("y.py", "tests/y.py", "copy"), FIX], &[0]);
        check(&[&rename("x.py", "tests/x.py", "copy"), FIX], &[]);
        check(&[&rename("tests/a.py", "tests/b.py", "rename"), &rename("x.py", "tests/a.py", "rename")], &[]);
        let file_gone = "diff --git a/data b/data\ndeleted file mode 100644\nindex e..0\n";
        check(&[file_gone, "diff --git a/data/test_x b/data/test_x\nnew file mode 100644\n"], &[]);
    }

    #[test]
    fn what_is_not_understood_is_no_test() {
        check(&["diff --git a/tests/a b/tests/other\nold mode 100644\nnew mode 100755\n", TEST], &[1]);
    }

    #[test]
    fn every_side_ends_with_a_newline() {
        let cut = format!("{TEST}{}", FIX.trim_end());
        assert_eq!(split(&cut, |path| path.contains("Tests")).fix, FIX);
    }
}
