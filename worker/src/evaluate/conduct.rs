use futures_util::future::try_join;
use queue_format::{Condition, Evidence, FailureReason, Labels, RunEnd, RunRecord, Verdict};

use super::judge::{Grounds, Judgement, judge};
use super::record::{Recorded, record};
use super::request::{Evaluated, EvaluationRequest};
use super::{script, telling, wrapper};
use crate::engine::{Engine, EngineError, Limits, RunRequest};

/// Runs both conditions, each in fresh containers, and judges what they show.
///
/// The first run of each comes first, both at once; only where they could be accepted, or look broken by what may be
/// chance, the repeats follow.
///
/// # Errors
/// The engine failed; the environment is not at fault.
pub async fn evaluate<E: Engine>(
    engine: &E,
    request: &EvaluationRequest<'_>,
) -> Result<Evaluated, EngineError> {
    let grounds = Grounds {
        report: request.script.report,
        own_names: script::own_names(&[request.fix_patch, request.test_patch]),
        accept: request.policy.accept.clone(),
    };
    let mut conduct = Conduct {
        engine,
        request,
        script: script::fill_in(&request.script.skeleton, request.test_patch),
        shares_memory: true,
        runs: Vec::new(),
        logs: Vec::new(),
        notes: Vec::new(),
    };
    conduct.run_both(1).await?;
    let mut judgement = judge(&conduct.runs, &grounds);
    if deserves_repeats(&judgement.verdict) {
        for repeat in 2..=request.policy.repeats {
            conduct.run_both(repeat).await?;
        }
        judgement = judge(&conduct.runs, &grounds);
    }
    Ok(conduct.evaluated(judgement))
}

/// A test that the fix seems to break may be flaky: the repeats tell.
fn deserves_repeats(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Accepted { .. } | Verdict::Failed { reason: FailureReason::PassToFail, .. })
}

struct Conduct<'a, E> {
    engine: &'a E,
    request: &'a EvaluationRequest<'a>,
    /// The evaluation script with the test patch in it.
    script: String,
    /// Whether two containers at once have been enough with half of the slot each.
    shares_memory: bool,
    runs: Vec<RunRecord>,
    logs: Vec<(Condition, u32, String)>,
    notes: Vec<String>,
}

impl<E: Engine> Conduct<'_, E> {
    async fn run_both(&mut self, repeat: u32) -> Result<(), EngineError> {
        let (first, second) = (Condition::TestOnly, Condition::WithFix);
        let mut both = Vec::new();
        if self.shares_memory {
            let half = halved(self.request.limits);
            let (one, other) =
                try_join(self.run(first, repeat, &half), self.run(second, repeat, &half)).await?;
            both.extend([one, other]);
            let is_oom = |(recorded, _): &(Recorded, String)| recorded.run.end == RunEnd::OutOfMemory;
            self.shares_memory = !both.iter().any(is_oom);
        }
        // With half of the memory it was not enough: one after the other, each with all of it.
        if !self.shares_memory {
            both.clear();
            for condition in [first, second] {
                both.push(self.run(condition, repeat, self.request.limits).await?);
            }
        }
        for (recorded, log) in both {
            self.logs.push((recorded.run.condition, repeat, log));
            self.runs.push(recorded.run);
            for note in recorded.notes {
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
            }
        }
        Ok(())
    }

    async fn run(
        &self,
        condition: Condition,
        repeat: u32,
        limits: &Limits,
    ) -> Result<(Recorded, String), EngineError> {
        let EvaluationRequest { policy, script, unique, .. } = self.request;
        // Each UUID v7 has some 70 random bits; hashed, so that one tells nothing of the next.
        let nonce = blake3::hash(format!("{} {}", unique(), unique()).as_bytes()).to_hex().to_string();
        let fix = (condition == Condition::WithFix).then(|| script::normalise_patch(self.request.fix_patch));
        let labels = Labels { object: unique(), ..self.request.labels.clone() };
        let request = RunRequest {
            files_in: wrapper::files(&nonce, &self.script, fix.as_deref()),
            files_out: vec![
                (wrapper::STATUS_PATH.to_owned(), wrapper::STATUS_BYTES_MAX),
                (wrapper::REPORT_PATH.to_owned(), policy.report_bytes_max),
            ],
            timeout: policy.run_timeout,
            log_bytes_max: policy.log_bytes_max,
            ..RunRequest::new(self.request.image_id, wrapper::command(), labels, limits)
        };
        let outcome = self.engine.run(&request).await?;
        Ok((record(condition, repeat, &nonce, script, &outcome), outcome.log))
    }

    fn evaluated(self, judgement: Judgement) -> Evaluated {
        let Judgement { transitions, mut verdict, telling, mut notes } = judgement;
        if let (Verdict::Failed { log: lines, .. }, Some((condition, repeat))) = (&mut verdict, telling) {
            let told = self.logs.iter().find(|(c, r, _)| (*c, *r) == (condition, repeat));
            *lines = told.map(|(_, _, log)| telling::telling_lines(log)).unwrap_or_default();
        }
        notes.extend(self.notes);
        let evidence = Evidence {
            image_id: self.request.image_id.to_owned(),
            dockerfile_blake3: blake3::hash(self.request.dockerfile.as_bytes()).to_hex().to_string(),
            eval_script_blake3: blake3::hash(self.script.as_bytes()).to_hex().to_string(),
            targets: self.request.script.targets.clone(),
            runs: self.runs,
            transitions,
        };
        let is_first = |(condition, repeat, log)| (repeat == 1).then_some((condition, log));
        let logs = self.logs.into_iter().filter_map(is_first).collect();
        Evaluated { evidence, verdict, logs, notes }
    }
}

/// Two at once stay within the slot; cores are shared by the kernel as it likes.
fn halved(limits: &Limits) -> Limits {
    Limits {
        memory_bytes: limits.memory_bytes / 2,
        pids_max: limits.pids_max / 2,
        shm_bytes: limits.shm_bytes / 2,
        disk_bytes: limits.disk_bytes / 2,
        ..limits.clone()
    }
}
