//! From a bare repository to a build context, beside `git clone --shared`, `git checkout` and `tar`: a commit of 5,000
//! files. Prints a Markdown table: ratios within one run; ends with 1 where the whole takes more than [`RATIO_MAX`].
//! Needs git and tar.
#![expect(clippy::unwrap_used, reason = "a bench")]

use std::io::Write;
use std::path::Path;
use std::pin::pin;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use queue_format::{BuildTask, Instance};
use worker::engine::context_stream;
use worker::repository::{GitTimeouts, RepositoryCache, provision};

const FILES: usize = 5_000;
const COMMITS: usize = 200;
const ROUNDS: usize = 7;

/// The most of the time by hand that ours may take.
const RATIO_MAX: f64 = 0.3;

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git").current_dir(dir).args(args).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A history whose last commit has all files, about three kilobytes each.
fn history(dir: &Path) {
    git(dir, &["init", "--quiet", "--bare", "--initial-branch=main"]);
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(dir)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = std::io::BufWriter::new(import.stdin.take().unwrap());
    for commit in 0..COMMITS {
        write!(
            stream,
            "commit refs/heads/main\ncommitter t <t@example.org> {} +0000\ndata 1\nx\n",
            1_700_000_000 + commit
        )
        .unwrap();
        for file in (0..FILES).skip(commit).step_by(COMMITS) {
            let text = format!("def function_{file}():\n    return {commit}\n\n").repeat(80);
            writeln!(stream, "M 100644 inline pkg/d{}/m{file}.py\ndata {}\n{text}", file % 100, text.len())
                .unwrap();
        }
    }
    stream.flush().unwrap();
    drop(stream);
    assert!(import.wait().unwrap().success());
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// What people do by hand: a clone that shares objects, a checkout, and the context as an engine takes it.
fn by_hand(bare: &Path, dir: &Path, commit: &str) -> Duration {
    let began = Instant::now();
    let to = dir.join("repo");
    git(dir, &["clone", "--quiet", "--shared", "--no-checkout", &bare.display().to_string(), "repo"]);
    git(&to, &["checkout", "--quiet", "--detach", commit]);
    tar(dir);
    began.elapsed()
}

fn tar(dir: &Path) {
    let mut child = Command::new("tar")
        .args(["-cf", "-", "repo"])
        .current_dir(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::copy(&mut child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
}

async fn ours(cache: &RepositoryCache, task: &BuildTask, dir: &Path) -> (Duration, Duration) {
    let began = Instant::now();
    let checkout = provision(cache, task, dir).await.unwrap();
    let provisioned = began.elapsed();
    let mut context = pin!(context_stream(dir.to_owned(), Some(checkout.tree), "FROM x\n".to_owned()));
    let mut bytes = 0;
    while let Some(piece) = context.next().await {
        bytes += piece.unwrap().len();
    }
    assert!(bytes > FILES * 1000, "{bytes} bytes are not all");
    (provisioned, began.elapsed())
}

#[tokio::main]
async fn main() -> ExitCode {
    // `cargo test` asks benches for their lists too.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let home = tempfile::tempdir().unwrap();
    let bare = home.path().join("bare.git");
    std::fs::create_dir(&bare).unwrap();
    history(&bare);
    let commit = git(&bare, &["rev-parse", "main"]);
    let change = |path: &str| {
        format!(
            "diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
        )
    };
    let instance: Instance = serde_json::from_value(serde_json::json!({
        "instance_id": "owner__name-1", "repo": "owner/name", "base_commit": commit, "problem_statement": "",
        "patch": change("fix.py"), "test_patch": change("test_fix.py"),
    }))
    .unwrap();
    let task = BuildTask { repository: bare.display().to_string(), instance };
    let timeouts = GitTimeouts { command: Duration::from_secs(60), fetch: Duration::from_secs(60) };
    let cache = RepositoryCache::new(&home.path().join("cache"), timeouts);
    let (mut hand, mut tree, mut context) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let dir = tempfile::tempdir_in(home.path()).unwrap();
        hand.push(by_hand(&bare, dir.path(), &commit));
        let dir = tempfile::tempdir_in(home.path()).unwrap();
        let (provisioned, whole) = ours(&cache, &task, dir.path()).await;
        tree.push(provisioned);
        context.push(whole);
    }
    let (hand, tree, context) = (median(hand), median(tree), median(context));
    println!("| {FILES} files, median of {ROUNDS} | ms | of by hand |\n|---|---|---|");
    println!("| clone --shared, checkout, tar | {hand:.0} | 1.00 |");
    println!("| the tree, patches tried | {tree:.0} | {:.2} |", tree / hand);
    println!("| with the context | {context:.0} | {:.2} |", context / hand);
    if context / hand <= RATIO_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
