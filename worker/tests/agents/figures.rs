//! Figures, not promises: `make bench-agents`. docs/agents.md has them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use queue_format::{JOURNAL_FILE, LifeLock, Manifest, TaskName};
use serde_json::Value;
use worker::agents::EndpointConfig;
use worker::attempt::Recorded;
use worker::attempt::journal::Journal;
use worker::attempt::replay::{Offline, remake};
use worker::config::WorkerConfig;
use worker::repository::RepositoryCache;

use super::attempts::Run;
use super::calc::{TASK, success};
use super::cassette::cassette;
use super::endpoints::{pool, question};
use super::house::House;
use super::model::{Model, Say};
use super::resume::{answers, live};

/// Attempts of which the quickest counts: others use the machine too.
const ATTEMPTS: usize = 5;
/// Conversations that wait at once, and the bytes of each.
const CONVERSATIONS: usize = 1000;
const CONVERSATION_BYTES: usize = 40_000;
/// Set for the process that is the model of another one's figure.
const IS_MODEL: &str = "BOTTEGA_FIGURES_MODEL";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure"]
async fn an_iteration_without_model_engine_and_git() {
    let bytes = fs::read(cassette().join(JOURNAL_FILE)).expect("kept");
    let full = Journal::recorded(&bytes).expect("a journal");
    let text = fs::read_to_string(cassette().join("manifest.json")).expect("a manifest");
    let manifest: Manifest = serde_json::from_str(&text).expect("of this version");
    let then = full.circumstances().expect("kept").clone();
    let mut own = f64::INFINITY;
    for _ in 0..ATTEMPTS {
        let (house, state) = (House::new(), tempfile::tempdir().expect("a directory"));
        let name: TaskName = format!("{TASK}.{}.r0.json", manifest.token).parse().expect("a name");
        fs::create_dir_all(LifeLock::attempts_dir(state.path(), &manifest.owner)).expect("made");
        let begun = full.begun().clone();
        let journal = Journal::begin(state.path(), &manifest.owner, &name, begun).expect("begun");
        let model = Model::scripted(&answers()).expect("a port");
        let offline = Offline::of(&full);
        let engine = Recorded::new(&offline, &full);
        let repositories =
            RepositoryCache::new(&state.path().join("repositories"), WorkerConfig::default().git_timeouts());
        let (context, task) = (state.path().join("context"), house.spec());
        fs::create_dir(&context).expect("made");
        let began = Instant::now();
        let made =
            remake(&task, &manifest, &then, &journal, &engine, live(&model), repositories, &context).await;
        let (made, all) = (made.expect("it ends"), began.elapsed().as_secs_f64());
        assert_eq!(made.verdict, manifest.verdict);
        let cost = made.files.iter().find(|(file, _)| file == "cost.json").expect("written");
        let cost: Value = serde_json::from_slice(&cost.1).expect("JSON");
        let agents = cost["agents"].as_object().expect("a map").values();
        let waited: f64 = agents.filter_map(|agent| agent["seconds"].as_f64()).sum();
        let git: f64 = made.stages.iter().filter(|s| s.stage == "provision").map(|s| s.seconds).sum();
        own = own.min(all - waited - git);
    }
    let iterations = manifest.build().expect("a build").iterations;
    println!(
        "own work of an iteration, journal written: {:.1} ms ({iterations} iterations, {} answers)",
        own * 1000.0 / f64::from(iterations),
        answers().len()
    );
}

/// The model of the figure below, in a process of its own; it ends with its input.
#[test]
#[ignore = "a part of a figure"]
fn serves_a_model() {
    if std::env::var_os(IS_MODEL).is_some() {
        let model = Model::begin(|_| Say::Together(CONVERSATIONS, Box::new(Say::Text("x".to_owned()))));
        println!("\n{}", model.expect("a port").url());
        let _ = std::io::stdin().lock().lines().count();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure"]
async fn a_thousand_conversations_at_once() {
    let kib = |what: &str| {
        let status = fs::read_to_string("/proc/self/status").expect("read");
        let line = status.lines().find(|line| line.starts_with(what)).expect("there");
        line.split_whitespace().nth(1).and_then(|text| text.parse::<usize>().ok()).expect("a number")
    };
    let mut other = Command::new(std::env::current_exe().expect("known"))
        .args(["--ignored", "--exact", "--nocapture", "figures::serves_a_model"])
        .env(IS_MODEL, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = BufReader::new(other.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let url = said.find(|line| line.starts_with("http://")).expect("told");
    let one = EndpointConfig {
        name: "one".to_owned(),
        model: "scripted".to_owned(),
        concurrency_max: CONVERSATIONS as u32,
        url,
        ..EndpointConfig::default()
    };
    let pool = Arc::new(pool(vec![one], |_| ()));
    let before = kib("VmRSS:");
    let calls: Vec<_> = (0..CONVERSATIONS)
        .map(|n| {
            let (pool, asked) = (pool.clone(), question(&format!("{n} {}", "x".repeat(CONVERSATION_BYTES))));
            tokio::spawn(async move { pool.ask(&asked).await })
        })
        .collect();
    for call in calls {
        call.await.expect("no panic").expect("answered");
    }
    let each = (kib("VmHWM:") - before) / CONVERSATIONS;
    println!(
        "{CONVERSATIONS} conversations of {CONVERSATION_BYTES} bytes wait at once: {each} KiB each at most"
    );
    drop(other.stdin.take());
    // Read to its end, or it would fail to say it.
    let _ = said.count();
    assert!(other.wait().is_ok_and(|status| status.success()));
}

#[test]
#[ignore = "a figure"]
fn tokens_of_each_scripted_case() {
    for (case, answers) in [("a success in one iteration", success()), ("two builds that fail", answers())] {
        for head_start in [true, false] {
            let run = Run::with(&answers, &format!("head_start = {head_start}"));
            let agents = &run.manifest["agents"];
            println!(
                "{case}, head start {head_start}: {} answers, {} tokens read, {} written",
                agents["answers"], agents["tokens_read"], agents["tokens_written"]
            );
        }
    }
}
