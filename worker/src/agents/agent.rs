//! The four agents, as one attempt has them.

use std::ops::ControlFlow;

use base_images::PythonVersion;
use queue_format::{Condition, Verdict};

use super::answer::{Addressee, Choice, Explored, Judged, Written};
use super::asker::Asker;
use super::checks::{check_findings, findings_of, finished, pythons};
use super::dialogue::{Dialogue, Ended};
use super::prompt::{ANALYSIS, DOCKERFILE, EXPLORE, SCRIPT, prompt};
use super::script;
use super::shown::{clip, fenced};
use super::tools::{self, LOOKS_MAX};
use super::{AgentsConfig, Reference};
use crate::synthesis::patch;
use crate::synthesis::tree::Tree;
use crate::synthesis::{Dockerfile, EvalScript, Findings, Observation, Role, Subject};

/// Earlier iterations that the analyst is shown.
const HISTORY_MAX: usize = 12;

/// What the analyst judges, by its marks: what it is not shown it cannot refuse. Their authors are held to a length.
const JUDGED: &[&str] = &["Dockerfile", "script"];

/// What the rules made before an agent was asked.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadStart {
    /// What they found, or why they found nothing.
    pub(super) said: String,
    pub(super) findings: Option<Findings>,
    pub(super) dockerfile: Option<Dockerfile>,
    pub(super) script: Option<EvalScript>,
}

/// Feedback to one of the agents, with the log that it speaks of.
#[derive(Clone, Debug, Default)]
struct Feedback {
    text: String,
    log: String,
}

/// What the agents know of each other.
pub(super) struct Agents {
    config: AgentsConfig,
    head_start: HeadStart,
    tree: Option<Tree>,
    findings: Option<Findings>,
    dockerfile: Option<Dockerfile>,
    choice: Option<Choice>,
    script: Option<EvalScript>,
    /// Who is to act, and on what.
    to_explore: Option<Feedback>,
    to_dockerfile: Option<Feedback>,
    to_script: Option<Feedback>,
    history: Vec<String>,
    /// An accepted environment of the same repository, in words.
    reference: String,
}

impl Agents {
    pub(super) fn new(config: &AgentsConfig, head_start: HeadStart, reference: Option<&Reference>) -> Self {
        let told = |known: &Reference| {
            format!("# {}, Dockerfile:\n{}\n# script:\n{}", known.task, known.dockerfile, known.script)
        };
        Self {
            config: config.clone(),
            head_start,
            reference: reference.map(told).unwrap_or_default(),
            tree: None,
            findings: None,
            dockerfile: None,
            choice: None,
            script: None,
            to_explore: None,
            to_dockerfile: Some(Feedback::default()),
            to_script: Some(Feedback::default()),
            history: Vec::new(),
        }
    }

    /// What the iterations before came to, for those who take over from the rules.
    pub(super) fn remember(&mut self, said: String) {
        self.history.push(said);
    }

    /// What they are to look at first: the end of those before them.
    pub(super) fn begin_with(&mut self, text: String, log: String) {
        let heard = Feedback { text, log };
        self.to_explore = Some(heard.clone());
        self.to_dockerfile = Some(heard.clone());
        self.to_script = Some(heard);
    }

    pub(super) async fn explore(
        &mut self,
        asker: &mut Asker<'_>,
        subject: &Subject,
    ) -> Result<Findings, Ended> {
        let tree = Tree::of_source(&subject.tree).map_err(Ended::Node)?;
        let (instance, config) = (&subject.task.instance, self.config.clone());
        let most = config.shown_bytes_max;
        let shown = |text: &str| fenced(&clip(text, most));
        let question = self.to_explore.take().unwrap_or_default();
        let fix: Vec<String> = patch::files(&instance.patch).into_iter().map(|file| file.path).collect();
        let mut dialogue = Dialogue::new(
            "explore",
            &config,
            prompt!(
                EXPLORE,
                repository = &fenced(&instance.repo),
                date = &subject.date.to_string(),
                pythons = &pythons(subject),
                issue = &shown(&instance.problem_statement),
                test_patch = &shown(&instance.test_patch),
                fix_files = &shown(&fix.join("\n")),
                rules = &shown(&self.head_start.said),
                reference = &shown(&self.reference),
                question = &shown(&format!("{}\n{}", question.text, question.log)),
                top = &shown(&tools::browse(&tree, "")),
                turns = &config.explore_turns_max.to_string(),
            ),
        )
        .with(tools::described());
        let patched = patch::files(&instance.test_patch);
        for left in (0..config.explore_turns_max).rev() {
            let step = dialogue
                .answer(asker, |explored: Explored| match explored.step() {
                    ControlFlow::Break(found) => {
                        check_findings(&found, subject, &tree, &patched).map(|()| ControlFlow::Break(found))
                    }
                    ControlFlow::Continue(_) if left == 0 => {
                        Err("there are no turns left: tell your findings".to_owned())
                    }
                    ControlFlow::Continue(looks) if looks.is_empty() || looks.len() > LOOKS_MAX => {
                        Err(format!("look at one to {LOOKS_MAX} things"))
                    }
                    looks => Ok(looks),
                })
                .await?;
            match step {
                ControlFlow::Break(found) => {
                    let findings = findings_of(found, self.head_start.findings.as_ref());
                    self.findings = Some(findings.clone());
                    self.tree = Some(tree);
                    return Ok(findings);
                }
                ControlFlow::Continue(looks) => {
                    let each = most / looks.len();
                    let seen: Vec<String> = looks.iter().map(|look| tools::look(&tree, look, each)).collect();
                    dialogue.say(format!(
                        "<<< seen\n{}\n>>> seen\n\n{left} turns are left.",
                        fenced(&seen.concat())
                    ));
                }
            }
        }
        Err(Ended::Useless("the explorer looked without end".to_owned()))
    }

