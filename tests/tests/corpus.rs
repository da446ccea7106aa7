//! The corpus from archives that lie in the cache already: no network, no container.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::{Compression, write::GzEncoder};
use queue_format::{Incarnation, Instance, Lease, Manifest, Next, Owner, Spool, TaskSpec};
use sha2::{Digest, Sha256};
use tests::corpus::{CorpusError, Downloader, Edit, EditAt, Made, Selection, Table, make, outcomes};
use uuid::Uuid;

const BASE: &[(&str, &str)] = &[
    ("PKG-INFO", "Version: 1.0\n"),
    (".gitignore", "*.dat\n"),
    ("ham.py", "COLOUR = 'green'\nSALT = 1\n"),
    ("old.py", "pass\n"),
    ("tests/test_ham.py", "def test_salt():\n    assert True\n"),
    ("tests/kept.py", "pass\n"),
];
const FIXED: &[(&str, &str)] = &[
    ("ham.py", "COLOUR = 'pink'\nSALT = 1\n"),
    ("new.py", "pass\n"),
    ("other.py", "not listed\n"),
    ("tests/test_ham.py", "def test_salt():\n    assert True\n\ndef test_colour():\n    assert True\n"),
    ("tests/table.dat", "1 2 3\n"),
    ("tests/kept.py", "pass\n"),
];

/// Two releases of a package `ham` in the cache of a fresh directory, and a table of one task on them.
fn ham() -> (tempfile::TempDir, Table) {
    let out = tempfile::tempdir().unwrap();
    let digest = |version, files| archive(&out.path().join("sdists"), version, files);
    let (base, fixed) = (digest("1.0", BASE), digest("1.1", FIXED));
    let table = format!(
        r#"
        [packages.ham]
        repository = "spam/ham"
        [packages.ham.releases]
        "1.0" = {{ sha256 = "{base}", released_at = "2020-01-01T00:00:00Z" }}
        "1.1" = {{ sha256 = "{fixed}", released_at = "2020-02-01T00:00:00Z" }}
        [[tasks]]
        id = "ham-1.1"
        package = "ham"
        base = "1.0"
        fixed = "1.1"
        tests = ["tests/test_ham.py", "tests/table.dat"]
        fix = ["ham.py", "new.py", "old.py"]
        problem_statement = "Ham is green."
        expected = "accepted"
        fail_to_pass = ["tests/test_ham.py::test_colour"]
        "#
    );
    (out, Table::parse(&table).unwrap())
}

