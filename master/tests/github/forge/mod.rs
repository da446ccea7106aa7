//! A server that speaks as much of GitHub's REST and GraphQL as is asked of it, about a real repository.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

mod history;
mod schema;

use history::{made, merged, of_repository, text};

use crate::common::git;

/// A merged pull request, and the issue that it closes.
#[derive(Clone)]
pub(crate) struct Pull {
    pub(crate) number: u64,
    /// Where the branch began.
    pub(crate) merge_base: String,
    /// Where the main branch was when it was merged.
    pub(crate) base: String,
    pub(crate) head: String,
    pub(crate) title: String,
    pub(crate) body: String,
    /// The issues that the server links itself.
    pub(crate) linked: Vec<u64>,
}

/// An answer of GraphQL instead of the right one.
#[derive(Clone)]
pub(crate) struct Scripted {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: &'static str,
}

impl Scripted {
    /// With status 200, as most of what goes wrong.
    pub(crate) fn new(body: &'static str) -> Self {
        Self { status: 200, headers: Vec::new(), body }
    }
}

/// What the server does wrong, and whom it knows.
#[derive(Clone, Default)]
pub(crate) struct Manners {
    /// A page of more pull requests than these is too heavy.
    pub(crate) page_max: Option<usize>,
    /// Every so many requests it fails, in one way or another.
    pub(crate) fails_every: Option<usize>,
    /// The tokens that it knows; none: it knows all.
    pub(crate) tokens: Vec<String>,
    /// After so many requests it answers no more, and the clock of the test goes on.
    pub(crate) silent_after: Option<usize>,
    /// What the first queries get.
    pub(crate) script: Vec<Scripted>,
    /// The pull request that it cannot read with all of its comments, or not even with few.
    pub(crate) heavy: Option<(u64, &'static str)>,
    /// The issue that it cannot read.
    pub(crate) heavy_issue: Option<u64>,
    /// What it says of either, instead of that it is too heavy.
    pub(crate) heavy_says: Option<&'static str>,
    /// The pull request whose diff it cannot make.
    pub(crate) no_diff: Option<u64>,
    /// After so many requests it fails each of these.
    pub(crate) outage: std::ops::Range<usize>,
    /// The status and the text with which it refuses that, instead of an error of its own.
    pub(crate) no_diff_says: Option<(u16, &'static str)>,
    /// How long it thinks about each request.
    pub(crate) delay: Duration,
    /// How many repositories a search finds, beside those that there are.
    pub(crate) crowd: usize,
}

/// What was asked: the token, the method with the path, the status of the answer, and when it was asked.
pub(crate) type Asked = (String, String, u16, Instant);

struct Shared {
    git_dir: PathBuf,
    pulls: Mutex<Vec<Pull>>,
    manners: Mutex<Manners>,
    asked: Mutex<Vec<Asked>>,
    count: AtomicUsize,
    queries: AtomicUsize,
    /// What of the queries GitHub would refuse.
    invalid: Mutex<Vec<String>>,
    /// How many pull requests each query for a page asked for.
    page_sizes: Mutex<Vec<u64>>,
    at_once: AtomicUsize,
    at_once_max: AtomicUsize,
}

pub(crate) struct Forge {
    /// `None`: its repository is a real one.
    dir: Option<TempDir>,
    pub(crate) url: String,
    pub(crate) pulls: Vec<Pull>,
    shared: Arc<Shared>,
}

impl Forge {
    /// `owner/name` with so many pull requests; their issues have numbers above 1000.
    pub(crate) fn start(pulls: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let pulls = made(dir.path(), pulls);
        Self::serve(dir.path().to_owned(), Some(dir), pulls)
    }

    /// `owner/name` with so many pull requests, made of the last commits of a real repository.
    pub(crate) fn start_from(git_dir: &Path, pulls: usize) -> Self {
        Self::serve(git_dir.to_owned(), None, of_repository(git_dir, pulls))
    }

    fn serve(git_dir: PathBuf, dir: Option<TempDir>, pulls: Vec<Pull>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            git_dir,
            pulls: Mutex::new(pulls.clone()),
            manners: Mutex::default(),
            asked: Mutex::default(),
            count: AtomicUsize::new(0),
            queries: AtomicUsize::new(0),
            invalid: Mutex::default(),
            page_sizes: Mutex::default(),
            at_once: AtomicUsize::new(0),
            at_once_max: AtomicUsize::new(0),
        });
        let forge = Self { dir, url, pulls, shared };
        forge.listen(listener);
        forge
    }

