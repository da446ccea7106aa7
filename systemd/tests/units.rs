//! The unit files as systemd's own tools see them, and the generator that gives them their spool.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What is started, by the name that an admin gives.
const STARTED: [&str; 8] = [
    "bottega-master.service",
    "bottega-worker.service",
    "bottega-worker@large.service",
    "bottega-janitor.service",
    "bottega-janitor-once.service",
    "bottega-janitor.timer",
    "bottega.target",
    "bottega.slice",
];

/// Directives younger than systemd 247: an older one ignores them with a warning.
const NEWER_THAN_247: [&str; 12] = [
    "notify-reload",
    "DelegateSubgroup",
    "ExitType",
    "ImportCredential",
    "LoadCredentialEncrypted",
    "MemoryPressureWatch",
    "OpenFile",
    "ReloadSignal",
    "RestartMaxDelaySec",
    "RestartMode",
    "RestartSteps",
    "RestrictFileSystems",
];

/// What distributions install of Podman, in short.
const PODMAN: [(&str, &str); 2] = [
    ("podman.socket", "[Socket]\nListenStream=%t/podman/podman.sock\nSocketMode=0660\n"),
    ("podman.service", "[Service]\nExecStart=/usr/bin/podman system service\n"),
];

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("units")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory").flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn is_unit(name: &str) -> bool {
    [".service", ".timer", ".target", ".slice"].iter().any(|end| name.ends_with(end))
}

/// A root with the host's units, ours, and something executable where our programs will be.
fn installed() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let (bin, system) = (root.path().join("usr/bin"), root.path().join("usr/lib/systemd/system"));
    fs::create_dir_all(&bin).expect("made");
    fs::create_dir_all(&system).expect("made");
    symlink("usr/bin", root.path().join("bin")).expect("linked");
    for program in ["bottega-master", "bottega-worker", "bottega-janitor", "podman", "chmod", "kill", "sh"] {
        fs::write(bin.join(program), "").expect("written");
        fs::set_permissions(bin.join(program), fs::Permissions::from_mode(0o755)).expect("set");
    }
    let host = ["/usr/lib/systemd/system", "/lib/systemd/system"].iter().find(|dir| Path::new(dir).is_dir());
    let host = Path::new(host.expect("systemd's own units; install it: apt-get install systemd"));
    for name in names(host).iter().filter(|name| is_unit(name) && !name.starts_with("bottega")) {
        // Their programs are not here: only what they are called counts.
        if name.ends_with(".target") || name.ends_with(".slice") {
            fs::copy(host.join(name), system.join(name)).expect("copied");
        }
    }
    for name in names(&units()).iter().filter(|name| is_unit(name.as_str())) {
        fs::copy(units().join(name), system.join(name)).expect("copied");
    }
    let of_slices = "bottega-.slice.d";
    fs::create_dir(system.join(of_slices)).expect("made");
    for name in names(&units().join(of_slices)) {
        fs::copy(units().join(of_slices).join(&name), system.join(of_slices).join(name)).expect("copied");
    }
    for (name, text) in PODMAN {
        fs::write(system.join(name), text).expect("written");
    }
    root
}

fn analyze(arguments: &[&str]) -> Output {
    let ran = Command::new("systemd-analyze").args(arguments).output();
    ran.expect("systemd-analyze checks the unit files; install it: apt-get install systemd")
}

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

fn verify(root: &Path) -> String {
    let root = format!("--root={}", root.display());
    let output = analyze(&[&["verify", "--man=no", &root][..], &STARTED, &["podman.socket"]].concat());
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    said
}

