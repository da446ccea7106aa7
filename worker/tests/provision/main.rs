//! Provisioning from real bare repositories: the tree is the base, and nothing in it knows the future.

use std::path::Path;
use std::time::Duration;

mod context;
mod copies;
#[path = "../common/git.rs"]
mod git;
mod tasks;

use futures_util::TryStreamExt;
use git::git;
use queue_format::{BuildTask, Instance};
use tempfile::TempDir;
use worker::engine::context_stream;
use worker::repository::{Checkout, GitTimeouts, RepositoryCache, SourceTree};

const TEST_PATCH: &str = "diff --git a/test_x.py b/test_x.py\nnew file mode 100644\n--- /dev/null\n+++ b/test_x.py\n@@ -0,0 +1 @@\n+assert True\n";
const FIX: &str = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-x = 'bug'\n+x = 'SECRET FIX'\n";

struct Origin {
    dir: TempDir,
    base: String,
    fix: String,
}

/// An old release, the base, the fix and a commit after it, in a bare repository.
fn origin() -> Origin {
    let dir = tempfile::tempdir().expect("a directory");
    let work = dir.path().join("work");
    std::fs::create_dir(&work).expect("made");
    git(&work, &["init", "--quiet", "--initial-branch=main"]);
    let commit = |text: &str| {
        std::fs::write(work.join("x.py"), format!("x = '{text}'\n")).expect("written");
        git(&work, &["add", "."]);
        git(&work, &["commit", "--quiet", "-m", text]);
        git(&work, &["rev-parse", "HEAD"])
    };
    commit("release");
    git(&work, &["tag", "v1.2.0"]);
    let base = commit("bug");
    let fix = commit("SECRET FIX");
    git(&work, &["tag", "v1.3.0"]);
    commit("later");
    git(&work, &["remote", "add", "origin", "https://example.org/x"]);
    git(dir.path(), &["clone", "--quiet", "--bare", "work", "bare.git"]);
    Origin { dir, base, fix }
}

impl Origin {
    fn bare(&self) -> String {
        self.dir.path().join("bare.git").display().to_string()
    }

    fn task(&self) -> BuildTask {
        let instance: Instance = serde_json::from_value(serde_json::json!({
            "instance_id": "owner__name-1", "repo": "owner/name", "base_commit": self.base,
            "problem_statement": "", "patch": FIX, "test_patch": TEST_PATCH,
        }))
        .expect("a row");
        BuildTask { repository: self.bare(), instance }
    }
}

fn timeouts(each: Duration) -> GitTimeouts {
    GitTimeouts { command: each, fetch: each }
}

fn cache(dir: &Path) -> RepositoryCache {
    RepositoryCache::new(&dir.join("cache"), timeouts(Duration::from_secs(60)))
}

/// The context as an engine takes it.
async fn packed(context_dir: &Path, tree: &SourceTree) -> Vec<u8> {
    let stream = context_stream(context_dir.to_owned(), Some(tree.clone()), "FROM x\n".to_owned());
    let pieces: Vec<_> = stream.try_collect().await.expect("packed");
    pieces.concat()
}

/// The tree as an image has it, in `repo/` of a directory.
async fn unpacked(checkout: &Checkout) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let packed = packed(&checkout.context_dir, &checkout.tree).await;
    tar::Archive::new(packed.as_slice()).unpack(dir.path()).expect("unpacked");
    dir
}

/// Nothing in a repository knows the fix: no object, packed or loose, reachable or not, and nothing beside them that
/// tells where they came from.
fn knows_no_fix(tree: &Path, origin: &Origin) {
    let objects = std::process::Command::new("git")
        .current_dir(tree)
        .args(["cat-file", "--batch-all-objects", "--batch"])
        .output()
        .expect("git runs");
    let text = String::from_utf8_lossy(&objects.stdout);
    assert!(objects.status.success() && text.contains(" tree ") && text.contains(" commit "), "{text}");
    assert!(!text.contains("SECRET"), "{text}");
    let is_there = |object: &str| text.lines().any(|line| line.starts_with(object));
    assert!(!is_there(&origin.fix), "the fix");
    let commits = git(tree, &["rev-list", "--all"]);
    assert_eq!(commits, git(tree, &["rev-parse", "HEAD"]), "one commit");
    let kinds = git(tree, &["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"]);
    assert_eq!(kinds.lines().filter(|kind| ["commit", "tag"].contains(kind)).count(), 1);
    let mut waiting = vec![tree.join(".git")];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).expect("listed").flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let name = path.strip_prefix(tree.join(".git")).expect("below").display().to_string();
            let known = ["HEAD", "config", "index", "shallow", "refs/heads/main"];
            let is_known = known.contains(&name.as_str());
            assert!(is_known || name.starts_with("objects/") || name.starts_with("refs/tags/"), "{name}");
            assert!(!name.contains("alternates") && !name.contains("tmp_"), "{name}");
        }
    }
}
