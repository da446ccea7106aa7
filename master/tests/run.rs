//! `bottega run`: the real command over a spool of a test's own, with nobody to do the tasks but the test.

mod common;

use std::fs;
use std::process::Stdio;

use common::{House, Said, failed, manifest, owner, said};
use queue_format::{
    Claim, FailureReason, Lease, Manifest, Next, OUTPUT_FILE, RunReport, RunTask, SlotStatus, Spool, State,
    Verdict, Work, WorkReport, WorkerStatus,
};

fn check(said: &Said, status: i32, expected: &[&str]) {
    let text = format!("{}{}", said.out, said.err);
    assert_eq!(said.status, status, "{text}");
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

fn task(spool: &Spool, id: &str) -> (String, RunTask) {
    let found = spool.find(&id.parse().expect("an id")).expect("listed");
    assert_eq!(found.len(), 1, "{id}: {found:?}");
    let State::Pending(class) = &found[0].state else { panic!("{:?}", found[0]) };
    let Work::Run(run) = spool.read_task(&found[0]).expect("valid").work else { panic!("a run") };
    (class.to_string(), run)
}

/// As a worker would leave it.
fn report(claim: &Claim, verdict: Verdict, me: &queue_format::Owner) -> Manifest {
    let run = RunReport {
        succeeded: usize::from(verdict.is_success()),
        failed: usize::from(!verdict.is_success()),
        cpuset: "0-1".to_owned(),
        memory_bytes: 4 << 30,
        node: None,
        outputs: [("/out".to_owned(), "output.out".to_owned())].into(),
    };
    Manifest { work: WorkReport::Run { run }, notes: Vec::new(), ..manifest(claim, verdict, me) }
}

fn work(spool: &Spool, verdict: impl Fn(&str) -> Verdict) {
    let me = owner("node-a");
    let mut lease = Lease::open(spool, me.clone()).expect("a lease");
    while let Next::Claimed(claim) = lease.claim_next(|_| true).expect("a readable spool") {
        let verdict = verdict(claim.name().id.as_str());
        let files = [(OUTPUT_FILE.to_owned(), b"it says \x1b[2Jthis\n".to_vec())];
        claim.conclude(&report(&claim, verdict, &me), &files).expect("concluded");
    }
}

#[test]
fn a_command_becomes_a_task_with_all_that_was_asked() {
    let house = House::new();
    fs::write(house.path("in.txt"), "hello").expect("written");
    let said = house.run(&[
        "run",
        "--name",
        "one",
        "--cores",
        "2",
        "--memory",
        "4GB",
        "--timeout",
        "10m",
        "--priority",
        "1",
        "--env",
        "A=b=c",
        "--input",
        "in.txt:/data/in",
        "--input",
        "in.txt",
        "--output",
        "/out",
        "--network",
        "--user",
        "0:0",
        "debian:12",
        "--",
        "sh",
        "-c",
        "cat {}",
    ]);
    check(
        &said,
        0,
        &["one: 1 task published, with 4000000000 bytes (3.7 GiB) of memory each", "bottega show one"],
    );
    let (class, run) = task(&house.spool(), "one");
    assert_eq!(class, "1-run-2c-3815m");
    assert_eq!(run.commands, [["sh", "-c", "cat {}"]]);
    assert_eq!(
        (run.image.as_deref(), run.user.as_deref(), run.network),
        (Some("debian:12"), Some("0:0"), true)
    );
    assert_eq!(run.env["A"], "b=c");
    let inputs: Vec<(&str, u64)> =
        run.inputs.iter().map(|input| (input.path.as_str(), input.bytes)).collect();
    assert_eq!(inputs, [("/data/in", 5), ("/inputs/in.txt", 5)]);
    let mut copy = Vec::new();
    house.spool().read_input(&run.inputs[0].digest, &mut copy).expect("kept");
    assert_eq!(copy, b"hello");
    check(&house.run(&["show", "one"]), 0, &["sh -c 'cat {}'", "in debian:12, with a network"]);

    check(&house.run(&["run", "--native", "--name", "two", "--", "true"]), 0, &["two: 1 task published"]);
    assert_eq!(task(&house.spool(), "two").0, "5-native");
    check(&house.run(&["explain", "two"]), 0, &["native = true"]);
}

#[test]
fn what_cannot_be_run_is_refused_with_flag_and_remedy() {
    let house = House::new();
    fs::write(house.path("bad"), b"a\n\xff\n").expect("written");
    fs::write(house.path("none"), "\n\n").expect("written");
    let refuse = |args: &[&str], expected: &[&str]| {
        let args: Vec<&str> = ["run"].iter().chain(args).copied().collect();
        check(&house.run(&args), 2, expected);
    };
    refuse(&["--memory", "4XB", "a", "--", "true"], &["--memory", "such as 512MiB, 4GiB"]);
    refuse(&["--memory", "1KiB", "a", "--", "true"], &["--memory: it is 1024, expected"]);
    refuse(&["--cores", "0", "a", "--", "true"], &["--cores: it is 0, expected 1 to"]);
    refuse(&["--timeout", "soon", "a", "--", "true"], &["--timeout", "10m"]);
    refuse(&["a"], &["no command is given", "after --"]);
    refuse(&["--", "true"], &["no image is named", "--native"]);
    refuse(&["a", "--", ""], &["COMMAND (commands[0]): it names no program"]);
    refuse(&["a b", "--", "true"], &["IMAGE (image): \"a b\" is no name of an image"]);
    refuse(&["--name", "../x", "a", "--", "true"], &["--name: ", "is not a task id"]);
    refuse(&["--env", "A", "a", "--", "true"], &["--env: \"A\" has no ="]);
    refuse(&["--env", "BOTTEGA_X=1", "a", "--", "true"], &["--env ", "choose another"]);
    refuse(
        &["--input", "nowhere", "a", "--", "true"],
        &["--input nowhere: it cannot be read", "check the path"],
    );
    refuse(
        &["--input", "/proc/self/mem:/in", "a", "--", "true"],
        &["--input /proc/self/mem: it cannot be kept: "],
    );
    refuse(&["--input", ".", "a", "--", "true"], &["--input .: ", "archive"]);
    refuse(&["--input", "bad:in", "a", "--", "true"], &["--input (inputs[0].path)", "absolute"]);
    refuse(&["--output", "/../etc", "a", "--", "true"], &["--output (outputs[0])", "without .."]);
    refuse(&["--native", "--output", "/etc/x", "--", "true"], &["--output (outputs[0])", "relative"]);
    refuse(&["--array", "nowhere", "a", "--", "true"], &["--array nowhere: it cannot be read"]);
    refuse(&["--array", "none", "a", "--", "true"], &["--array: it has no item"]);
    refuse(
        &["--array", "bad", "a", "--", "true"],
        &["--array: line 2 is not UTF-8", "nothing was published"],
    );
    refuse(&["--bundle", "2", "a", "--", "true"], &["--array"]);
    refuse(&["--bundle", "2000", "--array", "bad", "a", "--", "true"], &["--bundle"]);
    assert_eq!(house.spool().all().expect("listed").len(), 0, "nothing was published");
}

#[test]
fn an_array_is_published_once_however_often_it_is_begun() {
    let house = House::new();
    let lines = |count: usize| (1..=count).map(|n| format!("item-{n}\n")).collect::<String>();
    let publish_lines = |lines: String, bundle: &str, command: &str| {
        fs::write(house.path("items"), lines).expect("written");
        house
            .run(&["run", "--name", "all", "--array", "items", "--bundle", bundle, "a", "--", command, "{}!"])
    };
    let publish = |count: usize, bundle: &str, command: &str| publish_lines(lines(count), bundle, command);
    check(&publish(500, "1", "echo"), 0, &["all: 500 tasks published\n"]);
    check(&publish(500, "1", "echo"), 0, &["all: 0 tasks published, 500 were there already: it goes on"]);
    check(&publish(503, "1", "echo"), 0, &["all: 3 tasks published, 500 were there already"]);
    check(
        &publish(503, "1", "printf"),
        2,
        &["--name: task all-", "does something else; choose another name"],
    );
    check(&publish(503, "2", "echo"), 2, &["--name: task all-"]);
    let edited = publish_lines(lines(503).replace("item-317\n", "item-7\n"), "1", "echo");
    check(&edited, 2, &["--name: task all-000317 is there already and does something else"]);
    let spool = house.spool();
    assert_eq!(spool.all().expect("listed").len(), 503);
    let (_, last) = task(&spool, "all-000503");
    assert_eq!(
        (last.commands.as_slice(), last.array_index),
        (&[vec!["echo".to_owned(), "item-503!".into()]][..], Some(503))
    );

    let mut child =
        house.command(&["run", "--name", "piped", "--array", "-", "--bundle", "2", "--native", "--", "true"]);
    let mut child =
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), b"a\nb\nc\n").expect("written");
    check(&said(&child.wait_with_output().expect("it ends")), 0, &["piped: 2 tasks published"]);
    let (_, bundle) = task(&spool, "piped-000001");
    assert_eq!(bundle.commands, [["true", "a"], ["true", "b"]]);
}

