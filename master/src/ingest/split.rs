use queue_format::Instance;
use serde_json::Value;

use crate::patch::{Split, TestPaths, split};

/// The field of a row that names the files which were moved from its patch to its test patch.
pub(super) const MOVED_FIELD: &str = "test_files_moved_from_patch";

/// Moves the test files of a patch to the test patch of a row that has none: some datasets' splitters know
/// `tests/` but not a `test.py` beside the package. A row of which nothing is a test, or everything, stays as it is.
pub(super) fn find_tests(mut instance: Instance) -> Instance {
    if !instance.test_patch.trim().is_empty() {
        return instance;
    }
    let known = TestPaths::default();
    let Split { fix, test, test_paths } = split(&instance.patch, |path| known.has(path));
    if test.is_empty() || fix.is_empty() {
        return instance;
    }
    (instance.test_patch, instance.patch) = (test, fix);
    instance.extra.insert(MOVED_FIELD.to_owned(), Value::from(test_paths));
    instance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(path: &str) -> String {
        format!("diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-a\n+b\n")
    }

    fn parted(patch: &str, test_patch: &str) -> (String, String, bool) {
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
        assert_eq!(parted(&format!("{test}{fix}"), ""), (fix.clone(), test.clone(), true));
        assert_eq!(parted(&fix, &test), (fix.clone(), test.clone(), false));
        assert_eq!(parted(&fix, ""), (fix.clone(), String::new(), false));
        assert_eq!(parted(&test, ""), (test.clone(), String::new(), false));
        assert_eq!(parted("no diff", ""), ("no diff".to_owned(), String::new(), false));
    }
}