    /// Answers what comes there too.
    pub(crate) fn listen(&self, listener: TcpListener) {
        let server = self.shared.clone();
        // It ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || {
                    // Whoever asked may have been killed.
                    let _ = server.serve(stream);
                });
            }
        });
    }

    pub(crate) fn behave(&self, manners: Manners) {
        self.shared.count.store(0, Ordering::SeqCst);
        self.shared.queries.store(0, Ordering::SeqCst);
        self.shared.at_once_max.store(0, Ordering::SeqCst);
        *self.shared.manners.lock().expect("unbroken") = manners;
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.asked.lock().expect("unbroken"))
    }

    /// The most requests that it had at the same time since it was told how to behave.
    pub(crate) fn at_once_max(&self) -> usize {
        self.shared.at_once_max.load(Ordering::SeqCst)
    }

    /// How many pull requests each query for a page asked for, in their order.
    pub(crate) fn page_sizes(&self) -> Vec<u64> {
        self.shared.page_sizes.lock().expect("unbroken").clone()
    }

    /// Another pull request is merged.
    pub(crate) fn merge_one(&mut self) {
        let number = self.pulls.len() as u64 + 1;
        let dir = self.dir.as_ref().expect("a repository of its own");
        self.pulls.push(merged(dir.path(), number));
        *self.shared.pulls.lock().expect("unbroken") = self.pulls.clone();
    }

    /// How many requests came since it was told how to behave.
    pub(crate) fn count(&self) -> usize {
        self.shared.count.load(Ordering::SeqCst)
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        let invalid = self.shared.invalid.lock().expect("unbroken");
        assert!(invalid.is_empty() || std::thread::panicking(), "GitHub would refuse {invalid:?}");
    }
}

