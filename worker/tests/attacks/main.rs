//! Attacks on a node by what it builds and runs, on the real engine: nothing escapes, nothing lingers, the log says
//! what happened. Writes what became of each to `attacks.md` in cargo's target directory.
//!
//! What a slot has after a deadline is judged by its state, not by a clock: a run or build returns only after the
//! worker has seen its containers gone, or fails where the engine takes longer than five seconds to end one
//! (`KILL_MAX` in `engine/container.rs`). On return nothing of it may be there: container, process, control group.
#![expect(clippy::unwrap_used, reason = "tests")]

mod at_build;
mod at_run;
mod attack;
#[path = "../common/mod.rs"]
mod common;
mod host;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use attack::{BuildAttack, ESCAPED, Ends, RunAttack};
use base_images::list_images;
use bollard::query_parameters::{
    EventsOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
};
use common::{BASE_IMAGE, Node, patient};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use host::{Host, left_of, processes_of};
use queue_format::{LABEL_OBJECT, LABEL_SPOOL, Labels, SpoolId};
use uuid::Uuid;
use worker::engine::{BuildEnd, BuildRequest, ContainerEnd, Engine, Network, Output, RunRequest};
use worker::evaluate::strip_escapes;

/// As many at once: enough for the time that most only wait.
const AT_ONCE: usize = 3;
const LOG_BYTES_MAX: usize = 1 << 14;
const OUTPUT_BYTES_MAX: usize = 4 << 20;
const GROUP_FIRST: u32 = 2_000_000;
const OUTPUT: &str = "/out/it";
/// Processes that were killed may take a moment to be reaped by their parent, which is the engine's.
const REAPED_MAX: Duration = Duration::from_secs(2);

struct Suite {
    node: Node,
    host: Host,
    spool: SpoolId,
    /// The ids of the containers that were made for each object, as the engine tells.
    made: Arc<Mutex<HashMap<String, Vec<String>>>>,
    /// Control groups of slots that were made so far.
    groups: AtomicU32,
}

/// What became of an attack.
struct Row {
    stage: &'static str,
    name: &'static str,
    held_by: &'static str,
    end: String,
    said: String,
    /// From the deadline to the return of the run, what it took to begin included.
    late: Option<Duration>,
    took: Duration,
    wrong: Vec<String>,
}

impl Suite {
    async fn new() -> Self {
        let node = Node::connect().await;
        let host = Host::watch(&node.raw).await;
        let spool: SpoolId = serde_json::from_str(&format!("\"{}\"", Uuid::now_v7())).unwrap();
        let suite = Self { node, host, spool, made: Arc::default(), groups: AtomicU32::new(0) };
        suite.listen();
        suite
    }

    fn listen(&self) {
        let filters = [
            ("type".to_owned(), vec!["container".to_owned()]),
            ("event".to_owned(), vec!["create".to_owned()]),
            ("label".to_owned(), vec![format!("{LABEL_SPOOL}={}", self.spool)]),
        ];
        let options = EventsOptionsBuilder::new().filters(&HashMap::from(filters)).build();
        let (engine, made) = (self.node.raw.clone(), Arc::clone(&self.made));
        tokio::spawn(async move {
            let mut events = std::pin::pin!(engine.events(Some(options)));
            while let Some(Ok(event)) = events.next().await {
                let Some(actor) = event.actor else { continue };
                let mut attributes = actor.attributes.unwrap_or_default();
                let object = attributes.remove(LABEL_OBJECT).unwrap_or_default();
                made.lock().unwrap().entry(object).or_default().extend(actor.id);
            }
        });
    }

    fn labels(&self) -> Labels {
        Labels { spool: self.spool, ..self.node.labels() }
    }

