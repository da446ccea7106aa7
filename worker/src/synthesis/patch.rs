/// A file that a patch touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PatchedFile {
    /// Its path after the patch.
    pub(crate) path: String,
    /// The patch removes it.
    pub(crate) deleted: bool,
    /// The patch adds it.
    pub(crate) added: bool,
    /// The lines that the patch adds.
    pub(crate) added_text: String,
}

/// The files of a git diff, in its order.
pub(crate) fn files(patch: &str) -> Vec<PatchedFile> {
    let mut files: Vec<PatchedFile> = Vec::new();
    let mut in_hunk = false;
    for line in patch.lines() {
        if let Some(header) = line.strip_prefix("diff --git ") {
            let path = header.rsplit_once(" b/").map_or(header, |(_, path)| path).trim_end_matches('"');
            files.push(PatchedFile { path: path.to_owned(), ..PatchedFile::default() });
            in_hunk = false;
            continue;
        }
        let Some(file) = files.last_mut() else { continue };
        if line.starts_with("@@ ") {
            in_hunk = true;
        } else if in_hunk {
            if let Some(added) = line.strip_prefix('+') {
                file.added_text.push_str(added);
                file.added_text.push('\n');
            }
        } else if line.starts_with("deleted file mode") {
            file.deleted = true;
        } else if line.starts_with("new file mode") {
            file.added = true;
        } else if let Some(path) = line.strip_prefix("+++ b/").or_else(|| line.strip_prefix("rename to ")) {
            file.path = path.trim_end_matches('\t').to_owned();
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_diff_does_to_each_file() {
        let patch = "diff --git a/x.py b/x.py\nindex 1..2 100644\n--- a/x.py\n+++ b/x.py\n@@ -1 +1,2 @@\n a\n+++ b\ndiff --git a/old.py b/old.py\ndeleted file mode 100644\n--- a/old.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\ndiff --git a/a.py b/c d.py\nsimilarity index 100%\nrename from a.py\nrename to c d.py\ndiff --git a/n.bin b/n.bin\nnew file mode 100644\nBinary files differ\n";
        let found: Vec<_> =
            files(patch).into_iter().map(|f| (f.path, f.deleted, f.added, f.added_text)).collect();
        let row = |path: &str, deleted, added, text: &str| (path.to_owned(), deleted, added, text.to_owned());
        assert_eq!(
            found,
            [
                row("x.py", false, false, "++ b\n"),
                row("old.py", true, false, ""),
                row("c d.py", false, false, ""),
                row("n.bin", false, true, ""),
            ]
        );
    }
}
