use std::fmt::Write;
use std::path::Path;

use jiff::Timestamp;
use queue_format::{
    BuildReport, BuildTask, Evidence, Manifest, RunReport, RunTask, State, Verdict, Work, WorkReport,
};

use super::{Attempt, Page, shell_word};
use crate::text::{bytes, clean_line, duration, ellipsis, plural};

/// Names of tests shown of each kind; all are in evidence.json.
const TESTS_SHOWN: usize = 5;

/// Outputs shown.
const OUTPUTS_SHOWN: usize = 20;

/// Lines of log shown.
const LOG_LINES_SHOWN: usize = 20;

/// Characters of a line shown.
const LINE_CHARS_MAX: usize = 300;

/// Attempts shown.
const ATTEMPTS_SHOWN: usize = 20;

impl Page {
    /// For people.
    #[must_use]
    pub fn to_text(&self, now: Timestamp) -> String {
        let mut page = Lines(format!("{}\n", self.id));
        self.what(&mut page);
        self.place(&mut page, now);
        if let Some(attempt) = self.telling() {
            attempt.why(&mut page);
            if let Some(manifest) = &attempt.manifest {
                match &manifest.work {
                    WorkReport::Build(build) => {
                        environment(build, &mut page);
                        notes(manifest, &mut page);
                        tests(build, attempt.evidence.as_ref(), &mut page);
                    }
                    WorkReport::Run { run } => {
                        outputs(run, &attempt.dir, &mut page);
                        notes(manifest, &mut page);
                    }
                }
                cost(manifest, &mut page);
            }
        }
        self.history(&mut page);
        let mut label = "next";
        for line in self.advice() {
            page.add(label, &line);
            label = "";
        }
        page.0
    }

    fn what(&self, page: &mut Lines) {
        match &self.spec {
            Some(Ok(spec)) => match &spec.work {
                Work::Build(build) => what_is_built(build, page),
                Work::Run(run) => what_is_run(run, page),
            },
            Some(Err(why)) => page.add("what", &clean_line(why)),
            None => {}
        }
    }

    fn place(&self, page: &mut Lines, now: Timestamp) {
        if self.places.is_empty() {
            page.add("where", "nowhere: its file was removed, results are left");
        }
        for place in &self.places {
            let state = match &place.state {
                State::Pending(class) => format!("pending ({class})"),
                State::Delayed { due_seconds, .. } => {
                    let left =
                        i64::try_from(*due_seconds).unwrap_or(i64::MAX).saturating_sub(now.as_second());
                    #[expect(clippy::cast_precision_loss, reason = "for people")]
                    let left = duration(left.max(0) as f64);
                    format!("delayed, due in {left}")
                }
                State::Hold => "on hold".to_owned(),
                State::Claimed(owner) => format!("claimed by {owner}"),
                State::Done(_) => "done".to_owned(),
                State::Failed(reason) => format!("failed ({reason})"),
            };
            page.add("where", &state);
            page.add("", &place.path.display().to_string());
        }
        for worker in &self.workers {
            for activity in worker.slots.iter().filter_map(|slot| slot.activity.as_ref()) {
                let age = duration(now.duration_since(activity.since).as_secs_f64());
                page.add("now", &format!("{} for {age}", clean_line(&activity.stage)));
            }
        }
    }

    fn history(&self, page: &mut Lines) {
        let official = self.official();
        let left_out = self.attempts.len().saturating_sub(ATTEMPTS_SHOWN);
        let mut label = "attempts";
        if left_out > 0 {
            page.add(label, &format!("{} before these", plural(left_out, "attempt")));
            label = "";
        }
        for attempt in &self.attempts[left_out..] {
            let counts = if Some(attempt.token) == official { ", official" } else { "" };
            let verdict = match &attempt.manifest {
                Some(manifest) => {
                    let node = manifest.owner.node();
                    let at = manifest.finished_at.strftime("%Y-%m-%d %H:%M:%S UTC");
                    format!("{}, {at} on {node}{counts}", manifest.verdict)
                }
                None => format!("no verdict{counts}"),
            };
            page.add(label, &format!("{}  {verdict}", attempt.token));
            page.add("", &format!("      {}", attempt.dir.display()));
            label = "";
        }
    }
}

impl Attempt {
    fn why(&self, page: &mut Lines) {
        match self.manifest.as_ref().map(|manifest| &manifest.verdict) {
            Some(Verdict::Accepted { class }) => {
                page.add("why", &format!("accepted ({class}): {}", class.meaning()));
            }
            Some(Verdict::Completed) => page.add("why", "completed: every command ended with status 0"),
            Some(Verdict::Failed { reason, detail, log, .. }) => {
                page.add("why", &format!("{reason}: {}", reason.meaning()));
                if !detail.is_empty() {
                    page.add("", &clean_line(detail));
                }
                for line in log.iter().take(LOG_LINES_SHOWN) {
                    page.add("", &format!("| {}", clean_line(line)));
                }
            }
            None => {}
        }
        if let Some(error) = &self.error {
            page.add("why", &clean_line(error));
        }
    }
}

fn what_is_built(build: &BuildTask, page: &mut Lines) {
    let (instance, created) = (&build.instance, build.instance.created());
    let day = created.map_or_else(String::new, |at| format!(", {}", at.strftime("%Y-%m-%d")));
    page.add("what", &format!("{} at {:.12}{day}", instance.repo, instance.base_commit));
    page.add("", &format!("from {}", clean_line(&build.repository)));
}