    pub(super) async fn dockerfile(
        &mut self,
        asker: &mut Asker<'_>,
        subject: &Subject,
    ) -> Result<Dockerfile, Ended> {
        if let (None, Some(kept)) = (&self.to_dockerfile, &self.dockerfile) {
            return Ok(kept.clone());
        }
        let feedback = self.to_dockerfile.take().unwrap_or_default();
        let before = self.dockerfile.as_ref().or(self.head_start.dockerfile.as_ref());
        let most = self.config.shown_bytes_max;
        let bases: Vec<String> = subject.pythons.iter().map(|python| python.image()).collect();
        let mut dialogue = Dialogue::new(
            "dockerfile",
            &self.config,
            prompt!(
                DOCKERFILE,
                bases = &bases.join(", "),
                date = &subject.date.to_string(),
                findings = &fenced(&clip(&self.findings_text(), most)),
                reference = &fenced(&clip(&self.reference, most)),
                dockerfile = &fenced(before.map_or("", |dockerfile| &dockerfile.0)),
                feedback = &fenced(&clip(&feedback.text, most)),
                log = &fenced(&clip(&feedback.log, most)),
            ),
        );
        let of_rules = self.head_start.dockerfile.as_ref();
        let dockerfile = dialogue
            .answer(asker, |written: Written| finished(&written.dockerfile, &bases, of_rules))
            .await?;
        self.dockerfile = Some(dockerfile.clone());
        Ok(dockerfile)
    }

    pub(super) async fn eval_script(
        &mut self,
        asker: &mut Asker<'_>,
        subject: &Subject,
    ) -> Result<EvalScript, Ended> {
        if let (None, Some(kept)) = (&self.to_script, &self.script) {
            return Ok(kept.clone());
        }
        let feedback = self.to_script.take().unwrap_or_default();
        let most = self.config.shown_bytes_max;
        let before = match (&self.choice, &self.head_start.script) {
            (Some(choice), _) => serde_json::to_string_pretty(choice).unwrap_or_default(),
            (None, Some(script)) => format!("The rules' script:\n{}", script.skeleton),
            (None, None) => String::new(),
        };
        let mut dialogue = Dialogue::new(
            "script",
            &self.config,
            prompt!(
                SCRIPT,
                findings = &fenced(&clip(&self.findings_text(), most)),
                test_patch = &fenced(&clip(&subject.task.instance.test_patch, most)),
                reference = &fenced(&clip(&self.reference, most)),
                script = &fenced(&clip(&before, most)),
                feedback = &fenced(&clip(&feedback.text, most)),
                log = &fenced(&clip(&feedback.log, most)),
            ),
        );
        let patched = patch::files(&subject.task.instance.test_patch);
        let python = self.python(subject);
        let tree = match self.tree.take() {
            Some(tree) => tree,
            None => Tree::of_source(&subject.tree).map_err(Ended::Node)?,
        };
        let written = dialogue
            .answer(asker, |choice: Choice| {
                script::write(&choice, python, &tree, &patched).map(|script| (choice, script))
            })
            .await;
        self.tree = Some(tree);
        let (choice, script) = written?;
        self.choice = Some(choice);
        self.script = Some(script.clone());
        Ok(script)
    }

