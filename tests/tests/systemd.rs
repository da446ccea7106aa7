//! The package under a real systemd as PID 1: installed, started, killed, reloaded, drained, upgraded, removed.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tests::harness::program;
use tests::lab::package::{self, CONFIG};
use tests::node::{Node, can_run, image};

/// Far longer than anything here takes on an idle machine.
const SOON: Duration = Duration::from_mins(5);

const SPOOL: &str = "/srv/bottega/spool";

/// The packages of two versions, made once.
fn packages() -> &'static tempfile::TempDir {
    static PACKAGES: OnceLock<tempfile::TempDir> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        package::make(dir.path()).expect("packages");
        dir
    })
}

/// A node with version 1 installed, a spool on its disk, and the packaged configuration with these lines uncommented
/// and changed.
fn installed(settings: &[(&str, &str)]) -> Option<Node> {
    if !can_run() {
        return None;
    }
    let cache = program("bottega").ancestors().nth(2).expect("the target directory").join("lab");
    let node = Node::boot(&image(&cache).expect("a disk"), "node-a").expect("a node");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/package/install.sh");
    fs::copy(script, node.share().join("install")).expect("copied");
    for version in ["1", "2"] {
        let name = format!("bottega_{version}.deb");
        fs::copy(packages().path().join(&name), node.share().join(&name)).expect("copied");
    }
    node.must("dpkg -i /lab/bottega_1.deb");
    assert_eq!(node.must("systemctl list-units --no-legend 'bottega*'"), "", "nothing starts by itself");
    assert_eq!(node.must("id -u bottega; id -g bottega; id -nG bottega"), "871\n871\nbottega docker");
    for (key, value) in settings {
        set(&node, key, value);
    }
    node.must(&format!(
        "sed -i 's|^# spool = .*|spool = \"{SPOOL}\"|' {CONFIG}
        systemctl daemon-reload
        install -d -o bottega -g bottega /srv/bottega
        runuser -u bottega -- bottega init --spool {SPOOL}
        runuser -u bottega -- bottega config check"
    ));
    Some(node)
}

/// Changes a key of the configuration, whether it is commented or not.
fn set(node: &Node, key: &str, value: &str) {
    node.must(&format!(
        "grep -q '^#*{key} = ' {CONFIG} && sed -i 's|^#*{key} = .*|{key} = {value}|' {CONFIG}"
    ));
}

fn show(node: &Node, unit: &str, property: &str) -> String {
    node.must(&format!("systemctl show --value -p {property} {unit}"))
}

