use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::asker::Reply;
use super::llm::{Answer, ChatRequest, Cost, Message};
use super::model::Used;

/// The conversation of an attempt, as its result keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// Each question with its answer, in order.
    pub exchanges: Vec<Exchange>,
}

/// A question and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// Who asked.
    pub agent: String,
    /// How much of the exchange before it goes on from: messages, its answer among them.
    pub after: usize,
    /// What was said since.
    pub messages: Vec<Message>,
    /// The answer, or why there is none.
    pub reply: Reply,
}

/// What a conversation came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Answers; those that nobody could use too.
    pub answers: u32,
    /// What was paid and waited for them, and for what gave none.
    pub used: Used,
}

impl Sums {
    /// Adds what was used without an answer.
    pub(super) fn add(&mut self, more: &Used) {
        self.used.cost.add(&more.cost);
        self.used.seconds += more.seconds;
    }
}

impl Told {
    /// What all of it came to.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.of(|_| true)
    }

    /// What each agent's part came to, in the order in which they first spoke.
    #[must_use]
    pub fn by_agent(&self) -> Vec<(&str, Sums)> {
        let mut agents: Vec<&str> = Vec::new();
        for exchange in &self.exchanges {
            if !agents.contains(&exchange.agent.as_str()) {
                agents.push(&exchange.agent);
            }
        }
        agents.into_iter().map(|agent| (agent, self.of(|exchange| exchange.agent == agent))).collect()
    }

    /// The models that answered, each once, by name.
    #[must_use]
    pub fn models(&self) -> Vec<String> {
        let models = self.exchanges.iter().filter_map(|exchange| match &exchange.reply {
            Reply::Answer(answer) => Some(&answer.model),
            _ => None,
        });
        models.collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }

    fn of(&self, is_meant: impl Fn(&Exchange) -> bool) -> Sums {
        let mut sums = Sums::default();
        for exchange in self.exchanges.iter().filter(|exchange| is_meant(exchange)) {
            let used = match &exchange.reply {
                Reply::Answer(Answer { usage, micro_dollars, seconds, .. }) => {
                    Used { cost: Cost { usage: *usage, micro_dollars: *micro_dollars }, seconds: *seconds }
                }
                Reply::Refused(none) | Reply::TooLong(none) | Reply::Spent(none) => none.used,
            };
            sums.answers += u32::from(matches!(exchange.reply, Reply::Answer(_) | Reply::Refused(_)));
            sums.add(&used);
        }
        sums
    }
}

impl Exchange {
    /// `before` is all that was said up to and with the answer before this question.
    pub(super) fn new(before: &[Message], request: &ChatRequest, reply: &Reply) -> Self {
        let after = before.iter().zip(&request.messages).take_while(|(one, other)| one == other).count();
        let messages = request.messages[after..].to_vec();
        Self { agent: request.agent.clone(), after, messages, reply: reply.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::{NoAnswer, Usage};

    #[test]
    fn what_gave_no_answer_is_counted_too() {
        let used = |read: u64| {
            let usage = Usage { read, ..Usage::default() };
            Used { cost: Cost { usage, micro_dollars: read }, seconds: 0.5 }
        };
        let none = |read: u64| NoAnswer { why: "no".to_owned(), used: used(read) };
        let answer = Answer {
            text: "yes".to_owned(),
            reasoning: None,
            is_whole: true,
            usage: used(1).cost.usage,
            endpoint: "one".to_owned(),
            model: "m".to_owned(),
            micro_dollars: 1,
            tries: 1,
            seconds: 0.5,
        };
        let replies = [
            ("explore", Reply::Answer(answer)),
            ("explore", Reply::TooLong(none(10))),
            ("script", Reply::Refused(none(100))),
            ("script", Reply::Spent(none(1000))),
        ];
        let told = Told {
            exchanges: replies
                .map(|(agent, reply)| Exchange {
                    agent: agent.to_owned(),
                    after: 0,
                    messages: Vec::new(),
                    reply,
                })
                .into(),
        };
        let check = |sums: Sums, answers: u32, micro_dollars: u64, seconds: f64| {
            assert_eq!((sums.answers, sums.used.cost.micro_dollars), (answers, micro_dollars));
            assert_eq!((sums.used.cost.usage.read, sums.used.seconds), (micro_dollars, seconds));
        };
        check(told.sums(), 2, 1111, 2.0);
        assert_eq!(told.models(), ["m"]);
        let [(_, explore), (_, script)] = told.by_agent()[..] else { panic!("{:?}", told.by_agent()) };
        check(explore, 1, 11, 1.0);
        check(script, 1, 1100, 1.0);
    }
}
