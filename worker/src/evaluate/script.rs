use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::synthesis::TEST_PATCH_PLACEHOLDER;

/// The longest name of a command, in characters.
const COMMAND_CHARS_MAX: usize = 120;

/// The script with the test patch in the place of its placeholder.
///
/// The patch stands in a here-document, whose terminator is changed where the patch has a line like it: else the
/// rest of the patch would be run as commands.
#[must_use]
pub fn fill_in(skeleton: &str, test_patch: &str) -> String {
    let patch = normalise_patch(test_patch);
    let Some((before, after)) = skeleton.split_once(TEST_PATCH_PLACEHOLDER) else {
        return skeleton.to_owned();
    };
    // The placeholder's line ends by itself.
    let body = patch.strip_suffix('\n').unwrap_or(&patch);
    let Some(terminator) = terminator(before) else { return format!("{before}{body}{after}") };
    let fresh = fresh_terminator(terminator, &patch);
    let at = before.rfind(terminator).unwrap_or(before.len());
    let before = format!("{}{fresh}{}", &before[..at], &before[at + terminator.len()..]);
    let after = after.replacen(&format!("\n{terminator}"), &format!("\n{fresh}"), 1);
    format!("{before}{body}{after}")
}

/// A patch with a last newline, and without the carriage returns of a patch that was converted as a whole: one whose
/// header lines have them. Those of a file's own lines stay.
#[must_use]
pub fn normalise_patch(patch: &str) -> Cow<'_, str> {
    let is_header = |line: &&str| ["diff --git ", "--- ", "+++ "].iter().any(|start| line.starts_with(start));
    let was_converted = patch.split('\n').filter(is_header).take(3).any(|line| line.ends_with('\r'));
    let patch = if was_converted { Cow::Owned(patch.replace("\r\n", "\n")) } else { Cow::Borrowed(patch) };
    if patch.is_empty() || patch.ends_with('\n') { patch } else { Cow::Owned(patch.into_owned() + "\n") }
}

/// The word that ends the here-document which begins on the placeholder's preceding line.
fn terminator(before: &str) -> Option<&str> {
    let line = before.trim_end_matches('\n').lines().last()?;
    let word = line.rsplit_once("<<")?.1.trim_start_matches('-').trim().trim_matches(['"', '\'']);
    let is_word = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_word.then_some(word)
}

fn fresh_terminator(terminator: &str, patch: &str) -> String {
    let mut fresh = terminator.to_owned();
    // Each turn makes it longer, so that it ends at the latest when it is longer than the patch.
    while patch.lines().any(|line| line.trim_end_matches('\r') == fresh) {
        fresh.push('_');
    }
    fresh
}

/// The test command of a script, as the name of the one test that a runner without a report has.
pub(super) fn command_name(skeleton: &str) -> String {
    let lines = skeleton.lines().skip_while(|line| !line.contains("Start Test Output")).skip(1);
    let mut commands = lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    commands.next().unwrap_or("test command").chars().take(COMMAND_CHARS_MAX).collect()
}

/// The names that a project's own modules can have: every directory and file of its patches.
pub(super) fn own_names(patches: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in patches.iter().flat_map(|patch| patch.lines()) {
        let path = ["--- a/", "+++ b/", "rename to ", "rename from "]
            .iter()
            .find_map(|start| line.strip_prefix(start));
        for part in path.unwrap_or_default().split('/') {
            let stem = part.trim_end().split('.').next().unwrap_or_default();
            if !stem.is_empty() {
                names.insert(stem.to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKELETON: &str = "git apply - <<'EOF_1'\n[CONTENT OF TEST PATCH]\nEOF_1\necho done\n";

    #[test]
    fn fills_the_patch_in_whatever_it_holds() {
        for (patch, expected) in [
            ("+a\n", "git apply - <<'EOF_1'\n+a\nEOF_1\necho done\n"),
            ("+a", "git apply - <<'EOF_1'\n+a\nEOF_1\necho done\n"),
            ("+a\r\n+b\n", "git apply - <<'EOF_1'\n+a\r\n+b\nEOF_1\necho done\n"),
            ("+++ b/x\r\n+a\r\n", "git apply - <<'EOF_1'\n+++ b/x\n+a\nEOF_1\necho done\n"),
            ("EOF_1\nrm -rf /\n", "git apply - <<'EOF_1_'\nEOF_1\nrm -rf /\nEOF_1_\necho done\n"),
            ("EOF_1\nEOF_1_\r\n", "git apply - <<'EOF_1__'\nEOF_1\nEOF_1_\r\nEOF_1__\necho done\n"),
            ("+EOF_1\n$(x) `y`\n", "git apply - <<'EOF_1'\n+EOF_1\n$(x) `y`\nEOF_1\necho done\n"),
            (
                "[CONTENT OF TEST PATCH]\n",
                "git apply - <<'EOF_1'\n[CONTENT OF TEST PATCH]\nEOF_1\necho done\n",
            ),
        ] {
            assert_eq!(fill_in(SKELETON, patch), expected, "{patch:?}");
        }
        assert_eq!(fill_in("no place", "+a\n"), "no place");
    }

    #[test]
    fn names_the_command() {
        let skeleton = "a\necho '>>>>> Start Test Output'\n# why\npython run.py -x\nrc=$?\n";
        assert_eq!(command_name(skeleton), "python run.py -x");
        assert_eq!(command_name(""), "test command");
    }

    #[test]
    fn own_names_are_those_of_the_patches() {
        let names = own_names(&[
            "--- a/src/pkg/mod.py\n+++ b/src/pkg/mod.py\t\n+import six\n",
            "rename to tests/new.py\n",
        ]);
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["mod", "new", "pkg", "src", "tests"]);
    }
}
