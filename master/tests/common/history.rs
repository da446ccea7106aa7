//! Where this project's own history lies.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Its git directory; a tarball and a shallow clone have none.
pub(crate) fn this_repository() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    // A work tree beside the first one has its objects there.
    let asked = ["-c", "safe.directory=*", "rev-parse", "--path-format=absolute", "--git-common-dir"];
    let asked = Command::new("git").args(asked).current_dir(root).output().expect("git runs");
    let is_there = root.join(".git").exists() && asked.status.success();
    let git_dir = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim());
    (is_there && !git_dir.join("shallow").exists()).then_some(git_dir)
}
