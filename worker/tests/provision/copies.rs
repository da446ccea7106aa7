//! Copies of URLs and bundles, and partial clones.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime};

use queue_format::{BuildTask, FailureReason};
use worker::repository::{GitTimeouts, RepositoryCache, provision};

use super::git::git;
use super::{TEST_PATCH, cache, knows_no_fix, origin, unpacked};

/// A server of repositories, which ends with the test.
struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    fn start(base: &Path) -> Self {
        // Tests of one process run beside each other.
        static NUMBER: AtomicU16 = AtomicU16::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let port = 20_000
            + u16::try_from(std::process::id() % 10_000).expect("small") * 2
            + u16::try_from(u32::from(number) * 20_011 % 25_000).expect("small");
        // The program itself: killing `git daemon` would leave it behind.
        let program = Path::new(&git(base, &["--exec-path"])).join("git-daemon");
        let child = Command::new(program)
            .args(["--export-all", "--listen=127.0.0.1", "--informative-errors"])
            .args([&format!("--port={port}"), &format!("--base-path={}", base.display())])
            .stdin(std::process::Stdio::null())
            .spawn()
            .expect("git-daemon");
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child, port }
    }

    fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

/// The blobs that a repository has.
fn blobs(dir: &Path) -> usize {
    let objects = git(dir, &["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"]);
    objects.lines().filter(|kind| *kind == "blob").count()
}

/// The one copy of a URL in a state directory.
fn copy_in(state: &Path) -> PathBuf {
    let copies = std::fs::read_dir(state.join("cache")).expect("listed").flatten();
    copies.map(|entry| entry.path()).find(|path| path.is_dir()).expect("a copy")
}

#[tokio::test]
async fn a_url_is_copied_once_and_then_served_from_the_copy() {
    let origin = origin();
    let state = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(origin.dir.path());
    let task = BuildTask { repository: daemon.url("bare.git"), ..origin.task() };
    let first = tempfile::tempdir().expect("a directory");
    let copied = provision(&cache(state.path()), &task, first.path()).await;
    drop(daemon);
    let unpacked = unpacked(&copied.expect("provisioned over the network")).await;
    knows_no_fix(&unpacked.path().join("repo"), &origin);
    let second = tempfile::tempdir().expect("a directory");
    provision(&cache(state.path()), &task, second.path()).await.expect("provisioned without the network");
    let third = tempfile::tempdir().expect("a directory");
    let mut unknown = task;
    unknown.instance.base_commit = "1".repeat(40);
    let error =
        provision(&cache(state.path()), &unknown, third.path()).await.expect_err("the server is gone");
    assert_eq!(error.reason(), None, "a node without network fails no task: {error}");
}

#[tokio::test]
async fn what_a_server_lacks_is_the_tasks_fault() {
    let origin = origin();
    let state = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(origin.dir.path());
    let tried = async |name: &str, commit: &str| {
        let mut task = BuildTask { repository: daemon.url(name), ..origin.task() };
        commit.clone_into(&mut task.instance.base_commit);
        let context = tempfile::tempdir().expect("a directory");
        let error = provision(&cache(state.path()), &task, context.path()).await.expect_err(name);
        assert_eq!(error.reason(), Some(FailureReason::Repository), "{error}");
        error.to_string()
    };
    assert!(tried("bare.git", &"1".repeat(40)).await.contains("is not in git://"));
    assert!(tried("nowhere.git", &origin.base).await.contains("no git repository at"));
}

