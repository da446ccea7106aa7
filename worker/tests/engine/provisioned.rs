//! An image of a provisioned tree: what is in it, and what is not.

use queue_format::{BuildTask, Instance};
use worker::repository::{GitTimeouts, RepositoryCache, provision};

use super::git::git;
use super::*;

const FIX: &str = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-x = 'bug'\n+x = 'SECRET FIX'\n";
const TEST_PATCH: &str = "diff --git a/test_x.py b/test_x.py\nnew file mode 100644\n--- /dev/null\n+++ b/test_x.py\n@@ -0,0 +1 @@\n+assert SECRET\n";

#[tokio::test]
async fn no_object_in_an_image_knows_the_fix() {
    let (node, dir) = (Node::connect().await, tempfile::tempdir().unwrap());
    let (work, context) = (dir.path().join("work"), dir.path().join("context"));
    for made in [&work, &context] {
        std::fs::create_dir(made).unwrap();
    }
    git(&work, &["init", "--quiet", "--initial-branch=main"]);
    let commit = |text: &str| {
        std::fs::write(work.join("x.py"), format!("x = '{text}'\n")).unwrap();
        git(&work, &["add", "."]);
        git(&work, &["commit", "--quiet", "-m", text]);
        git(&work, &["rev-parse", "HEAD"])
    };
    commit("release");
    let base = commit("bug");
    commit("SECRET FIX");
    git(&work, &["tag", "v2.0-SECRET"]);
    let instance: Instance = serde_json::from_value(serde_json::json!({
        "instance_id": "owner__name-1", "repo": "owner/name", "base_commit": base,
        "problem_statement": "", "patch": FIX, "test_patch": TEST_PATCH,
    }))
    .unwrap();
    let task = BuildTask { repository: work.display().to_string(), instance };
    let timeouts = GitTimeouts { command: Duration::from_mins(1), fetch: Duration::from_mins(1) };
    let cache = RepositoryCache::new(&dir.path().join("cache"), timeouts);
    let checkout = provision(&cache, &task, &context).await.unwrap();
    let dockerfile = format!("FROM {BASE_IMAGE}\nCOPY --chown=1000:1000 repo /testbed\nWORKDIR /testbed/\n");
    let request = BuildRequest { tree: Some(checkout.tree), ..build_request(&node, &context, &dockerfile) };
    let built = node.docker.build(&request).await.unwrap();
    let BuildEnd::Built(id) = &built.end else { panic!("{built:?}") };
    // Its git, of whatever age, and without any object store but its own.
    let script = "cd /testbed && git status --porcelain && git rev-parse HEAD && git rev-list --all --count && \
                  git cat-file --batch-all-objects --batch | cat -v && grep -rla SECRET /testbed; echo end";
    let mut run = run_request(&node, script);
    run.image.clone_from(id);
    let log = node.docker.run(&run).await.unwrap().log;
    assert!(log.starts_with(&format!("{base}\n1\n")) && log.ends_with("end\n"), "{log}");
    assert!(log.contains("x = 'bug'") && !log.contains("SECRET"), "{log}");
    node.docker.remove_image(&request.image_name).await.unwrap();
}
