//! An engine that refuses, or has states of its own, or cannot tell of one container: it hides nothing, and loses nothing.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::config;
use janitor::{Config, Janitor, Place, unless_ended};
use queue_format::{BuildGate, Incarnation, Labels, Ledger, LifeLock, ObjectKind, Owner, Spool, Token};
use serde_json::{Value, json};
use uuid::Uuid;

const NAME: &str = "bottega-stuck";
const LOST_NAME: &str = "bottega-lost";

/// The engine is removing it, and answers to nothing more.
const REMOVING: u16 = 0;

/// Answers every request at a socket, `METHOD PATH?QUERY HTTP/1.1`, with a status and a body, as an engine does.
fn serve(socket: &Path, answer: impl Fn(&str) -> (u16, Value) + Send + 'static) {
    let listener = UnixListener::bind(socket).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = serve_one(&stream.expect("a connection"), &answer);
        }
    });
}

fn serve_one(mut stream: &UnixStream, answer: &impl Fn(&str) -> (u16, Value)) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The rest of the head; no request here has a body.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (status, body) = answer(request.split('?').next().unwrap_or_default());
    let body = if status == 204 { String::new() } else { body.to_string() };
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// An engine with two containers: one to whose removal it answers with this status, in a state that Podman alone has, and
/// one of which it cannot tell.
fn answer(
    request: &str,
    [labels, lost_labels]: &[Value; 2],
    status_of_removal: u16,
    is_lost: &AtomicBool,
) -> (u16, Value) {
    let state = if status_of_removal == REMOVING { "removing" } else { "stopped" };
    let in_full = json!({"Running": false, "Status": state});
    match request {
        path if path.starts_with("DELETE ") && (path.contains("c2") || status_of_removal == REMOVING) => {
            is_lost.store(true, Ordering::SeqCst);
            (204, json!(null))
        }
        path if path.starts_with("DELETE ") => (status_of_removal, json!({"message": "it is being removed"})),
        path if path.contains("/version") => (200, json!({"ApiVersion": "1.41"})),
        path if path.contains("/containers/json") => {
            let listed = |id: &str, name: &str, labels: &Value| json!({"Id": id, "Names": [format!("/{name}")], "ImageID": "i", "Labels": labels, "State": state});
            (200, json!([listed("c2", LOST_NAME, lost_labels), listed("c1", NAME, labels)]))
        }
        path if path.contains("/containers/c1/json") => {
            let config = json!({"Labels": labels});
            (
                200,
                json!({"Id": "c1", "Name": format!("/{NAME}"), "Image": "i", "Config": config, "State": in_full}),
            )
        }
        path if path.contains("/containers/c1/top") => {
            let titles = ["PID", "STAT", "WCHAN", "COMMAND"];
            (200, json!({"Titles": titles, "Processes": [["7", "Ds", "nfs_wait", "sh"]]}))
        }
        path if path.contains("/containers/c2/json") => (500, json!({"message": "layer not known"})),
        path if path.contains("/images/json") => (200, json!([])),
        path if path.contains("/info") => (200, json!({})),
        _ => (404, json!({"message": "there is no such thing"})),
    }
}

#[tokio::test]
async fn what_the_engine_does_not_remove_is_not_forgotten() {
    let dir = tempfile::tempdir().expect("dir");
    let spool = Spool::init(&dir.path().join("spool"), Uuid::now_v7()).expect("spool");
    let state = dir.path().join("state");
    let owner = Owner::new("here", Incarnation::new(Uuid::now_v7()));
    let labels = Labels {
        spool: spool.id(),
        owner: owner.clone(),
        task: "ended".parse().expect("an id"),
        token: Token(1),
        object: Uuid::now_v7(),
    };
    let ledger = Ledger::open(&state).expect("a ledger");
    let _alive = LifeLock::hold(&state, &owner).expect("a lock");
    // A dead worker's: its entry would go soonest.
    let dead = Owner::new("here", Incarnation::new(Uuid::now_v7()));
    drop(LifeLock::hold(&state, &dead).expect("a lock"));
    let lost = Labels { owner: dead, object: Uuid::now_v7(), ..labels.clone() };
    for (labels, name) in [(&labels, NAME), (&lost, LOST_NAME)] {
        let kind = ObjectKind::Container { name: name.to_owned() };
        ledger.record(&labels.entry(kind, jiff::Timestamp::now())).expect("recorded");
    }
    let socket = dir.path().join("engine.sock");
    let status = Arc::new(AtomicU16::new(409));
    let is_lost = Arc::new(AtomicBool::new(false));
    let said = [&labels, &lost].map(|labels| json!(labels.to_map()));
    let (asked, seen) = (Arc::clone(&status), Arc::clone(&is_lost));
    serve(&socket, move |request| answer(request, &said, asked.load(Ordering::SeqCst), &seen));
    let config = config();
    let place = Place {
        spool: spool.layout().root().to_owned(),
        state,
        hostname: "here".to_owned(),
        engine: Some(format!("unix://{}", socket.display())),
    };
    for (answer, expected) in [(REMOVING, (0, 1, 0)), (409, (0, 1, 0)), (500, (0, 0, 1)), (204, (1, 0, 0))] {
        status.store(answer, Ordering::SeqCst);
        // What resisted is left alone for a while by the one that it resisted.
        let notifier = systemd::Notifier::default();
        let mut janitor =
            Janitor::open(place.clone(), config.clone(), jiff::Timestamp::now, notifier).expect("a janitor");
        let report = janitor.once().await.expect("a pass");
        assert_eq!((report.removed, report.kept, report.failed), expected, "{answer}");
        // Told once it has resisted three times, until the next look.
        let (told, is_told) = (janitor.troubles().join("\n"), matches!(answer, 500 | 204));
        assert_eq!(told.contains("process 7 (sh) hangs in the kernel"), is_told, "{answer}: {told}");
        assert_eq!(ledger.get(labels.object).is_some(), answer != 204, "{answer}");
        assert!(
            ledger.get(lost.object).is_some(),
            "{answer}: or it would be nobody's once the engine is mended"
        );
        assert!(
            !is_lost.load(Ordering::SeqCst),
            "{answer}: one of which nothing is known, or that goes already"
        );
    }
}