fn drop_in(root: &Path, unit: &str, example: &str) {
    let dir = root.join(format!("etc/systemd/system/{unit}.d"));
    fs::create_dir_all(&dir).expect("made");
    let name = Path::new(example).file_name().expect("a name");
    fs::copy(units().join("examples").join(example), dir.join(name)).expect("an example");
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let root = installed();
    assert_eq!(verify(root.path()), "");
    drop_in(root.path(), "bottega-worker.service", "credentials.conf");
    drop_in(root.path(), "bottega-worker.service", "native.conf");
    for unit in ["system.slice", "user.slice", "init.scope"] {
        drop_in(root.path(), unit, &format!("cores/{unit}.d/50-bottega-cores.conf"));
    }
    for unit in ["bottega-worker", "bottega-worker@", "bottega-janitor", "bottega-janitor-once"] {
        drop_in(root.path(), &format!("{unit}.service"), "podman.conf");
    }
    drop_in(root.path(), "podman.socket", "podman-socket.conf");
    assert_eq!(verify(root.path()), "", "with the examples");
    let bad = root.path().join("usr/lib/systemd/system/bottega-master.service");
    let text = fs::read_to_string(&bad).expect("a unit");
    fs::write(&bad, text.replace("WatchdogSec=", "WatchdogSeconds=")).expect("written");
    assert!(verify(root.path()).contains("WatchdogSeconds"), "what is wrong is seen");
}

#[test]
fn each_worker_of_a_node_has_the_same_unit() {
    let text = |name: &str| fs::read_to_string(units().join(name)).expect("a unit");
    let of_many = text("bottega-worker@.service")
        .replace(" worker %i:", " worker:")
        .replace(" --config /etc/bottega/%i.toml --instance %i", "")
        .lines()
        .filter(|line| {
            !line.contains("bottega-worker | grep") && !line.starts_with("# The worker without a name")
        })
        .filter(|line| !line.starts_with("# also have it claim"))
        .fold(String::new(), |text, line| text + line + "\n")
        .replace("%i.toml, or else in bottega.toml", "bottega.toml");
    assert_eq!(of_many, text("bottega-worker.service"));
}

#[test]
fn units_need_no_systemd_newer_than_247() {
    let mut checked = 0;
    for name in names(&units()).iter().filter(|name| is_unit(name.as_str())) {
        let text = fs::read_to_string(units().join(name)).expect("a unit");
        let newer = NEWER_THAN_247.iter().find(|word| text.contains(*word));
        assert_eq!(newer, None, "{name}; it belongs in an example");
        checked += 1;
    }
    assert_eq!(checked, STARTED.len());
}

#[test]
fn a_stop_of_a_worker_drains_and_a_restart_leaves_containers_running() {
    let config = fs::read_to_string(units().join("../etc/bottega.toml")).expect("the configuration");
    let number = |text: &str, key: &str| -> Option<u64> {
        text.lines().find_map(|line| line.trim_start_matches('#').strip_prefix(key)?.trim().parse().ok())
    };
    let drain_seconds = number(&config, "drain_seconds =").expect("the default of drain_seconds");
    for name in ["bottega-worker.service", "bottega-worker@.service"] {
        let unit = fs::read_to_string(units().join(name)).expect("a unit");
        for line in ["RestartKillSignal=SIGUSR1", "SuccessExitStatus=SIGUSR1", "KillMode=mixed"] {
            assert!(unit.lines().any(|one| one == line), "{name} has no {line}");
        }
        assert!(!unit.contains("\nKillSignal="), "{name}: SIGTERM is what a worker drains at");
        let stop_seconds = number(&unit, "TimeoutStopSec=").expect("TimeoutStopSec in seconds");
        assert!(
            stop_seconds >= drain_seconds + 60,
            "{name}: {stop_seconds} s to drain for {drain_seconds} s"
        );
    }
}

#[test]
fn a_janitor_sees_which_start_of_the_machine_it_is() {
    for name in ["bottega-janitor.service", "bottega-janitor-once.service"] {
        let unit = fs::read_to_string(units().join(name)).expect("a unit");
        assert!(!unit.contains("\nProcSubset="), "{name}: /proc/sys/kernel/random/boot_id would be hidden");
    }
}

/// Leaves the scores in `target/security.md`.
#[test]
fn the_daemons_are_as_closed_as_they_can_be() {
    let mut table = "| unit | exposure, of 10 | at most |\n|---|---|---|\n".to_owned();
    let mut check = |name: &str, tenths_max: u32| {
        let unit = units().join(name).display().to_string();
        let threshold = format!("--threshold={tenths_max}");
        let output = analyze(&["security", "--offline=true", &threshold, &unit]);
        let said = said(&output);
        let score =
            said.split_once("Overall exposure level for ").and_then(|(_, rest)| rest.split(' ').nth(1));
        let score = score.unwrap_or_else(|| panic!("{said}"));
        writeln!(table, "| {name} | {score} | {:.1} |", f64::from(tenths_max) / 10.0)
            .expect("a string takes it");
        assert!(output.status.success(), "{said}");
    };
    check("bottega-janitor.service", 10);
    check("bottega-janitor-once.service", 10);
    check("bottega-master.service", 10);
    check("bottega-worker.service", 20);
    check("bottega-worker@.service", 20);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target");
    fs::write(target.join("security.md"), table).expect("written");
}

