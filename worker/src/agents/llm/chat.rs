use serde::{Deserialize, Serialize};

/// A conversation that is to be gone on with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// Which agent asks.
    pub agent: String,
    /// What was said so far.
    pub messages: Vec<Message>,
    /// The longest answer, in tokens.
    pub answer_tokens_max: u32,
    /// What may be called in place of an answer, where the endpoint is configured to be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
}

/// Something that a model may call. A call comes as the answer `{"calls": [{"name": …, "arguments": {…}}]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// Its arguments, as JSON Schema has them.
    pub parameters: serde_json::Value,
}

/// One thing said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// By whom.
    pub role: Speaker,
    /// The words.
    pub content: String,
    /// What the model thought before it said them; sent back to endpoints that need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// Our instructions.
    System,
    /// We.
    User,
    /// The model.
    Assistant,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The words.
    pub text: String,
    /// What was thought before them, where the endpoint tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Whether the answer ended by itself; else it was cut off at its longest.
    pub is_whole: bool,
    /// What it took; with what tries took that gave no answer.
    pub usage: Usage,
    /// Who gave it.
    pub endpoint: String,
    /// The model that was asked.
    pub model: String,
    /// Its price, in millionths of a dollar.
    pub micro_dollars: u64,
    /// Tries that it took.
    pub tries: u32,
    /// Wall time, all tries and waiting included.
    pub seconds: f64,
}

/// Tokens of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Read, with those that the cache had.
    pub read: u64,
    /// Of those, what the endpoint's cache had.
    pub cached: u64,
    /// Written.
    pub written: u64,
    /// The endpoint did not tell: these are our own guess.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_guess: bool,
}

/// What was paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Tokens.
    pub usage: Usage,
    /// The price, in millionths of a dollar.
    pub micro_dollars: u64,
}

impl Cost {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.usage.read = self.usage.read.saturating_add(other.usage.read);
        self.usage.cached = self.usage.cached.saturating_add(other.usage.cached);
        self.usage.written = self.usage.written.saturating_add(other.usage.written);
        self.usage.is_guess |= other.usage.is_guess;
        self.micro_dollars = self.micro_dollars.saturating_add(other.micro_dollars);
    }
}

/// Bytes that make a token, roughly; only for what an endpoint does not tell.
const BYTES_PER_TOKEN: u64 = 4;

impl ChatRequest {
    /// About so many tokens will be read.
    #[must_use]
    pub fn tokens_guess(&self) -> u64 {
        self.messages.iter().map(|message| tokens_guess(&message.content)).sum()
    }
}

impl Message {
    /// Something that we say.
    #[must_use]
    pub fn user(content: String) -> Self {
        Self { role: Speaker::User, content, reasoning: None }
    }

    /// Our instructions.
    #[must_use]
    pub fn system(content: String) -> Self {
        Self { role: Speaker::System, content, reasoning: None }
    }
}

impl Usage {
    /// Read and written.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.read.saturating_add(self.written)
    }
}

pub(super) fn tokens_guess(text: &str) -> u64 {
    (text.len() as u64).div_ceil(BYTES_PER_TOKEN)
}
