//! Filtering and parting as many pull requests as OpenSWE began with, beside Python (json and unidiff, as SWE-bench's
//! collector does it) and DuckDB (the filter alone). Prints a Markdown table: ratios within one run. Needs python3, and a
//! package registry the first time. `INGEST_ROWS` asks for fewer rows. Ends with 1 where it is below what is promised.
#![expect(clippy::unwrap_used, reason = "a bench")]
#![expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 rows")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The pull requests that OpenSWE began with (section 3.2).
const ROWS: usize = 572_114;
/// Python reads this part of the rows; what it takes for each is the same throughout.
const PYTHON_PART: usize = 20;
/// Memory is flat if all rows take about as much as this part of them.
const SMALL_PART: usize = 8;

const PYTHON: &str = r#"
import json, sys, time
from unidiff import PatchSet
began, read, accepted = time.time(), 0, 0
with open(sys.argv[1]) as rows, open(sys.argv[2], "w") as out:
    for line in rows:
        read += 1
        row = json.loads(line)
        if row["stars"] < 5 or row["language"] != "Python":
            continue
        if not any((issue.get("body") or "").strip() for issue in row["issues"]):
            continue
        fix, test = [], []
        for part in PatchSet(row["patch"]):
            is_test = any(word in part.path for word in ("test", "tests", "e2e", "testing"))
            (test if is_test else fix).append(str(part))
        if not fix or not test:
            continue
        row["patch"], row["test_patch"] = "".join(fix), "".join(test)
        out.write(json.dumps(row) + "\n")
        accepted += 1
print(json.dumps({"seconds": time.time() - began, "read": read, "accepted": accepted}))
"#;

const DUCKDB: &str = r#"
import duckdb, json, sys, time
began = time.time()
read, accepted = duckdb.sql(f"""
    SELECT count(*), count(*) FILTER (WHERE stars >= 5 AND language = 'Python' AND patch <> ''
        AND len(list_filter(issues, lambda issue: trim(coalesce(issue.body, '')) <> '')) > 0)
    FROM read_json('{sys.argv[1]}', format = 'newline_delimited', columns = {{
        stars: 'BIGINT', language: 'VARCHAR', patch: 'VARCHAR', issues: 'STRUCT(number BIGINT, body VARCHAR)[]'}})
""").fetchall()[0]
print(json.dumps({"seconds": time.time() - began, "read": read, "accepted": accepted}))
"#;

/// Numbers that look random, and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

const LINES: [&str; 6] = [
    "        return self._lookup(name, default=None)",
    "    if not isinstance(value, (list, tuple)):",
    "",
    "        raise ValueError(f\"{name!r} is not a valid option\")",
    "import collections.abc",
    "    for index, item in enumerate(sorted(items, key=str)):",
];

/// A file's part: one to four hunks of some context and some changes, as the median fix has.
fn part(dice: &mut Dice, path: &str) -> String {
    let mut text =
        format!("diff --git a/{path} b/{path}\nindex 1111111..2222222 100644\n--- a/{path}\n+++ b/{path}\n");
    let mut line = 10;
    for _ in 0..=dice.below(4) {
        let (removed, added) = (dice.below(4), 1 + dice.below(8));
        text.push_str(&format!("@@ -{line},{} +{line},{} @@ def lookup(self):\n", 6 + removed, 6 + added));
        let runs = [(' ', 3), ('-', removed), ('+', added), (' ', 3)];
        for (sign, count) in runs {
            for _ in 0..count {
                text.push_str(&format!("{sign}{}\n", LINES[dice.below(LINES.len())]));
            }
        }
        line += 100;
    }
    text
}

/// A pull request; of each hundred as many fall at each stage as in the paper's funnel, about, and eight are left.
fn row(dice: &mut Dice, number: usize) -> Value {
    let mut patch = String::new();
    for file in 0..=dice.below(3) {
        patch.push_str(&part(dice, &format!("src/package/module_{file}.py")));
    }
    if dice.below(100) < 40 {
        patch.push_str(&part(dice, "tests/test_module.py"));
    }
    let body = "It raises where it should not, since the last release. ".repeat(1 + dice.below(40));
    let issues = if dice.below(100) < 35 { json!([{ "number": 1, "body": body }]) } else { json!([]) };
    json!({
        "instance_id": format!("owner__name{}-{number}", number % 12_800), "repo": format!("owner/name{}", number % 12_800),
        "pull_number": number, "base_commit": format!("{number:040x}"), "problem_statement": body, "patch": patch,
        "test_patch": "", "stars": dice.below(20), "language": if dice.below(100) < 80 { "Python" } else { "C" },
        "issues": issues, "created_at": "2024-05-01T12:00:00Z", "license": "MIT",
    })
}

fn write_rows(path: &Path, count: usize) {
    let mut dice = Dice(1);
    let mut file = BufWriter::new(File::create(path).unwrap());
    for number in 1..=count {
        serde_json::to_writer(&mut file, &row(&mut dice, number)).unwrap();
        file.write_all(b"\n").unwrap();
    }
    file.flush().unwrap();
}

