use serde::{Deserialize, Serialize};

use super::asker::Reply;
use super::llm::{ChatRequest, Message, Usage};

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
    /// Answers.
    pub answers: u32,
    /// Tokens.
    pub usage: Usage,
    /// Price, in millionths of a dollar.
    pub micro_dollars: u64,
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
            let Reply::Answer(answer) = &exchange.reply else { continue };
            sums.answers += 1;
            sums.usage.read += answer.usage.read;
            sums.usage.cached += answer.usage.cached;
            sums.usage.written += answer.usage.written;
            sums.usage.is_guess |= answer.usage.is_guess;
            sums.micro_dollars += answer.micro_dollars;
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
