//! The main job through the real programs, on the real engine: real packages in, verdicts and a dataset out.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use nix::unistd::{Uid, setfsuid};
use queue_format::{BuildGate, Counts, FailureReason, Spool, State};
use serde_json::Value;
use tests::corpus::outcomes;
use tests::harness::{EngineProxy, House, ci_corpus, engine, printed, program, wait_for, wait_with_bound};

/// Longer than any run here takes on a slow machine.
const RUN_MAX: Duration = Duration::from_mins(15);

/// The corpus tasks that are marked for CI, made once for all tests here.
static CORPUS: LazyLock<std::path::PathBuf> =
    LazyLock::new(|| ci_corpus(Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpus")));

fn rows() -> Vec<Value> {
    let text = fs::read_to_string(CORPUS.join("tasks.jsonl")).expect("made");
    text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
}

fn row(id: &str) -> Value {
    rows().into_iter().find(|row| row["instance_id"] == id).unwrap_or_else(|| panic!("{id} is marked for CI"))
}

fn submit(house: &House, rows: &[Value]) -> Output {
    let file = house.path("rows.jsonl");
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(&file, text).expect("written");
    let template = format!("{}/repositories/{{owner}}+{{name}}/repo", CORPUS.display());
    let init = house.bottega(&["init"]).output().expect("it runs");
    assert!(init.status.success(), "{}", printed(&init));
    house.bottega(&["submit", "--repositories", &template]).arg(&file).output().expect("it runs")
}

fn spool(house: &House) -> Spool {
    Spool::open(&house.spool_dir()).expect("a spool")
}

fn run(house: &House, more: &[&str]) -> Output {
    let child = house.up(more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    wait_with_bound(child, RUN_MAX).expect("it ends by itself")
}

fn counts(house: &House) -> Counts {
    Counts::of(&spool(house).all().expect("listed"))
}

#[tokio::test]
async fn real_tasks_and_hostile_rows_each_get_what_they_deserve() {
    let house = House::new().expect("a house");
    let good = row("xmltodict-0.14.2");
    let with = |id: &str, change: &dyn Fn(&mut Value)| {
        let mut row = good.clone();
        row["instance_id"] = id.into();
        change(&mut row);
        row
    };
    let mut all = rows();
    all.push(with("no-repository", &|row| row["repo"] = "nobody/nothing".into()));
    all.push(with("no-commit", &|row| row["base_commit"] = "1".repeat(40).into()));
    all.push(with("bad-patch", &|row| {
        row["patch"] = "--- a/setup.py\n+++ b/setup.py\n@@ -1 +1 @@\n-never there\n+x\n".into();
    }));
    all.push(with("../../escape", &|_| ()));
    all.push(with(&"x".repeat(300), &|_| ()));
    all.push(with("bell\u{7}", &|_| ()));
    all.push(with("no-tests-at-all", &|row| row["test_patch"] = "".into()));
    let submitted = submit(&house, &all);
    assert!(submitted.status.success(), "the good rows go on:\n{}", printed(&submitted));
    for field in ["instance_id", "base_commit"] {
        assert!(printed(&submitted).contains(field), "the field is named:\n{}", printed(&submitted));
    }
    let rejected: Vec<_> =
        fs::read_dir(house.spool_dir().join("incoming/rejected")).expect("listed").collect();
    assert!(!rejected.is_empty(), "refused rows are kept aside");

    let ended = run(&house, &[]);
    assert!(ended.status.success(), "{}", printed(&ended));
    let spool = spool(&house);
    let got: BTreeMap<String, String> =
        outcomes(&spool).expect("readable").into_iter().map(|(id, o)| (id, o.outcome)).collect();
    let expected: BTreeMap<String, String> = [
        ("xmltodict-0.14.2", "accepted"),
        ("xmltodict-0.14.2-comment", "fix-fails"),
        ("wtforms-3.0.1-impossible", "dependencies"),
        ("no-repository", "repository"),
        ("bad-patch", "patch"),
    ]
    .map(|(id, outcome)| (id.to_owned(), outcome.to_owned()))
    .into();
    assert_eq!(got, expected, "{}", printed(&ended));

    let dataset = house.path("dataset.jsonl");
    let export =
        house.bottega(&["export", "--format", "openswe", "--out"]).arg(&dataset).output().expect("it runs");
    assert!(export.status.success(), "{}", printed(&export));
    let text = fs::read_to_string(&dataset).expect("exported");
    let exported: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(exported.len(), 1);
    assert_eq!(exported[0]["instance_id"], "xmltodict-0.14.2");
    assert_eq!(exported[0]["image_name"], "openswe--xmltodict-0.14.2");
    assert!(exported[0]["dockerfile"].as_str().is_some_and(|text| text.contains("FROM openswe-python-")));
    assert!(exported[0]["FAIL_TO_PASS"].as_array().is_some_and(|tests| !tests.is_empty()));

    let status = house.bottega(&["status", "--json"]).output().expect("it runs");
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["counts"]["done"], 1, "{status}");
    let show = house.bottega(&["show", "no-repository"]).output().expect("it runs");
    assert!(printed(&show).contains("fetch the mirror there"), "the remedy is shown:\n{}", printed(&show));

    assert_eq!(house.containers(&spool).await.expect("the engine answers"), Vec::<String>::new());
    let work = house.state_dir().join("work");
    assert_eq!(
        fs::read_dir(&work).map_or(0, Iterator::count),
        0,
        "no work directory is left in {}",
        work.display()
    );
}

/// Starts `up`, waits until a task is being built, and gives the process.
fn up_until_building(house: &House) -> std::process::Child {
    until_building(house, house.up(&[]))
}

fn until_building(house: &House, mut up: Command) -> std::process::Child {
    let mut child = up.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let spool = spool(house);
    let building = wait_for(RUN_MAX, || {
        assert!(child.try_wait().expect("a child").is_none(), "it ended before it built anything");
        let workers = spool.worker_statuses().expect("listed");
        let mut slots = workers.iter().flat_map(|worker| &worker.slots);
        slots.find(|slot| slot.activity.as_ref().is_some_and(|at| at.stage.starts_with("build"))).map(|_| ())
    });
    assert!(building.is_some(), "nothing was built");
    child
}

#[tokio::test]
async fn ctrl_c_leaves_nothing_running_and_the_next_run_continues() {
    let house = House::new().expect("a house");
    let submitted = submit(&house, &[row("xmltodict-0.14.2-comment")]);
    assert!(submitted.status.success(), "{}", printed(&submitted));
    let child = up_until_building(&house);
    signal(&child, "INT");
    let ended = wait_with_bound(child, Duration::from_mins(2)).expect("it ends");
    assert_eq!(ended.status.signal(), None, "it ended by itself:\n{}", printed(&ended));
    let counts_then = counts(&house);
    assert_eq!(
        (counts_then.open(), counts_then.claimed.len()),
        (1, 0),
        "the claim is handed back: {counts_then:?}"
    );
    let spool = spool(&house);
    assert_eq!(house.containers(&spool).await.expect("the engine answers"), Vec::<String>::new());
    let ended = run(&house, &[]);
    assert!(ended.status.success(), "{}", printed(&ended));
    assert_eq!(counts(&house).failed.get("fix-fails"), Some(&1), "{}", printed(&ended));
}

#[tokio::test]
async fn killed_daemons_lose_no_task() {
    let house = House::new().expect("a house");
    let submitted = submit(&house, &[row("xmltodict-0.14.2-comment")]);
    assert!(submitted.status.success(), "{}", printed(&submitted));
    let mut child = up_until_building(&house);
    // Its daemons die with it; nobody hands anything back.
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!(counts(&house).claimed.values().sum::<usize>(), 1, "the claim is an orphan");
    let ended = run(&house, &[]);
    assert!(ended.status.success(), "{}", printed(&ended));
    let spool = spool(&house);
    let tasks = spool.all().expect("listed");
    assert_eq!(tasks.len(), 1);
    assert!(matches!(tasks[0].state, State::Failed(_)), "{:?}", tasks[0].state);
    assert_eq!(
        tasks[0].name.token.0,
        1,
        "one claim, which the next worker went on with:\n{}",
        printed(&ended)
    );
    assert_eq!(house.containers(&spool).await.expect("the engine answers"), Vec::<String>::new());
}

/// A worker without the other daemons.
fn worker(house: &House) -> std::process::Child {
    let log = fs::File::options().create(true).append(true).open(house.path("worker.log")).expect("a log");
    let mut command = Command::new(program("bottega-worker"));
    command.arg("--spool").arg(house.spool_dir()).arg("--state").arg(house.state_dir());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts")
}

#[tokio::test]
async fn an_attempt_goes_on_where_its_worker_was_killed() {
    let house = House::new().expect("a house");
    assert!(submit(&house, &[row("xmltodict-0.14.2")]).status.success());
    let spool = spool(&house);
    let mut first = worker(&house);
    let evaluates = || async {
        for id in house.containers(&spool).await.expect("listed") {
            let found = engine().expect("an engine").inspect_container(&id, None).await;
            if found.is_ok_and(|found| found.name.is_some_and(|name| name.starts_with("/bottega-xmltodict")))
            {
                return true;
            }
        }
        false
    };
    let began = std::time::Instant::now();
    while !evaluates().await {
        assert!(began.elapsed() < RUN_MAX, "{:?}", fs::read_to_string(house.path("worker.log")));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    first.kill().expect("killed");
    first.wait().expect("a child");

    let mut second = worker(&house);
    let id = "xmltodict-0.14.2".parse().expect("an id");
    let done = wait_for(RUN_MAX, || {
        let task = spool.find(&id).expect("listed").pop().expect("it is somewhere");
        matches!(task.state, State::Done(_) | State::Failed(_)).then_some(task)
    });
    let done = done.expect("it ends");
    let dir = spool.layout().attempt(&id, done.name.token);
    let manifest = fs::read_to_string(dir.join("manifest.json")).expect("a manifest");
    assert!(matches!(done.state, State::Done(_)), "{manifest}");
    assert!(manifest.contains("started again"), "{manifest}");
    assert_eq!(done.name.token.0, 1, "one claim, one attempt");
    signal(&second, "TERM");
    assert!(second.wait().expect("a child").success());
    assert!(house.containers(&spool).await.expect("listed").is_empty());
}

#[tokio::test]
async fn an_engine_that_goes_away_fails_no_task() {
    let house = House::new().expect("a house");
    let submitted = submit(&house, &[row("xmltodict-0.14.2-comment")]);
    assert!(submitted.status.success(), "{}", printed(&submitted));
    let proxy = EngineProxy::listen(&house.path("engine.sock")).expect("a socket");
    let mut up = house.up(&[]);
    up.env("DOCKER_HOST", proxy.address());
    let child = until_building(&house, up);
    proxy.set_open(false);
    let spool = spool(&house);
    let said = wait_for(Duration::from_mins(3), || {
        let workers = spool.worker_statuses().expect("listed");
        let is_away = |obstacle: &String| obstacle.contains("does not answer");
        let is_said = workers.iter().any(|worker| worker.obstacle.as_ref().is_some_and(is_away));
        (counts(&house).pending.len() == 1 && is_said).then_some(())
    });
    assert!(said.is_some(), "the task waits, and the status says for what: {:?}", counts(&house));
    proxy.set_open(true);
    let ended = wait_with_bound(child, RUN_MAX).expect("it ends by itself");
    let tasks = spool.all().expect("listed");
    assert_eq!(tasks.len(), 1);
    assert!(
        matches!(tasks[0].state, State::Failed(FailureReason::FixFails)),
        "{:?}\n{}",
        tasks[0],
        printed(&ended)
    );
}

#[test]
fn without_an_engine_the_error_says_what_to_do_and_the_tasks_wait() {
    let house = House::new().expect("a house");
    let submitted = submit(&house, &[row("xmltodict-0.14.2-comment")]);
    assert!(submitted.status.success(), "{}", printed(&submitted));
    let mut up = house.up(&[]);
    up.env("DOCKER_HOST", "unix:///nowhere/docker.sock").stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = wait_with_bound(up.spawn().expect("it starts"), Duration::from_mins(2)).expect("it ends");
    assert!(!ended.status.success());
    let said = printed(&ended);
    assert!(said.contains("/nowhere/docker.sock") && said.contains("DOCKER_HOST"), "{said}");
    assert_eq!(counts(&house).pending.values().sum::<usize>(), 1);
    let mut images = house.bottega(&["images", "build"]);
    let refused = images.env("DOCKER_HOST", "tcp://127.0.0.1:9").output().expect("it runs");
    let said = printed(&refused);
    assert!(said.contains(" at tcp://127.0.0.1:9: Connection refused (os error 111); start it "), "{said}");
}

#[test]
fn base_images_that_root_builds_lock_no_worker_of_another_user_out() {
    const USER: u32 = 12345;
    let house = House::new().expect("a house");
    let state = house.state_dir();
    fs::create_dir(&state).expect("made");
    fs::set_permissions(house.path("."), fs::Permissions::from_mode(0o755)).expect("set");
    chown(&state, Some(USER), Some(USER)).expect("only root can be somebody else: run this test as root");
    let mut build = Command::new("sh");
    build.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(program("bottega"));
    let built = build.args(["images", "build", "3.11", "--state"]).arg(&state).output().expect("it runs");
    assert!(built.status.success(), "{}", printed(&built));
    // Of this thread alone, and with it goes what root may.
    let as_worker = std::thread::spawn(move || {
        setfsuid(Uid::from_raw(USER));
        BuildGate::open(&state).and_then(|gate| gate.build()).map(drop)
    });
    as_worker.join().expect("it ends").expect("a build begins");
}

/// A file system of its own at a path, gone when dropped.
struct Mount(std::path::PathBuf);

impl Mount {
    fn tmpfs(at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).expect("made");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
        assert!(mounted.is_ok_and(|status| status.success()), "this test mounts a tmpfs: run it as root");
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_nothing_is_lost_and_the_error_names_the_remedy() {
    let house = House::new().expect("a house");
    let disk = Mount::tmpfs(&house.spool_dir(), "size=2m");
    let submitted = submit(&house, &[row("xmltodict-0.14.2-comment")]);
    assert!(submitted.status.success(), "{}", printed(&submitted));
    let filler = disk.0.join("status/filler");
    let _ = fs::write(&filler, vec![0; 4 << 20]);
    let refused = submit(&house, &[row("wtforms-3.0.1-impossible")]);
    assert!(!refused.status.success());
    let said = printed(&refused);
    assert!(said.contains("free space") && said.contains(&*house.spool_dir().to_string_lossy()), "{said}");
    assert_eq!(counts(&house).pending.values().sum::<usize>(), 1, "half a task was published");
    fs::remove_file(&filler).expect("removed");
    let again = submit(&house, &[row("wtforms-3.0.1-impossible")]);
    assert!(again.status.success(), "{}", printed(&again));
    assert_eq!(counts(&house).pending.values().sum::<usize>(), 2);
}

#[test]
fn an_unwritable_spool_is_said_at_once() {
    let house = House::new().expect("a house");
    let disk = Mount::tmpfs(&house.spool_dir(), "size=8m");
    let submitted = submit(&house, &[row("xmltodict-0.14.2-comment")]);
    assert!(submitted.status.success(), "{}", printed(&submitted));
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.0).status().expect("mount runs");
    assert!(remount.success());
    let mut up = house.up(&[]);
    up.stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = wait_with_bound(up.spawn().expect("it starts"), Duration::from_mins(2)).expect("it ends");
    assert!(!ended.status.success());
    assert!(printed(&ended).contains("read-write"), "{}", printed(&ended));
}

/// As a person would, before any daemon begins.
fn set_timing(house: &House, keys: &str) {
    let identity = house.spool_dir().join("spool.toml");
    let text = fs::read_to_string(&identity).expect("read");
    fs::write(&identity, format!("{text}\n[timing]\n{keys}")).expect("written");
}

fn signal(child: &std::process::Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "cannot signal");
}

#[tokio::test]
async fn a_pause_and_a_cancellation_are_heeded() {
    let house = House::new().expect("a house");
    let id = "xmltodict-0.14.2-comment";
    let submitted = submit(&house, &[row(id)]);
    assert!(submitted.status.success(), "{}", printed(&submitted));
    // Wishes are heard with every heartbeat: sooner than the task can end.
    set_timing(&house, "beat_seconds = 1\n");
    fs::write(house.spool_dir().join("control/pause"), "the disks are changed").expect("written");
    let mut up = house.up(&[]);
    let child = up.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let spool = spool(&house);
    let said = wait_for(RUN_MAX, || {
        let workers = spool.worker_statuses().expect("listed");
        let is_why = |obstacle: &String| obstacle.contains("the disks are changed");
        workers.iter().any(|worker| worker.obstacle.as_ref().is_some_and(is_why)).then_some(())
    });
    assert!(said.is_some(), "the status says why nothing is claimed");
    assert_eq!(counts(&house).pending.values().sum::<usize>(), 1);
    fs::remove_file(house.spool_dir().join("control/pause")).expect("removed");
    let begun = wait_for(RUN_MAX, || (!counts(&house).claimed.is_empty()).then_some(()));
    assert!(begun.is_some(), "it is claimed once the pause ends");
    let wish = house.spool_dir().join("control/cancel").join(id);
    fs::create_dir_all(wish.parent().expect("a directory")).expect("made");
    fs::write(&wish, "").expect("touched");
    let ended = wait_with_bound(child, RUN_MAX).expect("it ends by itself");
    assert_eq!(counts(&house).failed.get("cancelled"), Some(&1), "{}", printed(&ended));
    assert!(!wish.exists(), "whoever carries a wish out removes it");
    assert_eq!(house.containers(&spool).await.expect("the engine answers"), Vec::<String>::new());
    let told = house.bottega(&["explain", id]).output().expect("it runs");
    assert!(printed(&told).contains("cancelled"), "{}", printed(&told));
}

#[tokio::test]
async fn a_worker_frozen_beyond_its_lease_is_fenced() {
    let house = House::new().expect("a house");
    let submitted = submit(&house, &[row("xmltodict-0.14.2-comment")]);
    assert!(submitted.status.success(), "{}", printed(&submitted));
    set_timing(&house, "beat_seconds = 1\nfence_seconds = 8\nsilence_seconds = 12\n");
    let child = up_until_building(&house);
    let frozen = worker_of(&house).expect("a worker");
    let signal_it = |name: &str| {
        let sent = Command::new("kill").args([&format!("-{name}"), &frozen.to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    };
    signal_it("STOP");
    let taken_back = wait_for(RUN_MAX, || (counts(&house).claimed.is_empty()).then_some(()));
    assert!(taken_back.is_some(), "its claim is pending again");
    signal_it("CONT");
    let ended = wait_with_bound(child, RUN_MAX).expect("it ends by itself");
    assert!(ended.status.success(), "{}", printed(&ended));
    let spool = spool(&house);
    let tasks = spool.all().expect("listed");
    assert_eq!(tasks.len(), 1);
    assert!(matches!(tasks[0].state, State::Failed(FailureReason::FixFails)), "{:?}", tasks[0].state);
    assert!(tasks[0].name.token.0 >= 2, "concluded by a later claim: {}", tasks[0].name);
    let manifests = spool
        .attempts(&tasks[0].name.id)
        .expect("listed")
        .into_iter()
        .filter(|token| spool.manifest(&tasks[0].name.id, *token).expect("readable").is_some());
    assert_eq!(manifests.collect::<Vec<_>>(), [tasks[0].name.token], "nobody else wrote a result");
    assert_eq!(house.containers(&spool).await.expect("the engine answers"), Vec::<String>::new());
}

/// By its command line, which holds this test's own directory.
fn worker_of(house: &House) -> Option<u32> {
    let spool = house.spool_dir().canonicalize().ok()?.display().to_string();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let line = String::from_utf8_lossy(&fs::read(entry.path().join("cmdline")).ok()?).into_owned();
        let is_worker = line.split('\0').next()?.ends_with("bottega-worker") && line.contains(&spool);
        if is_worker { entry.file_name().to_str()?.parse().ok() } else { None }
    })
}
