//! The tests that need an engine, on the engines of a whole machine; `make test-full-node` runs it, which hands in what it needs.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tests::full_node::{self, FullNode, NO_END, Said};
use tests::lab::package;

/// Its start, and the import of the base image.
const SET_UP_MAX: Duration = Duration::from_mins(20);
const SUITE_MAX: Duration = Duration::from_mins(40);
/// Looks at a machine that begins anew: a script that is begun before its end has none.
const LOOKS_MAX: u32 = 20;
const LOOK_MAX: Duration = Duration::from_mins(10);
const LOOK_PAUSE: Duration = Duration::from_secs(15);
/// What it says that has not begun anew yet.
const NOT_YET: i32 = 3;
/// The worker's tests that need an engine, and the janitor's.
const SUITES: [&str; 5] = ["engine", "dockerfile", "evaluate", "attacks", JANITOR];
const JANITOR: &str = "janitor";
/// The suite of what the package's units do with a worker: a script.
const SERVICE: &str = "service";

struct Engine {
    name: &'static str,
    set_up: &'static str,
    socket: &'static str,
    /// What brings an image in, and runs what is its user's.
    command: &'static str,
    user: &'static str,
}

const ENGINES: [Engine; 4] = [
    Engine {
        name: "docker",
        set_up: "systemctl start docker",
        socket: "/run/docker.sock",
        command: "docker",
        user: "",
    },
    Engine {
        name: "docker-containerd-store",
        set_up: "mkdir -p /etc/docker
            echo '{\"features\": {\"containerd-snapshotter\": true}}' >/etc/docker/daemon.json
            systemctl start docker",
        socket: "/run/docker.sock",
        command: "docker",
        user: "",
    },
    Engine {
        name: "podman",
        set_up: "systemctl start podman.socket",
        socket: "/run/podman/podman.sock",
        command: "podman",
        user: "",
    },
    Engine {
        name: "podman-rootless",
        set_up: "useradd --create-home --uid 1001 --shell /bin/bash lab
            mkdir -p /etc/systemd/system/user@.service.d
            printf '[Service]\\nDelegate=cpu cpuset memory pids\\n' >/etc/systemd/system/user@.service.d/delegate.conf
            systemctl daemon-reload
            loginctl enable-linger lab
            until [ -S /run/user/1001/bus ]; do sleep 0.2; done
            as_user systemctl --user start podman.socket",
        socket: "/run/user/1001/podman/podman.sock",
        command: "podman",
        user: "lab",
    },
];