fn first_lines(from: &Path, to: &Path, count: usize) {
    let (reader, mut file) =
        (BufReader::new(File::open(from).unwrap()), BufWriter::new(File::create(to).unwrap()));
    for line in reader.lines().take(count) {
        writeln!(file, "{}", line.unwrap()).unwrap();
    }
    file.flush().unwrap();
}

struct Ran {
    out: String,
    seconds: f64,
    peak_mib: u64,
}

/// Runs a command, and looks at its memory meanwhile.
fn run(command: &mut Command) -> Ran {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let peak = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak_kib = peak_kib.max(peak.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(10));
    }
    let seconds = began.elapsed().as_secs_f64();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    Ran { out: String::from_utf8_lossy(&output.stdout).into_owned(), seconds, peak_mib: peak_kib >> 10 }
}

fn bottega(rows: &Path, out: &Path) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bottega"));
    run(command.args(["ingest", "jsonl", "--out"]).args([out, rows]))
}

/// A Python with the packages, in `dir`; `None` where there cannot be one.
fn python(dir: &Path) -> Option<PathBuf> {
    let python = dir.join("venv/bin/python");
    let has = |python: &Path| {
        let tried =
            Command::new(python).args(["-c", "import unidiff, duckdb"]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    if !has(&python) {
        let made = Command::new("python3").args(["-m", "venv"]).arg(dir.join("venv")).status();
        made.ok().filter(ExitStatus::success)?;
        let asked = ["-m", "pip", "install", "--quiet", "unidiff", "duckdb"];
        Command::new(&python).args(asked).status().ok().filter(ExitStatus::success)?;
    }
    has(&python).then_some(python)
}

fn line(what: &str, rows: usize, ran: &Ran, seconds: f64, ours: f64) {
    let rate = rows as f64 / seconds;
    println!("| {what} | {rows} | {seconds:.1} | {rate:.0} | {:.1} | {} |", ours / rate, ran.peak_mib);
}

/// What is promised: so many times the rows of Python, and no more memory for all rows than for an eighth of them, but for
/// what remembers the accepted ones.
const PYTHON_RATIO_MIN: f64 = 50.0;
const MEMORY_RATIO_MAX: f64 = 1.5;
/// Memory below which growth says nothing.
const MEMORY_SMALL_MIB: u64 = 64;

fn main() -> ExitCode {
    // `cargo test` asks benches for their lists too.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let count = std::env::var("INGEST_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROWS);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench").join("ingest");
    fs::create_dir_all(&dir).unwrap();
    let [all, small, sample] = ["all.jsonl", "small.jsonl", "sample.jsonl"].map(|name| dir.join(name));
    write_rows(&all, count);
    first_lines(&all, &small, count / SMALL_PART);
    first_lines(&all, &sample, count / PYTHON_PART);
    println!("{} MiB of rows\n", fs::metadata(&all).unwrap().len() >> 20);
    println!("| what | rows | seconds | rows/s | ours is faster by | peak MiB |\n|---|---|---|---|---|---|");
    let ours_small = bottega(&small, &dir.join("out"));
    let ours = bottega(&all, &dir.join("out"));
    let rate = count as f64 / ours.seconds;
    line("`bottega ingest`, an eighth", count / SMALL_PART, &ours_small, ours_small.seconds, rate);
    line("`bottega ingest`", count, &ours, ours.seconds, rate);
    let mut is_kept = ours.peak_mib <= MEMORY_SMALL_MIB
        || ours.peak_mib as f64 <= ours_small.peak_mib as f64 * MEMORY_RATIO_MAX;
    if let Some(python) = python(&dir) {
        let told = |ran: &Ran| serde_json::from_str::<Value>(&ran.out).unwrap()["seconds"].as_f64().unwrap();
        let ran = run(Command::new(&python).args(["-c", PYTHON]).args([&sample, &dir.join("python.jsonl")]));
        line("Python: json, unidiff", count / PYTHON_PART, &ran, told(&ran), rate);
        is_kept &= rate * told(&ran) / (count / PYTHON_PART) as f64 >= PYTHON_RATIO_MIN;
        let ran = run(Command::new(&python).args(["-c", DUCKDB]).arg(&all));
        line("DuckDB, the filter alone", count, &ran, told(&ran), rate);
    } else {
        println!("\nNo python3 with unidiff and duckdb: not compared.");
    }
    let accepted =
        ours.out.lines().rev().find(|line| line.contains("rows in ")).unwrap_or_default().to_owned();
    println!("\n{accepted}");
    for file in [all, small, sample] {
        fs::remove_file(file).unwrap();
    }
    if is_kept {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "below the promise: {PYTHON_RATIO_MIN} times Python's rows a second, and memory that does not grow"
    );
    ExitCode::FAILURE
}