    pub(super) async fn analyse(
        &mut self,
        asker: &mut Asker<'_>,
        subject: &Subject,
        observation: &Observation,
    ) -> Result<Judged, Ended> {
        let most = self.config.shown_bytes_max;
        let (outcome, before, after) = told(observation);
        let history = self.history[self.history.len().saturating_sub(HISTORY_MAX)..].join("\n");
        let dockerfile = self.dockerfile.as_ref().map_or("", |dockerfile| &dockerfile.0);
        let script = self.script.as_ref().map_or("", |script| &script.skeleton);
        let mut dialogue = Dialogue::new(
            "analysis",
            &self.config,
            prompt!(
                ANALYSIS,
                issue = &fenced(&clip(&subject.task.instance.problem_statement, most)),
                test_patch = &fenced(&clip(&subject.task.instance.test_patch, most)),
                fail_to_pass = &fenced(&clip(&fail_to_pass(observation), most)),
                outcome = &fenced(&clip(&outcome, most)),
                dockerfile = &fenced(dockerfile),
                script = &fenced(script),
                findings = &fenced(&clip(&self.findings_text(), most)),
                log_before = &fenced(&clip(before, most)),
                log_after = &fenced(&clip(after, most)),
                history = &fenced(&clip(&history, most)),
            ),
        )
        .showing_whole(JUDGED);
        let is_accepted = is_accepted(observation);
        let is_build = matches!(observation, Observation::BuildFailed { .. });
        let judged = dialogue
            .answer(asker, |judged: Judged| match (&judged, is_accepted) {
                (Judged::Genuine { .. } | Judged::NotGenuine { .. }, false) => {
                    Err("the outcome is not \"accepted\": say \"retry\" or \"unsolvable\"".to_owned())
                }
                (Judged::Retry { to: Addressee::Script, .. }, _) if is_build => {
                    Err("the build failed, and the script has no part in it: address \"dockerfile\" or \"explore\""
                        .to_owned())
                }
                (Judged::Retry { .. }, true) => {
                    Err("the outcome is \"accepted\": say \"genuine\" or \"not-genuine\"".to_owned())
                }
                (
                    Judged::Retry { feedback, .. }
                    | Judged::Unsolvable { feedback }
                    | Judged::NotGenuine { feedback, .. },
                    _,
                ) if feedback.trim().is_empty() => Err("feedback is empty: say what and why".to_owned()),
                _ => Ok(judged),
            })
            .await?;
        if let Judged::Retry { to, feedback } | Judged::NotGenuine { to, feedback } = &judged {
            let log = if after.is_empty() { before } else { after };
            let heard = Feedback { text: feedback.clone(), log: log.to_owned() };
            match to {
                Addressee::Explore => self.begin_with(heard.text, heard.log),
                Addressee::Dockerfile => self.to_dockerfile = Some(heard),
                Addressee::Script => self.to_script = Some(heard),
            }
            let first = outcome.lines().next().unwrap_or_default();
            self.history.push(format!("{first} → {:?}: {feedback}", role_of(*to)));
        }
        Ok(judged)
    }

    /// The Python of the Dockerfile, for its git's age.
    fn python(&self, subject: &Subject) -> PythonVersion {
        let named = self.dockerfile.as_ref().and_then(Dockerfile::python);
        let oldest = subject.pythons.first().copied();
        named.or(oldest).unwrap_or(PythonVersion::new(3, 9))
    }

    fn findings_text(&self) -> String {
        let Some(findings) = &self.findings else { return self.head_start.said.clone() };
        tell(findings)
    }
}

/// The stage that an addressee stands for.
pub(super) fn role_of(to: Addressee) -> Role {
    match to {
        Addressee::Explore => Role::Explore,
        Addressee::Dockerfile => Role::Dockerfile,
        Addressee::Script => Role::EvalScript,
    }
}

/// Findings as prompts show them.
pub(super) fn tell(findings: &Findings) -> String {
    let Findings { python, facts, targets } = findings;
    let facts: Vec<String> = facts.iter().map(|fact| format!("- {fact}")).collect();
    format!("Python {} ({})\n{}\ntargets: {}", python.used, python.why, facts.join("\n"), targets.join(" "))
}

pub(super) fn is_accepted(observation: &Observation) -> bool {
    matches!(observation, Observation::Evaluated { verdict: Verdict::Accepted { .. }, .. })
}

/// The tests that show the fix, a line each.
fn fail_to_pass(observation: &Observation) -> String {
    let Observation::Evaluated { evidence, .. } = observation else { return String::new() };
    let names: Vec<&str> = evidence.transitions.fail_to_pass.iter().map(String::as_str).collect();
    names.join("\n")
}

/// The outcome in words, and the two logs.
fn told(observation: &Observation) -> (String, &str, &str) {
    match observation {
        Observation::BuildFailed { error, log, .. } => (format!("the build failed: {error}"), "", log),
        Observation::Evaluated { evidence, verdict, logs } => {
            let log =
                |wanted| logs.iter().find(|(condition, _)| *condition == wanted).map_or("", |(_, log)| log);
            let moves = &evidence.transitions;
            let outcome = match verdict {
                Verdict::Accepted { class } => format!("accepted ({class})"),
                Verdict::Completed => "completed".to_owned(),
                Verdict::Failed { reason, detail, log, .. } => {
                    format!("not accepted ({reason}): {detail}\n{}", log.join("\n"))
                }
            };
            let counts = format!(
                "{} fail before and pass after, {} pass in both, {} are broken by the fix, {} fail in both, {} are flaky",
                moves.fail_to_pass.len(),
                moves.pass_to_pass.len(),
                moves.pass_to_fail.len(),
                moves.fail_to_fail.len(),
                moves.flaky.len()
            );
            (format!("{outcome}\n{counts}"), log(Condition::TestOnly), log(Condition::WithFix))
        }
    }
}
