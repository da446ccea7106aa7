use std::borrow::Cow;

use super::path;

/// The part of a diff that is about one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDiff<'a> {
    /// All of it, from its first header line on, byte for byte.
    pub text: &'a str,
    /// The path before; `None` where the file is new.
    pub old: Option<Cow<'a, str>>,
    /// The path after; `None` where the file is deleted.
    pub new: Option<Cow<'a, str>>,
    /// The file before stays: it was copied.
    pub is_copy: bool,
    /// Where the content is binary, whether the diff has it.
    pub binary: Option<Binary>,
}

/// How a diff tells of a binary file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// With its content, as `git diff --binary` writes it.
    Whole,
    /// Only that it differs: such a part cannot be applied.
    Omitted,
}

impl FileDiff<'_> {
    /// The path that people would name: after the change, or before it where the file is deleted.
    #[must_use]
    pub fn path(&self) -> &str {
        self.new.as_deref().or(self.old.as_deref()).unwrap_or_default()
    }

    /// The paths that are written or removed.
    pub fn written(&self) -> impl Iterator<Item = &str> {
        let old = self.old.as_deref().filter(|_| !self.is_copy);
        let new = self.new.as_deref().filter(|new| Some(*new) != old);
        old.into_iter().chain(new)
    }

    /// Whether it begins with a `diff --git` line.
    #[must_use]
    pub fn is_git(&self) -> bool {
        self.text.starts_with(GIT)
    }

    /// What the change needs to find unchanged but does not touch.
    pub fn copied(&self) -> Option<&str> {
        self.old.as_deref().filter(|_| self.is_copy)
    }
}

const GIT: &str = "diff --git ";

/// How the lines go on that follow a `diff --git` line.
const HEADER: [&str; 10] = [
    "+++ ",
    "old mode ",
    "new mode ",
    "deleted file mode ",
    "new file mode ",
    "copy ",
    "rename ",
    "similarity index ",
    "dissimilarity index ",
    "index ",
];

/// A diff's parts, one a file, in their order. What stands before the first, such as a mail's header, belongs to none.
///
/// Parts with a `diff --git` line and parts without may follow each other, as in diffs that people put together.
#[must_use]
pub fn files(patch: &str) -> Vec<FileDiff<'_>> {
    let starts = starts(patch);
    let ends = starts.iter().skip(1).copied().chain([patch.len()]);
    starts.iter().zip(ends).map(|(&start, end)| file(&patch[start..end])).collect()
}

/// Where the parts of a diff begin, as `git apply` finds them.
fn starts(patch: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    // Lines of content may look like a header, so hunks are passed over by what theirs count.
    let (mut at, mut old_left, mut new_left) = (0_usize, 0_u64, 0_u64);
    // Of a `diff --git` line that is not behind us: its `---` line begins no other part.
    let mut is_header = false;
    for line in patch.split_inclusive('\n') {
        match line.as_bytes()[0] {
            // No line of content begins like it.
            b'd' if line.starts_with(GIT) => {
                starts.push(at);
                (is_header, old_left, new_left) = (true, 0, 0);
            }
            b'-' if old_left > 0 => old_left -= 1,
            b'+' if new_left > 0 => new_left -= 1,
            b' ' | b'\n' if old_left > 0 && new_left > 0 => {
                (old_left, new_left) = (old_left - 1, new_left - 1);
            }
            b'-' if line.starts_with("--- ") => {
                if !is_header && is_plain_start(&patch[at + line.len()..]) {
                    starts.push(at);
                }
            }
            b'@' => (is_header, (old_left, new_left)) = (false, counts(line).unwrap_or_default()),
            _ => is_header &= HEADER.iter().any(|word| line.starts_with(word)),
        }
        at += line.len();
    }
    starts
}

/// Whether what follows a `---` line makes it the beginning of a part.
fn is_plain_start(rest: &str) -> bool {
    rest.starts_with("+++ ") && rest.split_once('\n').is_some_and(|(_, rest)| rest.starts_with("@@ -"))
}

/// How many lines of the old and the new file a hunk has: `@@ -1,3 +1,4 @@`, where 1 may be left out.
fn counts(line: &str) -> Option<(u64, u64)> {
    let mut ranges = line.strip_prefix("@@ -")?.split(' ');
    let count = |range: &str| range.split_once(',').map_or(Some(1), |(_, count)| count.parse().ok());
    Some((count(ranges.next()?)?, count(ranges.next()?.strip_prefix('+')?)?))
}