    async fn run(&self, attack: &'static RunAttack) -> Row {
        let command = match attack.bash {
            "" => ["python3", "-c", &format!("{}{}", at_run::PRELUDE, attack.python)].map(str::to_owned),
            bash => ["bash", "-c", &format!("{}{bash}", at_run::BASH_PRELUDE)].map(str::to_owned),
        };
        let mut request = RunRequest {
            env: vec![
                format!("HOST_PORT={}", self.host.port),
                format!("HOST_NAME={}", self.host.socket_name),
            ],
            dirs_in: vec!["/out".to_owned()],
            files_out: vec![(OUTPUT.to_owned(), OUTPUT_BYTES_MAX)],
            outputs: vec![OUTPUT.to_owned()],
            output_bytes_max: OUTPUT_BYTES_MAX,
            log_bytes_max: LOG_BYTES_MAX,
            ..RunRequest::new(BASE_IMAGE, command.into(), self.labels(), &self.node.limits())
        };
        (attack.change)(&mut request);
        if attack.end != ContainerEnd::TimedOut {
            request.timeout = patient(request.timeout);
        }
        let began = Instant::now();
        let outcome = self.node.docker.run(&request).await;
        let took = began.elapsed();
        let late = took.checked_sub(request.timeout);
        let mut wrong = self.left(request.labels.object, None).await;
        if self.node.ledger.get(request.labels.object).is_some() {
            wrong.push("the ledger still knows it".to_owned());
        }
        let (end, log) = match outcome {
            Ok(outcome) => {
                if outcome.end != attack.end {
                    wrong.push(format!("it ended {:?}", outcome.end));
                }
                wrong.extend(self.wrong_outputs(attack, &outcome.outputs, outcome.files_out.get(OUTPUT)));
                wrong.extend(self.node.unheld(outcome.warnings));
                (format!("{:?}", outcome.end), outcome.log)
            }
            Err(error) => (String::new(), format!("the worker failed: {error}")),
        };
        wrong.extend(self.wrong_log(&log, attack.says));
        let said = said(&log, attack.says);
        Row { stage: "run", name: attack.name, held_by: attack.held_by, end, said, late, took, wrong }
    }

    fn wrong_outputs(
        &self,
        attack: &RunAttack,
        outputs: &std::collections::BTreeMap<String, Output>,
        file: Option<&Vec<u8>>,
    ) -> Vec<String> {
        let bytes = match &outputs[OUTPUT] {
            Output::File(bytes) | Output::Directory(bytes) => bytes.as_slice(),
            Output::None(_) => &[],
        };
        let mut wrong = Vec::new();
        let holds = |bytes: &[u8]| {
            bytes.windows(self.host.canary.len()).any(|window| window == self.host.canary.as_bytes())
        };
        if holds(bytes) || file.is_some_and(|file| holds(file)) {
            wrong.push("a result has a secret of the host".to_owned());
        }
        if bytes.len() > OUTPUT_BYTES_MAX + (1 << 16) {
            wrong.push(format!("{} bytes were copied out", bytes.len()));
        }
        let must_stay = ["link", "sparse", "FIFO", "socket", "device", "20000 files"];
        let is_kept = file.is_some() || !matches!(outputs[OUTPUT], Output::None(_));
        if must_stay.iter().any(|kind| attack.name.contains(kind))
            && is_kept
            && !attack.name.contains("directory of links")
        {
            wrong.push("it was copied out".to_owned());
        }
        wrong
    }

    async fn build(&self, attack: &'static BuildAttack) -> Row {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repo");
        std::fs::create_dir(&repo).unwrap();
        std::os::unix::fs::symlink(self.host.secret(), repo.join("link")).unwrap();
        std::os::unix::fs::symlink(self.host.secret_dir(), repo.join("dir")).unwrap();
        let dockerfile = format!("FROM {BASE_IMAGE}\n{}\n", attack.dockerfile);
        std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
        let labels = self.labels();
        let object = labels.object;
        let mut request = BuildRequest {
            context_dir: dir.path().to_owned(),
            tree: None,
            bases: vec![BASE_IMAGE.to_owned()],
            image_name: format!("bottega-test-{}", object.simple()),
            labels,
            limits: self.node.limits(),
            network: Network::None,
            timeout: Duration::from_secs(100),
            log_bytes_max: LOG_BYTES_MAX,
            round: 1,
        };
        (attack.change)(&mut request);
        // As of a slot, of CPUs that no machine has: what limits the processes of a build.
        let group = GROUP_FIRST + self.groups.fetch_add(1, Ordering::Relaxed);
        // Also of what is cut off: before, it must have got to what it does.
        request.timeout = patient(request.timeout);
        let unconfined = self.node.confine(group, &mut request.limits).err();
        let began = Instant::now();
        let outcome = self.node.docker.build(&request).await;
        let took = began.elapsed();
        let late = took.checked_sub(request.timeout);
        let mut wrong = self.left(object, Some(&format!("bottega-slot{group}"))).await;
        wrong.extend(unconfined);
        let (end, log) = match outcome {
            Ok(outcome) => {
                let end = Ends::of(&outcome.end);
                if end != attack.end {
                    wrong.push(format!("it ended {end:?}"));
                }
                if let (BuildEnd::Built(id), Some((bash, expected))) = (&outcome.end, attack.then) {
                    wrong.extend(self.then(id, bash, expected).await);
                }
                (format!("{end:?}"), outcome.log)
            }
            Err(error) => (String::new(), format!("the worker failed: {error}")),
        };
        let says = match attack.says.strip_prefix("returned a non-zero code: ") {
            Some(code) if self.node.docker.facts().is_podman => format!("exit status {code}"),
            _ => attack.says.to_owned(),
        };
        wrong.extend(self.wrong_log(&log, &says));
        let said = said(&log, &says);
        Row { stage: "build", name: attack.name, held_by: attack.held_by, end, said, late, took, wrong }
    }

