//! Patch splitting, judged by git: the fix and the tests, applied to the base in either order, give the merged tree.

#[path = "common/history.rs"]
mod project;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use master::patch::{TestPaths, check_patch, files, split};
use project::this_repository;
use tempfile::TempDir;

/// How a dataset's diffs may have been made.
const STYLES: [&[&str]; 5] =
    [&["--no-renames"], PLAIN, &["-M"], &["-M", "-C"], &["-M10%", "-C10%", "--find-copies-harder"]];

/// The style of which every other part loses what only git writes.
const PLAIN: &[&str] = &["--no-renames", "--patience"];

/// A repository that is only read, and a place for what is tried on it.
struct Bench {
    git_dir: PathBuf,
    scratch: TempDir,
    words: TestPaths,
}

/// What was tried.
#[derive(Debug, Default)]
struct Tried {
    /// Commits that there are.
    listed: usize,
    /// Those that change something, and were put together again.
    commits: usize,
    /// Both sides had something.
    split: usize,
    /// Their diff is no UTF-8: no row can hold it.
    no_text: usize,
    /// The repository lacks what the diff is made of, as partial clones do.
    absent: usize,
}

impl Bench {
    fn new(git_dir: PathBuf) -> Self {
        let scratch = tempfile::tempdir().expect("a directory");
        Self { git_dir, scratch, words: TestPaths::new(&["test", "spec", "e2e"]) }
    }

    fn git(&self, args: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
        let mut child = Command::new("git")
            .args(["-c", "safe.directory=*", "-c", "core.quotePath=true"])
            .args(args)
            .env("GIT_DIR", &self.git_dir)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_INDEX_FILE", self.scratch.path().join("index"))
            .env("GIT_OBJECT_DIRECTORY", self.scratch.path())
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", self.git_dir.join("objects"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("git runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_owned();
        let feed = std::thread::spawn(move || {
            // A command that does not want its input closes the pipe.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().expect("it ends");
        feed.join().expect("fed");
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into())
        }
    }

    fn text(&self, args: &[&str]) -> String {
        let said = self.git(args, b"").unwrap_or_else(|why| panic!("git {args:?}: {why}"));
        String::from_utf8(said).expect("UTF-8").trim().to_owned()
    }

    /// Splits the diff between two commits, and has git put it together again.
    fn check(&self, base: &str, end: &str, style: &[&str], tried: &mut Tried) {
        let ends = [base, end];
        let diff = self.git(&[&["diff", "--binary", "--full-index"], style, &ends].concat(), b"");
        let Ok(diff) = diff else {
            tried.absent += 1;
            return;
        };
        let Ok(diff) = String::from_utf8(diff) else {
            tried.no_text += 1;
            return;
        };
        if diff.is_empty() {
            return;
        }
        check_patch(&diff).unwrap_or_else(|why| panic!("{base}..{end} {style:?}: {why}\n{diff}"));
        // Some parts as other tools write them.
        let count = files(&diff).len();
        let diff = if style == PLAIN { without_git_lines(&diff) } else { diff };
        assert_eq!(files(&diff).len(), count, "{diff}");
        let parts = split(&diff, |path| self.words.has(path));
        tried.commits += 1;
        tried.split += usize::from(!parts.fix.is_empty() && !parts.test.is_empty());
        let expected = self.text(&["rev-parse", &format!("{end}^{{tree}}")]);
        for sides in [[&parts.test, &parts.fix], [&parts.fix, &parts.test]] {
            self.text(&["read-tree", base]);
            for side in sides.into_iter().filter(|side| !side.is_empty()) {
                let applied = self.git(&["apply", "--cached", "--whitespace=nowarn", "-"], side.as_bytes());
                applied.unwrap_or_else(|why| panic!("{base}..{end} {style:?}: {why}\n{diff}"));
            }
            assert_eq!(
                self.text(&["write-tree", "--missing-ok"]),
                expected,
                "{base}..{end} {style:?}\n{diff}"
            );
        }
    }