#[tokio::test]
async fn nothing_is_forgotten_on_the_word_of_another_engine() {
    let dir = tempfile::tempdir().expect("dir");
    let spool = Spool::init(&dir.path().join("spool"), Uuid::now_v7()).expect("spool");
    let state = dir.path().join("state");
    let ledger = Ledger::open(&state).expect("a ledger");
    let socket = dir.path().join("engine.sock");
    // It has nothing, whoever it is.
    let id = Arc::new(Mutex::new("one"));
    let said = Arc::clone(&id);
    serve(&socket, move |request| match request {
        path if path.contains("/version") => (200, json!({"ApiVersion": "1.41"})),
        path if path.contains("/json") => (200, json!([])),
        _ => (200, json!({"ID": *said.lock().expect("free")})),
    });
    let place = Place {
        spool: spool.layout().root().to_owned(),
        state: state.clone(),
        hostname: "here".to_owned(),
        engine: Some(format!("unix://{}", socket.display())),
    };
    let open = || {
        Janitor::open(place.clone(), config(), jiff::Timestamp::now, systemd::Notifier::default())
            .expect("a janitor")
    };
    let record = || {
        let owner = Owner::new("here", Incarnation::new(Uuid::now_v7()));
        drop(LifeLock::hold(&state, &owner).expect("a lock"));
        let (task, object) = ("ended".parse().expect("an id"), Uuid::now_v7());
        let labels = Labels { spool: spool.id(), owner, task, token: Token(1), object };
        let kind = ObjectKind::Container { name: object.to_string() };
        ledger.record(&labels.entry(kind, jiff::Timestamp::now())).expect("recorded");
        object
    };
    let check = async |engine: &'static str, object: Uuid, is_forgotten: bool| {
        *id.lock().expect("free") = engine;
        let planned = open().plan().await.expect("a plan");
        let is_told = |lines: &[String]| lines.iter().any(|line| line.contains("janitor-engine.json"));
        assert_eq!(is_told(&planned), !is_forgotten, "{engine}: {planned:#?}");
        let mut janitor = open();
        janitor.once().await.expect("a pass");
        assert_eq!(ledger.get(object).is_none(), is_forgotten, "{engine}");
        assert_eq!(is_told(&janitor.troubles()), !is_forgotten, "{engine}: {:#?}", janitor.troubles());
    };
    let first = record();
    check("one", first, true).await;
    let (second, third) = (record(), record());
    *id.lock().expect("free") = "one";
    // Seen while the other engine was there.
    open().pass().await.expect("a pass");
    check("two", second, false).await;
    std::fs::remove_file(state.join("janitor-engine.json")).expect("as the remedy says");
    check("two", second, true).await;
    assert_eq!(ledger.get(third), None);
    open().pass().await.expect("a pass");
    let fourth = record();
    check("three", fourth, true).await;
}

