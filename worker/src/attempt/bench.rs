use queue_format::{BuildTask, CONVERSATION_FILE, Condition, Evidence, PythonRecord, Verdict};

use super::log::AttemptLog;
use crate::agents::{Told, dollars, prompts_digest};
use crate::evaluate;
use crate::synthesis::{Brain, Dockerfile, EvalScript};

/// What the rounds know of each other.
#[derive(Default)]
pub(super) struct Bench {
    pub(super) log: AttemptLog,
    pub(super) python: Option<PythonRecord>,
    pub(super) dockerfile: Option<Dockerfile>,
    pub(super) script: Option<EvalScript>,
    pub(super) image_id: Option<String>,
    pub(super) image_bytes: Option<u64>,
    pub(super) build_log: String,
    pub(super) evidence: Option<Evidence>,
    pub(super) run_logs: Vec<(Condition, String)>,
    pub(super) evaluation_notes: Vec<String>,
    pub(super) iterations: u32,
}

impl Bench {
    /// What the attempt leaves beside its manifest.
    pub(super) fn files(
        &self,
        verdict: &Verdict,
        task: &BuildTask,
        brain: &impl Brain,
    ) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        let mut put = |name: &str, bytes: Vec<u8>| files.push((name.to_owned(), bytes));
        if let Some(dockerfile) = &self.dockerfile {
            put("Dockerfile", dockerfile.0.clone().into_bytes());
            put("build.log", self.build_log.clone().into_bytes());
        }
        if let Some(script) = &self.script {
            put("eval_skeleton.sh", script.skeleton.clone().into_bytes());
            put("eval.sh", evaluate::fill_in(&script.skeleton, &task.instance.test_patch).into_bytes());
        }
        for (condition, log) in &self.run_logs {
            let name = match condition {
                Condition::TestOnly => "test_output_testOnly.txt",
                Condition::WithFix => "test_output_testWithFix.txt",
            };
            put(name, log.clone().into_bytes());
        }
        let solvable = matches!(verdict, Verdict::Accepted { .. });
        let cost: f64 = self.log.stages.iter().map(|stage| stage.seconds).sum();
        put("analysis.json", json(&self.log.rounds));
        put("status.json", json(&serde_json::json!({ "is_finish": true, "solvable": solvable })));
        put("cost.json", json(&cost_of(cost, &self.log, brain.told())));
        let conversation = match brain.told() {
            None => serde_json::json!({ "brain": brain.name(), "messages": self.log.rounds }),
            Some(told) => serde_json::json!({
                "brain": brain.name(),
                "prompts_blake3": prompts_digest(),
                "messages": self.log.rounds,
                "exchanges": told.exchanges,
            }),
        };
        put(CONVERSATION_FILE, json(&conversation));
        if let Some(evidence) = &self.evidence {
            put(queue_format::EVIDENCE_FILE, json(evidence));
        }
        files
    }
}

/// Wall time by stage; tokens and money by agent.
fn cost_of(seconds: f64, log: &AttemptLog, told: Option<&Told>) -> serde_json::Value {
    let sums = told.map(Told::sums).unwrap_or_default();
    let by_agent: serde_json::Map<_, _> = told
        .map(Told::by_agent)
        .unwrap_or_default()
        .into_iter()
        .map(|(agent, sums)| {
            let cost = serde_json::json!({
                "answers": sums.answers,
                "tokens_read": sums.used.cost.usage.read,
                "tokens_cached": sums.used.cost.usage.cached,
                "tokens_written": sums.used.cost.usage.written,
                "dollars": dollars(sums.used.cost.micro_dollars),
                "seconds": sums.used.seconds,
            });
            (agent.to_owned(), cost)
        })
        .collect();
    serde_json::json!({
        "seconds": seconds,
        "tokens": sums.used.cost.usage.total(),
        "dollars": dollars(sums.used.cost.micro_dollars),
        "agents": by_agent,
        "stages": log.stages,
    })
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).unwrap_or_else(|error| error.to_string().into_bytes())
}