/// Records of the journal that match, newest last.
fn journal(node: &Node, matches: &str) -> Vec<Value> {
    let lines = node.must(&format!("journalctl -o json --no-pager {matches}"));
    lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Publishes a command that runs on the node itself.
fn run(node: &Node, name: &str, command: &str) {
    node.must(&format!(
        "runuser -u bottega -- bottega run --spool {SPOOL} --native --name {name} --cores 1 --memory 64MiB \
         -- sh -c '{command}'"
    ));
}

fn completes(node: &Node, name: &str) {
    node.until(SOON, &format!("bottega show --spool {SPOOL} --json {name} | grep -q '\"state\": *\"done'"));
}

/// A command that ends when it is told to, and not before.
fn run_until_told(node: &Node, name: &str) {
    run(node, name, &format!("until test -e /etc/told-{name}; do sleep 0.2; done"));
    node.until(SOON, &format!("journalctl -u bottega-worker TASK={name} | grep -F claimed"));
}

fn tell(node: &Node, name: &str) {
    node.must(&format!("touch /etc/told-{name}"));
}

/// Kills a daemon, and waits for the one that takes its place.
fn kill(node: &Node, unit: &str) {
    is_replaced(node, unit, |pid| format!("kill -KILL {pid}"));
}

/// Installs another version, and waits for the daemon that is of it.
fn upgrades(node: &Node, unit: &str, command: &str) {
    is_replaced(node, unit, |_| command.to_owned());
}

fn is_replaced(node: &Node, unit: &str, by: impl FnOnce(&str) -> String) {
    let pid = show(node, unit, "MainPID");
    node.must(&by(&pid));
    node.until(
        SOON,
        &format!(
            "new=$(systemctl show --value -p MainPID {unit})
            test $new != 0 -a $new != {pid} && systemctl is-active {unit}"
        ),
    );
}

fn status_says(node: &Node, unit: &str, text: &str) {
    node.until(SOON, &format!("systemctl show --value -p StatusText {unit} | grep -F '{text}'"));
}

#[test]
fn master_and_janitor_live_under_systemd() {
    let Some(node) = installed(&[]) else { return };
    node.must("systemctl enable --now bottega.target bottega-master bottega-janitor");
    for unit in ["bottega-master", "bottega-janitor"] {
        assert_eq!(show(&node, unit, "ActiveState"), "active", "{unit}");
        assert_eq!(show(&node, unit, "User"), "bottega", "{unit}");
        assert_ne!(show(&node, unit, "StatusText"), "", "{unit}");
        assert!(show(&node, unit, "RequiresMountsFor").contains(SPOOL), "{unit}");
    }
    let records = journal(&node, "-u bottega-janitor SYSLOG_IDENTIFIER=bottega-janitor");
    assert!(records.iter().any(|record| record["TARGET"] == "janitor::run"), "structured: {records:#?}");
    kill(&node, "bottega-master");
    assert_eq!(show(&node, "bottega-master", "NRestarts"), "1");
    reloads(&node);
    is_watched(&node, "bottega-master");

    node.must("systemctl start bottega-janitor.timer");
    assert_eq!(show(&node, "bottega-janitor", "ActiveState"), "inactive", "the timer takes its place");
    node.must("systemctl start bottega-janitor-once");

    upgrades(&node, "bottega-master", "dpkg -i /lab/bottega_2.deb");
    node.must("dpkg -r bottega");
    let left = node.must("systemctl list-units --no-legend 'bottega*.service' 'bottega*.timer'");
    assert_eq!(left, "", "removed");
    node.must(&format!("test -e /var/lib/bottega -a -e {CONFIG} && dpkg -P bottega"));
    node.must(&format!("test ! -e /var/lib/bottega -a ! -e {CONFIG} -a -e {SPOOL}/spool.toml"));
    lives_from_an_archive(&node);
}

/// What the archive's script installs runs, is replaced while it runs, keeps its configuration, and goes.
fn lives_from_an_archive(node: &Node) {
    node.must(
        "mkdir /root/archive && cd /root/archive
        dpkg-deb -x /lab/bottega_1.deb root && cp /lab/install install.sh
        dpkg-deb -e /lab/bottega_1.deb control && cp control/postinst control/prerm control/postrm .
        touch root/usr/bin/bottega-of-old && ./install.sh && rm root/usr/bin/bottega-of-old",
    );
    assert_eq!(node.run("/root/archive/install.sh --sideways").status, 2);
    node.must(&format!("sed -i 's|^# spool = .*|spool = \"{SPOOL}\"|' {CONFIG} && systemctl daemon-reload"));
    node.must("systemctl enable --now bottega.target bottega-master");
    node.must("test -e /usr/bin/bottega-of-old");
    upgrades(node, "bottega-master", "/root/archive/install.sh");
    node.must("test ! -e /usr/bin/bottega-of-old");
    // The old package's scripts, as rpm calls them at an upgrade.
    node.must("cd /root/archive && ./prerm 1 && ./postrm 1 && systemctl is-active bottega-master");
    node.must(&format!("grep -F '{SPOOL}' {CONFIG} && /root/archive/install.sh --uninstall"));
    let left = node.must(
        "systemctl list-units --no-legend 'bottega*.service' 'bottega*.timer'
        find /usr -iname '*bottega*' ! -path '/usr/share/doc/bottega*'",
    );
    assert_eq!(left, "", "uninstalled");
    node.must(&format!("test -e /var/lib/bottega -a -e {CONFIG} -a -e {SPOOL}/spool.toml"));
}

/// A good change is followed, a bad one said and not followed, and the daemon never ends.
fn reloads(node: &Node) {
    const MASTER: &str = "bottega-master";
    let pid = show(node, MASTER, "MainPID");
    set(node, "poll_seconds_max", "2.0");
    node.until(SOON, "journalctl -u bottega-master | grep -F '[master] has changed'");
    set(node, "grace_seconds", "31");
    node.until(SOON, "journalctl -u bottega-janitor | grep -F '[janitor] has changed'");
    node.must(&format!("sed -i 's/^poll_seconds_max/poll_seconds_mix/' {CONFIG}"));
    node.must("systemctl reload bottega-master bottega-janitor");
    let wrong = "there is no key \"master.poll_seconds_mix\"; did you mean \"master.poll_seconds_max\"?";
    status_says(node, MASTER, wrong);
    let checked = node.run("bottega config check");
    assert!(checked.status != 0 && checked.text.contains(wrong), "{checked:?}");
    node.must(&format!("sed -i 's/^poll_seconds_mix/poll_seconds_max/' {CONFIG}"));
    node.until(SOON, "! systemctl show --value -p StatusText bottega-master | grep -F invalid");
    assert_eq!(show(node, MASTER, "MainPID"), pid);
}

/// A work loop that hangs is ended, and begun anew.
fn is_watched(node: &Node, unit: &str) {
    let drop_in = format!("/run/systemd/system/{unit}.service.d");
    node.must(&format!(
        "mkdir -p {drop_in}
        printf '[Service]\\nWatchdogSec=4\\n' >{drop_in}/short.conf
        systemctl daemon-reload && systemctl restart {unit}
        kill -STOP $(systemctl show --value -p MainPID {unit})",
    ));
    node.until(SOON, &format!("journalctl -u {unit} | grep -F 'Watchdog timeout'"));
    node.until(SOON, &format!("systemctl is-active {unit}"));
    node.must(&format!("rm {drop_in}/short.conf && systemctl daemon-reload && systemctl restart {unit}"));
}

#[test]
fn a_worker_loses_nothing_to_a_kill_a_drain_and_an_upgrade() {
    const WORKER: &str = "bottega-worker";
    let settings =
        [("containers", "false"), ("native", "true"), ("reserved_disk_gib", "0.0"), ("slot_cores", "1")];
    let Some(node) = installed(&settings) else { return };
    node.must("systemctl enable --now bottega.target bottega-master bottega-worker");
    assert_ne!(show(&node, WORKER, "StatusText"), "");
    // What systemd ended in a slot when the machine goes down would look like a result.
    node.must("systemctl start bottega-slot0.slice");
    for slice in ["bottega.slice", "bottega-slot0.slice"] {
        let conflicts = show(&node, slice, "Conflicts");
        assert!(!conflicts.contains("shutdown.target"), "{slice}: {conflicts}");
    }

    run(&node, "first", "echo hello");
    completes(&node, "first");
    let records = journal(&node, "-u bottega-worker TASK=first");
    assert!(records.iter().any(|record| record["TOKEN"] == "a001" && record["SLOT"] == "0"), "{records:#?}");

    run_until_told(&node, "killed");
    kill(&node, WORKER);
    tell(&node, "killed");
    completes(&node, "killed");

    run_until_told(&node, "hung");
    is_watched(&node, WORKER);
    tell(&node, "hung");
    completes(&node, "hung");

    run_until_told(&node, "drained");
    node.must("systemctl stop --no-block bottega-worker");
    node.until(SOON, "journalctl -u bottega-worker | grep -F 'it was told to end'");
    tell(&node, "drained");
    node.must("systemctl stop bottega-worker");
    assert_eq!(show(&node, WORKER, "Result"), "success");
    let shown = node.must(&format!("bottega show --spool {SPOOL} --json drained"));
    assert!(shown.contains("\"done\""), "a drain lets it finish: {shown}");
    node.must("systemctl start bottega-worker");

    run_until_told(&node, "upgraded");
    upgrades(&node, WORKER, "dpkg -i /lab/bottega_2.deb");
    // Had it drained in place of leaving, all that follows would hold as well.
    // By the name that it gives itself: of a process that has ended the journal may not know the unit any more.
    node.until(SOON, "journalctl -t bottega-worker | grep -F 'leaving: containers run on'");
    tell(&node, "upgraded");
    completes(&node, "upgraded");
    node.must(&format!("bottega fsck --spool {SPOOL}"));
}