fn file(text: &str) -> FileDiff<'_> {
    let mut part = FileDiff { text, old: None, new: None, is_copy: false, binary: None };
    let (mut is_new, mut is_deleted, mut is_named) = (false, false, false);
    for line in text.lines() {
        // Of a diff that was converted as a whole.
        let line = line.strip_suffix('\r').unwrap_or(line);
        if let Some(name) = line.strip_prefix("--- ") {
            (part.old, is_named) = (path::of_side(name), true);
        } else if let Some(name) = line.strip_prefix("+++ ") {
            (part.new, is_named) = (path::of_side(name), true);
            break;
        } else if let Some(name) = line.strip_prefix("rename from ") {
            (part.old, is_named) = (Some(path::plain(name)), true);
        } else if let Some(name) = line.strip_prefix("copy from ") {
            (part.old, part.is_copy, is_named) = (Some(path::plain(name)), true, true);
        } else if let Some(name) = line.strip_prefix("rename to ").or(line.strip_prefix("copy to ")) {
            part.new = Some(path::plain(name));
        } else if line == "GIT binary patch" {
            part.binary = Some(Binary::Whole);
            break;
        } else if line.starts_with("Binary files ") {
            part.binary = Some(Binary::Omitted);
            break;
        } else if line.starts_with("@@") {
            break;
        }
        is_new |= line.starts_with("new file mode ");
        is_deleted |= line.starts_with("deleted file mode ");
    }
    if !is_named {
        let header = text.lines().next().unwrap_or_default();
        let names = header.strip_prefix(GIT).unwrap_or_default();
        let path = path::of_header(names.strip_suffix('\r').unwrap_or(names));
        part.old = path.clone().filter(|_| !is_new);
        part.new = path.filter(|_| !is_deleted);
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_paths_of_every_kind_of_change() {
        let check = |patch: &str, expected: &[(Option<&str>, Option<&str>)]| {
            let parts = files(patch);
            let got: Vec<_> = parts.iter().map(|part| (part.old.as_deref(), part.new.as_deref())).collect();
            assert_eq!(got, expected, "{patch}");
        };
        let both = |path| (Some(path), Some(path));
        let hunk = "@@ -1 +1 @@\n-a\n+b\n";
        check(&format!("diff --git a/x b/x\n--- a/x\n+++ b/x\n{hunk}"), &[both("x")]);
        check(&format!("diff --git a/x b/x\r\n--- a/x\r\n+++ b/x\r\n{hunk}"), &[both("x")]);
        check(&format!("diff --git a/x y b/x y\n--- a/x y\t\n+++ b/x y\t\n{hunk}"), &[both("x y")]);
        check("diff --git a/x y b/x y\nold mode 100644\nnew mode 100755\n", &[both("x y")]);
        check("diff --git a/a b/a b/a b/a\nold mode 100644\nnew mode 100755\n", &[both("a b/a")]);
        check("diff --git a/x b/x\nnew file mode 100644\nindex 0..e\n", &[(None, Some("x"))]);
        check("diff --git a/x b/x\ndeleted file mode 100644\nindex e..0\n", &[(Some("x"), None)]);
        check(
            "diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n",
            &[(Some("x"), Some("y"))],
        );
        check(
            "diff --git \"a/\\303\\251\\t\" \"b/\\303\\251\\t\"\nold mode 100644\nnew mode 100755\n",
            &[both("é\t")],
        );
        check(&format!("diff --git a/x b/x\n--- a/x\n+++ \"b/\\\"\"\n{hunk}"), &[(Some("x"), Some("\""))]);
        check(
            &format!("--- a/x\t2024\n+++ b/x\t2024\n{hunk}--- a/y\n+++ /dev/null\n{hunk}"),
            &[both("x"), (Some("y"), None)],
        );
        check(
            &format!(
                "--- x\n+++ x\n{hunk}diff --git a/y b/y\n--- a/y\n+++ b/y\n{hunk}--- a/z\n+++ b/z\n{hunk}"
            ),
            &[both("x"), both("y"), both("z")],
        );
        check(
            &format!("diff --git a/x b/y\nrename from x\nrename to y\n\n--- a/z\n+++ b/z\n{hunk}"),
            &[(Some("x"), Some("y")), both("z")],
        );
        check("a mail\n--- a/x\n+++ b/x\nabout x\n", &[]);
        check(&format!("--- \"a/x \\303\\251\"\t\n+++ \"b/x \\303\\251\"\t\n{hunk}"), &[both("x é")]);
        // A removed line and an added one that look like a header.
        let tricky = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n--- a/y\n+++ b/y\n c\n@@ -9 +9 @@\n-a\n+b\n";
        check(tricky, &[both("x")]);
        check("nothing\n", &[]);
        check("", &[]);
    }

    #[test]
    fn knows_binary_content_that_was_left_out() {
        let omitted = "diff --git a/x b/x\nindex 0..1 100644\nBinary files a/x and b/x differ\n";
        let whole = "diff --git a/x b/x\nindex 0..1 100644\nGIT binary patch\nliteral 0\nHcmV?d00001\n\n";
        assert_eq!(files(omitted)[0].binary, Some(Binary::Omitted));
        assert_eq!(files(whole)[0].binary, Some(Binary::Whole));
    }

    #[test]
    fn leaves_out_what_is_no_part() {
        let patch = "From 1 Mon\nSubject: x\n---\n x | 2 +-\n\ndiff --git a/x b/x\nnew file mode 100644\n";
        assert_eq!(files(patch)[0].text, "diff --git a/x b/x\nnew file mode 100644\n");
    }
}
