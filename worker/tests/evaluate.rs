//! Evaluation, for real: honest environments are accepted, and nothing that tests do from inside earns a verdict.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "the groups of slots are for the tests of engine and attacks")]
mod common;

use std::time::Duration;

use common::{BASE_IMAGE, Node};
use queue_format::{Condition, Labels, RunEnd, Verdict};
use uuid::Uuid;
use worker::engine::{BuildEnd, BuildRequest, Engine, Network};
use worker::evaluate::{Evaluated, EvaluationRequest, Policy, evaluate};
use worker::synthesis::{EvalScript, ReportKind};

/// A runner that needs no package: test functions of a file, each reported as pytest does.
const RUNNER: &str = r#"
import importlib, os, sys
from xml.sax.saxutils import quoteattr
file, cases, failed = sys.argv[1], [], False
for name, test in sorted(vars(importlib.import_module(file[:-3])).items()):
    if name.startswith("test_"):
        try:
            test()
            outcome = ""
        except Exception as error:
            failed, outcome = True, "<failure message=%s/>" % quoteattr(repr(error))
            print("E   " + type(error).__name__ + ": " + str(error))
            print("FAILED %s::%s - %s" % (file, name, error))
        cases.append('<testcase classname=%s name=%s file=%s>%s</testcase>'
                     % (quoteattr(file[:-3]), quoteattr(name), quoteattr(file), outcome))
with open(os.environ["BOTTEGA_REPORT"], "w") as report:
    report.write("<testsuite>" + "".join(cases) + "</testsuite>")
sys.exit(failed)
"#;

const SKELETON: &str = "cd /testbed\ngit apply -v - <<'EOF_1' || exit 97\n[CONTENT OF TEST PATCH]\nEOF_1\n\
    echo '>>>>> Start Test Output'\npython3 runner.py test_x.py\nrc=$?\necho '>>>>> End Test Output'\n\
    echo \"OPENSWE_EXIT_CODE=$rc\"\nexit $rc\n";

const FIX: &str =
    "diff --git a/mod.py b/mod.py\n--- a/mod.py\n+++ b/mod.py\n@@ -1 +1 @@\n-value = 1\n+value = 2\n";

/// An image with a project whose `mod.value` is 1, and 2 with the fix.
struct Bench {
    node: Node,
    image_id: String,
    labels: Labels,
}

impl Bench {
    async fn new() -> Self {
        let node = Node::connect().await;
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repo");
        std::fs::create_dir(&repo).unwrap();
        std::fs::write(repo.join("runner.py"), RUNNER).unwrap();
        std::fs::write(repo.join("mod.py"), "value = 1\n").unwrap();
        let dockerfile = format!("FROM {BASE_IMAGE}\nCOPY repo /testbed\nRUN chown -R 1000:1000 /testbed\n");
        std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
        let labels = node.labels();
        let request = BuildRequest {
            context_dir: dir.path().to_owned(),
            tree: None,
            bases: vec![BASE_IMAGE.to_owned()],
            image_name: format!("bottega-test-{}", labels.object.simple()),
            labels: labels.clone(),
            limits: node.limits(),
            network: Network::None,
            timeout: common::patient(Duration::from_mins(2)),
            log_bytes_max: 1 << 16,
            round: 1,
        };
        let outcome = node.docker.build(&request).await.unwrap();
        let BuildEnd::Built(image_id) = outcome.end else { panic!("{outcome:?}") };
        Self { node, image_id, labels }
    }

    async fn remove(self) {
        let name = format!("bottega-test-{}", self.labels.object.simple());
        self.node.docker.remove_image(&name).await.unwrap();
        assert!(self.node.ledger.entries().unwrap().is_empty());
    }

    async fn evaluate(&self, test_patch: &str, fix_patch: &str, policy: &Policy) -> Evaluated {
        let targets = vec!["test_x.py".to_owned()];
        let script = EvalScript { skeleton: SKELETON.to_owned(), report: ReportKind::JUnit, targets };
        let request = EvaluationRequest {
            image_id: &self.image_id,
            dockerfile: "FROM x",
            script: &script,
            test_patch,
            fix_patch,
            labels: &self.labels,
            limits: &self.node.limits(),
            policy,
            unique: &Uuid::now_v7,
        };
        evaluate(&self.node.docker, &request).await.unwrap()
    }

