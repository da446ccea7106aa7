//! Directories that an operator keeps, and what may be wrong with a task.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use queue_format::{BuildTask, FailureReason};
use worker::repository::{ProvisionError, RepositoryCache, provision};

use super::git::git;
use super::{FIX, cache, knows_no_fix, origin, timeouts, unpacked};

#[tokio::test]
async fn the_tree_is_the_base_and_knows_no_future() {
    let origin = origin();
    let context = tempfile::tempdir().expect("a directory");
    let checkout =
        provision(&cache(context.path()), &origin.task(), context.path()).await.expect("provisioned");
    let unpacked = unpacked(&checkout).await;
    let tree = &unpacked.path().join("repo");
    assert_eq!(std::fs::read_to_string(tree.join("x.py")).expect("there"), "x = 'bug'\n");
    assert_eq!(git(tree, &["rev-parse", "HEAD"]), origin.base, "the base keeps its commit id");
    assert_eq!(git(tree, &["rev-list", "--all", "--count"]), "1");
    assert_eq!(git(tree, &["describe", "--tags"]), "v1.2.0", "the nearest release, for builds that ask git");
    assert_eq!(git(tree, &["remote"]), "");
    assert_eq!(git(tree, &["status", "--porcelain"]), "");
    assert_eq!(git(tree, &["fsck", "--full", "--strict"]), "");
    assert!(!checkout.tree.dir().join("x.py").exists(), "its files are only in git");
    knows_no_fix(tree, &origin);
}

#[tokio::test]
async fn a_git_that_cannot_look_fails_no_task() {
    let origin = origin();
    let context = tempfile::tempdir().expect("a directory");
    let hung = RepositoryCache::new(&context.path().join("cache"), timeouts(Duration::ZERO));
    let error = provision(&hung, &origin.task(), context.path()).await.expect_err("there is no time");
    assert_eq!(error.reason(), None, "{error}");
}

#[tokio::test]
async fn a_foreign_tag_is_no_option() {
    let origin = origin();
    let bare = origin.dir.path().join("bare.git");
    git(&bare, &["update-ref", "-d", "refs/tags/v1.2.0"]);
    std::fs::write(bare.join("packed-refs"), {
        let refs = std::fs::read_to_string(bare.join("packed-refs")).unwrap_or_default();
        format!("{refs}{} refs/tags/-x1\n", origin.base)
    })
    .expect("written");
    let context = tempfile::tempdir().expect("a directory");
    provision(&cache(context.path()), &origin.task(), context.path()).await.expect("provisioned");
}

#[tokio::test]
async fn what_is_wrong_with_a_task_has_its_reason() {
    let origin = origin();
    let check = async |change: &dyn Fn(&mut BuildTask), reason: FailureReason, says: &str| {
        let context = tempfile::tempdir().expect("a directory");
        let mut task = origin.task();
        change(&mut task);
        let error = provision(&cache(context.path()), &task, context.path()).await.expect_err(says);
        assert_eq!(error.reason(), Some(reason), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    check(
        &|t| t.repository = "/nowhere".to_owned(),
        FailureReason::Repository,
        "no git repository at /nowhere",
    )
    .await;
    check(&|t| t.repository = "ext::sh -c id".to_owned(), FailureReason::Repository, "no git repository")
        .await;
    check(&|t| t.repository = "--upload-pack=id".to_owned(), FailureReason::Repository, "no git repository")
        .await;
    check(&|t| t.instance.base_commit = "1".repeat(40), FailureReason::Repository, "correct base_commit")
        .await;
    let elsewhere = FIX.replace("bug", "other");
    check(&|t| t.instance.patch.clone_from(&elsewhere), FailureReason::Patch, "\"patch\" does not apply")
        .await;
    check(&|t| t.instance.test_patch = "hello\n".to_owned(), FailureReason::Patch, "\"test_patch\"").await;
    let outside = FIX.replace("x.py", "../../x.py");
    check(&|t| t.instance.patch.clone_from(&outside), FailureReason::Patch, "\"patch\"").await;
}

#[tokio::test]
async fn a_missing_submodule_is_said() {
    let origin = origin();
    let work = origin.dir.path().join("work");
    std::fs::write(work.join(".gitmodules"), "[submodule \"data\"]\n\tpath = tests/data\n\turl = ../data\n")
        .expect("written");
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "-m", "with a submodule"]);
    let mut task = origin.task();
    task.repository = work.display().to_string();
    task.instance.base_commit = git(&work, &["rev-parse", "HEAD"]);
    task.instance.patch = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-x = 'later'\n+x = 'fixed'\n".to_owned();
    let context = tempfile::tempdir().expect("a directory");
    let checkout: Result<_, ProvisionError> = provision(&cache(context.path()), &task, context.path()).await;
    let notes = checkout.expect("provisioned").notes;
    assert!(notes.len() == 1 && notes[0].contains("tests/data"), "{notes:?}");
}

#[tokio::test]
async fn a_mirror_without_some_blobs_still_gives_the_rest() {
    let origin = origin();
    let work = origin.dir.path().join("work");
    let latin = std::ffi::OsStr::from_bytes(b"gro\xdf.json");
    std::fs::write(work.join("huge.json"), "huge").expect("written");
    std::fs::write(work.join(latin), "latin").expect("written");
    std::fs::write(work.join("x.py"), "x = 'bug'\n").expect("written");
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "-m", "with a large file"]);
    for content in ["huge", "latin"] {
        std::fs::write(work.join(".git/content"), content).expect("written");
        let blob = git(&work, &["hash-object", ".git/content"]);
        std::fs::remove_file(work.join(".git/objects").join(&blob[..2]).join(&blob[2..]))
            .expect("a loose object");
    }
    let mut task = origin.task();
    task.repository = work.display().to_string();
    task.instance.base_commit = git(&work, &["rev-parse", "HEAD"]);
    let context = tempfile::tempdir().expect("a directory");
    let checkout = provision(&cache(context.path()), &task, context.path()).await.expect("provisioned");
    assert!(checkout.notes.len() == 1 && checkout.notes[0].contains("huge.json"), "{:?}", checkout.notes);
    let unpacked = unpacked(&checkout).await;
    let tree = &unpacked.path().join("repo");
    assert_eq!(std::fs::read_to_string(tree.join("x.py")).expect("there"), "x = 'bug'\n");
    assert!(!tree.join("huge.json").exists() && !tree.join(latin).exists());
    assert_eq!(git(tree, &["status", "--porcelain"]), "");
    assert_eq!(git(tree, &["rev-list", "--all", "--count"]), "1");
    git(tree, &["fsck", "--full"]);
    let day = |dir: &Path| git(dir, &["show", "--no-patch", "--format=%ct", "HEAD"]);
    assert_eq!(day(tree), day(&work), "the date decides the versions of dependencies");
    knows_no_fix(tree, &origin);
}
