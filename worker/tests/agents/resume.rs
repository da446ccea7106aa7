//! An attempt that ends at any moment goes on from its journal, and comes out the same; one that is over can be made again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use queue_format::{JOURNAL_FILE, LifeLock, Manifest, TaskName};
use serde_json::Value;
use worker::agents::{AgentsConfig, EndpointConfig, Llm, Model as Asked, Surroundings};
use worker::attempt::journal::Journal;
use worker::attempt::replay::{Offline, remake};
use worker::attempt::{Attempt, Recorded};
use worker::repository::RepositoryCache;

use super::attempts::Run;
use super::calc::{DOCKERFILE, TASK, dockerfile, found, judged, success, unittest};
use super::endpoints::clock;
use super::model::{Model, Say};

/// With iterations that fail, of which two build the same Dockerfile: each time its log is another.
pub(crate) fn answers() -> Vec<(&'static str, Say)> {
    let failing = || dockerfile(&format!("{DOCKERFILE}\nRUN bash -lc 'date +%s%N; exit 3'"));
    let mut answers = success();
    answers.truncate(2);
    answers.extend([
        ("dockerfile", failing()),
        ("script", unittest("tests.test_calc")),
        ("analysis", judged("retry", Some("script"), "the script has no part in it")),
        ("analysis", judged("retry", Some("explore"), "what does the last step want?")),
        ("explore", found()),
        ("dockerfile", failing()),
        ("script", unittest("tests.test_calc")),
        ("analysis", judged("retry", Some("dockerfile"), "the last step fails")),
        ("dockerfile", dockerfile(DOCKERFILE)),
        ("analysis", judged("genuine", None, "")),
    ]);
    answers
}

/// What an attempt leaves that tells no time.
fn timeless(files: impl Iterator<Item = (String, Vec<u8>)>) -> BTreeMap<String, Vec<u8>> {
    let told =
        files.filter(|(name, _)| !["cost.json", "manifest.json", JOURNAL_FILE].contains(&name.as_str()));
    told.map(|(name, bytes)| {
        let bytes = match name.as_str() {
            "conversation.json" => {
                let mut read: Value = serde_json::from_slice(&bytes).expect("JSON");
                for exchange in read["exchanges"].as_array_mut().expect("a list") {
                    exchange["reply"]["answer"]["seconds"] = 0.into();
                }
                read.to_string().into_bytes()
            }
            _ => bytes,
        };
        (name, bytes)
    })
    .collect()
}

fn files_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("listed").flatten();
    timeless(
        entries.map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).expect("read"))),
    )
}

pub(crate) fn live(model: &Model) -> Asked {
    let endpoint = EndpointConfig {
        name: "scripted".to_owned(),
        url: model.url(),
        model: "scripted-1".to_owned(),
        dollars_per_million_read: 3.0,
        dollars_per_million_written: 15.0,
        ..EndpointConfig::default()
    };
    let config = AgentsConfig { endpoints: vec![endpoint], ..AgentsConfig::default() };
    let surroundings = Surroundings { credentials_dir: None, clock, random: || 0.5 };
    Asked::Live(Arc::new(Llm::new(&config, surroundings)))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_moment_is_one_to_go_on_from() {
    let run = tokio::task::spawn_blocking(|| Run::with(&answers(), "")).await.expect("it runs");
    run.accepted_after(3);
    let expected = files_of(&run.dir);
    let manifest: Manifest = serde_json::from_str(&run.read("manifest.json")).expect("a manifest");
    let bytes = fs::read(run.dir.join(JOURNAL_FILE)).expect("kept");
    let full = Journal::recorded(&bytes).expect("a journal");
    let then = full.circumstances().expect("kept").clone();
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let said: Vec<(Value, Say)> = run
        .model
        .asked()
        .into_iter()
        .zip(answers())
        .map(|(asked, (_, say))| (asked.body["messages"].clone(), say))
        .collect();
    assert!(lines.len() > 20 && said.len() == 12, "{} events, {} answers", lines.len(), said.len());

    for events in 1..=lines.len() {
        let state = tempfile::tempdir().expect("a directory");
        let name: TaskName = format!("{TASK}.{}.r0.json", manifest.token).parse().expect("a name");
        let attempts = LifeLock::attempts_dir(state.path(), &manifest.owner);
        fs::create_dir_all(&attempts).expect("made");
        // What was being written when it ended is cut off.
        let mut begun = lines[..events].join(&b'\n');
        begun.push(b'\n');
        begun.extend_from_slice(lines.get(events).map_or(&[][..], |next| &next[..next.len() / 2]));
        fs::write(attempts.join(format!("{}.{}.jsonl", name.id, name.token)), begun).expect("written");
        let boot = full.begun().boot.clone();
        let journal =
            Journal::resume(state.path(), &manifest.owner, &name, &boot).expect("it can be gone on with");

        let known = said.clone();
        let model = Model::begin(move |asked| {
            let same = known.iter().find(|(messages, _)| *messages == asked.body["messages"]);
            same.map_or_else(|| Say::Status(413, None, "never asked".to_owned()), |(_, say)| say.clone())
        })
        .expect("a port");
        let context = state.path().join("context");
        fs::create_dir(&context).expect("made");
        let offline = Offline::of(&full);
        // Builds and runs come out as they did; whether they are asked for at all is the other journal's business.
        let engine = Recorded::new(&offline, &full);
        let repositories =
            RepositoryCache::new(&state.path().join("repositories"), then.config.git_timeouts());
        let task = run.house.spec();
        let made =
            remake(&task, &manifest, &then, &journal, &engine, live(&model), repositories, &context).await;
        let made: Attempt = made.unwrap_or_else(|error| panic!("after {events} events: {error}"));
        assert_eq!(made.verdict, manifest.verdict, "after {events} events");
        let got = timeless(made.files.into_iter());
        for (file, bytes) in &expected {
            assert_eq!(
                got.get(file).map(|bytes| String::from_utf8_lossy(bytes)),
                Some(String::from_utf8_lossy(bytes)),
                "{file} after {events} events"
            );
        }
        let replied =
            lines[..events].iter().filter(|line| line.starts_with(b"{\"event\":\"replied\"")).count();
        assert_eq!(model.asked().len(), said.len() - replied, "what was answered is not asked again");
    }

    // All of it, by the program: no model, no engine, the same bytes.
    let replay = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bottega-worker"));
        command.arg("--spool").arg(run.house.path("spool")).args(["replay", TASK]);
        let ran = command.env("DOCKER_HOST", "unix:///nowhere").output().expect("it runs");
        (
            ran.status.success(),
            String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr),
        )
    };
    let (is_same, told) = replay();
    assert!(is_same && told.contains("same      conversation.json"), "{told}");
    assert!(!told.contains("different"), "{told}");
    fs::write(run.dir.join("eval.sh"), "exit 0\n").expect("written");
    let (is_same, told) = replay();
    assert!(!is_same && told.contains("different eval.sh"), "{told}");
}