    /// Evaluates tests that try something, and expects a verdict: a class, or a reason and a part of its detail.
    async fn check(&self, tests: &str, expected: (&str, &str)) -> Evaluated {
        let evaluated = self.evaluate(&patch_of(tests), FIX, &policy()).await;
        let found = match &evaluated.verdict {
            Verdict::Accepted { class } => (class.as_str(), ""),
            Verdict::Completed => ("completed", ""),
            Verdict::Failed { reason, detail, .. } => (reason.as_str(), detail.as_str()),
        };
        assert!(
            found.0 == expected.0 && found.1.contains(expected.1),
            "{tests}\n{found:?}\n{:?}",
            evaluated.logs
        );
        evaluated
    }
}

/// A patch that adds `test_x.py`.
fn patch_of(tests: &str) -> String {
    let tests = format!("import os, signal, socket, subprocess, sys, time\nfrom mod import value\n{tests}");
    let body: String = tests.lines().map(|line| format!("+{line}\n")).collect();
    let count = tests.lines().count();
    format!(
        "diff --git a/test_x.py b/test_x.py\nnew file mode 100644\n--- /dev/null\n+++ b/test_x.py\n@@ -0,0 +1,{count} @@\n{body}"
    )
}

fn policy() -> Policy {
    let run_timeout = common::patient(Duration::from_secs(20));
    Policy { repeats: 2, run_timeout, log_bytes_max: 1 << 14, ..Policy::default() }
}

#[tokio::test]
async fn an_honest_environment_is_accepted() {
    let bench = Bench::new().await;
    let tests = r#"
def test_fixed(): assert value == 2
def test_user():
    time.sleep(0.5)
    assert os.getuid() == 1000
def test_nonce_is_gone(): assert not os.path.exists("/bottega/nonce") and "nonce" not in os.environ
def test_stdin_is_empty(): assert sys.stdin.read() == ""
def test_network():
    try: socket.create_connection(("192.0.2.1", 80), 1)
    except OSError as error: assert error.errno == 101, error
    else: raise AssertionError
"#;
    let evaluated = bench.check(tests, ("strict", "")).await;
    let lists = &evaluated.evidence.transitions;
    assert_eq!(lists.fail_to_pass.iter().collect::<Vec<_>>(), ["test_x.py::test_fixed"]);
    assert_eq!(lists.pass_to_pass.len(), 4, "{lists:?}");
    let runs = &evaluated.evidence.runs;
    assert_eq!(runs.len(), 4);
    assert!(runs.iter().all(|run| run.end == RunEnd::Exited && run.peak_memory_bytes.is_some()));
    let first: Vec<_> = evaluated.logs.iter().map(|(condition, _)| *condition).collect();
    assert_eq!(first, [Condition::TestOnly, Condition::WithFix]);
    assert!(evaluated.logs.iter().all(|(_, log)| log.contains("OPENSWE_EXIT_CODE=")));
    assert!(evaluated.notes.is_empty(), "{:?}", evaluated.notes);
    bench.remove().await;
}

#[tokio::test]
async fn patches_that_do_not_apply_are_told_apart_from_tests() {
    let bench = Bench::new().await;
    let tests = patch_of("def test_fixed(): assert value == 2");
    for (test_patch, fix_patch) in
        [(tests.as_str(), FIX.replace("value = 1", "value = 7")), (FIX, FIX.to_owned())]
    {
        let evaluated = bench.evaluate(test_patch, &fix_patch, &policy()).await;
        let Verdict::Failed { reason, log, .. } = &evaluated.verdict else { panic!("{evaluated:?}") };
        assert_eq!(reason.as_str(), "patch", "{evaluated:?}");
        assert!(log.iter().any(|line| line.contains("patch failed: mod.py:1")), "{log:?}");
        assert_eq!(evaluated.evidence.runs.len(), 2);
    }
    // Carriage returns of a conversion, and no newline at the end.
    let crlf = patch_of("def test_fixed(): assert value == 2").replace('\n', "\r\n");
    let evaluated = bench.evaluate(&crlf, FIX.trim_end(), &policy()).await;
    assert!(matches!(evaluated.verdict, Verdict::Accepted { .. }), "{evaluated:?}");
    bench.remove().await;
}

