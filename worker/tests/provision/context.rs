//! What is packed from git is what is packed from a checkout, byte for byte.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use queue_format::BuildTask;
use worker::repository::{SourceTree, provision};

use super::git::git;
use super::{cache, origin, packed};

/// Commits of this repository that are compared, and how far they lie apart.
const COMMITS: usize = 4;
const APART: usize = 90;

/// An entry of a tar.
#[derive(PartialEq)]
struct Entry {
    header: Vec<u8>,
    name: Vec<u8>,
    target: Vec<u8>,
    content: Vec<u8>,
}

/// All of a tar but `.git`.
fn entries(tar: &[u8]) -> Vec<Entry> {
    let mut archive = tar::Archive::new(tar);
    let read = archive.entries().expect("a tar").map(|entry| {
        let mut entry = entry.expect("an entry");
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).expect("read");
        Entry {
            header: entry.header().as_bytes().to_vec(),
            name: entry.path_bytes().into_owned(),
            target: entry.link_name_bytes().unwrap_or_default().into_owned(),
            content,
        }
    });
    let is_of_git = |name: &[u8]| name == b"repo/.git" || name.starts_with(b"repo/.git/");
    read.filter(|entry| !is_of_git(&entry.name)).collect()
}

/// Packs a commit both ways, and tells whether its files were written to do that.
async fn check(repository: &Path, commit: &str) -> bool {
    let (context, by_hand) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut task = BuildTask { repository: repository.display().to_string(), ..origin().task() };
    commit.clone_into(&mut task.instance.base_commit);
    task.instance.patch = super::TEST_PATCH.replace("test_x", "a_fix_of_ours");
    task.instance.test_patch = super::TEST_PATCH.replace("test_x", "a_test_of_ours");
    let checkout = provision(&cache(context.path()), &task, context.path()).await.expect("provisioned");
    let from = repository.display().to_string();
    let clone = ["clone", "--quiet", "--shared", "--no-checkout", "--template=", &from, "repo"];
    git(by_hand.path(), &clone);
    let tree = by_hand.path().join("repo");
    git(&tree, &["checkout", "--quiet", "--detach", commit]);
    let ours = entries(&packed(context.path(), &checkout.tree).await);
    let theirs = entries(&packed(by_hand.path(), &SourceTree::written(&tree)).await);
    let name = |entry: &Entry| String::from_utf8_lossy(&entry.name).into_owned();
    let names = |entries: &[Entry]| entries.iter().map(name).collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!(ours == theirs, "{}", name(ours));
    }
    std::fs::read_dir(checkout.tree.dir()).expect("listed").count() > 1
}

#[tokio::test]
async fn commits_of_this_repository() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = std::process::Command::new("git")
        .current_dir(here)
        .args(["rev-parse", "--path-format=absolute", "--git-common-dir"])
        .output()
        .expect("git runs");
    let dir = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    // Sources that were unpacked from an archive have no history.
    if !found.status.success() || git(Path::new(&dir), &["rev-parse", "--is-shallow-repository"]) == "true" {
        return;
    }
    let commits = git(Path::new(&dir), &["rev-list", "HEAD"]);
    for commit in commits.lines().step_by(APART).take(COMMITS) {
        assert!(!check(Path::new(&dir), commit).await, "{commit} was written");
    }
}

/// A repository of whatever a tree may have, without attributes.
fn odd() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let work = dir.path();
    git(work, &["init", "--quiet", "--initial-branch=main"]);
    let write = |name: &[u8], content: &[u8]| {
        let path = work.join(OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, content).expect("written");
        path
    };
    // A directory comes where its name does, not where its name with a slash would.
    for name in ["a", "a-b", "a.b", "b/c", "b-c", "b.c", "b/c.d/e", "b/c/d"] {
        if name == "b/c" {
            write(b"b/b", b"")
        } else {
            write(name.as_bytes(), name.as_bytes())
        };
    }
    for name in
        [&b"gro\xdf"[..], b"new\nline", b"tab\t", b" space ", b"\"quoted\"", b"-option", b"d\xc3\xa9/\xff/x"]
    {
        write(name, b"odd\n");
    }
    write(&[b"long/".repeat(30), b"n".repeat(200)].concat(), b"long");
    write(b"crlf.txt", b"one\r\ntwo\r\n");
    write(b"mixed.txt", b"one\r\ntwo\n$Id$\n");
    write(b"binary", &(0..=255).collect::<Vec<u8>>().repeat(300));
    write(b"Dockerfile", b"FROM elsewhere\n");
    let program = write(b"bin/run", b"#!/bin/sh\n");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("set");
    for (target, link) in
        [("a", "link"), ("/nowhere", "bin/dangling"), ("..", "bin/up"), (&"t".repeat(150), "far")]
    {
        symlink(target, work.join(link)).expect("linked");
    }
    git(work, &["-c", "core.autocrlf=false", "add", "--all"]);
    let submodule = format!("160000,{},vendor/sub", "1".repeat(40));
    git(work, &["update-index", "--add", "--cacheinfo", &submodule]);
    git(work, &["commit", "--quiet", "-m", "odd"]);
    dir
}

#[tokio::test]
async fn odd_trees() {
    let dir = odd();
    let head = || git(dir.path(), &["rev-parse", "HEAD"]);
    assert!(!check(dir.path(), &head()).await, "written, without a reason");
    // Attributes of archives are none of a checkout, and neither are filters that nobody has configured.
    let commit = |attributes: &str| {
        std::fs::write(dir.path().join(".gitattributes"), attributes).expect("written");
        git(dir.path(), &["add", ".gitattributes"]);
        git(dir.path(), &["commit", "--quiet", "-m", "attributes"]);
        head()
    };
    let harmless =
        "a export-ignore\nmixed.txt export-subst\n*.txt text\n*.b filter=lfs diff=lfs -text\n*.d eol=lf\n";
    assert!(!check(dir.path(), &commit(harmless)).await, "written, without a reason");
    for changing in [
        "*.txt text eol=crlf\n",
        "* text=auto eol=crlf\n",
        "mixed.txt ident\n",
        "a working-tree-encoding=UTF-16\n",
    ] {
        assert!(check(dir.path(), &commit(changing)).await, "{changing}");
    }
}
