use std::path::Path;
use std::time::{Duration, Instant};

use base_images::PythonVersion;
use queue_format::{
    AgentsRecord, BuildReport, BuildTask, FailureReason, Labels, Verdict, WorkReport, image_name,
};

use super::bench::Bench;
use super::fault;
use super::journal::Journal;
use super::log::Round;
use super::recorded::Recorded;
use super::report::Attempt;
use super::verdict::{describe, hopeless, verdict_of, with_reason};
use uuid::Uuid;

use crate::agents::prompts_digest;
use crate::config::WorkerConfig;
use crate::engine::{BuildEnd, BuildRequest, Engine, EngineError, Network, RunRequest};
use crate::evaluate::{self, EvaluationRequest};
use crate::repository::{ProvisionError, RepositoryCache, provision};
use crate::slots::Slot;
use crate::synthesis::{Analysis, Brain, BrainError, Observation, Subject};

/// Where a build leaves the versions it installed.
const LOCK_PATH: &str = "/opt/bottega/requirements.lock";
/// The most of it that is read, in bytes.
const LOCK_BYTES_MAX: usize = 1 << 20;

/// What every attempt of a worker uses.
pub struct Workshop<E> {
    /// The engine.
    pub engine: E,
    /// The repositories.
    pub repositories: RepositoryCache,
    /// The limits.
    pub config: WorkerConfig,
    /// What builds can reach.
    pub build_network: Network,
    /// The Pythons with a base image here, ascending.
    pub pythons: Vec<PythonVersion>,
}

impl<E: Engine> Workshop<E> {
    /// The same workshop for one attempt: with limits that hold to its end, and an engine that keeps its journal.
    ///
    /// One that goes on does so under what it began with: other limits would be other prompts, and other verdicts.
    pub fn of_attempt<'a>(&'a self, config: WorkerConfig, journal: &'a Journal) -> Workshop<Recorded<'a, E>> {
        let (engine, repositories) = (Recorded::new(&self.engine, journal), self.repositories.clone());
        let (config, build_network, pythons) = match journal.circumstances() {
            Some(then) => (then.config.clone(), then.build_network, then.pythons.clone()),
            None => (config, self.build_network, self.pythons.clone()),
        };
        Workshop { engine, repositories, config, build_network, pythons }
    }
}

/// Why there is no verdict: the node's fault, never the task's.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// git or the disk.
    #[error(transparent)]
    Provision(ProvisionError),
    /// The tree became unreadable.
    #[error(transparent)]
    Brain(BrainError),
    /// The node's disk.
    #[error("cannot write {path}: {source}")]
    Disk {
        /// Where.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// One attempt's surroundings.
pub struct Job<'a, E> {
    /// What every attempt uses.
    pub shop: &'a Workshop<E>,
    /// What is to be done.
    pub task: &'a BuildTask,
    /// Where it may run.
    pub slot: &'a Slot,
    /// An empty directory for the build context.
    pub context_dir: &'a Path,
    /// Wall time of one run of the tests.
    pub run_timeout: Duration,
    /// The labels of the attempt's builds: one object for all of them, or the layer cache would not hold.
    pub labels: &'a Labels,
    /// Gives fresh names for containers.
    pub unique: &'a (dyn Fn() -> Uuid + Send + Sync),
    /// Tells people the stage.
    pub say: &'a (dyn Fn(&str) + Send + Sync),
}

/// Makes one attempt.
///
/// # Errors
/// The node failed; the task should be tried again elsewhere or later.
pub async fn attempt<E: Engine, B: Brain>(job: &Job<'_, E>, brain: &mut B) -> Result<Attempt, AttemptError> {
    let mut bench = Bench::default();
    let verdict = rounds(job, brain, &mut bench).await?;
    let draft = draft_name(job.labels);
    let mut files = bench.files(&verdict, job.task, brain);
    let mut kept = None;
    if matches!(verdict, Verdict::Accepted { .. }) {
        (job.say)("freeze");
        let id = bench.image_id.as_deref().unwrap_or_default();
        let lock = read_lock(job, id).await?;
        files.extend(lock.map(|bytes| ("requirements.lock".to_owned(), bytes)));
        let name = image_name(&job.labels.task);
        job.shop.engine.tag_image(id, &name).await?;
        kept = Some(name);
    }
    if bench.image_id.is_some() {
        job.shop.engine.remove_image(&draft).await?;
    }
    let runs = bench.evidence.iter().flat_map(|evidence| &evidence.runs);
    let transitions = bench.evidence.as_ref().map(|evidence| &evidence.transitions);
    Ok(Attempt {
        verdict,
        peak_memory_bytes: runs.filter_map(|run| run.peak_memory_bytes).max(),
        work: WorkReport::Build(BuildReport {
            iterations: bench.iterations,
            python: bench.python,
            image_bytes: bench.image_bytes.filter(|_| kept.is_some()),
            image_name: kept,
            fail_to_pass: transitions.map_or(0, |moves| moves.fail_to_pass.len()),
            pass_to_pass: transitions.map_or(0, |moves| moves.pass_to_pass.len()),
            agents: agents_record(brain),
        }),
        stages: bench.log.stages,
        notes: bench.log.notes.into_iter().chain(bench.evaluation_notes).collect(),
        files,
    })
}

