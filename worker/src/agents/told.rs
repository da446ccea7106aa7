use serde::{Deserialize, Serialize};

use super::asker::Reply;
use super::llm::{ChatRequest, Cost, Message};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Answers; those that nobody could use too.
    pub answers: u32,
    /// What was paid for them.
    pub cost: Cost,
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

    fn of(&self, is_meant: impl Fn(&Exchange) -> bool) -> Sums {
        let mut sums = Sums::default();
        for exchange in self.exchanges.iter().filter(|exchange| is_meant(exchange)) {
            let cost = match &exchange.reply {
                Reply::Answer(answer) => Cost { usage: answer.usage, micro_dollars: answer.micro_dollars },
                Reply::Refused { cost, .. } => *cost,
                Reply::TooLong(_) | Reply::Spent(_) => continue,
            };
            sums.answers += 1;
            sums.cost.add(&cost);
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