    /// Every commit of a history with the one before it, in each style in turn.
    fn check_all(&self, commits_max: usize) -> Tried {
        let limit = format!("--max-count={}", i32::try_from(commits_max).unwrap_or(i32::MAX));
        let listed = self.text(&["rev-list", "--all", "--parents", &limit]);
        let mut tried = Tried { listed: listed.lines().count(), ..Tried::default() };
        for (index, line) in listed.lines().enumerate() {
            if let Some((end, parents)) = line.split_once(' ') {
                let base = parents.split(' ').next().expect("a parent");
                self.check(base, end, STYLES[index % STYLES.len()], &mut tried);
            }
        }
        tried
    }
}

/// The same diff, but where content alone changes, every other part has no `diff --git` and no `index` line.
fn without_git_lines(diff: &str) -> String {
    let mut number = 0;
    let parts = files(diff).into_iter().map(|part| {
        let names = part.text.find("\n--- ").map(|at| at + 1);
        let head = &part.text[..names.unwrap_or(0)];
        let is_content =
            names.is_some() && head.lines().all(|l| l.starts_with("diff") || l.starts_with("index"));
        number += 1;
        let begin = names.filter(|_| is_content && number % 2 == 1);
        &part.text[begin.unwrap_or(0)..]
    });
    parts.collect()
}

/// Numbers that look random, and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// Paths that lie above and below each other, on either side, with what makes git quote a name.
const PATHS: [&str; 22] = [
    "a",
    "a/b.py",
    "a/test_b.py",
    "a/b.py/c",
    "tests",
    "tests/x.py",
    "tests/x.py/y",
    "src/x.py",
    "src/inspect.py",
    "with space.txt",
    "with b/with.txt",
    "tests/b/tests b/x",
    "é/ü.py",
    "tests/é.py",
    "mit Ü.py",
    "tests/mit Ü/x y.py",
    "quo\"te",
    "tests/tab\tbed",
    "back\\slash",
    "spec/a.json",
    "e2e",
    "Tests/Data.bin",
];

const LINES: [&str; 12] = [
    "one\n",
    "two\r\n",
    "\n",
    "\r\n",
    "diff --git a/x b/x\n",
    "--- a/x\n",
    "+++ b/x\n",
    "-- \n",
    "@@ -1 +1 @@\n",
    "é\n",
    "\ttab \n",
    "lone\rreturn\n",
];

fn content(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..dice.below(40) {
        bytes.extend_from_slice(dice.one(&LINES).as_bytes());
    }
    match dice.below(8) {
        0 => bytes.extend_from_slice(b"no newline at the end"),
        1 => bytes.extend((0..60).map(|_| u8::try_from(dice.below(256)).expect("a byte"))),
        2 => bytes.extend_from_slice(b"\0\x01\0"),
        _ => {}
    }
    bytes
}