#[test]
fn a_publication_that_was_killed_goes_on() {
    let house = House::new();
    let args = ["run", "--name", "cut", "--array", "-", "a", "--", "true"];
    let mut child = house.command(&args);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    // A chunk and a half: the second waits for more lines.
    let lines: String = (0..6000).map(|n| format!("{n}\n")).collect();
    std::io::Write::write_all(&mut input, lines.as_bytes()).expect("written");
    let spool = house.spool();
    let began = std::time::Instant::now();
    while spool.all().expect("listed").len() < 4096 {
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "the first chunk is published");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    fs::write(house.path("items"), &lines).expect("written");
    let said = house.run(&["run", "--name", "cut", "--array", "items", "a", "--", "true"]);
    check(&said, 0, &["cut: 1904 tasks published, 4096 were there already: it goes on"]);
    assert_eq!(spool.all().expect("listed").len(), 6000);
}

#[test]
fn waiting_ends_with_a_line_and_a_status() {
    let house = House::new();
    fs::write(house.path("items"), "a\nb\nc\n").expect("written");
    let wait = |name: &str, status: i32, expected: &[&str], verdict: &dyn Fn(&str) -> Verdict| {
        let mut child =
            house.command(&["run", "--name", name, "--array", "items", "--wait", "a", "--", "true"]);
        let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let spool = house.spool();
        let began = std::time::Instant::now();
        while spool
            .all()
            .expect("listed")
            .iter()
            // Those in the ledger cannot be claimed yet.
            .filter(|task| task.path.starts_with(spool.layout().pending()))
            .count()
            < 3
        {
            assert!(began.elapsed() < std::time::Duration::from_secs(60), "the tasks are published");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        work(&spool, verdict);
        check(&said(&child.wait_with_output().expect("it ends")), status, expected);
    };
    wait("good", 0, &["good: 3 tasks completed, after "], &|_| Verdict::Completed);
    let expected =
        ["bad: 2 tasks completed, 1 failed (exit 1), after ", "bottega show bad-000002 --log output"];
    wait("bad", 1, &expected, &|id| match id {
        "bad-000002" => failed(FailureReason::Exit, "status 3"),
        _ => Verdict::Completed,
    });

    let results = house.spool().layout().root().join("results");
    let shown = house.run(&["show", "good-000001"]);
    check(
        &shown,
        0,
        &["completed: every command", "1 of 1 command ended with status 0", "/out: ", "--log output"],
    );
    assert!(
        shown.out.contains(&results.display().to_string()) && !shown.out.contains("tests"),
        "{}",
        shown.out
    );
    check(&house.run(&["show", "bad-000002"]), 0, &["exit: ", "status 3", "bottega retry bad-000002"]);
    let log = house.run(&["show", "bad-000002", "--log", "output"]);
    assert_eq!((log.status, log.out.as_str()), (0, "it says this\n"));
    check(&house.run(&["status"]), 0, &["completed 5", "exit 1"]);
    check(&house.run(&["export", "--out", "rows.jsonl"]), 0, &[]);
    assert_eq!(fs::read_to_string(house.path("rows.jsonl")).expect("written"), "", "runs give no rows");
    check(&house.run(&["retry", "--reason", "exit"]), 0, &["1 task pending again"]);
    assert_eq!(task(&house.spool(), "bad-000002").0, "5-run");
    check(&house.run(&["fsck"]), 0, &[]);
}

#[test]
fn what_no_worker_has_room_for_is_said_when_it_is_published() {
    let house = House::new();
    let run = |cores: &str| house.run(&["run", "--cores", cores, "a", "--", "true"]);
    let note = "no slot of the workers here now is as large";
    assert!(!run("99").out.contains(note), "of workers that are not here nothing is known");
    let slot = SlotStatus {
        slot: 0,
        cpuset: "0-3".to_owned(),
        memory_bytes: 8 << 30,
        group: None,
        out_of_service: None,
        activity: None,
    };
    let status = WorkerStatus {
        owner: owner("n1"),
        at: jiff::Timestamp::now(),
        notices: Vec::new(),
        obstacle: None,
        kinds: Vec::new(),
        slots: vec![slot],
    };
    let lease = Lease::open(&house.spool(), status.owner.clone()).expect("a lease");
    house.spool().write_worker_status(&status).expect("written");
    assert!(!run("4").out.contains(note));
    check(&run("5"), 0, &["1 task published", note]);
    drop(lease);
}