    /// A run of what a build has prepared.
    async fn then(&self, image: &str, bash: &str, expected: &str) -> Option<String> {
        let command = ["bash", "-c", bash].map(str::to_owned).into();
        let request = RunRequest::new(image, command, self.labels(), &self.node.limits());
        match self.node.docker.run(&request).await {
            Ok(outcome) if outcome.log == expected => None,
            outcome => Some(format!("what it had prepared came to {outcome:?}")),
        }
    }

    /// What the log must not have, and what it must say.
    fn wrong_log(&self, log: &str, says: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let escaped = log.lines().filter(|line| line.starts_with(ESCAPED));
        wrong.extend(escaped.map(str::to_owned));
        if log.contains(&self.host.canary) {
            wrong.push("the log has a secret of the host".to_owned());
        }
        let shown = strip_escapes(log);
        if !shown.contains(says) {
            wrong.push(format!("the log does not say {says:?}, but: {shown}"));
        }
        if log.len() > 4 * LOG_BYTES_MAX {
            wrong.push(format!("the log has {} bytes", log.len()));
        }
        if shown.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            wrong.push("the log could still steer a terminal".to_owned());
        }
        wrong
    }

    /// What is left of an object: containers at all, processes and control groups after a moment. Of the group that stays
    /// when its build ends, processes alone.
    async fn left(&self, object: Uuid, slot: Option<&str>) -> Vec<String> {
        let filter = [("label".to_owned(), vec![format!("{LABEL_OBJECT}={object}")])].into();
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filter).build();
        let list = async || {
            let listed = self.node.raw.list_containers(Some(options.clone())).await.unwrap();
            listed.into_iter().map(|one| format!("container {}", one.id.unwrap_or_default())).collect()
        };
        let began = Instant::now();
        let mut left: Vec<String> = list().await;
        // An emulated engine deletes a hundred thousand files for longer than a worker waits.
        while !left.is_empty() && began.elapsed() < patient(REAPED_MAX).saturating_sub(REAPED_MAX) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            left = list().await;
        }
        let mut names = self.made.lock().unwrap().get(&object.to_string()).cloned().unwrap_or_default();
        names.push(format!("bottega-{}", object.simple()));
        let began = Instant::now();
        let look = || -> Vec<String> {
            left_of(&names).into_iter().chain(slot.into_iter().flat_map(processes_of)).collect()
        };
        let mut others = look();
        while !others.is_empty() && began.elapsed() < patient(REAPED_MAX) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            others = look();
        }
        left.extend(others);
        left.into_iter().map(|one| format!("{one} was left")).collect()
    }

    /// Layers are the janitor's; here it is the test, once nothing is built any more: an engine can lose a build's image to
    /// the removal of another's.
    async fn remove_images(&self) -> Vec<String> {
        let filter = HashMap::from([("label".to_owned(), vec![format!("{LABEL_SPOOL}={}", self.spool)])]);
        let options = ListImagesOptionsBuilder::new().filters(&filter).build();
        let mut wrong = Vec::new();
        for image in list_images(&self.node.raw, options).await.unwrap() {
            let options = RemoveImageOptionsBuilder::new().force(true).build();
            if let Err(error) = self.node.raw.remove_image(&image.id, Some(options), None).await {
                wrong.push(format!("its image cannot be removed: {error}"));
            }
        }
        wrong
    }
}

