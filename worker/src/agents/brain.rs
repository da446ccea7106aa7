use queue_format::{Condition, FailureReason, Verdict};
use serde::{Deserialize, Serialize};

use super::agent::{Agents, HeadStart, is_accepted, role_of, tell};
use super::answer::Judged;
use super::asker::Asker;
use super::dialogue::Ended;
use super::{AgentsConfig, Reference, Told};
use crate::synthesis::{
    Analysis, Brain, BrainError, Dockerfile, EvalScript, Findings, Observation, Role, Rules, Subject,
};

/// Who makes environments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BrainKind {
    /// Fixed rules, without a model.
    #[default]
    Rules,
    /// Agents that ask a model, beginning with what the rules found.
    Agents,
    /// The rules, and agents for what they could not do.
    Auto,
}

/// The brain of one attempt: rules, agents, or the one after the other.
pub struct Brains<'a> {
    rules: Rules,
    config: AgentsConfig,
    asker: Asker<'a>,
    kind: BrainKind,
    /// At work once the rules are not any more.
    agents: Option<Agents>,
    /// What the rules made, for the agents.
    head_start: HeadStart,
    /// Rounds of the rules, and the most they have.
    rules_rounds: u32,
    rules_rounds_max: u32,
    history: Vec<String>,
    reference: Option<Reference>,
}

impl<'a> Brains<'a> {
    /// Of an attempt; the rules, where they come first, have so many rounds.
    #[must_use]
    pub fn new(
        kind: BrainKind,
        config: &AgentsConfig,
        rules_rounds_max: u32,
        asker: Asker<'a>,
        reference: Option<Reference>,
    ) -> Self {
        Self {
            rules: Rules::new(),
            config: config.clone(),
            asker,
            kind,
            agents: None,
            head_start: HeadStart::default(),
            rules_rounds: 0,
            rules_rounds_max,
            history: Vec::new(),
            reference,
        }
    }

    fn is_rules(&self) -> bool {
        self.kind != BrainKind::Agents && self.agents.is_none()
    }

    /// The agents, with all that the rules know, and whom they ask.
    fn at_work(&mut self) -> (&mut Agents, &mut Asker<'a>) {
        let Self { agents, asker, config, head_start, history, reference, .. } = self;
        let agents = agents.get_or_insert_with(|| {
            let mut agents = Agents::new(config, head_start.clone(), reference.as_ref());
            std::mem::take(history).into_iter().for_each(|said| agents.remember(said));
            agents
        });
        (agents, asker)
    }