fn what_is_run(run: &RunTask, page: &mut Lines) {
    let first = run.commands.first().map(|command| {
        let words: Vec<String> = command.iter().map(|word| shell_word(word)).collect();
        clean_line(&words.join(" "))
    });
    page.add("what", &first.unwrap_or_default());
    if run.commands.len() > 1 {
        page.add("", &format!("and {} in the same bundle", plural(run.commands.len() - 1, "command")));
    }
    let place = run.image.as_deref().map_or_else(
        || "without a container (native)".to_owned(),
        |image| format!("in {}{}", clean_line(image), if run.network { ", with a network" } else { "" }),
    );
    page.add("", &place);
}

fn outputs(run: &RunReport, dir: &Path, page: &mut Lines) {
    let all = run.succeeded + run.failed;
    page.add(
        "run",
        &format!(
            "{} of {} ended with status 0, on cores {} with {}",
            run.succeeded,
            plural(all, "command"),
            clean_line(&run.cpuset),
            bytes(run.memory_bytes)
        ),
    );
    let mut label = "outputs";
    for (path, name) in run.outputs.iter().take(OUTPUTS_SHOWN) {
        page.add(
            label,
            &format!("{}: {}", clean_line(path), clean_line(&dir.join(name).display().to_string())),
        );
        label = "";
    }
    if run.outputs.len() > OUTPUTS_SHOWN {
        page.add("", &format!("and {} more, in manifest.json", run.outputs.len() - OUTPUTS_SHOWN));
    }
}

fn environment(build: &BuildReport, page: &mut Lines) {
    if let Some(python) = &build.python {
        let wanted = if python.wanted == python.used {
            String::new()
        } else {
            format!(" instead of {}", clean_line(&python.wanted))
        };
        page.add("python", &format!("{}{wanted}: {}", clean_line(&python.used), clean_line(&python.why)));
    }
    if let Some(image) = &build.image_name {
        let size = build.image_bytes.map_or_else(String::new, |n| format!(", {} beyond its base", bytes(n)));
        page.add("image", &format!("{}{size}", clean_line(image)));
    }
}

fn notes(manifest: &Manifest, page: &mut Lines) {
    let mut label = "notes";
    for note in &manifest.notes {
        page.add(label, &clean_line(note));
        label = "";
    }
}

fn tests(build: &BuildReport, evidence: Option<&Evidence>, page: &mut Lines) {
    page.add(
        "tests",
        &format!(
            "{} fail before the fix and pass after it, {} pass in both",
            build.fail_to_pass, build.pass_to_pass
        ),
    );
    let Some(moves) = evidence.map(|evidence| &evidence.transitions) else { return };
    let kinds = [
        ("fail→pass", &moves.fail_to_pass),
        ("pass→fail", &moves.pass_to_fail),
        ("fail→fail", &moves.fail_to_fail),
        ("flaky", &moves.flaky),
        ("pass→pass", &moves.pass_to_pass),
    ];
    for (kind, names) in kinds.into_iter().filter(|(_, names)| !names.is_empty()) {
        for name in names.iter().take(TESTS_SHOWN) {
            page.add("", &format!("{kind}  {}", clean_line(name)));
        }
        if names.len() > TESTS_SHOWN {
            page.add("", &format!("{kind}  and {} more", names.len() - TESTS_SHOWN));
        }
    }
}

fn cost(manifest: &Manifest, page: &mut Lines) {
    let total = manifest.finished_at.duration_since(manifest.started_at).as_secs_f64();
    let stages: Vec<String> = stage_sums(manifest)
        .into_iter()
        .map(|(stage, seconds, times)| {
            let times = if times > 1 { format!(" ({times}×)") } else { String::new() };
            format!("{} {}{times}", clean_line(&stage), duration(seconds))
        })
        .collect();
    let iterations = manifest
        .build()
        .map_or_else(String::new, |build| format!(", {}", plural(build.iterations as usize, "iteration")));
    let memory =
        manifest.peak_memory_bytes.map_or_else(String::new, |n| format!(", {} memory at most", bytes(n)));
    page.add("cost", &format!("{} in all{iterations}{memory}", duration(total)));
    if !stages.is_empty() {
        page.add("", &stages.join(", "));
    }
    if let Some(agents) = manifest.build().and_then(|build| build.agents.as_ref()) {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let dollars = agents.micro_dollars as f64 / 1e6;
        let answers = plural(agents.answers as usize, "answer");
        let tokens = agents.tokens_read + agents.tokens_written;
        let brain = clean_line(&agents.brain);
        page.add("", &format!("made by {brain}: {answers}, {tokens} tokens, ${dollars:.4}"));
    }
}

/// Each stage's name, seconds in all and how often it ran, in the order of its first run.
pub(crate) fn stage_sums(manifest: &Manifest) -> Vec<(String, f64, usize)> {
    let mut sums: Vec<(String, f64, usize)> = Vec::new();
    for record in &manifest.stages {
        match sums.iter_mut().find(|(stage, ..)| *stage == record.stage) {
            Some((_, seconds, times)) => {
                *seconds += record.seconds;
                *times += 1;
            }
            None => sums.push((record.stage.clone(), record.seconds, 1)),
        }
    }
    sums
}

struct Lines(String);

impl Lines {
    fn add(&mut self, label: &str, text: &str) {
        let _ = writeln!(self.0, "  {label:9} {}", ellipsis(text, LINE_CHARS_MAX));
    }
}