/// By their names in lower case.
type Headers = BTreeMap<String, String>;

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer { status, headers: Vec::new(), body: body.into() }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line == "\r\n" {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let target = first.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let token =
            headers.get("authorization").map_or("", String::as_str).trim_start_matches("Bearer ").to_owned();
        let manners = self.manners.lock().expect("unbroken").clone();
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if manners.silent_after.is_some_and(|limit| count > limit) {
            return Ok(());
        }
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.at_once_max.fetch_max(at_once, Ordering::SeqCst);
        let asked_at = Instant::now();
        std::thread::sleep(manners.delay);
        let answer = if !manners.tokens.is_empty() && !manners.tokens.contains(&token) {
            answer(401, r#"{"message":"Bad credentials"}"#)
        } else if manners.outage.contains(&count) {
            answer(503, "<html>")
        } else if manners.fails_every.is_some_and(|every| count.is_multiple_of(every)) {
            fault(count)
        } else {
            self.answer(&target, &headers, &body, &manners)
        };
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        self.asked.lock().expect("unbroken").push((token, target, answer.status, asked_at));
        let mut head = format!(
            "HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {}\r\n",
            answer.status,
            answer.body.len()
        );
        for (name, value) in answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(&[head.as_bytes(), b"\r\n", &answer.body].concat())
    }

    fn answer(&self, target: &str, headers: &Headers, body: &[u8], manners: &Manners) -> Answer {
        let (method, path) = target.split_once(' ').unwrap_or_default();
        if method == "POST" && path == "/graphql" {
            let asked: Value = serde_json::from_slice(body).expect("JSON");
            if asked["query"] == "query { __typename }" {
                return answer(200, r#"{"data":{"__typename":"Query"}}"#);
            }
            let number = self.queries.fetch_add(1, Ordering::SeqCst);
            if let Some(Scripted { status, headers, body }) = manners.script.get(number).cloned() {
                return Answer { headers, ..answer(status, body) };
            }
            return self.query(&asked, manners);
        }
        if path == "/rate_limit" {
            return answer(200, "{}");
        }
        if let Some(query) = path.strip_prefix("/search/repositories?q=") {
            return answer(200, found(query, manners.crowd).to_string());
        }
        if path.starts_with("/repos/owner/name/pulls?state=closed&") {
            let state = format!("W/\"state-{}\"", self.pulls.lock().expect("unbroken").len());
            let status = if headers.get("if-none-match") == Some(&state) { 304 } else { 200 };
            let body = if status == 200 { "[]" } else { "" };
            return Answer { headers: vec![("ETag", state)], ..answer(status, body) };
        }
        let Some(range) = path.strip_prefix("/repos/owner/name/compare/") else {
            return answer(404, r#"{"message":"Not Found"}"#);
        };
        let range = range.split('?').next().expect("a range");
        let heads = self.pulls.lock().expect("unbroken").clone();
        let of_range = heads.iter().find(|pull| range.ends_with(&pull.head)).map(|pull| pull.number);
        if manners.no_diff.is_some() && manners.no_diff == of_range {
            let (status, text) =
                manners.no_diff_says.unwrap_or((500, "this diff is taking too long to generate"));
            return answer(status, text);
        }
        if headers.get("accept").is_some_and(|accept| accept.ends_with(".diff")) {
            return answer(200, git(&self.git_dir, &["diff", range]));
        }
        let (base, head) = range.split_once("...").expect("two commits");
        let sha = text(&self.git_dir, &["merge-base", base, head]);
        answer(200, json!({ "merge_base_commit": { "sha": sha } }).to_string())
    }

    fn query(&self, asked: &Value, manners: &Manners) -> Answer {
        let (query, variables) = (asked["query"].as_str().expect("a query"), &asked["variables"]);
        if let Err(why) = schema::check(query, variables) {
            self.invalid.lock().expect("unbroken").push(format!("{why}: {query}"));
            return answer(400, json!({ "message": why }).to_string());
        }
        if !query.contains("pullRequests(") {
            let mut data = serde_json::Map::new();
            if manners.heavy_issue.is_some_and(|heavy| {
                variables.as_object().expect("variables").values().any(|value| *value == json!(heavy))
            }) {
                return heavy(manners);
            }
            for index in 0..query.matches(": repository(").count() {
                let number = variables[format!("i{index}")].as_u64().expect("a number");
                data.insert(format!("l{index}"), json!({ "issue": (number > 1000).then(|| issue(number)) }));
            }
            return answer(200, json!({ "data": data }).to_string());
        }
        let name = variables["name"].as_str().expect("a name");
        if name != "name" {
            return answer(
                200,
                r#"{"data":{"repository":null},"errors":[{"type":"NOT_FOUND","message":"no"}]}"#,
            );
        }
        // What is asked for alone has its number in the text.
        let first = variables["first"].as_u64().unwrap_or(1);
        self.page_sizes.lock().expect("unbroken").push(first);
        let first = usize::try_from(first).expect("small");
        if manners.page_max.is_some_and(|max| first > max) {
            return answer(502, "<html>Bad Gateway</html>");
        }
        let begin: usize = variables["after"].as_str().map_or(0, |after| after.parse().expect("a cursor"));
        let pulls = self.pulls.lock().expect("unbroken").clone();
        let newest = pulls.iter().rev().skip(begin);
        if let Some((number, asked)) = manners.heavy
            && newest.clone().take(first).any(|pull| pull.number == number)
            && query.contains(asked)
        {
            return heavy(manners);
        }
        let nodes: Vec<Value> = newest.clone().take(first).map(|pull| node(pull, query)).collect();
        let page = json!({
            "pageInfo": { "hasNextPage": newest.count() > first, "endCursor": (begin + nodes.len()).to_string() },
            "nodes": nodes,
        });
        let repository = json!({
            "databaseId": 7, "nameWithOwner": "owner/name", "stargazerCount": 9, "primaryLanguage": {"name": "Python"},
            "licenseInfo": {"spdxId": "MIT"}, "pullRequests": page,
        });
        answer(200, json!({ "data": { "repository": repository } }).to_string())
    }
}

fn heavy(manners: &Manners) -> Answer {
    const HEAVY: &str =
        r#"{"data":{"repository":null},"errors":[{"type":"RESOURCE_LIMITS_EXCEEDED","message":"heavy"}]}"#;
    answer(200, manners.heavy_says.unwrap_or(HEAVY))
}

/// The page of a search: the repositories that there are, and a crowd of such that are gone, a hundred with as many stars.
fn found(query: &str, crowd: usize) -> Value {
    let number = |name: &str| -> usize {
        let begin = query.find(name).map_or(query.len(), |at| at + name.len());
        query[begin..].split('&').next().and_then(|text| text.parse().ok()).unwrap_or(1)
    };
    let (page, per_page) = (number("&page="), number("per_page="));
    let words = query.split('&').next().expect("a query").replace('%', "");
    let words: Vec<u8> = (0..words.len() / 2)
        .map(|at| u8::from_str_radix(&words[2 * at..2 * at + 2], 16).expect("hex"))
        .collect();
    let words = String::from_utf8(words).expect("UTF-8");
    let stars_max: usize =
        words.split_once("..").and_then(|(_, max)| max.trim().parse().ok()).unwrap_or(usize::MAX);
    let mut all = vec![("owner/name".to_owned(), 1_000_000), ("owner/gone".to_owned(), 999_999)];
    all.extend((0..crowd).map(|number| (format!("crowd/r{number}"), (crowd - number).div_ceil(100))));
    all.retain(|(_, stars)| *stars <= stars_max);
    let shown = all.iter().take(1000).skip((page - 1) * per_page).take(per_page);
    let items: Vec<Value> =
        shown.map(|(name, stars)| json!({ "full_name": name, "stargazers_count": stars })).collect();
    json!({ "total_count": all.len(), "incomplete_results": false, "items": items })
}

/// Every way in which the real one refuses, in turn.
fn fault(count: usize) -> Answer {
    match count % 4 {
        0 => answer(502, "<html>Bad Gateway</html>"),
        1 => Answer {
            headers: vec![("Retry-After", "0".to_owned())],
            ..answer(403, r#"{"message":"You have exceeded a secondary rate limit"}"#)
        },
        2 => Answer {
            headers: vec![
                ("X-RateLimit-Remaining", "0".to_owned()),
                ("X-RateLimit-Reset", (jiff::Timestamp::now().as_second() + 1).to_string()),
                ("X-RateLimit-Resource", "core".to_owned()),
            ],
            ..answer(429, r#"{"message":"API rate limit exceeded"}"#)
        },
        _ => answer(503, ""),
    }
}

/// What was not asked for is not there.
fn node(pull: &Pull, query: &str) -> Value {
    let mut node = json!({
        "number": pull.number, "title": pull.title, "body": pull.body, "mergedAt": "2024-03-02T00:00:00Z",
        "createdAt": format!("2024-03-01T00:{:02}:00Z", pull.number), "baseRefOid": pull.base, "headRefOid": pull.head,
        "closingIssuesReferences": list(&pull.linked.iter().map(|number| issue(*number)).collect::<Vec<_>>()),
        "commits": list(&[json!({
            "commit": {"oid": pull.head, "message": "fix it", "authoredDate": "2024-02-02T00:00:00Z"},
        })]),
    });
    node.as_object_mut().expect("fields").retain(|field, _| query.contains(field.as_str()));
    node
}

fn list(nodes: &[Value]) -> Value {
    json!({ "totalCount": nodes.len(), "nodes": nodes })
}

fn issue(number: u64) -> Value {
    json!({
        "number": number, "title": "It breaks", "body": format!("Badly, {number} times."),
        "createdAt": "2024-02-01T00:00:00Z", "repository": {"nameWithOwner": "owner/name"},
        "comments": list(&[
            json!({"body": "An early hint.", "createdAt": "2024-02-01T12:00:00Z"}),
            json!({"body": "The fix is x = 2.", "createdAt": "2024-02-03T00:00:00Z"}),
            json!({
                "body": "EDIT: x = 2", "createdAt": "2024-02-01T13:00:00Z", "lastEditedAt": "2024-02-03T00:00:00Z",
            }),
            json!({"body": "RATE_LIMITED", "createdAt": "2024-02-03T00:00:00Z"}),
        ]),
    })
}