#[tokio::test]
async fn what_became_of_branches_and_of_a_killed_git_is_in_nobodys_way() {
    let origin = origin();
    let (bare, work) = (origin.dir.path().join("bare.git"), origin.dir.path().join("work"));
    let state = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(origin.dir.path());
    let task = |commit: &str| {
        let mut task = BuildTask { repository: daemon.url("bare.git"), ..origin.task() };
        commit.clone_into(&mut task.instance.base_commit);
        task.instance.patch = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-x = 'later'\n+x = 'fixed'\n".to_owned();
        task
    };
    let tried = async |commit: &str| {
        let context = tempfile::tempdir().expect("a directory");
        provision(&cache(state.path()), &task(commit), context.path()).await.map(drop)
    };
    let pushed = |branch: &str| {
        git(&work, &["commit", "--quiet", "--allow-empty", "-m", branch]);
        git(&work, &["push", "--quiet", &bare.display().to_string(), &format!("HEAD:{branch}")]);
        git(&work, &["rev-parse", "HEAD"])
    };
    tried(&pushed("refs/heads/x")).await.expect("provisioned");
    // A branch becomes a directory of branches, and the commit is that of a pull request.
    git(&bare, &["update-ref", "-d", "refs/heads/x"]);
    pushed("refs/heads/x/y");
    tried(&pushed("refs/pull/1/head")).await.expect("provisioned, though the branch was in the way");
    // A git was killed while it wrote refs, in a copy that nobody else uses.
    let copy = copy_in(state.path());
    let (lock, pack) = (copy.join("packed-refs.lock"), copy.join("objects/pack/tmp_pack_x"));
    for left in [&lock, &pack] {
        let left = std::fs::File::create(left).expect("made");
        left.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("set");
    }
    git(&bare, &["update-ref", "-d", "refs/heads/x/y"]);
    tried(&pushed("refs/heads/z")).await.expect("provisioned, though a lock was left");
    assert!(!lock.exists() && !pack.exists());
}

#[tokio::test]
async fn a_copy_that_was_removed_half_way_is_made_anew() {
    let origin = origin();
    let state = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(origin.dir.path());
    let task = BuildTask { repository: daemon.url("bare.git"), ..origin.task() };
    let tried = async || {
        let context = tempfile::tempdir().expect("a directory");
        provision(&cache(state.path()), &task, context.path()).await.map(drop)
    };
    tried().await.expect("provisioned");
    let copy = copy_in(state.path());
    for lost in ["objects", "refs", "HEAD", "objects/pack"] {
        let lost = copy.join(lost);
        if lost.is_dir() { std::fs::remove_dir_all(lost) } else { std::fs::remove_file(lost) }
            .expect("removed");
        tried().await.expect("provisioned");
    }
}

