use diffy::patch_set::{ParseOptions, PatchSet};

use super::files;

/// Checks that a text is a diff as `git diff` writes it, of at least one file; whether it applies is not asked.
///
/// # Errors
/// What is wrong with it.
pub fn check_patch(patch: &str) -> Result<(), String> {
    let wrong = |why: &str| format!("it is not a git diff ({why}); make it with: git diff <base>..<fix>");
    let parts = files(patch);
    if parts.is_empty() {
        return Err(wrong("it changes no file"));
    }
    // Each by itself: asked for git's parts, the parser passes over those that have only `---` and `+++` lines.
    for part in parts {
        let options = if part.is_git() { ParseOptions::gitdiff() } else { ParseOptions::unidiff() };
        for file in PatchSet::parse(part.text, options) {
            file.map_err(|error| wrong(&error.to_string()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_git_takes() {
        for good in [
            "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
            "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b",
            "diff --git a/x b/x\r\n--- a/x\r\n+++ b/x\r\n@@ -1 +1 @@\r\n-a\r\n+b\r\n",
            "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
            "diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n",
            "diff --git a/x b/x\nold mode 100644\nnew mode 100755\n",
            "diff --git a/x b/x\nnew file mode 100644\nindex 0000000..e69de29\n",
            "diff --git a/x b/x\nindex 00..11 100644\nBinary files a/x and b/x differ\n",
            "diff --git a/x b/x\nindex 0..1 100644\nGIT binary patch\nliteral 0\nHcmV?d00001\n\nliteral 1\nIcmZPo000310RR91\n\n",
            "--- a/y\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
            "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n",
            "diff --git \"a/\\303\\251\" \"b/\\303\\251\"\n--- \"a/\\303\\251\"\n+++ \"b/\\303\\251\"\n@@ -1 +1 @@\n-a\n+b\n",
            "From 1 Mon\nSubject: x\n\n---\n x | 2 +-\n\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n-- \n2.30\n",
        ] {
            assert_eq!(check_patch(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn refuses_what_is_no_diff() {
        for bad in [
            "",
            "fix it",
            "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,3 +1 @@\n-a\n+b\n",
            "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n",
            "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ one @@\n-a\n",
        ] {
            let why = check_patch(bad).expect_err(bad);
            assert!(why.contains("not a git diff"), "{why}");
        }
    }
}