/// What agents had part in it.
fn agents_record(brain: &impl Brain) -> Option<AgentsRecord> {
    let told = brain.told()?;
    let sums = told.sums();
    Some(AgentsRecord {
        brain: brain.name().to_owned(),
        answers: sums.answers,
        tokens_read: sums.used.cost.usage.read,
        tokens_written: sums.used.cost.usage.written,
        micro_dollars: sums.used.cost.micro_dollars,
        models: told.models(),
        prompts_blake3: prompts_digest(),
    })
}

async fn rounds<E: Engine, B: Brain>(
    job: &Job<'_, E>,
    brain: &mut B,
    bench: &mut Bench,
) -> Result<Verdict, AttemptError> {
    (job.say)("provision");
    let started = Instant::now();
    let provisioned = provision(&job.shop.repositories, job.task, job.context_dir).await;
    bench.log.took("provision", started);
    let checkout = match provisioned {
        Ok(checkout) => checkout,
        Err(error) => {
            let Some(reason) = error.reason() else { return Err(AttemptError::Provision(error)) };
            return Ok(Verdict::failed(reason, error.to_string(), Vec::new()));
        }
    };
    bench.log.notes.clone_from(&checkout.notes);
    let subject = Subject {
        task: job.task.clone(),
        tree: checkout.tree,
        date: checkout.date,
        pythons: job.shop.pythons.clone(),
        notes: checkout.notes,
    };
    let mut explore = true;
    loop {
        bench.iterations += 1;
        let round = round(job, brain, &subject, bench, explore).await?;
        let (observation, rebuilt) = match round {
            Ok(observed) => observed,
            Err(verdict) => return Ok(verdict),
        };
        (job.say)("analyse");
        let started = Instant::now();
        let analysed = brain.analyse(&subject, &observation).await;
        bench.log.took("analyse", started);
        let analysis = match analysed {
            Ok(analysis) => analysis,
            Err(error) => return hopeless(error),
        };
        let verdict = verdict_of(&observation);
        bench.log.rounds.push(Round {
            iteration: bench.iterations,
            rebuilt,
            outcome: describe(&verdict),
            asked: brain.told().map(|told| told.exchanges.len()),
            analysis: analysis.clone(),
        });
        match analysis {
            Analysis::Final => return Ok(verdict),
            Analysis::Unsolvable { reason, detail } => return Ok(with_reason(verdict, reason, detail)),
            Analysis::Feedback { text, .. }
                if !brain.may_go_on(bench.iterations, job.shop.config.iterations_max) =>
            {
                return Ok(match &verdict {
                    Verdict::Failed { .. } => verdict,
                    // It was refused, and nobody has mended it.
                    _ => with_reason(verdict, FailureReason::NotGenuine, text),
                });
            }
            Analysis::Feedback { to, .. } => explore = to == crate::synthesis::Role::Explore,
        }
    }
}

