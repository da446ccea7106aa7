//! A spool of a test's own, and the ways to fill it without a worker.
#![expect(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use queue_format::{
    AcceptanceClass, Claim, FailureReason, Incarnation, Lease, Manifest, Next, Owner, Spool, State, TaskId,
    Verdict,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const DIFF: &str = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n";

/// A directory with a spool in it.
pub(crate) struct House {
    dir: TempDir,
}

/// What a command printed, and its exit status.
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) status: i32,
}

impl House {
    pub(crate) fn new() -> Self {
        Self::at(&std::env::temp_dir())
    }

    /// Somewhere else than where temporary files usually lie.
    pub(crate) fn at(place: &Path) -> Self {
        let house = Self { dir: tempfile::tempdir_in(place).expect("a directory") };
        assert_eq!(house.run(&["init"]).status, 0);
        house
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn spool_dir(&self) -> PathBuf {
        self.path("spool")
    }

    pub(crate) fn spool(&self) -> Spool {
        Spool::open(&self.spool_dir()).expect("a spool")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("bottega"));
        command.args(args).env("BOTTEGA_SPOOL", self.spool_dir()).current_dir(self.dir.path());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        said(&self.command(args).output().expect("it runs"))
    }

    /// Writes a file of rows and submits it.
    pub(crate) fn submit(&self, rows: &[String]) -> Said {
        std::fs::write(self.path("rows.jsonl"), rows.join("\n")).expect("written");
        self.run(&["submit", "--repositories", "/mirrors/{owner}+{name}/repo", "rows.jsonl"])
    }

    /// Text with this house's paths, times and UUIDs made the same in every run.
    pub(crate) fn stable(&self, text: &str) -> String {
        text.replace(&self.dir.path().canonicalize().expect("there").display().to_string(), "HOUSE")
            .replace(&self.dir.path().display().to_string(), "HOUSE")
    }
}

pub(crate) fn said(output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { out: text(&output.stdout), err: text(&output.stderr), status: output.status.code().unwrap_or(-1) }
}

pub(crate) fn id(text: &str) -> TaskId {
    text.parse().expect("an id")
}

/// Where the one file of a task lies.
pub(crate) fn state(house: &House, text: &str) -> State {
    let found = house.spool().find(&id(text)).expect("listed");
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].state.clone()
}

pub(crate) fn path(house: &House, text: &str) -> PathBuf {
    house.spool().find(&id(text)).expect("listed")[0].path.clone()
}

/// Runs a command, which must end with `status` and print each of `expected`; gives what it printed.
pub(crate) fn check(house: &House, args: &[&str], status: i32, expected: &[&str]) -> String {
    let said = house.run(args);
    let text = said.out.clone() + &said.err;
    assert_eq!(said.status, status, "{args:?}: {text}");
    for part in expected {
        assert!(text.contains(part), "{args:?}: {part:?} is not in {text}");
    }
    text
}

pub(crate) fn row(id: &str) -> Value {
    json!({
        "instance_id": id, "repo": "pallets/click", "base_commit": "0123456789abcdef0123456789abcdef01234567",
        "end_commit": "", "problem_statement": "it breaks", "patch": DIFF, "test_patch": DIFF,
        "language": "Python", "created_at": "2024-05-01T12:00:00Z", "stars": 7,
    })
}

pub(crate) fn rows(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| row(id).to_string()).collect()
}

pub(crate) fn owner(node: &str) -> Owner {
    Owner::new(node, Incarnation::new(Uuid::now_v7()))
}

pub(crate) fn claim(lease: &mut Lease) -> Claim {
    match lease.claim_next(|_| true).expect("a readable spool") {
        Next::Claimed(claim) => *claim,
        other => panic!("expected a claim, got {other:?}"),
    }
}

pub(crate) fn accepted() -> Verdict {
    Verdict::Accepted { class: AcceptanceClass::Strict }
}

pub(crate) fn failed(reason: FailureReason, detail: &str) -> Verdict {
    let log = vec!["\u{1b}[31mERROR: no matching distribution\u{1b}[0m".to_owned()];
    Verdict::Failed {
        reason,
        detail: detail.to_owned(),
        log,
        remedy: "pin foo to a version that exists".to_owned(),
    }
}

