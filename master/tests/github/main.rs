//! Collecting from GitHub, played by a local server about a real repository: what comes out, whatever the server does
//! and whenever it is interrupted.

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod forge;
mod history;
#[path = "../common/history.rs"]
mod project;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{House, Said, said};
use forge::{Forge, Manners, Scripted};
use serde_json::{Value, json};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(120);

fn command(house: &House, forge: &Forge, which: &[&str]) -> Command {
    let fixed = ["ingest", "github", "--out", "out", "--since", "2024-01-01", "--api-url", &forge.url];
    let mut command = house.command(&[&fixed[..], which].concat());
    command.env("BOTTEGA_GITHUB_TOKENS", "bad-secret,good-secret").env("NO_PROXY", "127.0.0.1");
    command
}

fn repos(house: &House) -> [&'static str; 2] {
    fs::write(house.path("repos.txt"), "# ours\nowner/name\nowner/gone # renamed\n").expect("written");
    ["--repos", "repos.txt"]
}

fn run(house: &House, forge: &Forge, which: &[&str]) -> Said {
    said(&command(house, forge, which).output().expect("it runs"))
}

fn lines(house: &House, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(house.path(name)).expect("written");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Every pull request is there, once.
fn check_whole(house: &House, forge: &Forge) {
    let collected = lines(house, "out/collected/pulls.jsonl");
    let numbers: Vec<u64> =
        collected.iter().map(|row| row["pull_number"].as_u64().expect("a number")).collect();
    let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(distinct, forge.pulls.iter().map(|pull| pull.number).collect(), "no gap");
    assert_eq!(distinct.len(), numbers.len(), "no double");
    assert_eq!(lines(house, "out/rows.jsonl").len(), forge.pulls.len());
}

#[test]
fn a_pull_request_becomes_a_row_with_its_issue_and_its_merge_base() {
    let (house, forge) = (House::new(), Forge::start(3));
    let ended = run(&house, &forge, &repos(&house));
    assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
    check_whole(&house, &forge);
    let rows = lines(&house, "out/rows.jsonl");
    let (row, pull) = (&rows[0], &forge.pulls[2]);
    let expected = json!({
        "instance_id": "owner__name-3", "repo": "owner/name", "repo_id": 7, "pull_number": 3, "language": "Python",
        "base_commit": pull.merge_base, "end_commit": pull.head, "created_at": "2024-03-01T00:03:00Z",
        "problem_statement": "It breaks\n\nBadly, 1003 times.", "hints_text": "An early hint.", "stars": 9,
        "license": "MIT",
    });
    for (field, value) in expected.as_object().expect("fields") {
        assert_eq!(&row[field], value, "{field}");
    }
    let text = |field: &str| row[field].as_str().expect("text").to_owned();
    assert!(text("patch").contains("pkg/m3.py") && !text("patch").contains("CHANGES"), "{row}");
    assert!(text("test_patch").contains("tests/test_m3.py"), "{row}");
    assert_eq!(row["issues"][0]["number"], json!(1003));
    let commit = json!({ "oid": pull.head, "message": "fix it", "authored_at": "2024-02-02T00:00:00Z" });
    assert_eq!((&row["commits"], &row["truncated"]), (&json!([commit]), &json!([])));
    for row in &rows {
        let issue = 1000 + row["pull_number"].as_u64().expect("a number");
        assert_eq!(
            row["problem_statement"],
            json!(format!("It breaks\n\nBadly, {issue} times.")),
            "each issue once"
        );
        assert_eq!(row["hints_text"], json!("An early hint."), "{row}");
    }
    assert!(ended.out.contains("nothing of owner/gone: the server says 404"), "{}", ended.out);
}

#[test]
fn what_is_new_is_collected_and_nothing_else() {
    let (house, mut forge) = (House::new(), Forge::start(2));
    let which = repos(&house);
    assert_eq!(run(&house, &forge, &which).status, 0);
    let statuses = |forge: &Forge| -> Vec<u16> { forge.asked().iter().map(|asked| asked.2).collect() };
    for _ in 0..2 {
        forge.merge_one();
        forge.asked();
        assert_eq!(run(&house, &forge, &which).status, 0);
        check_whole(&house, &forge);
        // State, page, issue, merge base, diff, and the state of what is gone.
        assert_eq!(statuses(&forge), [200, 200, 200, 200, 200, 404]);
        assert_eq!(run(&house, &forge, &which).status, 0);
        assert_eq!(statuses(&forge), [304, 404]);
    }
    check_whole(&house, &forge);
}

#[test]
fn any_file_of_what_was_collected_may_go() {
    let (house, forge) = (House::new(), Forge::start(3));
    let which = repos(&house);
    assert_eq!(run(&house, &forge, &which).status, 0);
    let files = [
        "cursor.json",
        "pulls.jsonl",
        "etags.jsonl",
        "repositories.json",
        "skipped.jsonl",
        "passed.jsonl",
        "again.jsonl",
    ];
    for gone in files.map(|file| vec![file]).into_iter().chain([files[..2].to_vec(), files.to_vec()]) {
        for file in &gone {
            fs::remove_file(house.path("out/collected").join(file)).expect("there");
        }
        let again = run(&house, &forge, &which);
        assert_eq!(again.status, 0, "{gone:?}: {}{}", again.out, again.err);
        check_whole(&house, &forge);
        let left = fs::read_dir(house.path("out/collected")).expect("listed").count();
        assert_eq!(left, files.len(), "{gone:?}");
    }
    // A row that nobody noted: it is whole, and would stand there twice if it were kept.
    let path = house.path("out/collected/pulls.jsonl");
    let whole = fs::read_to_string(&path).expect("collected");
    let last = whole.lines().last().expect("a row").to_owned() + "\n";
    fs::write(&path, format!("{whole}{last}")).expect("written");
    assert_eq!(run(&house, &forge, &which).status, 0);
    assert_eq!(fs::read_to_string(&path).expect("collected"), whole);
    // What is cut off, or torn, is said, and left as it is.
    for torn in [whole[..whole.len() - 9].to_owned(), whole.replace("{\"instance", "{instance")] {
        fs::write(&path, &torn).expect("written");
        let refused = run(&house, &forge, &which);
        assert!(refused.status == 1 && refused.err.contains("restore it, or remove it"), "{}", refused.err);
        assert_eq!(fs::read_to_string(&path).expect("there"), torn);
    }
    // Without a cursor, what stands there whole counts.
    fs::write(&path, &whole[..whole.len() - 9]).expect("written");
    fs::remove_file(house.path("out/collected/cursor.json")).expect("there");
    assert_eq!(run(&house, &forge, &which).status, 0);
    check_whole(&house, &forge);
}

#[test]
fn one_directory_is_for_one_server() {
    let (house, forge, other) = (House::new(), Forge::start(1), Forge::start(2));
    let which = repos(&house);
    assert_eq!(run(&house, &forge, &which).status, 0);
    let refused = run(&house, &other, &which);
    assert!(refused.status == 1 && refused.err.contains("name another --out"), "{}", refused.err);
}

#[test]
fn what_graphql_says_beside_its_data_is_heard() {
    let heavy = r#"{"data":{"repository":null},"errors":[{"type":"RESOURCE_LIMITS_EXCEEDED","path":["repository"],"message":"m"}]}"#;
    let limited = r#"{"errors":[{"type":"RATE_LIMIT","code":"graphql_rate_limit","message":"API rate limit exceeded"}]}"#;
    let secondary = r#"{"errors":[{"message":"You have exceeded a secondary rate limit."}]}"#;
    let (house, forge) = (House::new(), Forge::start(3));
    let after = |seconds: u32| vec![("Retry-After", seconds.to_string())];
    let script = vec![
        Scripted::new(heavy),
        Scripted { headers: after(2), ..Scripted::new(limited) },
        Scripted { headers: after(2), ..Scripted::new(secondary) },
        Scripted { status: 403, headers: after(2), body: secondary },
    ];
    forge.behave(Manners { script, tokens: vec!["good-secret".to_owned()], ..Manners::default() });
    let ended = run(&house, &forge, &repos(&house));
    assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
    check_whole(&house, &forge);
    let asked = forge.asked();
    let queries: Vec<Instant> = asked
        .iter()
        .filter(|(token, path, ..)| token == "good-secret" && path.ends_with("/graphql"))
        .map(|a| a.3)
        .collect();
    for (number, pair) in queries.windows(2).enumerate().skip(1).take(3) {
        let waited = pair[1] - pair[0];
        assert!(waited >= Duration::from_millis(1900), "query {number} came after {waited:?}");
    }
}

#[test]
fn what_nobody_may_see_is_asked_for_again_the_next_time() {
    let forbidden = r#"{"data":{"repository":null},"errors":[{"type":"FORBIDDEN","path":["repository"],"message":"SAML"}]}"#;
    let (house, forge) = (House::new(), Forge::start(2));
    forge.behave(Manners { script: vec![Scripted::new(forbidden)], ..Manners::default() });
    let which = repos(&house);
    let ended = run(&house, &forge, &which);
    assert!(ended.out.contains("nothing of owner/name: SAML"), "{}{}", ended.out, ended.err);
    assert_eq!(run(&house, &forge, &which).status, 0);
    check_whole(&house, &forge);
}

#[test]
fn one_pull_request_that_cannot_be_read_whole_holds_up_no_other() {
    for (asked, has_hints) in [("comments(first: 50)", true), ("commits(first: 50)", false)] {
        let (house, forge) = (House::new(), Forge::start(3));
        forge.behave(Manners { heavy: Some((2, asked)), ..Manners::default() });
        let ended = run(&house, &forge, &repos(&house));
        assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
        check_whole(&house, &forge);
        let rows = lines(&house, "out/rows.jsonl");
        assert_eq!(
            rows[1]["hints_text"].as_str().is_some_and(|hints| !hints.is_empty()),
            has_hints,
            "{asked}"
        );
        let cut = if has_hints { json!([]) } else { json!(["commits", "issues"]) };
        assert_eq!(rows[1]["truncated"], cut, "{asked}");
    }
    let (house, forge) = (House::new(), Forge::start(3));
    forge.behave(Manners { no_diff: Some(2), ..Manners::default() });
    let ended = run(&house, &forge, &repos(&house));
    assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
    assert_eq!(lines(&house, "out/rows.jsonl").len(), 2);
    let rejected = lines(&house, "out/rejected.jsonl");
    let reason = rejected[0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("cannot be compared: the server says 500"), "{reason}");
}

#[test]
fn a_search_finds_more_than_a_server_shows_of_one() {
    let (house, forge) = (House::new(), Forge::start(1));
    forge.behave(Manners { crowd: 1150, ..Manners::default() });
    let ended = run(&house, &forge, &["--search", "language:python stars:>0"]);
    assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
    check_whole(&house, &forge);
    assert!(ended.out.contains("nor of 1141 others"), "{}", ended.out);
    assert_eq!(lines(&house, "out/collected/skipped.jsonl").len(), 1151);
}

#[test]
fn with_two_tokens_two_requests_are_made_at_once() {
    let (house, forge) = (House::new(), Forge::start(6));
    forge.behave(Manners { delay: Duration::from_millis(40), ..Manners::default() });
    assert_eq!(run(&house, &forge, &repos(&house)).status, 0);
    check_whole(&house, &forge);
    assert_eq!(forge.at_once_max(), 2);
    let asked = forge.asked();
    let good = asked.iter().filter(|(token, ..)| token == "good-secret").count();
    assert!(good.abs_diff(asked.len() / 2) <= 2, "{good} of {}", asked.len());
    let numbers: Vec<u64> = lines(&house, "out/collected/pulls.jsonl")
        .iter()
        .map(|row| row["pull_number"].as_u64().expect("one"))
        .collect();
    assert_eq!(numbers, [6, 5, 4, 3, 2, 1], "in their order");
}

#[test]
fn whatever_the_server_does_nothing_is_missed() {
    let (house, forge) = (House::new(), Forge::start(6));
    forge.behave(Manners {
        page_max: Some(2),
        fails_every: Some(3),
        tokens: vec!["good-secret".to_owned()],
        ..Manners::default()
    });
    let ended = run(&house, &forge, &["--search", "language:python stars:>5"]);
    assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
    check_whole(&house, &forge);
    let asked = forge.asked();
    let refused = asked.iter().filter(|(token, ..)| token == "bad-secret").count();
    assert_eq!(refused, 1, "a token that is refused is not asked again: {asked:?}");
    for status in [401, 403, 429, 502, 503] {
        assert!(asked.iter().any(|(_, _, got, _)| *got == status), "the test plays {status}: {asked:?}");
    }
    for printed in [&ended.out, &ended.err] {
        assert!(!printed.contains("secret"), "{printed}");
    }
}

#[test]
fn what_did_not_change_is_not_asked_for_again() {
    let (house, forge) = (House::new(), Forge::start(2));
    let which = repos(&house);
    assert_eq!(run(&house, &forge, &which).status, 0);
    forge.asked();
    let again = run(&house, &forge, &which);
    assert_eq!(again.status, 0, "{}{}", again.out, again.err);
    check_whole(&house, &forge);
    let statuses: Vec<u16> = forge.asked().into_iter().map(|(_, _, status, _)| status).collect();
    assert_eq!(statuses, [304, 404]);
}

fn wait(child: &mut Child, forge: &Forge, limit: usize) -> bool {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it can be asked") {
            return status.success();
        }
        if forge.count() > limit {
            child.kill().expect("killed");
            child.wait().expect("gone");
            return false;
        }
        assert!(began.elapsed() < PATIENCE, "it neither ends nor asks");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn killed_at_any_point_it_goes_on_without_a_gap_or_a_double() {
    let (house, forge) = (House::new(), Forge::start(5));
    let which = repos(&house);
    let mut limit = 0;
    loop {
        // Each life lasts one request longer than the one before.
        forge.behave(Manners { page_max: Some(3), silent_after: Some(limit), ..Manners::default() });
        let mut command = command(&house, &forge, &which);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        if wait(&mut child, &forge, limit) {
            break;
        }
        limit += 1;
        assert!(limit < 100, "it gets no further");
    }
    assert!(limit > 5, "it was killed {limit} times only");
    check_whole(&house, &forge);
}

#[test]
fn a_line_that_was_half_written_is_cut_off() {
    let (house, forge) = (House::new(), Forge::start(2));
    let which = repos(&house);
    assert_eq!(run(&house, &forge, &which).status, 0);
    let path = house.path("out/collected/pulls.jsonl");
    let whole = fs::read(&path).expect("collected");
    fs::write(&path, [&whole[..], b"{\"repo\": \"owner/na"].concat()).expect("written");
    assert_eq!(run(&house, &forge, &which).status, 0);
    assert_eq!(fs::read(&path).expect("collected"), whole);
}

#[test]
fn two_do_not_collect_into_one_directory() {
    let (house, forge) = (House::new(), Forge::start(1));
    fs::create_dir_all(house.path("out/collected")).expect("made");
    let held = fs::File::create(house.path("out/collected/pulls.jsonl")).expect("made");
    held.lock().expect("locked");
    let refused = run(&house, &forge, &repos(&house));
    assert!(refused.status == 1 && refused.err.contains("another command collects"), "{}", refused.err);
    drop(held);
    assert_eq!(run(&house, &forge, &repos(&house)).status, 0);
}

#[test]
fn what_is_asked_wrongly_is_said() {
    let (house, forge) = (House::new(), Forge::start(1));
    let refused = house.run(&["ingest", "github", "--out", "out", "--search", "x", "--since", "lately"]);
    assert!(refused.status == 2 && refused.err.contains("expected a date"), "{}", refused.err);
    let anonymous = ["ingest", "github", "--out", "out", "--search", "x", "--since", "2024-01-01"];
    let mut anonymous = house.command(&anonymous);
    let refused = said(
        &anonymous.env_remove("GITHUB_TOKEN").env_remove("BOTTEGA_GITHUB_TOKENS").output().expect("it runs"),
    );
    assert!(refused.status == 2 && refused.err.contains("set BOTTEGA_GITHUB_TOKENS"), "{}", refused.err);
    fs::write(house.path("repos.txt"), "owner/name\nhttps://forge.example/x\n").expect("written");
    let refused = run(&house, &forge, &["--repos", "repos.txt"]);
    assert!(refused.err.contains("line 2") && refused.err.contains("no owner/name"), "{}", refused.err);
    forge.behave(Manners { tokens: vec!["another".to_owned()], ..Manners::default() });
    let refused = run(&house, &forge, &repos(&house));
    assert!(refused.status == 1 && refused.err.contains("BOTTEGA_GITHUB_TOKENS"), "{}", refused.err);
}
