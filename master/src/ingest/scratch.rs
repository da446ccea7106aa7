use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Commits that a server is asked for in one request.
const ASKED_AT_ONCE: usize = 100;

/// A connection over HTTP that is slower than this many bytes a second, for so many seconds, is given up.
const SLOW_BYTES: u32 = 1000;
const SLOW_SECONDS: u32 = 30;

/// An ssh that asks nobody anything, and notices that the other side is gone.
const SSH: &str =
    "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=3";

/// How long one request may take, in seconds.
const SECONDS_MAX: &str = "300";

/// What git says where a server would send everything.
const NO_FILTERS: &str = "filtering not recognized";

/// What a server says of a commit that it does not have.
const NOT_THERE: &str = "not our ref ";

/// Copies of repositories that hold nothing but commits: neither trees nor files, nor what came before.
#[derive(Debug)]
pub(super) struct Scratch {
    dir: TempDir,
    /// Those that could not be asked; they are not asked again.
    silent: BTreeSet<String>,
}

impl Scratch {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { dir: tempfile::tempdir()?, silent: BTreeSet::new() })
    }

    /// Which of these commits the repository at a URL has not; `None`: it cannot be asked.
    pub(super) fn missing(&mut self, url: &str, commits: &BTreeSet<&str>) -> Option<BTreeSet<String>> {
        if self.silent.contains(url) {
            return None;
        }
        let missing = self.ask(url, commits).ok().flatten();
        if missing.is_none() {
            self.silent.insert(url.to_owned());
        }
        missing
    }

    fn ask(&self, url: &str, commits: &BTreeSet<&str>) -> io::Result<Option<BTreeSet<String>>> {
        let dir = self.dir.path().join(blake3::hash(url.as_bytes()).to_hex().as_str());
        let is_new = !dir.exists();
        if is_new {
            git(&self.dir.path().join("none"), &["init", "--quiet", "--bare", &dir.display().to_string()])?;
            git(&dir, &["remote", "add", "origin", url])?;
        }
        let mut missing = BTreeSet::new();
        let all: Vec<&str> = commits.iter().copied().collect();
        // The first one alone shows whether the server leaves out what nobody wants.
        let (first, rest) = all.split_at(usize::from(is_new).min(all.len()));
        for chunk in first.chunks(1).chain(rest.chunks(ASKED_AT_ONCE)) {
            let mut asked = chunk.to_vec();
            asked.retain(|commit| !has(&dir, commit));
            // Each refusal names one of them.
            while !asked.is_empty() {
                let fetch = ["fetch", "--quiet", "--no-tags", "--depth=1", "--filter=tree:0", "origin"];
                let fetched = git(&dir, &[&fetch[..], &asked].concat())?;
                let said = String::from_utf8_lossy(&fetched.stderr);
                if said.contains(NO_FILTERS) {
                    std::fs::remove_dir_all(&dir)?;
                    return Ok(None);
                }
                if fetched.status.success() {
                    break;
                }
                let Some(named) = named(&said, &asked) else {
                    return Ok(None);
                };
                asked.retain(|commit| *commit != named);
                missing.insert(named);
            }
        }
        Ok(Some(missing))
    }
}

/// The commit of these that a server says it does not have.
fn named(said: &str, asked: &[&str]) -> Option<String> {
    let rest = said.split(NOT_THERE).nth(1)?;
    let is_named =
        |commit: &&&str| rest.get(..commit.len()).is_some_and(|said| said.eq_ignore_ascii_case(commit));
    asked.iter().find(is_named).map(|commit| (*commit).to_owned())
}

fn has(dir: &Path, commit: &str) -> bool {
    git(dir, &["cat-file", "-e", &format!("{commit}^{{commit}}")]).is_ok_and(|said| said.status.success())
}

fn git(dir: &Path, args: &[&str]) -> io::Result<Output> {
    let slow = [("http.lowSpeedLimit", SLOW_BYTES), ("http.lowSpeedTime", SLOW_SECONDS)];
    let options = slow.iter().flat_map(|(key, value)| ["-c".to_owned(), format!("{key}={value}")]);
    // Of other transports than HTTP git waits for whatever comes.
    Command::new("timeout")
        .args(["-k", "5", SECONDS_MAX, "git", "-c", "gc.auto=0", "-c", "maintenance.auto=false"])
        .args(options)
        .arg("--git-dir")
        .arg(PathBuf::from(dir))
        .args(args)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_SSH_COMMAND", SSH)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(dir: &Path, args: &[&str]) -> String {
        let who = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        let said = Command::new("git").current_dir(dir).args(who).args(args).output().expect("git runs");
        assert!(said.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }

    #[test]
    fn asks_for_commits_alone_and_for_each_once() {
        let house = tempfile::tempdir().expect("a directory");
        text(house.path(), &["init", "--quiet"]);
        text(house.path(), &["config", "uploadpack.allowFilter", "true"]);
        let commit = |name: &str| {
            std::fs::write(house.path().join(name), name).expect("written");
            text(house.path(), &["add", "."]);
            text(house.path(), &["commit", "--quiet", "--message", name]);
            text(house.path(), &["rev-parse", "HEAD"])
        };
        let (first, second) = (commit("one"), commit("two"));
        let (absent, other) = ("0".repeat(39) + "1", "f".repeat(40));
        let mut scratch = Scratch::new().expect("a directory");
        let url = format!("file://{}", house.path().display());
        let mut check = |url: &str, asked: &[&str], expected: Option<&[&str]>| {
            let got = scratch.missing(url, &asked.iter().copied().collect());
            let expected = expected.map(|missing| missing.iter().map(|id| (*id).to_owned()).collect());
            assert_eq!(got, expected, "{asked:?}");
        };
        check(&url, &[&first, &absent, &other], Some(&[&absent, &other]));
        check(&url, &[&second, &first], Some(&[]));
        check("file:///nowhere/at/all", &[&first], None);
        std::fs::remove_dir_all(house.path().join(".git")).expect("removed");
        check(&url, &[&first, &second], Some(&[]));
        check(&url, &[&absent], None);
        check(&url, &[&first], None);
        let copy = scratch.dir.path().join(blake3::hash(url.as_bytes()).to_hex().as_str());
        let all = git(&copy, &["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"]);
        assert_eq!(String::from_utf8_lossy(&all.expect("listed").stdout), "commit\ncommit\n");
    }
}