#[tokio::test]
async fn whoever_reads_a_copy_holds_it() {
    let origin = origin();
    let state = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(origin.dir.path());
    let repositories = cache(state.path());
    let read = repositories.locate(&daemon.url("bare.git"), &origin.base).await.expect("a copy");
    let dir = std::fs::File::open(&read.dir).expect("a directory");
    assert!(dir.try_lock().is_err(), "as the janitor does before it removes one");
    repositories.locate(&daemon.url("bare.git"), &origin.base).await.expect("others may read it too");
    drop(read);
    // A process that another test is just starting has all that was open, until it runs its program.
    let ended = SystemTime::now() + Duration::from_secs(60);
    while let Err(held) = dir.try_lock() {
        assert!(SystemTime::now() < ended, "{held}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_fetch_has_its_own_limit_and_its_own_words() {
    let state = tempfile::tempdir().expect("a directory");
    // It takes the connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let task = BuildTask {
        repository: format!("git://{}/x", silent.local_addr().expect("an address")),
        ..origin().task()
    };
    let timeouts = GitTimeouts { fetch: Duration::from_secs(1), command: Duration::from_secs(60) };
    let hurried = RepositoryCache::new(&state.path().join("cache"), timeouts);
    let error = provision(&hurried, &task, state.path()).await.expect_err("nobody answers");
    assert_eq!(error.reason(), None, "{error}");
    assert!(error.to_string().contains("within 1 s; raise fetch_timeout_seconds"), "{error}");
}

#[tokio::test]
async fn a_partial_clone_gets_what_a_commit_needs_and_no_more() {
    let origin = origin();
    let dir = origin.dir.path();
    git(&dir.join("bare.git"), &["config", "uploadpack.allowFilter", "true"]);
    let url = format!("file://{}", dir.join("bare.git").display());
    let task = BuildTask { repository: dir.join("partial.git").display().to_string(), ..origin.task() };
    let tried = async || {
        let context = tempfile::tempdir().expect("a directory");
        provision(&cache(context.path()), &task, context.path()).await.map(|checkout| checkout.notes)
    };
    // `tree:0` lacks trees too, and what is below them is not known before they are there.
    for filter in ["--filter=blob:none", "--filter=tree:0"] {
        git(dir, &["clone", "--quiet", "--bare", filter, &url, "partial.git"]);
        let mirror = dir.join("partial.git");
        assert_eq!(blobs(&mirror), 0);
        assert_eq!(tried().await.expect("provisioned"), Vec::<String>::new());
        assert_eq!(blobs(&mirror), 1);
        // Nothing is missing now, so nobody is asked.
        git(&mirror, &["remote", "set-url", "origin", "file:///nowhere"]);
        assert_eq!(tried().await.expect("provisioned"), Vec::<String>::new());
        std::fs::remove_dir_all(&mirror).expect("removed");
    }
}

#[tokio::test]
async fn a_partial_clone_without_its_remote_is_an_incomplete_mirror() {
    let origin = origin();
    let dir = origin.dir.path();
    git(&dir.join("bare.git"), &["config", "uploadpack.allowFilter", "true"]);
    let url = format!("file://{}", dir.join("bare.git").display());
    git(dir, &["clone", "--quiet", "--bare", "--filter=blob:none", &url, "partial.git"]);
    let mirror = dir.join("partial.git");
    git(&mirror, &["remote", "set-url", "origin", "file:///nowhere"]);
    let tried = async |commit: &str| {
        let context = tempfile::tempdir().expect("a directory");
        let mut task = BuildTask { repository: mirror.display().to_string(), ..origin.task() };
        commit.clone_into(&mut task.instance.base_commit);
        task.instance.patch = TEST_PATCH.replace("test_x", "fix");
        provision(&cache(context.path()), &task, context.path()).await.map(|checkout| checkout.notes)
    };
    let error = tried(&origin.base).await.expect_err("there is nothing of it");
    assert_eq!(error.reason(), Some(FailureReason::Repository), "{error}");
    assert!(error.to_string().contains("partial clone, and what it lacks could not be fetched"), "{error}");
    // A commit that shares one file with a commit that is whole.
    std::fs::write(dir.join("work/more.py"), "more").expect("written");
    git(&dir.join("work"), &["add", "."]);
    git(&dir.join("work"), &["commit", "--quiet", "-m", "more"]);
    let (later, more) =
        (git(&dir.join("work"), &["rev-parse", "HEAD~"]), git(&dir.join("work"), &["rev-parse", "HEAD"]));
    git(&dir.join("work"), &["push", "--quiet", &url, "HEAD:refs/heads/more"]);
    git(&mirror, &["remote", "set-url", "origin", &url]);
    assert_eq!(tried(&later).await.expect("provisioned"), Vec::<String>::new());
    git(&mirror, &["fetch", "--quiet", "origin", "more"]);
    git(&mirror, &["remote", "set-url", "origin", "file:///nowhere"]);
    let notes = tried(&more).await.expect("provisioned");
    assert!(
        notes.len() == 2 && notes[0].contains("partial clone") && notes[1].contains("more.py"),
        "{notes:?}"
    );
}

#[tokio::test]
async fn the_copy_of_a_url_has_the_blobs_of_its_tasks_alone() {
    let origin = origin();
    git(&origin.dir.path().join("bare.git"), &["config", "uploadpack.allowFilter", "true"]);
    let state = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(origin.dir.path());
    let mut task = BuildTask { repository: daemon.url("bare.git"), ..origin.task() };
    let tried = async |task: &BuildTask| {
        let context = tempfile::tempdir().expect("a directory");
        provision(&cache(state.path()), task, context.path()).await.map(|checkout| checkout.notes)
    };
    assert_eq!(tried(&task).await.expect("provisioned"), Vec::<String>::new());
    let copy = copy_in(state.path());
    assert_eq!(blobs(&copy), 1, "of the four that the server has");
    assert_eq!(git(&copy, &["rev-list", "--count", "--all"]), "4");
    drop(daemon);
    tried(&task).await.expect("provisioned without the network");
    task.instance.base_commit.clone_from(&origin.fix);
    let error = tried(&task).await.expect_err("its blobs are not here");
    assert_eq!(error.reason(), None, "a node without network fails no task: {error}");
}

#[tokio::test]
async fn what_a_server_has_lost_is_left_out() {
    let origin = origin();
    let (bare, work) = (origin.dir.path().join("bare.git"), origin.dir.path().join("work"));
    for name in ["lost.py", "also_lost.py", "there.py"] {
        std::fs::write(work.join(name), name).expect("written");
    }
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "-m", "more"]);
    git(&work, &["push", "--quiet", &bare.display().to_string(), "HEAD:refs/heads/more"]);
    let mut task = origin.task();
    task.instance.base_commit = git(&work, &["rev-parse", "HEAD"]);
    task.instance.patch = TEST_PATCH.replace("test_x", "fix");
    for name in ["lost.py", "also_lost.py"] {
        let object = git(&work, &["rev-parse", &format!("HEAD:{name}")]);
        std::fs::remove_file(bare.join("objects").join(&object[..2]).join(&object[2..])).expect("lost");
    }
    git(&bare, &["config", "uploadpack.allowFilter", "true"]);
    let daemon = Daemon::start(origin.dir.path());
    task.repository = daemon.url("bare.git");
    let (state, context) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let checkout = provision(&cache(state.path()), &task, context.path()).await.expect("the rest is there");
    assert!(
        matches!(&checkout.notes[..], [note] if note.contains("also_lost.py, lost.py: left out")),
        "{:?}",
        checkout.notes
    );
    assert_eq!(blobs(&copy_in(state.path())), 2, "x.py and there.py");
}