/// A removal that the engine has begun goes on without whoever asked for it.
#[test]
fn no_build_begins_under_a_removal_whose_asker_is_ended() {
    let dir = tempfile::tempdir().expect("dir");
    let spool = Spool::init(&dir.path().join("spool"), Uuid::now_v7()).expect("spool");
    let state = dir.path().join("state");
    let owner = Owner::new("here", Incarnation::new(Uuid::now_v7()));
    let ledger = Ledger::open(&state).expect("a ledger");
    drop(LifeLock::hold(&state, &owner).expect("a lock"));
    let (task, object) = ("ended".parse().expect("an id"), Uuid::now_v7());
    let labels = Labels { spool: spool.id(), owner, task, token: Token(1), object };
    let kind = ObjectKind::Build { image: "openswe--ended".to_owned() };
    ledger.record(&labels.entry(kind, jiff::Timestamp::now())).expect("recorded");
    let labels = json!(labels.to_map());
    let image = |id: &str| {
        let full = json!({"Id": id, "ParentId": "", "RepoTags": [], "RepoDigests": [], "Created": 1, "Size": 1, "SharedSize": 1, "Labels": labels, "Containers": 0});
        let alone = json!({"Id": id, "RepoTags": [], "Config": {"Labels": labels}});
        (full, alone)
    };
    let [(one, one_alone), (two, two_alone)] = ["sha256:01", "sha256:02"].map(image);
    let socket = dir.path().join("engine.sock");
    let (begun, is_begun) = std::sync::mpsc::channel();
    let (end, may_end) = std::sync::mpsc::channel::<()>();
    serve(&socket, move |request| match request {
        path if path.starts_with("DELETE ") => {
            begun.send(path.to_owned()).expect("somebody waits");
            may_end.recv().expect("it is told");
            (200, json!([]))
        }
        path if path.contains("/version") => (200, json!({"ApiVersion": "1.41"})),
        path if path.contains("/containers/json") => (200, json!([])),
        path if path.contains("/images/json") => (200, json!([one, two])),
        path if path.contains("/images/sha256:01/json") => (200, one_alone.clone()),
        path if path.contains("/images/sha256:02/json") => (200, two_alone.clone()),
        path if path.contains("/info") => (200, json!({})),
        _ => (404, json!({"message": "there is no such thing"})),
    });
    let place = Place {
        spool: spool.layout().root().to_owned(),
        state: state.clone(),
        hostname: "here".to_owned(),
        engine: Some(format!("unix://{}", socket.display())),
    };
    let config = Config { parallel_removals: 1, ..config() };
    let mut janitor =
        Janitor::open(place, config, jiff::Timestamp::now, systemd::Notifier::default()).expect("a janitor");
    let (trigger, shutdown) = systemd::Shutdown::manual();
    let pass = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let ending = janitor.ending();
        runtime.block_on(unless_ended(janitor.once(), &ending, &shutdown)).is_some()
    });
    let bound = Duration::from_secs(30);
    let first = is_begun.recv_timeout(bound).expect("a removal");
    trigger.request();
    let gate = BuildGate::open(&state).expect("a gate");
    let build = gate.build_within(Duration::from_millis(300)).expect("a lock");
    assert!(build.is_none(), "the engine still removes {first}");
    end.send(()).expect("told");
    assert!(!pass.join().expect("it ends"), "it was ended");
    assert!(gate.build_within(bound).expect("a lock").is_some());
    assert!(is_begun.try_recv().is_err(), "and nothing more is begun");
}

/// By the command: each run is a process of its own.
#[test]
fn every_run_tells_of_a_full_disk_and_of_one_that_cannot_be_seen() {
    let dir = tempfile::tempdir().expect("dir");
    let spool = Spool::init(&dir.path().join("spool"), Uuid::now_v7()).expect("spool");
    let (socket, config) = (dir.path().join("engine.sock"), dir.path().join("bottega.toml"));
    let text = "[janitor]\ngrace_seconds = 0\ndisk_low_percent = 1\ndisk_high_percent = 2\n";
    std::fs::write(&config, text).expect("written");
    serve(&socket, |request| match request {
        path if path.contains("/version") => (200, json!({"ApiVersion": "1.41"})),
        path if path.contains("/info") => (200, json!({"DockerRootDir": "/nonexistent"})),
        path if path.contains("/json") => (200, json!([])),
        _ => (404, json!({"message": "there is no such thing"})),
    });
    for run in 0..2 {
        let mut command = assert_cmd::Command::cargo_bin("bottega-janitor").expect("built");
        command.env("DOCKER_HOST", format!("unix://{}", socket.display())).arg("once");
        command.arg("--spool").arg(spool.layout().root()).arg("--config").arg(&config);
        command.arg("--state").arg(dir.path().join("state"));
        let told = command.assert().success().get_output().stderr.clone();
        let told = String::from_utf8_lossy(&told);
        for part in ["% full, with ", "how full the disk of /nonexistent is cannot be told"] {
            assert_eq!(told.matches(part).count(), 1, "{part} in run {run}: {told}");
        }
    }
}
