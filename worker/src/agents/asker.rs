use std::io;

use serde::{Deserialize, Serialize};

use super::AgentsConfig;
use super::llm::{Answer, ChatRequest, Message, Speaker, dollars};
use super::model::{AskError, Model, Used};
use super::told::{Exchange, Told};
use crate::attempt::journal::Journal;
use crate::engine::digest;

/// What an attempt may use of models.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    answers: u32,
    tokens: u64,
    dollars: f64,
    seconds: u64,
}

/// What became of a question; kept in the attempt's journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It was answered.
    Answer(Answer),
    /// It is longer than the model can read.
    TooLong(NoAnswer),
    /// Nobody has an answer to it that can be used.
    Refused(NoAnswer),
    /// It was not asked, or not asked on: the budget is used up.
    Spent(NoAnswer),
}

/// Why there is none, and what that took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NoAnswer {
    /// What was said instead.
    pub why: String,
    /// What was used all the same.
    #[serde(flatten)]
    pub used: Used,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    TooLong(String),
    Refused(String),
    Spent(String),
    /// Not the task's fault.
    Away(String),
    /// Others are answered: the task's, or the endpoint's with it.
    Alone(String),
    /// The journal cannot be written.
    Unkept(io::Error),
}

/// Asks for one attempt: what its journal knows is not asked again, and what it may not afford is not asked at all.
pub struct Asker<'a> {
    journal: &'a Journal,
    model: Model,
    budget: Budget,
    told: Told,
    /// All that was said up to and with the last answer.
    said: Vec<Message>,
}

impl Budget {
    /// As configured.
    #[must_use]
    pub fn of(config: &AgentsConfig) -> Self {
        Self {
            answers: config.task_answers_max,
            tokens: config.task_tokens_max,
            dollars: config.task_dollars_max,
            seconds: config.task_seconds_max,
        }
    }
}

impl<'a> Asker<'a> {
    /// Of an attempt that begins, or goes on.
    #[must_use]
    pub fn new(journal: &'a Journal, model: Model, budget: Budget) -> Self {
        Self { journal, model, budget, told: Told::default(), said: Vec::new() }
    }

    /// What was said so far, and what it cost.
    #[must_use]
    pub fn told(&self) -> &Told {
        &self.told
    }

    pub(super) async fn ask(&mut self, request: &ChatRequest) -> Result<Answer, Unanswered> {
        // Equal questions of one attempt are told apart by their place in it.
        let asked = digest(&(self.told.exchanges.len(), request));
        let reply = match self.journal.replied(&asked) {
            Some(known) => {
                self.journal.continued();
                known.clone()
            }
            None => {
                let reply = self.reply(request).await?;
                // What nobody could find again is not made use of.
                self.journal.note_replied(&asked, &reply).map_err(Unanswered::Unkept)?;
                reply
            }
        };
        self.told.exchanges.push(Exchange::new(&self.said, request, &reply));
        self.said.clone_from(&request.messages);
        if let Reply::Answer(answer) = &reply {
            let (content, reasoning) = (answer.text.clone(), answer.reasoning.clone());
            self.said.push(Message { role: Speaker::Assistant, content, reasoning });
        }
        match reply {
            Reply::Answer(answer) => Ok(answer),
            Reply::TooLong(none) => Err(Unanswered::TooLong(none.why)),
            Reply::Refused(none) => Err(Unanswered::Refused(none.why)),
            Reply::Spent(none) => Err(Unanswered::Spent(none.why)),
        }
    }

    async fn reply(&self, request: &ChatRequest) -> Result<Reply, Unanswered> {
        if let Some(why) = self.spent(&Used::default()) {
            return Ok(Reply::Spent(NoAnswer { why, ..NoAnswer::default() }));
        }
        let Model::Live(llm) = &self.model else {
            return Err(Unanswered::Away(format!(
                "the {} agent asks what is not recorded: the attempt was made by another version, or of other files",
                request.agent
            )));
        };
        let (asked, used) = llm.ask(request, |used| self.spent(used)).await;
        match asked {
            Ok(answer) => Ok(Reply::Answer(answer)),
            Err(AskError::TooLong(why)) => Ok(Reply::TooLong(NoAnswer { why, used })),
            Err(AskError::Unusable(why)) => Ok(Reply::Refused(NoAnswer { why, used })),
            Err(AskError::Spent(why)) => Ok(Reply::Spent(NoAnswer { why, used })),
            Err(AskError::Away(why)) => Err(Unanswered::Away(why)),
            Err(error @ AskError::Alone(_)) => Err(Unanswered::Alone(error.to_string())),
        }
    }

    /// The last answer of a conversation was refused.
    pub(super) fn was_refused(&self, why: &str) {
        if let Model::Live(llm) = &self.model {
            llm.was_refused(why);
        }
    }

    /// What a whole conversation came to, for whoever looks after the model.
    pub(super) fn came_to(&self, answer: Result<(), &str>) {
        if let Model::Live(llm) = &self.model {
            llm.came_to(answer);
        }
    }

    /// Which part of the budget is used up, with what a call has used that is on its way.
    fn spent(&self, more: &Used) -> Option<String> {
        let mut sums = self.told.sums();
        sums.add(more);
        let (usage, micro_dollars) = (sums.used.cost.usage, sums.used.cost.micro_dollars);
        let spent = dollars(micro_dollars);
        let Budget { answers, tokens, dollars, seconds } = &self.budget;
        if sums.answers >= *answers {
            Some(format!("{} answers of {answers} (task_answers_max)", sums.answers))
        } else if usage.total() >= *tokens {
            Some(format!("{} tokens of {tokens} (task_tokens_max)", usage.total()))
        } else if spent >= *dollars && micro_dollars > 0 {
            Some(format!("${spent:.2} of ${dollars:.2} (task_dollars_max)"))
        } else if sums.used.seconds >= std::time::Duration::from_secs(*seconds).as_secs_f64() {
            Some(format!("{:.0} s of {seconds} s (task_seconds_max)", sums.used.seconds))
        } else {
            None
        }
    }
}
