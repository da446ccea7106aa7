//! A server that speaks as much of GitHub's REST and GraphQL as is asked of it, about a real repository.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A merged pull request, and the issue that it closes.
#[derive(Clone)]
pub(crate) struct Pull {
    pub(crate) number: u64,
    /// Where the branch began.
    pub(crate) merge_base: String,
    /// Where the main branch was when it was merged.
    pub(crate) base: String,
    pub(crate) head: String,
    pub(crate) body: String,
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
}

/// What was asked: the token, the method with the path, and the status of the answer.
pub(crate) type Asked = (String, String, u16);

struct Shared {
    git_dir: PathBuf,
    pulls: Vec<Pull>,
    manners: Mutex<Manners>,
    asked: Mutex<Vec<Asked>>,
    count: AtomicUsize,
}

pub(crate) struct Forge {
    _dir: TempDir,
    pub(crate) url: String,
    pub(crate) pulls: Vec<Pull>,
    shared: Arc<Shared>,
}

fn git(dir: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("git")
        .current_dir(dir)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn text(dir: &Path, args: &[&str]) -> String {
    String::from_utf8(git(dir, args)).expect("UTF-8").trim().to_owned()
}

/// Each changes a module and its test on a branch of its own, while the main branch goes on.
fn history(dir: &Path, count: u64) -> Vec<Pull> {
    git(dir, &["init", "--quiet", "--initial-branch=main"]);
    let commit = |name: &str, content: &str| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, content).expect("written");
        git(dir, &["add", "."]);
        git(dir, &["commit", "--quiet", "--message", name]);
        text(dir, &["rev-parse", "HEAD"])
    };
    commit("pkg/__init__.py", "");
    let mut pulls = Vec::new();
    for number in 1..=count {
        let merge_base = commit(&format!("pkg/m{number}.py"), "x = 1\n");
        git(dir, &["checkout", "--quiet", "-b", &format!("fix-{number}")]);
        commit(&format!("pkg/m{number}.py"), "x = 2\n");
        let head = commit(&format!("tests/test_m{number}.py"), &format!("import pkg.m{number}\n"));
        git(dir, &["checkout", "--quiet", "main"]);
        let base = commit("CHANGES", &format!("{number}\n"));
        pulls.push(Pull { number, merge_base, base, head, body: format!("Fixes: #{}", 1000 + number) });
    }
    pulls
}

impl Forge {
    /// `owner/name` with so many pull requests; their issues have numbers above 1000.
    pub(crate) fn start(pulls: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let pulls = history(dir.path(), pulls);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            git_dir: dir.path().to_owned(),
            pulls: pulls.clone(),
            manners: Mutex::default(),
            asked: Mutex::default(),
            count: AtomicUsize::new(0),
        });
        let server = shared.clone();
        // It ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever asked may have been killed.
                let _ = server.serve(stream);
            }
        });
        Self { _dir: dir, url, pulls, shared }
    }

    pub(crate) fn behave(&self, manners: Manners) {
        self.shared.count.store(0, Ordering::SeqCst);
        *self.shared.manners.lock().expect("unbroken") = manners;
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.asked.lock().expect("unbroken"))
    }

    /// How many requests came since it was told how to behave.
    pub(crate) fn count(&self) -> usize {
        self.shared.count.load(Ordering::SeqCst)
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
        let answer = if !manners.tokens.is_empty() && !manners.tokens.contains(&token) {
            answer(401, r#"{"message":"Bad credentials"}"#)
        } else if manners.fails_every.is_some_and(|every| count.is_multiple_of(every)) {
            fault(count)
        } else {
            self.answer(&target, &headers, &body, &manners)
        };
        self.asked.lock().expect("unbroken").push((token, target, answer.status));
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
            return self.query(&serde_json::from_slice(body).expect("JSON"), manners);
        }
        if path.starts_with("/search/repositories?q=") {
            let items = json!({ "items": [{"full_name": "owner/name"}, {"full_name": "owner/gone"}] });
            return answer(200, items.to_string());
        }
        if path.starts_with("/repos/owner/name/pulls?state=closed&") {
            const ETAG: &str = "W/\"state-1\"";
            let status =
                if headers.get("if-none-match").is_some_and(|etag| etag == ETAG) { 304 } else { 200 };
            let body = if status == 200 { "[]" } else { "" };
            return Answer { headers: vec![("ETag", ETAG.to_owned())], ..answer(status, body) };
        }
        let Some(range) = path.strip_prefix("/repos/owner/name/compare/") else {
            return answer(404, r#"{"message":"Not Found"}"#);
        };
        let range = range.split('?').next().expect("a range");
        if headers.get("accept").is_some_and(|accept| accept.ends_with(".diff")) {
            return answer(200, git(&self.git_dir, &["diff", range]));
        }
        let (base, head) = range.split_once("...").expect("two commits");
        let sha = text(&self.git_dir, &["merge-base", base, head]);
        answer(200, json!({ "merge_base_commit": { "sha": sha } }).to_string())
    }

    fn query(&self, asked: &Value, manners: &Manners) -> Answer {
        let (query, variables) = (asked["query"].as_str().expect("a query"), &asked["variables"]);
        if !query.contains("pullRequests(") {
            let mut data = serde_json::Map::new();
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
        let first = usize::try_from(variables["first"].as_u64().expect("a number")).expect("small");
        if manners.page_max.is_some_and(|max| first > max) {
            return answer(502, "<html>Bad Gateway</html>");
        }
        let begin: usize = variables["after"].as_str().map_or(0, |after| after.parse().expect("a cursor"));
        let newest = self.pulls.iter().rev().skip(begin);
        let nodes: Vec<Value> = newest.clone().take(first).map(node).collect();
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

fn node(pull: &Pull) -> Value {
    json!({
        "number": pull.number, "title": "Mend it", "body": pull.body, "mergedAt": "2024-03-02T00:00:00Z",
        "createdAt": format!("2024-03-01T00:{:02}:00Z", pull.number), "baseRefOid": pull.base, "headRefOid": pull.head,
        "closingIssuesReferences": {"nodes": []},
        "commits": {"nodes": [{"commit": {"message": "fix it", "authoredDate": "2024-02-02T00:00:00Z"}}]},
    })
}

fn issue(number: u64) -> Value {
    json!({
        "number": number, "title": "It breaks", "body": format!("Badly, {number} times."),
        "createdAt": "2024-02-01T00:00:00Z", "repository": {"nameWithOwner": "owner/name"},
        "comments": {"nodes": [
            {"body": "An early hint.", "createdAt": "2024-02-01T12:00:00Z"},
            {"body": "The fix is x = 2.", "createdAt": "2024-02-03T00:00:00Z"},
        ]},
    })
}