#[test]
fn the_one_setting_of_the_spool_reaches_every_unit() {
    let dir = tempfile::tempdir().expect("a directory");
    let (etc, out) = (dir.path().join("etc"), dir.path().join("out"));
    fs::create_dir(&etc).expect("made");
    let generate = || {
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).expect("made");
        let mut command = Command::new(units().join("bottega-generator"));
        let ran = command.arg(&out).env("BOTTEGA_ETC", &etc).output().expect("it runs");
        assert!(ran.status.success(), "{}", said(&ran));
        (names(&out).len(), said(&ran))
    };
    assert_eq!(generate(), (0, String::new()), "nothing is set");
    let file = etc.join("bottega.toml");
    let check = |text: &str, expected: Option<&str>| {
        fs::write(&file, text).expect("written");
        let read = systemd::config::spool(&systemd::Source::Named(file.clone()));
        assert_eq!(read.ok().flatten().as_deref(), expected.map(Path::new), "the daemons, of {text}");
        let (made, said) = generate();
        let Some(spool) = expected else {
            assert_eq!(made, 0, "{text}: {said}");
            return;
        };
        assert_eq!((made, said.as_str()), (5, ""), "{text}");
        let made = fs::read_to_string(out.join("bottega-worker@.service.d/50-spool.conf")).expect("made");
        assert_eq!(
            made,
            format!(
                "[Unit]\nRequiresMountsFor={spool}\n\n[Service]\nEnvironment=BOTTEGA_SPOOL={spool}\nReadWritePaths=-{spool}\n"
            )
        );
    };
    check("spool = \"/srv/spool\"\n[worker]\nslots = 1\n", Some("/srv/spool"));
    check("# one\n  spool='/mnt/a-b_c.d/e'   # two\n", Some("/mnt/a-b_c.d/e"));
    check("#spool = \"/srv/spool\"\n", None);
    check("[worker]\nspool = \"/srv/spool\"\n", None);
    check("spool=\"/srv/spool\"#x\n", Some("/srv/spool"));
    check("\tspool\t=\t\"/srv/spool\"\t\r\n", Some("/srv/spool"));
    check("\n\nspool = \"/srv/spool\"", Some("/srv/spool"));
    check("spool = \"/\"\n", Some("/"));
    check("spool = \"srv/spool\"\n", None);
    check("spool = \"\"\n", None);
    check("spool = \"/srv/my spool\"\n", None);
    check("spool = \"/srv/spool/\\u0041\"\n", None);
    check("spool = \"/srv/\u{e4}\"\n", None);
    check("spool = \"/srv/%H\"\n", None);
    check("spool = \"/srv/$HOME\"\n", None);
    check("spool = '/srv/\"x'\n", None);
    check("spool = \"\"\"/srv/spool\"\"\"\n", None);
    check("spool = '''/srv/spool'''\n", None);
    check("\"spool\" = \"/srv/spool\"\n", None);
    check("'spool' = '/srv/spool'\n", None);
    check("spool = [\"/srv/spool\"]\n", None);
    check("spool = { path = \"/srv/spool\" }\n", None);
    check("spool.path = \"/srv/spool\"\n", None);
    check("spool = \"/srv/a\"\nspool = \"/srv/b\"\n", None);
    check("spools = \"/srv/spool\"\n", None);
    fs::write(etc.join("large.toml"), "spool = \"/srv/large\"\n").expect("written");
    assert_eq!(generate().0, 1);
    let own = fs::read_to_string(out.join("bottega-worker@large.service.d/60-spool.conf")).expect("made");
    assert!(own.contains("BOTTEGA_SPOOL=/srv/large\n"), "{own}");
}
