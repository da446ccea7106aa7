//! Collecting from a server that fails, in this process, so that no test waits as long as a person would: what cannot be
//! read costs itself alone, whenever that is.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use master::filter::{EvaluationSet, Filter, FilterConfig};
use master::github::{Collector, GithubError, Patience, Progress, Repositories};
use serde_json::{Value, json};

use crate::PATIENCE;
use crate::common::House;
use crate::forge::{Forge, Manners, Scripted};

/// Pauses that cost no time.
const HASTY: Patience = Patience {
    pause: Duration::from_millis(1),
    pause_max: Duration::from_millis(4),
    heavy_pause: Duration::from_millis(1),
    heavy_pause_max: Duration::from_millis(1),
    outage_max: Duration::from_secs(60),
};

/// What a run gave.
pub(crate) struct Collected {
    pub(crate) pulls: Result<usize, GithubError>,
    skipped: BTreeMap<String, String>,
    passed: BTreeMap<(String, u64), String>,
    waiting: usize,
}

fn collect_from(house: &House, url: &str, patience: Patience, told: impl FnMut(&Progress)) -> Collected {
    let filter = Filter::new(FilterConfig::default(), EvaluationSet::default());
    let tokens = vec!["good-secret".to_owned()];
    let dir = house.path("collected");
    let began = Instant::now();
    let mut collector = loop {
        match Collector::new(&dir, url, tokens.clone(), &filter, patience, Timestamp::now) {
            Ok(collector) => break collector,
            // A command that another test starts has the lock of an earlier one until it is another program.
            Err(GithubError::Store { .. }) if began.elapsed() < PATIENCE => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let repositories = Repositories::Named(vec!["owner/name".to_owned()]);
    let since = "2024-01-01T00:00:00Z".parse().expect("a time");
    let pulls = runtime.block_on(collector.run(&repositories, since, told));
    let (skipped, passed) = (collector.skipped().clone(), collector.passed_over().clone());
    Collected { pulls, skipped, passed, waiting: collector.waiting() }
}

pub(crate) fn collect(house: &House, forge: &Forge) -> Collected {
    collect_from(house, &forge.url, HASTY, |_| ())
}

pub(crate) fn rows(house: &House) -> Vec<Value> {
    let text = fs::read_to_string(house.path("collected/pulls.jsonl")).expect("collected");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn numbers(house: &House) -> Vec<u64> {
    rows(house).iter().map(|row| row["pull_number"].as_u64().expect("a number")).collect()
}

/// Ways in which a server says that it will not read something.
const REFUSALS: [Option<&str>; 4] = [
    None,
    Some(r#"{"errors":[{"type":"INSUFFICIENT_SCOPES","message":"no such scope"}]}"#),
    Some(r#"{"data":{"repository":{"nameWithOwner":7},"l0":{"issue":{"number":"x"}}}}"#),
    Some("<html>"),
];

#[test]
fn a_pull_request_that_cannot_be_read_is_passed_over() {
    for heavy_says in REFUSALS {
        let (house, forge) = (House::new(), Forge::start(4));
        forge.behave(Manners { heavy: Some((2, "title")), heavy_says, ..Manners::default() });
        let collected = collect(&house, &forge);
        assert_eq!(collected.pulls.expect("it ends"), 3, "{heavy_says:?}");
        assert_eq!(numbers(&house), [4, 3, 1]);
        let passed: Vec<_> = collected.passed.keys().cloned().collect();
        assert_eq!(passed, [("owner/name".to_owned(), 2)]);
        assert!(collected.skipped.is_empty(), "{:?}", collected.skipped);
        // It is asked for again, and found.
        forge.behave(Manners::default());
        let collected = collect(&house, &forge);
        assert_eq!((collected.pulls.expect("it ends"), collected.passed.len()), (4, 0));
        assert_eq!(numbers(&house), [4, 3, 1, 2]);
    }
}

#[test]
fn a_repository_of_which_not_even_numbers_can_be_read_is_skipped() {
    let (house, forge) = (House::new(), Forge::start(3));
    forge.behave(Manners { heavy: Some((2, "number")), ..Manners::default() });
    let collected = collect(&house, &forge);
    assert_eq!(collected.pulls.expect("it ends"), 1);
    assert_eq!(collected.skipped["owner/name"], "heavy");
}

#[test]
fn an_issue_that_cannot_be_read_is_left_out_and_noted() {
    for heavy_says in REFUSALS {
        let (house, forge) = (House::new(), Forge::start(3));
        forge.behave(Manners { heavy_issue: Some(1003), heavy_says, ..Manners::default() });
        assert_eq!(collect(&house, &forge).pulls.expect("it ends"), 3);
        let rows = rows(&house);
        let missing = &rows[0]["issues_missing"][0];
        assert_eq!((&missing["repo"], &missing["number"]), (&json!("owner/name"), &json!(1003)), "{missing}");
        assert!(missing["why"].as_str().is_some_and(|why| !why.is_empty()), "{missing}");
        assert_eq!(rows[0]["issues"], json!([]));
        assert!(rows[1].get("issues_missing").is_none());
    }
}

/// A run with a server that says this of the diff of the second of three pull requests: rows, and how many wait.
fn without_a_diff(house: &House, forge: &Forge, says: Option<(u16, &'static str)>) -> (usize, usize) {
    let no_diff = says.map(|_| 2);
    forge.behave(Manners { no_diff, no_diff_says: says, ..Manners::default() });
    let collected = collect(house, forge);
    (collected.pulls.expect("it ends"), collected.waiting)
}

#[test]
fn a_diff_that_the_server_will_never_give_is_a_reason_at_once() {
    for says in [(406, "too large"), (422, "{}"), (500, "this diff is taking too long"), (404, "")] {
        let (house, forge) = (House::new(), Forge::start(3));
        assert_eq!(without_a_diff(&house, &forge, Some(says)), (3, 0), "{says:?}");
        let why = rows(&house)[1]["patch_missing"].as_str().expect("a reason").to_owned();
        assert!(why.contains(&format!("the server says {}", says.0)), "{why}");
    }
}

#[test]
fn a_diff_that_the_server_cannot_give_now_is_asked_for_again() {
    for status in [500, 502, 503, 504] {
        let (house, forge) = (House::new(), Forge::start(3));
        assert_eq!(without_a_diff(&house, &forge, Some((status, ""))), (2, 1), "{status}");
        assert_eq!(without_a_diff(&house, &forge, None), (3, 0), "{status}");
        assert_eq!(numbers(&house), [3, 1, 2]);
        let patch = rows(&house)[2]["patch"].as_str().expect("a patch").to_owned();
        assert!(patch.contains("pkg/m2.py"), "{patch}");
        assert_eq!(without_a_diff(&house, &forge, None), (3, 0), "and not once more");
    }
}

#[test]
fn a_diff_that_three_runs_did_not_get_is_missing() {
    let (house, forge) = (House::new(), Forge::start(3));
    let gateway = Some((502, "<html>Bad Gateway</html>"));
    assert_eq!(without_a_diff(&house, &forge, gateway), (2, 1));
    // Where nobody knows any more that it waits, it begins anew.
    fs::remove_file(house.path("collected/again.jsonl")).expect("there");
    for expected in [(2, 1), (2, 1), (3, 0)] {
        assert_eq!(without_a_diff(&house, &forge, gateway), expected);
    }
    let why = rows(&house)[2]["patch_missing"].as_str().expect("a reason").to_owned();
    assert!(why.contains("502"), "{why}");
    assert_eq!(fs::read_to_string(house.path("collected/again.jsonl")).expect("there").lines().count(), 2);
    assert_eq!(without_a_diff(&house, &forge, None), (3, 0));
    assert_eq!(fs::read_to_string(house.path("collected/again.jsonl")).expect("there"), "");
}

/// An address where nobody listens.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address")
}

#[test]
fn a_network_that_is_gone_for_a_while_is_waited_for() {
    let (house, forge, address) = (House::new(), Forge::start(2), free_address());
    let (mut waits, mut is_there) = (Vec::new(), false);
    let collected = collect_from(&house, &format!("http://{address}"), HASTY, |progress| {
        let Some(wait) = progress.waits.clone() else { return };
        waits.push(wait.what);
        // By now several tries were in vain.
        if !is_there {
            forge.listen(TcpListener::bind(address).expect("the address is still free"));
            is_there = true;
        }
    });
    assert_eq!(collected.pulls.expect("it ends"), 2);
    assert!(waits[0].starts_with("the server: ") && waits[0].contains("refused"), "{waits:?}");
}

#[test]
fn a_network_that_does_not_come_back_ends_the_run_and_the_next_goes_on() {
    let (house, forge, address) = (House::new(), Forge::start(2), free_address());
    let url = format!("http://{address}");
    let patience = Patience { outage_max: Duration::from_millis(20), ..HASTY };
    let error = collect_from(&house, &url, patience, |_| ()).pulls.expect_err("nobody answers").to_string();
    assert!(error.contains("run the same command again to go on"), "{error}");
    forge.listen(TcpListener::bind(address).expect("the address is still free"));
    assert_eq!(collect_from(&house, &url, patience, |_| ()).pulls.expect("it ends"), 2);
}

#[test]
fn a_server_that_fails_at_everything_for_a_while_costs_no_row_its_diff() {
    for begin in 1..16 {
        let (house, forge) = (House::new(), Forge::start(2));
        forge.behave(Manners { outage: begin..begin + 25, ..Manners::default() });
        let collected = collect(&house, &forge);
        assert_eq!((collected.pulls.expect("it ends"), collected.waiting), (2, 0), "from {begin}");
        assert!(collected.passed.is_empty() && collected.skipped.is_empty(), "from {begin}");
        assert!(rows(&house).iter().all(|row| row.get("patch_missing").is_none()), "from {begin}");
    }
}

#[test]
fn it_says_that_it_waits_for_a_limit() {
    let limited = r#"{"errors":[{"type":"RATE_LIMIT","message":"API rate limit exceeded"}]}"#;
    let (house, forge) = (House::new(), Forge::start(1));
    let headers = vec![("Retry-After", "1".to_owned())];
    let script = vec![Scripted { headers, ..Scripted::new(limited) }];
    forge.behave(Manners { script, ..Manners::default() });
    let mut told = Vec::new();
    let collected = collect_from(&house, &forge.url, HASTY, |progress| told.push(progress.clone()));
    assert_eq!(collected.pulls.expect("it ends"), 1);
    let wait = told.iter().find_map(|progress| progress.waits.clone()).expect("it says so");
    assert_eq!(wait.what, "a limit");
    assert!(told.iter().any(|progress| progress.repository == "owner/name" && progress.all == 1));
}