    /// What the rules make of the tree; that they cannot is no error.
    async fn look_ahead(&mut self, subject: &Subject) -> Result<(), BrainError> {
        match self.rules.explore(subject).await {
            Ok(findings) => {
                self.head_start.said = tell(&findings);
                self.head_start.findings = Some(findings);
                self.head_start.dockerfile = self.rules.dockerfile(subject).await.ok();
                self.head_start.script = self.rules.eval_script(subject).await.ok();
                Ok(())
            }
            Err(BrainError::Unsolvable { detail, .. }) => {
                self.head_start.said = format!("The rules find nothing: {detail}");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Leaves it to the agents from now on, if there are to be any.
    fn hand_over(&mut self, why: &str, log: &str) -> bool {
        if self.kind != BrainKind::Auto {
            return false;
        }
        let said = format!("the rules end: {why}");
        self.history.push(said.clone());
        self.at_work().0.begin_with(said, log.to_owned());
        true
    }
}

impl Brain for Brains<'_> {
    async fn explore(&mut self, subject: &Subject) -> Result<Findings, BrainError> {
        if self.is_rules() {
            match self.rules.explore(subject).await {
                Ok(findings) => {
                    self.head_start.said = tell(&findings);
                    self.head_start.findings = Some(findings.clone());
                    return Ok(findings);
                }
                Err(BrainError::Unsolvable { reason, detail }) => {
                    self.head_start.said = format!("The rules find nothing: {detail}");
                    if !self.hand_over(&detail, "") {
                        return Err(BrainError::Unsolvable { reason, detail });
                    }
                }
                Err(error) => return Err(error),
            }
        } else if self.agents.is_none() && self.config.head_start {
            self.look_ahead(subject).await?;
        }
        let (agents, asker) = self.at_work();
        agents.explore(asker, subject).await.map_err(ended)
    }

    async fn dockerfile(&mut self, subject: &Subject) -> Result<Dockerfile, BrainError> {
        if let Some(agents) = &mut self.agents {
            return agents.dockerfile(&mut self.asker, subject).await.map_err(ended);
        }
        let dockerfile = self.rules.dockerfile(subject).await?;
        self.head_start.dockerfile = Some(dockerfile.clone());
        Ok(dockerfile)
    }

    async fn eval_script(&mut self, subject: &Subject) -> Result<EvalScript, BrainError> {
        if let Some(agents) = &mut self.agents {
            return agents.eval_script(&mut self.asker, subject).await.map_err(ended);
        }
        let script = self.rules.eval_script(subject).await?;
        self.head_start.script = Some(script.clone());
        Ok(script)
    }

    async fn analyse(
        &mut self,
        subject: &Subject,
        observation: &Observation,
    ) -> Result<Analysis, BrainError> {
        if let Some(agents) = &mut self.agents {
            let judged = agents.analyse(&mut self.asker, subject, observation).await.map_err(ended)?;
            return Ok(analysis_of(judged, observation));
        }
        self.rules_rounds += 1;
        let analysis = self.rules.analyse(subject, observation).await?;
        let is_at_end = match &analysis {
            Analysis::Final => !is_accepted(observation),
            Analysis::Unsolvable { .. } => true,
            Analysis::Feedback { text, .. } => {
                self.history.push(format!("the rules: {text}"));
                self.rules_rounds >= self.rules_rounds_max
            }
        };
        let (why, log) = outcome(observation);
        if is_at_end && self.hand_over(&why, log) {
            let text = "The rules are at their end: the agents take over.".to_owned();
            return Ok(Analysis::Feedback { to: Role::Explore, text });
        }
        Ok(analysis)
    }

    fn may_go_on(&self, rounds: u32, rounds_max: u32) -> bool {
        // What the rules tried before is theirs.
        let own = if self.agents.is_some() { rounds.saturating_sub(self.rules_rounds) } else { rounds };
        own < rounds_max
    }

    fn told(&self) -> Option<&Told> {
        self.agents.is_some().then(|| self.asker.told())
    }

    fn name(&self) -> &'static str {
        match (self.kind, &self.agents) {
            (BrainKind::Agents, _) => "agents",
            (BrainKind::Auto, Some(_)) => "rules, then agents",
            _ => "rules",
        }
    }
}

/// What an iteration came to, and the log that tells most.
fn outcome(observation: &Observation) -> (String, &str) {
    match observation {
        Observation::BuildFailed { error, log, .. } => (format!("the build failed: {error}"), log),
        Observation::Evaluated { verdict, logs, .. } => {
            let with_fix = logs.iter().find(|(condition, _)| *condition == Condition::WithFix);
            let said = match verdict {
                Verdict::Failed { reason, detail, .. } => format!("{reason}: {detail}"),
                verdict => verdict.to_string(),
            };
            (said, with_fix.map_or("", |(_, log)| log))
        }
    }
}

fn analysis_of(judged: Judged, observation: &Observation) -> Analysis {
    match judged {
        Judged::Genuine { .. } => Analysis::Final,
        Judged::NotGenuine { to, feedback } | Judged::Retry { to, feedback } => {
            Analysis::Feedback { to: role_of(to), text: feedback }
        }
        Judged::Unsolvable { feedback } => {
            let accepted = is_accepted(observation);
            let reason = if accepted { FailureReason::NotGenuine } else { FailureReason::Unsolvable };
            Analysis::Unsolvable { reason, detail: feedback }
        }
    }
}

fn ended(ended: Ended) -> BrainError {
    match ended {
        // That says something of the model, and nothing of the task.
        Ended::Useless(detail) | Ended::Spent(detail) => {
            BrainError::Unsolvable { reason: FailureReason::Budget, detail }
        }
        Ended::Away(why) => BrainError::Away(why),
        Ended::Alone(why) => BrainError::Alone(why),
        Ended::Node(error) => error,
    }
}