#[tokio::test]
async fn what_tests_print_and_write_earns_nothing() {
    let bench = Bench::new().await;
    let forged = r#"
def test_forged():
    for place in [sys.stdout, sys.stderr]:
        place.write(">>>>> End Test Output\nOPENSWE_EXIT_CODE=0\n" + "0" * 64 + " eval 0\n")
    os.makedirs("/bottega/status/x", exist_ok=True)
    open("/bottega/eval.sh", "a").write("\nexit 0\n")
    assert value == 3
"#;
    let evaluated = bench.check(forged, ("fix-fails", "test_x.py::test_forged")).await;
    assert!(evaluated.evidence.runs.iter().all(|run| run.exit_code == Some(1)));
    let Verdict::Failed { log, .. } = &evaluated.verdict else { panic!() };
    assert!(log.iter().any(|line| line.starts_with("E   AssertionError")), "{log:?}");

    bench.check("def test_exit(): os._exit(0)", ("no-tests", "status 0 and no test")).await;
    let conftest = "def test_conftest():\n    if value == 1:\n        print(\"ImportError while loading conftest \
                    '/testbed/test_x.py'.\", flush=True)\n        os._exit(4)";
    bench.check(conftest, ("no-tests", "status 4")).await;
    let rewritten = "import atexit\ndef rewrite():\n    with open(os.environ['BOTTEGA_REPORT'], 'w') as report:\n        \
                     report.write('<testsuite><testcase classname=\"test_x\" name=\"test_never\" file=\"test_x.py\"/></testsuite>')\n    \
                     sys.stdout.flush()\n    os._exit(0)\nif value == 2: atexit.register(rewrite)\ndef test_never(): assert False";
    let evaluated = bench.check(rewritten, ("no-tests", "status 0 and no test")).await;
    assert!(
        evaluated.notes.iter().any(|note| note.contains("test_x.py::test_never")),
        "{:?}",
        evaluated.notes
    );
    let linked =
        "def test_link():\n    os.symlink('/etc/passwd', os.environ['BOTTEGA_REPORT'])\n    os._exit(1)";
    bench.check(linked, ("no-tests", "reported no test")).await;
    let entity = "def test_xml():\n    open(os.environ['BOTTEGA_REPORT'], 'w').write('<!DOCTYPE a [<!ENTITY e SYSTEM \
                  \"file:///etc/passwd\">]><testsuite><testcase name=\"&e;\"/></testsuite>')\n    os._exit(value - 1)";
    bench.check(entity, ("no-tests", "")).await;
    let status = "def test_status():\n    if os.fork() == 0:\n        os.setsid()\n        while True:\n            \
                  open('/tmp/s', 'w').write('x')\n            try: os.link('/tmp/s', '/bottega/status')\n            \
                  except OSError: pass\n    assert value == 3";
    let evaluated = bench.evaluate(&patch_of(status), FIX, &policy()).await;
    assert!(!matches!(evaluated.verdict, Verdict::Accepted { .. }), "{evaluated:?}");
    bench.remove().await;
}

#[tokio::test]
async fn what_tests_break_is_told() {
    let bench = Bench::new().await;
    bench
        .check(
            "def test_kill(): os.kill(-1, signal.SIGKILL)",
            ("no-tests", "without a word from its wrapper"),
        )
        .await;
    let signals =
        "def test_signals():\n    os.kill(1, signal.SIGTERM)\n    time.sleep(0.3)\n    assert value == 2";
    bench.check(signals, ("strict", "")).await;
    let memory = "def test_memory():\n    x = []\n    while True: x.append(bytearray(1 << 20))";
    bench.check(memory, ("out-of-memory", "without the fix")).await;
    let forks = "def test_forks():\n    while True: subprocess.Popen(['sleep', '60'])";
    bench.check(forks, ("fix-fails", "test_forks")).await;
    let flood =
        "def test_flood():\n    for _ in range(200): sys.stdout.write('x' * 100000)\n    assert value == 2";
    let evaluated = bench.check(flood, ("strict", "")).await;
    assert!(evaluated.logs.iter().all(|(_, log)| log.len() < 1 << 15 && log.contains("bytes cut here")));
    let hang =
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.system('setsid sleep 600 &')\ntime.sleep(600)";
    let short = Policy { run_timeout: Duration::from_secs(3), ..policy() };
    let evaluated = bench.evaluate(&patch_of(hang), FIX, &short).await;
    let Verdict::Failed { reason, .. } = &evaluated.verdict else { panic!("{evaluated:?}") };
    assert_eq!(reason.as_str(), "timeout");
    bench.remove().await;
}
