use serde::de::DeserializeOwned;

use super::AgentsConfig;
use super::answer;
use super::asker::{Asker, Unanswered};
use super::llm::{ChatRequest, Message, Speaker};
use super::prompt::{HOUSE, REPAIR, prompt};
use super::shown::fenced;
use crate::synthesis::BrainError;

/// How often a conversation that is too long is shortened.
const SHORTENED_MAX: u32 = 3;

/// One agent's conversation: it begins with instructions, and ends with an answer that can be used.
pub(super) struct Dialogue {
    agent: &'static str,
    messages: Vec<Message>,
    repairs_left: u32,
    answer_tokens_max: u32,
}

/// Why a conversation ended without one.
#[derive(Debug)]
pub(super) enum Ended {
    /// The model cannot: in one sentence.
    Useless(String),
    Spent(String),
    Away(String),
    /// The tree cannot be read.
    Tree(BrainError),
}

impl Dialogue {
    /// `instructions` is what the agent is to do, with what it is shown; made for so many bytes of each text.
    pub(super) fn new(agent: &'static str, config: &AgentsConfig, instructions: String) -> Self {
        Self {
            agent,
            messages: vec![Message::system(prompt!(HOUSE)), Message::user(instructions)],
            repairs_left: config.repairs_max,
            answer_tokens_max: config.answer_tokens_max,
        }
    }

    /// Goes on with what we say.
    pub(super) fn say(&mut self, text: String) {
        self.messages.push(Message::user(text));
    }

    /// Asks until there is an answer that reads as `T` and that `check` takes; what is wrong with one is told to the model,
    /// so often as repairs are left.
    pub(super) async fn answer<T: DeserializeOwned, U>(
        &mut self,
        asker: &mut Asker<'_>,
        mut check: impl FnMut(T) -> Result<U, String>,
    ) -> Result<U, Ended> {
        loop {
            let answer = self.ask(asker).await?;
            let read = answer::read::<T>(&answer.text).and_then(&mut check);
            let complaint = match read {
                Ok(taken) => {
                    self.answered(answer.text, answer.reasoning);
                    return Ok(taken);
                }
                Err(why) if answer.is_whole => why,
                Err(why) => {
                    format!("it was cut off at {} tokens: be briefer ({why})", self.answer_tokens_max)
                }
            };
            if self.repairs_left == 0 {
                return Err(Ended::Useless(format!(
                    "the {} agent gives no answer that can be used: {complaint}",
                    self.agent
                )));
            }
            self.repairs_left -= 1;
            self.answered(answer.text, answer.reasoning);
            self.say(prompt!(REPAIR, complaint = &fenced(&complaint)));
        }
    }

    async fn ask(&mut self, asker: &mut Asker<'_>) -> Result<super::Answer, Ended> {
        let mut shortened = 0;
        loop {
            let request = ChatRequest {
                agent: self.agent.to_owned(),
                messages: self.messages.clone(),
                answer_tokens_max: self.answer_tokens_max,
            };
            match asker.ask(&request).await {
                Ok(answer) => return Ok(answer),
                Err(Unanswered::Spent(why)) => return Err(Ended::Spent(why)),
                Err(Unanswered::Away(why)) => return Err(Ended::Away(why)),
                Err(Unanswered::TooLong(why)) if shortened == SHORTENED_MAX => {
                    return Err(Ended::Useless(format!("nothing can be left out any more: {why}")));
                }
                Err(Unanswered::TooLong(_)) => {
                    shortened += 1;
                    self.shorten();
                }
            }
        }
    }

    /// Leaves half of every long text out, the system's apart.
    fn shorten(&mut self) {
        for message in self.messages.iter_mut().filter(|message| message.role != Speaker::System) {
            message.content = super::shown::clip(&message.content, (message.content.len() / 2).max(1000));
            message.reasoning = None;
        }
    }

    fn answered(&mut self, content: String, reasoning: Option<String>) {
        // An empty turn is refused by some endpoints.
        let content = if content.trim().is_empty() { "(nothing)".to_owned() } else { content };
        self.messages.push(Message { role: Speaker::Assistant, content, reasoning });
    }
}
