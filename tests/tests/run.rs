//! Commands as tasks through the real programs, on the real engine and on the node itself.

use std::fs;
use std::process::{Output, Stdio};
use std::time::Duration;

use queue_format::{COMMANDS_FILE, CommandRecord, Located, Spool, State};
use serde_json::Value;
use tests::harness::{House, printed, wait_with_bound};

/// Longer than all of it takes on a slow machine.
const RUN_MAX: Duration = Duration::from_mins(10);

/// What `make test` makes first.
const IMAGE: &str = "openswe-python-3.11";

fn run(house: &House, args: &[&str]) {
    let ran = house.bottega(&["run"]).args(args).output().expect("it runs");
    assert!(ran.status.success(), "{args:?}: {}", printed(&ran));
}

fn up(house: &House) -> Output {
    let config = house.path("bottega.toml");
    fs::write(&config, "[worker]\nnative = true\nslot_cores = 1\n").expect("written");
    let mut up = house.up(&[]);
    up.arg("--config").arg(&config).stdout(Stdio::piped()).stderr(Stdio::piped());
    wait_with_bound(up.spawn().expect("it starts"), RUN_MAX).expect("it ends by itself")
}

fn find(spool: &Spool, id: &str) -> Located {
    let mut found = spool.find(&id.parse().expect("an id")).expect("listed");
    assert_eq!(found.len(), 1, "{id}: {found:?}");
    found.remove(0)
}

fn check(spool: &Spool, id: &str, expected: &str) -> Value {
    let task = find(spool, id);
    let dir = spool.layout().attempt(&task.name.id, task.name.token);
    let manifest = fs::read(dir.join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let got = match &task.state {
        State::Done(_) => manifest["verdict"].as_str().unwrap_or_default().to_owned(),
        State::Failed(reason) => format!("{reason}: {}", manifest["detail"].as_str().unwrap_or_default()),
        other => format!("{other:?}"),
    };
    assert_eq!(got, expected, "{id}: {manifest:#}");
    manifest
}

fn result(spool: &Spool, id: &str, name: &str) -> String {
    let task = find(spool, id);
    let path = spool.layout().attempt(&task.name.id, task.name.token).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether somebody sleeps for so many seconds; nobody else does for these.
fn is_asleep(seconds: &str) -> bool {
    let lines = fs::read_dir("/proc").expect("listed").flatten();
    let lines = lines.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.into_iter().any(|line| line == format!("sleep\0{seconds}\0").into_bytes())
}

#[tokio::test]
async fn commands_of_every_kind_come_to_their_end() {
    let house = House::new().expect("a house");
    let init = house.bottega(&["init"]).output().expect("it runs");
    assert!(init.status.success(), "{}", printed(&init));
    let input = house.path("in.txt");
    fs::write(&input, "hello\n").expect("written");
    let input = format!("{}:/in/a", input.display());
    let copy = "cat /in/a; cp /in/a /out/b; mkdir /out/d; nproc; id -u; wc -l </proc/net/route; echo $BOTTEGA_ARRAY_INDEX";
    let outputs = ["--output", "/out/b", "--output", "/out/d", "--cores", "1", "--memory", "256MiB"];
    run(
        &house,
        &[&["--name", "copy", "--input", &input][..], &outputs, &[IMAGE, "--", "sh", "-c", copy]].concat(),
    );
    run(&house, &["--name", "exit", IMAGE, "--", "sh", "-c", "echo why >&2; exit 3"]);
    // More than one slot of one CPU: two are joined, where the machine has two.
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get().min(2)).to_string();
    run(&house, &["--name", "wide", "--cores", &cpus, IMAGE, "--", "sh", "-c", "nproc; sleep 1"]);
    let hog = "x = bytearray(400 << 20)";
    run(&house, &["--name", "memory", "--memory", "64MiB", IMAGE, "--", "python3", "-c", hog]);
    let hang = "trap '' TERM; setsid sleep 81818 & sleep 81819";
    run(&house, &["--name", "hang", "--timeout", "2s", IMAGE, "--", "sh", "-c", hang]);
    let items = house.path("items");
    fs::write(&items, (1..=300).map(|n| format!("{n}\n")).collect::<String>()).expect("written");
    let items = items.display().to_string();
    run(&house, &["--name", "many", "--array", &items, "--bundle", "100", IMAGE, "--", "true"]);
    let fails = "test {} != 150";
    let bundle = ["--name", "some", "--array", &items, "--bundle", "300", IMAGE, "--", "sh", "-c", fails];
    run(&house, &bundle);
    let native = "setsid env -i sleep 81820 & echo here; pwd >where";
    run(&house, &["--name", "native", "--native", "--output", "where", "--", "sh", "-c", native]);
    let late = "trap '' TERM; (setsid sleep 81821 &); sleep 81822";
    run(&house, &["--name", "late", "--native", "--timeout", "1s", "--", "sh", "-c", late]);

    let ended = up(&house);
    assert!(ended.status.success(), "{}", printed(&ended));
    let spool = Spool::open(&house.spool_dir()).expect("a spool");
    let manifest = check(&spool, "copy", "completed");
    assert_eq!(result(&spool, "copy", "output.log"), "hello\n1\n1000\n1\n\n", "{manifest:#}");
    assert_eq!(result(&spool, "copy", "output.out_b"), "hello\n");
    assert!(result(&spool, "copy", "output.out_d.tar").starts_with("d/"));
    assert_eq!(manifest["run"]["memory_bytes"], 256 << 20);
    let manifest = check(&spool, "wide", "completed");
    assert_eq!(result(&spool, "wide", "output.log"), format!("{cpus}\n"), "{manifest:#}");
    assert_eq!(manifest["run"]["node"]["cpuset_cpus"], manifest["run"]["cpuset"], "as the kernel held it");
    let manifest = check(&spool, "exit", "exit: status 3");
    assert_eq!(manifest["log"][0], "why");
    check(&spool, "memory", "out-of-memory: a process was killed at the memory limit");
    check(&spool, "hang", "timeout: it did not end within 2 s");
    for id in ["many-000001", "many-000002", "many-000003"] {
        let manifest = check(&spool, id, "completed");
        assert_eq!(manifest["run"]["succeeded"], 100);
    }
    let some = "exit: 1 of 300 commands failed, first number 150: status 1; see commands.json";
    check(&spool, "some-000001", some);
    let commands: Vec<CommandRecord> =
        serde_json::from_str(&result(&spool, "some-000001", COMMANDS_FILE)).expect("JSON");
    assert_eq!(commands.iter().filter(|command| command.status == Some(0)).count(), 299);
    check(&spool, "native", "completed");
    assert_eq!(result(&spool, "native", "output.log"), "here\n");
    let state = house.state_dir();
    assert!(result(&spool, "native", "output.where").starts_with(&state.display().to_string()));
    check(&spool, "late", "timeout: it did not end within 1 s");

    for seconds in ["81818", "81819", "81820", "81821", "81822"] {
        assert!(!is_asleep(seconds), "sleep {seconds} is still there");
    }
    assert_eq!(house.containers(&spool).await.expect("the engine answers"), Vec::<String>::new());
    assert_eq!(fs::read_dir(state.join("work")).map_or(0, Iterator::count), 0, "no work directory is left");
    let table = printed(&ended);
    assert!(table.contains("completed"), "{table}");
    let fsck = house.bottega(&["fsck"]).output().expect("it runs");
    assert!(fsck.status.success(), "{}", printed(&fsck));
}
