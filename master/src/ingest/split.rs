use std::path::Path;

use queue_format::Instance;
use serde_json::Value;

/// The field of a row that names the files which were moved from its patch to its test patch.
pub(super) const MOVED_FIELD: &str = "test_files_moved_from_patch";

/// Moves the test files of a patch to the test patch of a row that has none: some datasets' splitters know
/// `tests/` but not a `test.py` beside the package. A row of which nothing is a test, or everything, stays as it is.
pub(super) fn find_tests(mut instance: Instance) -> Instance {
    if !instance.test_patch.trim().is_empty() {
        return instance;
    }
    let (tests, fix): (Vec<&str>, Vec<&str>) =
        files(&instance.patch).into_iter().partition(|part| is_test(path(part)));
    if tests.is_empty() || fix.is_empty() {
        return instance;
    }
    let moved: Vec<Value> = tests.iter().map(|part| Value::from(path(part))).collect();
    (instance.test_patch, instance.patch) = (tests.concat(), fix.concat());
    instance.extra.insert(MOVED_FIELD.to_owned(), Value::Array(moved));
    instance
}

/// A diff's parts, one a file, each from its `diff --git` line on.
fn files(patch: &str) -> Vec<&str> {
    let mut starts: Vec<usize> = patch.match_indices("diff --git ").map(|(at, _)| at).collect();
    starts.retain(|&at| at == 0 || patch.as_bytes()[at - 1] == b'\n');
    let ends = starts.iter().skip(1).copied().chain([patch.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &patch[start..end]).collect()
}

/// The path on the new side of `diff --git a/PATH b/PATH`.
fn path(part: &str) -> &str {
    let header = part.lines().next().unwrap_or_default();
    header.rsplit_once(" b/").map_or("", |(_, path)| path)
}

fn is_test(path: &str) -> bool {
    let path = Path::new(path);
    let names: Vec<&str> = path.iter().filter_map(|name| name.to_str()).collect();
    let Some((file, dirs)) = names.split_last() else { return false };
    let is_module = |stem: &str| {
        matches!(stem, "test" | "tests" | "conftest") || stem.starts_with("test_") || stem.ends_with("_test")
    };
    dirs.iter().any(|dir| matches!(*dir, "test" | "tests" | "testing"))
        || file.strip_suffix(".py").is_some_and(is_module)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(path: &str) -> String {
        format!("diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-a\n+b\n")
    }

    fn split(patch: &str, test_patch: &str) -> (String, String, bool) {
        let instance: Instance = serde_json::from_value(serde_json::json!({
            "instance_id": "x", "repo": "a/b", "base_commit": "", "problem_statement": "",
            "patch": patch, "test_patch": test_patch,
        }))
        .expect("a row");
        let instance = find_tests(instance);
        let moved = instance.extra.contains_key(MOVED_FIELD);
        (instance.patch, instance.test_patch, moved)
    }

    #[test]
    fn moves_tests_only_where_there_is_no_test_patch() {
        let (fix, test) = (diff("slugify/slugify.py"), diff("test.py"));
        assert_eq!(split(&format!("{test}{fix}"), ""), (fix.clone(), test.clone(), true));
        assert_eq!(split(&fix, &test), (fix.clone(), test.clone(), false));
        assert_eq!(split(&fix, ""), (fix.clone(), String::new(), false));
        assert_eq!(split(&test, ""), (test.clone(), String::new(), false));
        assert_eq!(split("no diff", ""), ("no diff".to_owned(), String::new(), false));
    }

    #[test]
    fn knows_what_people_call_tests() {
        for test in [
            "test.py",
            "tests.py",
            "a/test_b.py",
            "a/b_test.py",
            "tests/data/x.txt",
            "conftest.py",
            "pkg/testing/x.py",
        ] {
            assert!(is_test(test), "{test}");
        }
        for other in ["a/b.py", "latest.py", "contest.py", "docs/test.md", "attest/x.py", ""] {
            assert!(!is_test(other), "{other}");
        }
    }
}
