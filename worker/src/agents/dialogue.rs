use serde::de::DeserializeOwned;

use super::AgentsConfig;
use super::answer;
use super::asker::{Asker, Unanswered};
use super::llm::{Answer, ChatRequest, Message, Speaker, Tool};
use super::prompt::{HOUSE, REPAIR, prompt};
use super::shown::{clip, fenced};
use crate::synthesis::BrainError;

/// No text is cut to less than this, in bytes.
const SHORTENED_BYTES_MIN: usize = 1000;
/// How often a conversation that is too long is shortened.
const SHORTENED_MAX: u32 = 3;

/// One agent's conversation: it begins with instructions, and ends with an answer that can be used.
pub(super) struct Dialogue {
    agent: &'static str,
    messages: Vec<Message>,
    repairs_left: u32,
    answer_tokens_max: u32,
    tools: Vec<Tool>,
    /// Texts that are never cut, by their marks.
    whole: &'static [&'static str],
}

/// Why a conversation ended without one.
#[derive(Debug)]
pub(super) enum Ended {
    /// The model cannot: in one sentence.
    Useless(String),
    Spent(String),
    Away(String),
    Alone(String),
    /// The tree cannot be read, or the journal not written.
    Node(BrainError),
}

/// What a question came to.
enum Asked {
    Answer(Answer),
    /// Nobody has an answer to it.
    Refused(String),
}

impl Dialogue {
    /// `instructions` is what the agent is to do, with what it is shown; made for so many bytes of each text.
    pub(super) fn new(agent: &'static str, config: &AgentsConfig, instructions: String) -> Self {
        Self {
            agent,
            messages: vec![Message::system(prompt!(HOUSE)), Message::user(instructions)],
            repairs_left: config.repairs_max,
            answer_tokens_max: config.answer_tokens_max,
            tools: Vec::new(),
            whole: &[],
        }
    }

    /// The same that shows texts with these marks whole, however long the conversation gets.
    pub(super) fn showing_whole(self, whole: &'static [&'static str]) -> Self {
        Self { whole, ..self }
    }

    /// The same with tools that may be called in place of an answer.
    pub(super) fn with(self, tools: Vec<Tool>) -> Self {
        Self { tools, ..self }
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
            let asked = self.ask(asker).await?;
            let is_refused = matches!(asked, Asked::Refused(_));
            let (said, complaint) = match asked {
                Asked::Answer(answer) => {
                    let read = answer::read::<T>(&answer.text).and_then(&mut check);
                    let complaint = match read {
                        Ok(taken) => {
                            asker.came_to(Ok(()));
                            self.answered(answer.text, answer.reasoning);
                            return Ok(taken);
                        }
                        Err(why) if answer.is_whole => why,
                        Err(why) => {
                            format!("it was cut off at {} tokens: be briefer ({why})", self.answer_tokens_max)
                        }
                    };
                    ((answer.text, answer.reasoning), complaint)
                }
                Asked::Refused(why) => ((String::new(), None), why),
            };
            if self.repairs_left == 0 {
                match is_refused {
                    true => asker.was_refused(&complaint),
                    false => asker.came_to(Err(&complaint)),
                }
                return Err(Ended::Useless(format!(
                    "the {} agent gave no answer that can be used, however often it was asked to mend it (repairs_max): {complaint}",
                    self.agent
                )));
            }
            self.repairs_left -= 1;
            self.answered(said.0, said.1);
            self.say(prompt!(REPAIR, complaint = &fenced(&complaint)));
        }
    }

    async fn ask(&mut self, asker: &mut Asker<'_>) -> Result<Asked, Ended> {
        let mut shortened = 0;
        loop {
            let request = ChatRequest {
                agent: self.agent.to_owned(),
                messages: self.messages.clone(),
                answer_tokens_max: self.answer_tokens_max,
                tools: self.tools.clone(),
            };
            match asker.ask(&request).await {
                Ok(answer) => return Ok(Asked::Answer(answer)),
                Err(Unanswered::Refused(why)) => return Ok(Asked::Refused(why)),
                Err(Unanswered::Unkept(error)) => return Err(Ended::Node(BrainError::Unkept(error))),
                Err(Unanswered::Spent(why)) => return Err(Ended::Spent(why)),
                Err(Unanswered::Away(why)) => return Err(Ended::Away(why)),
                Err(Unanswered::Alone(why)) => return Err(Ended::Alone(why)),
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

    /// Leaves half of every long text out, the system's apart. Of what we said only texts of others are cut, each between
    /// its marks: a mark that is left out would let what others say pass for ours.
    fn shorten(&mut self) {
        let whole = self.whole;
        for message in self.messages.iter_mut().filter(|message| message.role != Speaker::System) {
            message.content = match message.role {
                Speaker::Assistant => halved(&message.content),
                _ => halved_between_marks(&message.content, whole),
            };
            message.reasoning = None;
        }
    }

    fn answered(&mut self, content: String, reasoning: Option<String>) {
        // An empty turn is refused by some endpoints.
        let content = if content.trim().is_empty() { "(nothing)".to_owned() } else { content };
        self.messages.push(Message { role: Speaker::Assistant, content, reasoning });
    }
}

fn halved(text: &str) -> String {
    clip(text, (text.len() / 2).max(SHORTENED_BYTES_MIN))
}

fn halved_between_marks(said: &str, whole: &[&str]) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut within: Option<Vec<&str>> = None;
    for line in said.lines() {
        match (&mut within, line.strip_prefix(">>> ")) {
            (Some(text), Some(name)) => {
                let text = text.join("\n");
                shown.push(if whole.contains(&name) { text } else { halved(&text) });
                shown.push(line.to_owned());
                within = None;
            }
            (Some(text), None) => text.push(line),
            (None, _) => {
                within = line.starts_with("<<< ").then(Vec::new);
                shown.push(line.to_owned());
            }
        }
    }
    shown.extend(within.map(|text| halved(&text.join("\n"))));
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shortened_keeps_its_marks() {
        let text = |name: &str| format!("{name} begins\n{}{name} ends", "…\n".repeat(900));
        let said = format!(
            "Ours.\n\n<<< a\n{}\n>>> a\n\nOurs too:\n\n<<< b\n{}\n>>> b\n\nDo it.",
            text("a"),
            text("b")
        );
        let of_marks = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.is_empty() && !line.contains('…')).map(str::to_owned).collect()
        };
        let mut shown = said.clone();
        for _ in 0..SHORTENED_MAX {
            shown = halved_between_marks(&shown, &[]);
            assert_eq!(of_marks(&shown), of_marks(&said));
        }
        assert!(shown.len() < said.len() / 2, "{}", shown.len());
        let shown = halved_between_marks(&said, &["b"]);
        assert!(shown.contains(&text("b")) && !shown.contains(&text("a")), "{shown}");
    }
}