/// Claims whatever is pending, concludes each as `verdict` says by its id, and closes the lease.
pub(crate) fn work(spool: &Spool, verdict: impl Fn(&str) -> Verdict) {
    let me = owner("node-a");
    let mut lease = Lease::open(spool, me.clone()).expect("a lease");
    loop {
        match lease.claim_next(|_| true).expect("a readable spool") {
            Next::Empty => break,
            Next::Rejected { .. } => {}
            Next::Claimed(claim) => {
                let verdict = verdict(claim.name().id.as_str());
                claim.conclude(&manifest(&claim, verdict, &me), &attempt()).expect("concluded");
            }
        }
    }
    assert!(lease.close().expect("closed"));
}

pub(crate) fn manifest(claim: &Claim, verdict: Verdict, owner: &Owner) -> Manifest {
    let manifest: Manifest = serde_json::from_value(json!({
        "format": 1, "id": claim.name().id, "token": claim.name().token, "owner": owner,
        "verdict": "accepted", "class": "strict",
        "started_at": "2024-06-01T00:00:00Z", "finished_at": "2024-06-01T00:01:23Z", "iterations": 2,
        "stages": [
            {"stage": "provision", "seconds": 0.5}, {"stage": "build", "seconds": 30.0},
            {"stage": "evaluate", "seconds": 10.0}, {"stage": "build", "seconds": 22.5},
            {"stage": "evaluate", "seconds": 19.0}],
        "python": {"wanted": "3.5", "used": "3.6", "why": "setup.py's classifiers"},
        "image_name": format!("openswe--{}", claim.name().id), "image_bytes": 52_428_800, "fail_to_pass": 1,
        "pass_to_pass": 2, "peak_memory_bytes": 314_572_800, "notes": ["submodule docs/theme was left out"],
        "files": {},
    }))
    .expect("a manifest");
    Manifest { verdict, ..manifest }
}

pub(crate) fn attempt() -> Vec<(String, Vec<u8>)> {
    let evidence = json!({
        "image_id": "sha256:0", "dockerfile_blake3": "", "eval_script_blake3": "", "targets": ["tests/test_x.py"],
        "runs": [],
        "transitions": {
            "fail_to_pass": ["tests/test_x.py::test_new"],
            "pass_to_pass": ["tests/test_x.py::test_a", "tests/test_x.py::test_b[\u{1b}[2J]"],
        },
    });
    [
        ("Dockerfile", "FROM openswe-python-3.6\n".to_owned()),
        ("eval.sh", "#!/bin/bash\npytest\n".to_owned()),
        ("eval_skeleton.sh", "#!/bin/bash\n[CONTENT OF TEST PATCH]\npytest\n".to_owned()),
        ("build.log", "Step 1/3\n\u{1b}[32mdone\u{1b}[0m\n".to_owned()),
        ("test_output_testOnly.txt", "1 failed\u{1b}]0;owned\u{7}\n".to_owned()),
        ("test_output_testWithFix.txt", "3 passed\n".to_owned()),
        ("requirements.lock", "click==8.1.0\n".to_owned()),
        ("evidence.json", evidence.to_string()),
    ]
    .map(|(name, text)| (name.to_owned(), text.into_bytes()))
    .into()
}

/// A small file system of its own at a path, gone when dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) fn tmpfs(at: &Path, options: &str) -> Self {
        std::fs::create_dir_all(at).expect("made");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
        assert!(mounted.is_ok_and(|status| status.success()), "this test mounts a tmpfs: run it as root");
        Self(at.to_owned())
    }

    /// A file that stays where it is: it can be read, but not renamed.
    pub(crate) fn over(file: &Path) -> Self {
        let mounted = Command::new("mount").arg("--bind").args([file, file]).status();
        assert!(mounted.is_ok_and(|status| status.success()), "this test mounts a file: run it as root");
        Self(file.to_owned())
    }

    pub(crate) fn options(&self, options: &str) {
        let mounted = Command::new("mount").args(["-o", options]).arg(&self.0).status();
        assert!(mounted.is_ok_and(|status| status.success()), "cannot mount again with {options}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// What a git command that must succeed prints.
pub(crate) fn git(dir: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("git")
        .current_dir(dir)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