/// One round. The inner error is a verdict that ends the attempt.
async fn round<E: Engine, B: Brain>(
    job: &Job<'_, E>,
    brain: &mut B,
    subject: &Subject,
    bench: &mut Bench,
    explore: bool,
) -> Result<Result<(Observation, bool), Verdict>, AttemptError> {
    let shop = job.shop;
    let nth = if bench.iterations > 1 { format!(" (round {})", bench.iterations) } else { String::new() };
    (job.say)(&format!("explore{nth}"));
    let started = Instant::now();
    if explore {
        match brain.explore(subject).await {
            Ok(findings) => {
                bench.python = Some(findings.python);
                bench.log.notes.extend(findings.facts);
            }
            Err(error) => return hopeless(error).map(Err),
        }
    }
    let written = match brain.dockerfile(subject).await {
        Ok(dockerfile) => brain.eval_script(subject).await.map(|script| (dockerfile, script)),
        Err(error) => Err(error),
    };
    let (dockerfile, script) = match written {
        Ok(written) => written,
        Err(error) => return hopeless(error).map(Err),
    };
    bench.log.took("explore", started);
    // The Dockerfile may begin with another than was found.
    if let (Some(record), Some(python)) = (&mut bench.python, dockerfile.python()) {
        record.used = python.to_string();
    }

    let rebuild = bench.image_id.is_none() || bench.dockerfile.as_ref() != Some(&dockerfile);
    if rebuild {
        (job.say)(&format!("build{nth}"));
        let path = job.context_dir.join("Dockerfile");
        std::fs::write(&path, &dockerfile.0)
            .map_err(|source| AttemptError::Disk { path: path.display().to_string(), source })?;
        bench.dockerfile = Some(dockerfile.clone());
        bench.image_id = None;
        let request = BuildRequest {
            context_dir: job.context_dir.to_owned(),
            tree: Some(subject.tree.clone()),
            bases: shop.pythons.iter().map(|python| python.image()).collect(),
            image_name: draft_name(job.labels),
            labels: job.labels.clone(),
            limits: job.slot.limits.clone(),
            network: shop.build_network,
            timeout: Duration::from_secs(shop.config.build_timeout_seconds),
            log_bytes_max: shop.config.log_bytes_max,
            round: bench.iterations,
        };
        let started = Instant::now();
        let built = shop.engine.build(&request).await?;
        bench.log.took("build", started);
        bench.build_log.clone_from(&built.log);
        match built.end {
            BuildEnd::Built(id) => {
                bench.image_id = Some(id);
                bench.image_bytes = built.own_bytes;
            }
            failed => {
                let (reason, error) = match failed {
                    BuildEnd::Failed(error) => match fault::beyond_the_task(&error, &built.log) {
                        Some(fault) => return Err(fault.into()),
                        None => (FailureReason::Build, error),
                    },
                    BuildEnd::Refused(refused) => (FailureReason::Build, refused.to_string()),
                    BuildEnd::TimedOut => {
                        let most = shop.config.build_timeout_seconds;
                        (FailureReason::Timeout, format!("the build did not end within {most} s"))
                    }
                    BuildEnd::Built(_) | BuildEnd::DiskFull => {
                        let error = "the build was killed at its disk limit ([worker] slot_disk_gib)";
                        (FailureReason::Build, error.to_owned())
                    }
                };
                return Ok(Ok((Observation::BuildFailed { reason, error, log: built.log }, true)));
            }
        }
    }
    (job.say)(&format!("evaluate{nth}"));
    bench.script = Some(script.clone());
    let started = Instant::now();
    let policy = evaluate::Policy {
        repeats: shop.config.repeats,
        accept: shop.config.accept.iter().copied().collect(),
        run_timeout: job.run_timeout,
        log_bytes_max: shop.config.log_bytes_max,
        ..evaluate::Policy::default()
    };
    let request = EvaluationRequest {
        image_id: bench.image_id.as_deref().unwrap_or_default(),
        dockerfile: &dockerfile.0,
        script: &script,
        test_patch: &job.task.instance.test_patch,
        fix_patch: &job.task.instance.patch,
        labels: job.labels,
        limits: &job.slot.limits,
        policy: &policy,
        unique: job.unique,
    };
    let evaluated = evaluate::evaluate(&shop.engine, &request).await?;
    bench.log.took("evaluate", started);
    bench.evidence = Some(evaluated.evidence.clone());
    bench.run_logs.clone_from(&evaluated.logs);
    bench.evaluation_notes = evaluated.notes;
    let observation = Observation::Evaluated {
        evidence: evaluated.evidence,
        verdict: evaluated.verdict,
        logs: evaluated.logs,
    };
    Ok(Ok((observation, rebuild)))
}

/// What an attempt's image is called until it is accepted: the task's own name is for accepted ones alone, and
/// may be another spool's.
fn draft_name(labels: &Labels) -> String {
    format!("bottega-draft:{}", labels.object.simple())
}

async fn read_lock<E: Engine>(job: &Job<'_, E>, image: &str) -> Result<Option<Vec<u8>>, EngineError> {
    let labels = Labels { object: (job.unique)(), ..job.labels.clone() };
    let request = RunRequest {
        files_out: vec![(LOCK_PATH.to_owned(), LOCK_BYTES_MAX)],
        ..RunRequest::new(image, vec!["true".to_owned()], labels, &job.slot.limits)
    };
    Ok(job.shop.engine.run(&request).await?.files_out.remove(LOCK_PATH))
}
