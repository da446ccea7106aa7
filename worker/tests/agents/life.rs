//! What comes between the beginning of an attempt and its end: a model that goes away, a file that changes, a limit.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use queue_format::{FailureReason, Incarnation, Owner, Spend, Spool, State};
use uuid::Uuid;

use super::attempts::Run;
use super::calc::{DOCKERFILE, TASK, dockerfile, found, judged, looks, success, unittest};
use super::house::{House, until};
use super::model::{Model, Say};

/// Answers in this order, whoever asks; beyond them the last.
fn in_order(answers: Vec<Say>) -> Model {
    Model::begin(move |asked| answers[asked.nth.min(answers.len() - 1)].clone()).expect("a port")
}

fn said() -> Vec<Say> {
    success().into_iter().map(|(_, say)| say).collect()
}

/// Whether `bottega replay` makes the same bytes of it.
fn replays(house: &House) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bottega-worker"));
    command.arg("--spool").arg(house.path("spool")).args(["replay", TASK]);
    command.env("DOCKER_HOST", "unix:///nowhere").output().expect("it runs").status.success()
}

#[test]
fn a_model_that_goes_away_in_the_middle_costs_no_answer() {
    let mut answers = said();
    answers.insert(3, Say::Status(500, None, "oops".to_owned()));
    let run = Run::of(House::new(), in_order(answers), "agents", "tries_max = 1");
    run.accepted_after(1);
    assert_eq!(run.model.agents(), ["explore", "explore", "dockerfile", "script", "script", "analysis"]);
    let spool = Spool::open(&run.house.path("spool")).expect("a spool");
    let task = spool.find(&TASK.parse().expect("an id")).expect("listed").remove(0);
    assert_eq!(task.name.token.to_string(), "a001", "it was never handed back");
}

#[test]
fn a_running_attempt_goes_on_at_endpoints_that_come_with_a_reload() {
    let mut answers = said();
    let rest = answers.split_off(2);
    answers.push(Say::Status(401, None, "who are you".to_owned()));
    let (house, first, second) = (House::new(), in_order(answers), in_order(rest));
    let spool = house.spool();
    let worker = house.worker(&first, "agents", "");
    until(|| first.asked().len() > 2);
    house.configure(&second, "agents", "");
    worker.reload();
    let (state, manifest, _) = house.outcome(&spool);
    drop(worker);
    assert!(matches!(state, State::Done(_)), "{manifest:#}\n{}", house.said());
    assert_eq!(second.agents(), ["dockerfile", "script", "analysis"]);
    assert_eq!(manifest["agents"]["answers"], 5, "what was answered is not asked again");
}

#[test]
fn a_worker_that_is_killed_after_each_event_loses_none() {
    let answers = success();
    // What was on its way when a worker died is asked again, and answered as before.
    let model = Model::begin(move |asked| {
        let messages = asked.body["messages"].as_array();
        let before = messages.into_iter().flatten().filter(|said| said["role"] == "assistant").count();
        let of_agent = answers.iter().filter(|(agent, _)| *agent == asked.agent);
        of_agent.map(|(_, say)| say).nth(before).cloned().unwrap_or(Say::Garbage)
    });
    let (house, model) = (House::new(), model.expect("a port"));
    let spool = house.spool();
    let journal = || {
        let attempts = walk(&house.path("state/attempts"));
        attempts.iter().filter_map(|file| fs::read_to_string(file).ok()).find(|text| !text.is_empty())
    };
    // A container that never began is begun again, and told of again.
    let events = || journal().map(|text| text.lines().collect::<BTreeSet<_>>().len());
    let is_settled = || {
        let found = spool.find(&TASK.parse().expect("an id")).expect("listed");
        found.iter().any(|task| matches!(task.state, State::Done(_) | State::Failed(_)))
    };
    let (mut seen, mut kills) = (0, 0);
    let mut worker = house.worker(&model, "agents", "");
    loop {
        until(|| events().is_some_and(|events| events > seen) || is_settled());
        if is_settled() {
            break;
        }
        seen = events().unwrap_or(seen);
        worker.kill();
        kills += 1;
        worker = house.worker(&model, "agents", "");
    }
    let (state, manifest, _) = house.outcome(&spool);
    drop(worker);
    assert!(matches!(state, State::Done(_)), "{manifest:#}\n{}", house.said());
    assert_eq!(manifest["agents"]["answers"], 5, "{manifest:#}");
    assert_eq!(manifest["iterations"], 1);
    println!("{kills} kills, {} questions", model.asked().len());
    assert!(kills > 5, "{kills}");
    let task = spool.find(&TASK.parse().expect("an id")).expect("listed").remove(0);
    assert_eq!(task.name.token.to_string(), "a001", "it was never handed back");
    assert!(replays(&house), "its journal tells all of it");
}

/// Every file below a directory.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_restart_goes_on_under_what_the_attempt_began_with() {
    const LAST: usize = 4;
    let mut answers = said();
    answers.insert(LAST, Say::Hang);
    let (house, model) = (House::new(), in_order(answers));
    let spool = house.spool();
    let worker = house.worker(&model, "agents", "");
    until(|| model.asked().len() > LAST);
    worker.kill();
    // Other prompts, and no budget for what was said already.
    let next = house.worker(&model, "agents", "shown_bytes_max = 300\ntask_answers_max = 1");
    let (state, manifest, _) = house.outcome(&spool);
    drop(next);
    assert!(matches!(state, State::Done(_)), "{manifest:#}\n{}", house.said());
    assert_eq!(model.agents(), ["explore", "explore", "dockerfile", "script", "analysis", "analysis"]);
    assert!(replays(&house), "its journal says under what it was made");
}