/// The line of a log that tells, fit for a table.
fn said(log: &str, says: &str) -> String {
    let log = strip_escapes(log);
    let mut lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let telling = lines.clone().find(|line| !says.is_empty() && line.contains(says.trim()));
    let line =
        telling.or_else(|| lines.clone().find(|line| line.starts_with("held"))).or_else(|| lines.next_back());
    line.unwrap_or_default().chars().take(70).collect::<String>().replace('|', "\\|")
}

fn table(engine: &str, rows: &[Row]) -> String {
    let mut text = format!("{} attacks on {engine}\n\n", rows.len());
    text.push_str("| attack | where | held by | it ended | the log said | it took | after the deadline |\n|---|---|---|---|---|---|---|\n");
    for row in rows {
        let late = row.late.map(|late| format!("{:.1} s", late.as_secs_f64())).unwrap_or_default();
        let held_by = if row.wrong.is_empty() { row.held_by } else { "**NOT HELD**" };
        writeln!(
            text,
            "| {} | {} | {held_by} | {} | {} | {:.1} s | {late} |",
            row.name,
            row.stage,
            row.end,
            row.said,
            row.took.as_secs_f64()
        )
        .unwrap();
    }
    text
}

async fn conduct(attacks: Vec<(bool, BoxFuture<'_, Row>)>, at_once: usize) -> Vec<Row> {
    let attacks = attacks.into_iter().map(|(_, attack)| attack);
    futures_util::stream::iter(attacks).buffered(at_once).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_escapes_and_nothing_lingers() {
    let mut suite = Suite::new().await;
    let only = std::env::var("ATTACK").unwrap_or_default();
    let this = &suite;
    let facts = this.node.docker.facts().clone();
    let (builds, untried): (Vec<_>, Vec<_>) = at_build::ATTACKS
        .iter()
        .filter(|attack| attack.name.contains(&only))
        .partition(|attack| at_build::can_be_held(attack, &facts));
    let (runs, untried_runs): (Vec<_>, Vec<_>) = at_run::ATTACKS
        .iter()
        .filter(|attack| attack.name.contains(&only))
        .partition(|attack| at_run::can_be_held(attack, &facts));
    let all = builds
        .into_iter()
        .map(|attack| -> (_, BoxFuture<'_, Row>) {
            (attack.end == Ends::DiskFull, Box::pin(this.build(attack)))
        })
        .chain(runs.into_iter().map(|attack| -> (_, BoxFuture<'_, Row>) {
            (attack.end == ContainerEnd::DiskFull, Box::pin(this.run(attack)))
        }));
    // Those that fill the disk would only wait for each other.
    let (fills, others): (Vec<_>, Vec<_>) = all.partition(|(is_fill, _)| *is_fill);
    let (mut rows, fills) = tokio::join!(conduct(others, AT_ONCE), conduct(fills, 1));
    rows.extend(fills);

    let engine =
        format!("engine {} (API {}, cgroup v{})", facts.version, facts.api_version, facts.cgroup_version);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("attacks.md");
    let untried = untried.iter().map(|attack| format!("{} (build)", attack.name));
    let untried: Vec<_> =
        untried.chain(untried_runs.iter().map(|attack| format!("{} (run)", attack.name))).collect();
    let mut text = table(&engine, &rows);
    if !untried.is_empty() {
        writeln!(text, "\nNot tried, for this engine does not hold them: {}.", untried.join("; ")).unwrap();
    }
    std::fs::write(&path, text).unwrap();
    let mut wrong: Vec<String> = rows
        .iter()
        .filter(|row| !row.wrong.is_empty())
        .map(|row| format!("{} {}: {}", row.stage, row.name, row.wrong.join("\n    ")))
        .collect();
    suite.node.docker.remove_groups();
    wrong.extend(suite.remove_images().await);
    wrong.extend(suite.host.changes(&suite.node.raw).await);
    assert!(wrong.is_empty(), "see {}:\n{}", path.display(), wrong.join("\n"));
    assert!(rows.len() > 40 || !only.is_empty());
}