fn archive(directory: &Path, version: &str, files: &[(&str, &str)]) -> String {
    fs::create_dir_all(directory).unwrap();
    let path = directory.join(format!("ham-{version}.tar.gz"));
    let mut tar = tar::Builder::new(GzEncoder::new(fs::File::create(&path).unwrap(), Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("ham-{version}/{name}"), content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    Sha256::digest(fs::read(&path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(table: &Table, out: &Path) -> Result<Made, CorpusError> {
    let downloader = Downloader::new("no-such-image", "test");
    tokio::runtime::Runtime::new().unwrap().block_on(make(table, &Selection::All, &downloader, out))
}

fn row(made: &Made) -> Instance {
    serde_json::from_str(fs::read_to_string(&made.dataset).unwrap().lines().next().unwrap()).unwrap()
}

fn repository(out: &Path) -> PathBuf {
    out.join("repositories/spam+ham/repo")
}

fn git(repository: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(repository).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn splits_a_release_into_base_fix_and_tests() {
    let (out, table) = ham();
    let row = row(&run(&table, out.path()).unwrap());
    row.validate().unwrap();
    assert_eq!((row.repo.as_str(), row.version.as_str()), ("spam/ham", "1.0"));
    assert_eq!(row.created_at, "2020-02-01T00:00:00Z");
    let files = |patch: &str| {
        let heads = patch.lines().filter_map(|line| line.strip_prefix("diff --git a/")?.split(' ').next());
        heads.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(files(&row.patch), ["ham.py", "new.py", "old.py"]);
    assert_eq!(files(&row.test_patch), ["tests/table.dat", "tests/test_ham.py"]);

    let repository = repository(out.path());
    let listed = |commit: &str| git(&repository, &["ls-tree", "-r", "--name-only", commit]);
    assert_eq!(listed(&row.base_commit), ".gitignore\nham.py\nold.py\ntests/kept.py\ntests/test_ham.py\n");
    assert!(!listed(&row.end_commit).contains("other.py"), "not listed in the table");
    assert_eq!(git(&repository, &["rev-parse", "v1.0"]).trim(), row.base_commit);

    let tree = out.path().join("tree");
    git(&repository, &["clone", "--quiet", ".", tree.to_str().unwrap()]);
    git(&tree, &["checkout", "--quiet", &row.base_commit]);
    for (name, patch) in [("tests.patch", &row.test_patch), ("fix.patch", &row.patch)] {
        fs::write(out.path().join(name), patch).unwrap();
        git(&tree, &["apply", "--index", out.path().join(name).to_str().unwrap()]);
    }
    let end = git(&tree, &["rev-parse", &format!("{}^{{tree}}", row.end_commit)]);
    assert_eq!(git(&tree, &["write-tree"]), end, "base, tests and fix make the end");
}

#[test]
fn makes_the_same_commits_anywhere_and_reuses_them() {
    let ((here, table), (there, same)) = (ham(), ham());
    let (first, other) = (run(&table, here.path()).unwrap(), run(&same, there.path()).unwrap());
    assert_eq!(row(&first), row(&other));
    assert_eq!((first.tasks_reused, first.downloaded, first.cached), (0, 0, 2));

    let again = run(&table, here.path()).unwrap();
    assert_eq!((again.tasks, again.tasks_reused), (1, 1));
    assert_eq!(row(&again), row(&first));

    fs::remove_dir_all(repository(here.path())).unwrap();
    assert_eq!(run(&table, here.path()).unwrap().tasks_reused, 0, "a lost repository is made anew");
    let mut changed = table;
    changed.tasks[0].problem_statement.push_str(" It should be pink.");
    assert_eq!(run(&changed, here.path()).unwrap().tasks_reused, 0, "a changed row is made anew");
}

#[test]
fn spoils_a_task_where_the_table_says_so() {
    let check =
        |at, path: &str, find: Option<&str>, text: &str, see: fn(&Instance) -> &str, expected: &str| {
            let (out, mut table) = ham();
            let find = find.map(str::to_owned);
            table.tasks[0].edits.push(Edit { at, path: path.into(), find, text: text.into() });
            let row = row(&run(&table, out.path()).unwrap());
            assert!(see(&row).contains(expected), "{at:?}: {}", see(&row));
            let parent = git(&repository(out.path()), &["describe", "--tags", &row.base_commit]);
            assert!(parent.starts_with("v1.0"), "the tag is found from an edited base too: {parent}");
            assert_eq!(parent.trim() == "v1.0", at != EditAt::Base);
        };
    check(EditAt::Base, "ham.py", Some("SALT = 1"), "SALT = 2", |row| &row.patch, "-SALT = 2");
    check(EditAt::Fix, "tests/kept.py", None, "# more\n", |row| &row.patch, "+# more");
    check(EditAt::Tests, "tests/test_ham.py", None, "# more\n", |row| &row.test_patch, "+# more");
    check(
        EditAt::TestPatch,
        "",
        Some(" def test_salt():"),
        " def x():",
        |row| &row.test_patch,
        "\n def x():",
    );
}

#[test]
fn names_the_file_that_does_not_fit_the_table() {
    let check = |change: fn(&mut Table, &Path), expected: &[&str]| {
        let (out, mut table) = ham();
        change(&mut table, out.path());
        let error = run(&table, out.path()).expect_err(expected[0]).to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    };
    check(
        |table, _| table.tasks[0].tests.push("tests/kept.py".into()),
        &["ham-1.1", "tests/kept.py", "the same"],
    );
    check(|table, _| table.tasks[0].fix.push("spam.py".into()), &["ham-1.1", "spam.py", "neither release"]);
    check(
        |table, _| {
            let (path, find) = ("ham.py".into(), Some("PEPPER".into()));
            table.tasks[0].edits.push(Edit { at: EditAt::Fix, path, find, text: String::new() });
        },
        &["ham-1.1", "PEPPER", "0 times"],
    );
    check(
        |_, out| fs::write(out.join("sdists/ham-1.1.tar.gz"), "changed").unwrap(),
        &["ham: ", "ham-1.1.tar.gz", "delete it and run again"],
    );
}

/// Concludes the next pending task with a verdict, and an evidence that shows one test go from fail to pass.
fn conclude(spool: &Spool, lease: &mut Lease, verdict: &serde_json::Value) {
    let Next::Claimed(claim) = lease.claim_next(|_| true).unwrap() else { panic!("nothing is pending") };
    let mut manifest = serde_json::json!({
        "format": 1, "id": claim.name().id, "token": claim.name().token, "owner": lease.owner(),
        "started_at": "2024-01-01T00:00:00Z", "finished_at": "2024-01-01T00:01:00Z", "iterations": 1,
        "stages": [], "python": null, "image_name": null, "image_bytes": null, "fail_to_pass": 1,
        "pass_to_pass": 2, "peak_memory_bytes": null, "files": {},
    });
    manifest.as_object_mut().unwrap().extend(verdict.as_object().unwrap().clone());
    let manifest: Manifest = serde_json::from_value(manifest).unwrap();
    let transitions = serde_json::json!({ "fail_to_pass": ["t.py::one"] });
    let evidence = serde_json::json!({
        "image_id": "", "dockerfile_blake3": "", "eval_script_blake3": "", "targets": [], "runs": [],
        "transitions": transitions,
    });
    let files = [("evidence.json".to_owned(), evidence.to_string().into_bytes())];
    claim.conclude(&manifest, &files).unwrap();
    assert!(spool.manifest(&claim.name().id, claim.name().token).unwrap().is_some());
}

#[test]
fn reads_outcomes_from_a_spool() {
    let scratch = tempfile::tempdir().unwrap();
    let spool = Spool::init(&scratch.path().join("spool"), Uuid::now_v7()).unwrap();
    let owner = Owner::new("n1", Incarnation::new(Uuid::now_v7()));
    let mut lease = Lease::open(&spool, owner.clone()).unwrap();
    let publish = |id: &str| {
        let (out, table) = ham();
        let row = Instance { instance_id: id.to_owned(), ..row(&run(&table, out.path()).unwrap()) };
        let task = TaskSpec::build(row, "/mirror".to_owned()).unwrap();
        spool.publish(&[task], &owner, Uuid::now_v7).unwrap();
    };
    publish("good");
    conclude(&spool, &mut lease, &serde_json::json!({ "verdict": "accepted", "class": "per-test" }));
    publish("bad");
    let failed =
        serde_json::json!({ "verdict": "failed", "reason": "flaky", "detail": "t.py::two", "remedy": "" });
    conclude(&spool, &mut lease, &failed);
    publish("waiting");

    let outcomes = outcomes(&spool).unwrap();
    let check = |id: &str, outcome: &str, detail: &str, known: bool| {
        let seen = &outcomes[id];
        assert_eq!((seen.outcome.as_str(), seen.detail.as_str()), (outcome, detail));
        assert_eq!(
            seen.fail_to_pass.as_ref().map(|tests| tests.contains("t.py::one")),
            known.then_some(true)
        );
    };
    assert_eq!(outcomes.len(), 3);
    check("good", "accepted", "per-test", true);
    check("bad", "flaky", "t.py::two", true);
    check("waiting", "pending", "", false);
}