#[test]
fn each_part_of_a_budget_ends_an_attempt() {
    for (limit, expected) in [
        ("task_tokens_max = 10", "tokens of 10 (task_tokens_max)"),
        ("task_dollars_max = 0.000001", "(task_dollars_max)"),
        ("task_seconds_max = 1", "s of 1 s (task_seconds_max)"),
    ] {
        let slow = Say::After(Duration::from_millis(1100), Box::new(looks()));
        let run = Run::with(&[("explore", slow), ("explore", found())], limit);
        run.failed(FailureReason::Budget, expected);
        assert_eq!(run.model.asked().len(), 1, "what was begun is paid, and nothing after it");
    }
}

#[test]
fn a_conversation_that_is_too_long_goes_on_with_half() {
    let mut answers = said();
    answers.insert(1, Say::Status(400, None, "maximum context length is 8192 tokens".to_owned()));
    let run = Run::of(House::new(), in_order(answers), "agents", "");
    run.accepted_after(1);
    let asked = run.model.asked();
    let length = |nth: usize| asked[nth].body["messages"].to_string().len();
    assert!(length(2) < length(1), "{} {}", length(1), length(2));
    assert!(replays(&run.house));
}

#[test]
fn accounts_that_are_removed_begin_anew() {
    let (house, model) = (House::new(), in_order(said()));
    let spool = house.spool();
    fs::write(spool.layout().limits(), "model_dollars = 0.000001\n").expect("written");
    let worker = house.worker(&model, "agents", "");
    for answers in 1..=2 {
        until(|| spool.spend().is_ok_and(|spend| spend.micro_dollars > 0));
        assert_eq!(model.asked().len(), answers, "the limit is reached with each answer");
        for file in fs::read_dir(spool.layout().spends()).expect("listed").flatten() {
            fs::remove_file(file.path()).expect("removed");
        }
        until(|| model.asked().len() > answers);
    }
    // Told to end, it would let the attempt wait for the limit to be raised.
    worker.kill();
}

#[test]
fn what_others_spent_counts_in_what_the_fleet_may() {
    let (house, model) = (House::new(), in_order(said()));
    let spool = house.spool();
    let other = Owner::new("elsewhere", Incarnation::new(Uuid::now_v7()));
    // Neither account is at the limit by itself.
    fs::write(spool.layout().limits(), "model_dollars = 1.0\n").expect("written");
    spool.write_spend(&other, &Spend { micro_dollars: 999_999 }).expect("written");
    let worker = house.worker(&model, "agents", "");
    until(|| spool.spend().is_ok_and(|spend| spend.micro_dollars > 1_000_000));
    assert_eq!(model.asked().len(), 1, "the limit was reached with the first answer");
    fs::remove_file(spool.layout().spend(&other)).expect("removed");
    let (state, manifest, _) = house.outcome(&spool);
    drop(worker);
    assert!(matches!(state, State::Done(_)), "{manifest:#}\n{}", house.said());
}

#[test]
fn a_build_that_is_too_slow_is_for_the_agents_to_mend() {
    let slow = format!("{DOCKERFILE}\nRUN bash -lc 'sleep 600'");
    let model = Model::scripted(&[
        ("explore", found()),
        ("dockerfile", dockerfile(&slow)),
        ("script", unittest("tests.test_calc")),
        ("analysis", judged("retry", Some("dockerfile"), "it sleeps: leave that out")),
        ("dockerfile", dockerfile(DOCKERFILE)),
        ("analysis", judged("genuine", None, "")),
    ]);
    let mut house = House::new();
    house.keys = "build_timeout_seconds = 20";
    let run = Run::of(house, model.expect("a port"), "agents", "");
    run.accepted_after(2);
    let judge = run.model.asked()[3].body["messages"].to_string();
    assert!(judge.contains("did not end within 20 s"), "{judge}");
}

#[test]
fn looks_may_be_calls_of_tools() {
    for endpoint in ["tools = true", "tools = true\nstream = false"] {
        let mut answers = said();
        answers[0] = Say::Calls(vec![("digest", r#"{"path": "README.md"}"#), ("browse", r#"{"path": ""}"#)]);
        answers.insert(1, Say::Calls(vec![("digest", r#"{"path": "RE"#)]));
        let mut house = House::new();
        house.endpoint = endpoint;
        let run = Run::of(house, in_order(answers), "agents", "");
        run.accepted_after(1);
        let asked = run.model.asked();
        let names: Vec<&str> = asked[0].body["tools"]
            .as_array()
            .expect("offered")
            .iter()
            .filter_map(|tool| tool["function"]["name"].as_str())
            .collect();
        assert_eq!(names, ["browse", "search", "digest"]);
        assert!(asked[1].body["messages"].to_string().contains("Run the tests with"), "{}", asked[1].body);
        let mended = asked[2].body["messages"].to_string();
        assert!(mended.contains("not what was asked for"), "a call that is cut off is mended: {mended}");
        assert!(asked[3].body.get("tools").is_none(), "nobody else looks");
        assert!(replays(&run.house));
    }
}
