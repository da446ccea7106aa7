use crate::engine::{Content, FileIn};
use crate::synthesis::PATCH_FAILED_EXIT_CODE;

/// Where the report of the test command is expected.
pub(super) const REPORT_PATH: &str = "/bottega/report.xml";
/// Where the wrapper writes its own.
pub(super) const STATUS_PATH: &str = "/bottega/status";
/// The largest status that is read.
pub(super) const STATUS_BYTES_MAX: usize = 256;

/// What the wrapper exits with when the fix did not apply.
const FIX_FAILED_STATUS: i64 = 98;

/// Given as an argument, not as a file: bash reads a script's file while it runs, and the tests could write to it.
/// `-p` ignores what an image's environment would have bash read first.
///
/// The nonce is in a variable that no child inherits, and its file is gone before anything of the image's project
/// runs. Signals that the tests send to their parent only interrupt a no-op; SIGKILL leaves no status, which is
/// [`Lost`](queue_format::RunEnd::Lost). The tests run as the same user, so that this stops accidents and tricks, not
/// a debugger: a fix that reads its parent's memory is beyond it.
const WRAPPER: &str = r#"
unset -v nonce
read -r nonce < /bottega/nonce && rm /bottega/nonce || exit 99
trap : HUP INT TERM
export BOTTEGA_REPORT=/bottega/report.xml
say() {
  rm -rf /bottega/status
  (set -o noclobber; printf '%s %s %s\n' "$nonce" "$1" "$2" > /bottega/status)
}
if [ -e /bottega/fix.patch ]; then
  cd /testbed && git -c safe.directory='*' apply -v /bottega/fix.patch </dev/null
  status=$?
  if [ $status -ne 0 ]; then say fix $status; exit 98; fi
fi
bash /bottega/eval.sh </dev/null
status=$?
say eval $status
exit $status
"#;

/// The command of an evaluation's container.
pub(super) fn command() -> Vec<String> {
    ["bash", "-p", "-c", WRAPPER].map(str::to_owned).into()
}

/// The files that the command expects.
pub(super) fn files(nonce: &str, script: &str, fix_patch: Option<&str>) -> Vec<FileIn> {
    let file = |name: &str, mode, text: &str| FileIn {
        path: format!("/bottega/{name}"),
        mode,
        content: Content::Bytes(text.as_bytes().to_vec()),
    };
    let mut files = vec![file("nonce", 0o400, &format!("{nonce}\n")), file("eval.sh", 0o644, script)];
    files.extend(fix_patch.map(|patch| file("fix.patch", 0o644, patch)));
    files
}

/// What the wrapper vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vouched {
    /// The script returned this.
    Exited(i32),
    /// A patch did not apply.
    PatchFailed(i32),
}

/// The wrapper's word, if it carries the nonce and the engine saw the same end.
pub(super) fn vouched(status_file: Option<&[u8]>, nonce: &str, engine_exit_code: i64) -> Option<Vouched> {
    let text = std::str::from_utf8(status_file?).ok()?.strip_suffix('\n')?;
    let (what, status) = text.strip_prefix(nonce)?.strip_prefix(' ')?.split_once(' ')?;
    let status: i32 = status.parse().ok()?;
    match what {
        "fix" if engine_exit_code == FIX_FAILED_STATUS && status != 0 => Some(Vouched::PatchFailed(status)),
        "eval" if engine_exit_code != i64::from(status) => None,
        "eval" if status == PATCH_FAILED_EXIT_CODE => Some(Vouched::PatchFailed(status)),
        "eval" => Some(Vouched::Exited(status)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonce_and_engine_must_agree() {
        for (file, engine, expected) in [
            (Some("n eval 0\n"), 0, Some(Vouched::Exited(0))),
            (Some("n eval 1\n"), 1, Some(Vouched::Exited(1))),
            (Some("n eval 0\n"), 1, None),
            (Some("n eval 1\n"), 0, None),
            (Some("m eval 0\n"), 0, None),
            (Some("n eval 0"), 0, None),
            (Some("n eval 0\nn eval 0\n"), 0, None),
            (Some(" eval 0\n"), 0, None),
            (Some(""), 0, None),
            (None, 0, None),
            (Some("n eval 97\n"), 97, Some(Vouched::PatchFailed(97))),
            (Some("n fix 1\n"), 98, Some(Vouched::PatchFailed(1))),
            (Some("n fix 1\n"), 0, None),
            (Some("n fix 0\n"), 98, None),
            (Some("n eval 98\n"), 98, Some(Vouched::Exited(98))),
            (Some("n eval 137\n"), 137, Some(Vouched::Exited(137))),
        ] {
            assert_eq!(vouched(file.map(str::as_bytes), "n", engine), expected, "{file:?} {engine}");
        }
    }
}