#[tokio::test]
async fn a_bundle_is_a_repository() {
    let origin = origin();
    let (work, state) = (origin.dir.path().join("work"), tempfile::tempdir().expect("a directory"));
    let path = origin.dir.path().join("x.bundle");
    let bundle = path.display().to_string();
    let task = |commit: &str| {
        let mut task = BuildTask { repository: bundle.clone(), ..origin.task() };
        commit.clone_into(&mut task.instance.base_commit);
        task.instance.patch = TEST_PATCH.replace("test_x", "fix");
        task
    };
    let tried = async |commit: &str| {
        let context = tempfile::tempdir().expect("a directory");
        match provision(&cache(state.path()), &task(commit), context.path()).await {
            Ok(_) => "provisioned".to_owned(),
            Err(error) => format!("{:?}: {error}", error.reason()),
        }
    };
    let check = async |commit: &str, expected: &[&str]| {
        let said = tried(commit).await;
        assert!(expected.iter().all(|words| said.contains(words)), "{said}");
    };
    git(&work, &["bundle", "create", "--quiet", &bundle, "--all"]);
    check(&origin.base, &["provisioned"]).await;
    let context = tempfile::tempdir().expect("a directory");
    let checkout = provision(&cache(state.path()), &task(&origin.base), context.path()).await.expect("again");
    knows_no_fix(&unpacked(&checkout).await.path().join("repo"), &origin);
    check(&"1".repeat(40), &["Some(Repository)", "is not in", "x.bundle"]).await;
    // It is replaced by one that has more.
    git(&work, &["commit", "--quiet", "--allow-empty", "-m", "new"]);
    let new = git(&work, &["rev-parse", "HEAD"]);
    check(&new, &["Some(Repository)"]).await;
    git(&work, &["bundle", "create", "--quiet", &bundle, "HEAD"]);
    check(&new, &["provisioned"]).await;
    check(&origin.base, &["provisioned"]).await;
    // By what it begins with, not by its name; and cut short.
    let whole = std::fs::read(&path).expect("read");
    let unnamed = origin.dir.path().join("unnamed");
    std::fs::write(&unnamed, &whole).expect("written");
    let context = tempfile::tempdir().expect("a directory");
    let named = BuildTask { repository: unnamed.display().to_string(), ..task(&new) };
    provision(&cache(state.path()), &named, context.path()).await.expect("provisioned");
    std::fs::write(&path, &whole[..whole.len() - 30]).expect("written");
    check(&new, &["Some(Repository)", "is not in", "early EOF"]).await;
    std::fs::write(&path, "# v2 git").expect("written");
    check(&new, &["Some(Repository)"]).await;
    // One that builds on a commit that it does not have.
    git(&work, &["bundle", "create", "--quiet", &bundle, &format!("{}..HEAD", origin.fix)]);
    check(&new, &["Some(Repository)", "prerequisite", &origin.fix]).await;
    std::fs::remove_file(&path).expect("removed");
    check(&new, &["Some(Repository)", "no git repository at"]).await;
}