type Tree = BTreeMap<String, (&'static str, Vec<u8>)>;

fn insert(tree: &mut Tree, path: &str, entry: (&'static str, Vec<u8>)) {
    // A path is a file or a directory.
    tree.retain(|other, _| {
        !other.starts_with(&format!("{path}/")) && !path.starts_with(&format!("{other}/"))
    });
    tree.insert(path.to_owned(), entry);
}

fn change(tree: &mut Tree, dice: &mut Dice) {
    let path = dice.one(&PATHS);
    let other = tree.keys().nth(dice.below(tree.len().max(1))).cloned();
    match (dice.below(12), other) {
        (0, Some(other)) => {
            tree.remove(&other);
        }
        (1 | 2, Some(other)) => {
            let entry = tree.remove(&other).expect("listed");
            insert(tree, path, entry);
        }
        (3, Some(other)) => {
            let entry = tree[&other].clone();
            insert(tree, path, entry);
        }
        (4..=6, Some(other)) if tree[&other].0 != "160000" => {
            let (_, bytes) = tree.get_mut(&other).expect("listed");
            let at = dice.below(bytes.len() + 1);
            bytes.splice(at..at, dice.one(&LINES).bytes());
        }
        (7, Some(other)) if tree[&other].0 != "160000" => {
            let entry = tree.get_mut(&other).expect("listed");
            entry.0 = ["100644", "100755", "120000"][dice.below(3)];
        }
        (8, _) => {
            let commit = format!("{:040x}", dice.below(1 << 20) + 1);
            insert(tree, path, ("160000", commit.into_bytes()));
        }
        _ => {
            let bytes = content(dice);
            insert(tree, path, ("100644", bytes));
        }
    }
}

fn quoted(path: &str) -> String {
    let escaped = path.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

/// A history of commits that do everything that a commit can do, as `git fast-import` reads it.
fn history(commits: usize, seed: u64) -> Vec<u8> {
    let (mut dice, mut tree, mut stream) = (Dice(seed), Tree::new(), Vec::new());
    for number in 0..commits {
        for _ in 0..=dice.below(5) {
            change(&mut tree, &mut dice);
        }
        let mut head = String::new();
        writeln!(
            head,
            "commit refs/heads/main\ncommitter t <t@example.org> {} +0000",
            1_700_000_000 + number
        )
        .expect("text");
        write!(head, "data 0\n\ndeleteall\n").expect("text");
        stream.extend_from_slice(head.as_bytes());
        for (path, (mode, bytes)) in &tree {
            if *mode == "160000" {
                let commit = String::from_utf8_lossy(bytes);
                stream.extend_from_slice(format!("M 160000 {commit} {}\n", quoted(path)).as_bytes());
            } else {
                let header = format!("M {mode} inline {}\ndata {}\n", quoted(path), bytes.len());
                stream.extend_from_slice(header.as_bytes());
                stream.extend_from_slice(bytes);
                stream.push(b'\n');
            }
        }
    }
    stream
}

fn generated(commits: usize, seed: u64) -> (TempDir, Tried) {
    let dir = tempfile::tempdir().expect("a directory");
    let made = Command::new("git").args(["init", "--quiet", "--bare"]).arg(dir.path()).status();
    assert!(made.is_ok_and(|status| status.success()));
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet", "--date-format=raw"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .spawn()
        .expect("git runs");
    import.stdin.take().expect("a pipe").write_all(&history(commits, seed)).expect("written");
    assert!(import.wait().expect("it ends").success());
    let tried = Bench::new(dir.path().to_owned()).check_all(commits);
    (dir, tried)
}

#[test]
fn a_split_of_every_kind_of_change_gives_the_merged_tree() {
    let (_dir, tried) = generated(80, 1);
    assert!(tried.split > 20 && tried.commits > 40, "{tried:?}");
}

#[test]
fn a_split_of_this_projects_own_commits_gives_the_merged_tree() {
    let Some(git_dir) = this_repository() else { return };
    let tried = Bench::new(git_dir).check_all(25);
    assert_eq!((tried.no_text, tried.absent), (0, 0), "{tried:?}");
    assert!(tried.commits > 0, "{tried:?}");
}

/// `SPLIT_REPOSITORIES` names git directories, with colons between them, beside this project's own; `SPLIT_COMMITS` says
/// how many commits of each: all, if it is not set.
#[test]
#[ignore = "takes minutes: make ingest-long"]
fn splits_of_thousands_of_commits_give_the_merged_tree() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    for seed in 2..12 {
        let (_dir, tried) = generated(200, seed);
        println!("generated, seed {seed}: {tried:?}");
        assert!(tried.commits >= 100 && tried.split >= 50, "{tried:?}");
    }
    let named = std::env::var("SPLIT_REPOSITORIES").unwrap_or_default();
    let named = named.split(':').filter(|name| !name.is_empty()).map(PathBuf::from);
    for git_dir in this_repository().into_iter().chain(named) {
        let commits_max = number("SPLIT_COMMITS").unwrap_or(usize::MAX);
        let tried = Bench::new(git_dir.clone()).check_all(commits_max);
        println!("{}: {tried:?}", git_dir.display());
        // One in four changes something, and one in ten of these both sides, in whatever repository.
        let (commits_min, split_min) = (tried.listed.div_ceil(4), tried.commits.div_ceil(10));
        assert!(tried.commits >= commits_min.max(1) && tried.split >= split_min, "{tried:?}");
    }
}