/// What every script on the machine may use.
const PRELUDE: &str = "set -e
as_user() {
    runuser -u lab -- env HOME=/home/lab XDG_RUNTIME_DIR=/run/user/1001 \\
        DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1001/bus \"$@\"
}
as_root() { \"$@\"; }
";

#[test]
#[ignore = "most of an hour; make test-full-node"]
fn the_tests_hold_on_every_engine_of_a_full_node() {
    let hand_in = PathBuf::from(std::env::var_os("FULL_NODE_HAND_IN").expect("run make test-full-node"));
    let base = PathBuf::from(std::env::var_os("FULL_NODE_BASE").expect("run make test-full-node"));
    let only = std::env::var("FULL_NODE_ONLY").unwrap_or_default();
    let wanted = std::env::var("FULL_NODE_SUITES").unwrap_or_default();
    let chosen = |suite: &&str| wanted.is_empty() || wanted.split(' ').any(|one| one == *suite);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let image = full_node::image(&target.join("lab")).unwrap();
    let mut table = "| engine | suite | passed | failed | it took |\n|---|---|---|---|---|\n".to_owned();
    let mut wrong = Vec::new();
    for engine in ENGINES.iter().filter(|engine| only.is_empty() || engine.name == only) {
        let began = Instant::now();
        let node = FullNode::boot(&image, &base).unwrap();
        println!("{}: up after {} s", engine.name, began.elapsed().as_secs());
        if let Err(why) = set_up(&node, engine, &hand_in, target) {
            wrong.push(format!("{}: {why}", engine.name));
            continue;
        }
        for suite in suites(engine).filter(|suite| chosen(suite)) {
            let began = Instant::now();
            let said = run(&node, engine, suite);
            let Row { passed, failed, is_good } = Row::of(&said);
            let seconds = began.elapsed().as_secs();
            let row = format!("| {} | {suite} | {passed} | {failed} | {seconds} s |", engine.name);
            // At once: a run of hours may be cut off.
            println!("{row}");
            writeln!(table, "{row}").unwrap();
            if !is_good {
                println!("--- {} {suite}\n{}", engine.name, said.text);
                wrong.push(format!("{} {suite}", engine.name));
            }
        }
        let attacks = node.share().join("attacks.md");
        let _ = fs::copy(attacks, target.join(format!("attacks-{}.md", engine.name)));
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Starts the engine, brings in the base image, and makes the groups of slots as the package's unit does before a worker.
fn set_up(node: &FullNode, engine: &Engine, hand_in: &Path, target: &Path) -> Result<(), String> {
    let copied = std::process::Command::new("cp").arg("-r").arg(hand_in).arg(node.share()).status();
    assert!(copied.is_ok_and(|status| status.success()));
    let Engine { name, set_up, socket, command, .. } = engine;
    let with = engine.with();
    let target = target.display();
    let began = Instant::now();
    let script = format!(
        "{PRELUDE}{set_up}
        args=; while read -r line; do args=\"$args --change '$line'\"; done </lab/hand-in/env
        chmod 644 /dev/vdb
        eval \"{with} {command} import $args --change 'CMD [\\\"bash\\\"]' - openswe-python-3.11\" </dev/vdb
        mkdir -p {target}/tmp /var/lib/bottega
        chmod 777 {target} {target}/tmp
        ln -sf /lab/hand-in/bin {target}/debug
        [ {with} = as_root ] || chown lab /var/lib/bottega
        export DOCKER_HOST=unix://{socket}
        # By whoever may.
        for who in as_root {with}; do
            $who /lab/hand-in/bin/bottega-worker prepare --state /var/lib/bottega
        done"
    );
    let said = node.must(SET_UP_MAX, &script)?;
    println!("{name}: ready after {} s more\n{said}", began.elapsed().as_secs());
    Ok(())
}

/// Those of an engine. The package's units expect Docker.
fn suites(engine: &Engine) -> impl Iterator<Item = &'static str> {
    SUITES.into_iter().chain((engine.command == "docker").then_some(SERVICE))
}

fn run(node: &FullNode, engine: &Engine, suite: &str) -> Said {
    if suite == SERVICE {
        package::make(&node.share()).unwrap();
        fs::copy(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/full/service.sh"),
            node.share().join(SERVICE),
        )
        .unwrap();
        let before = node.run(SUITE_MAX, &format!("sh /lab/{SERVICE} /lab/bottega_1.deb"));
        return if before.status == 0 { after_its_end(node, before) } else { before };
    }
    let (with, socket) = (engine.with(), engine.socket);
    let these = match suite {
        // On Podman it has one of its own, which the others leave to it.
        JANITOR if engine.command == "podman" => "on_podman --ignored",
        // Those of many objects have an engine of their own.
        JANITOR => "--skip mass::",
        _ => "",
    };
    let script = format!(
        "{PRELUDE}cd /tmp
        status=0
        export RUST_BACKTRACE=0 BOTTEGA_TEST_SLOWNESS=10
        DOCKER_HOST=unix://{socket} {with} /lab/hand-in/bin/{suite} {these} --test-threads=2 || status=$?
        cp {}/attacks.md /lab/ 2>/dev/null || true
        exit $status",
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().display()
    );
    node.run(SUITE_MAX, &script)
}

/// The machine goes down at the end of what was said before, with whoever runs scripts there, and comes up again.
fn after_its_end(node: &FullNode, before: Said) -> Said {
    let mut said = before;
    for _ in 0..LOOKS_MAX {
        std::thread::sleep(LOOK_PAUSE);
        let after = node.run(LOOK_MAX, &format!("sh /lab/{SERVICE} after"));
        said = Said { status: after.status, text: format!("{}{}", said.text, after.text) };
        if after.status != NOT_YET && after.status != NO_END {
            break;
        }
    }
    said
}

impl Engine {
    fn with(&self) -> &'static str {
        if self.user.is_empty() { "as_root" } else { "as_user" }
    }
}

/// What libtest counted.
struct Row {
    passed: u32,
    failed: u32,
    is_good: bool,
}

impl Row {
    fn of(said: &Said) -> Self {
        let ended = |how: &str| {
            let lines = said.text.lines().filter(|line| line.starts_with("test ") && line.ends_with(how));
            u32::try_from(lines.count()).unwrap_or(u32::MAX)
        };
        let (passed, failed) = (ended(" ok"), ended(" FAILED"));
        Self { passed, failed, is_good: passed > 0 && said.status == 0 }
    }
}
