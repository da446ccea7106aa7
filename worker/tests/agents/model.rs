//! A model that says what a test tells it to: an endpoint that speaks the chat-completions protocol, well or badly.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The largest request that is read.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// How often a call that waits for others looks for them.
const LOOK_PERIOD: Duration = Duration::from_millis(5);
/// Pieces that a streamed answer comes in.
const PIECE_CHARS: usize = 7;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Which question it is, from 0.
    pub(crate) nth: usize,
    /// Which agent asks: `explore`, `dockerfile`, `script` or `analysis`; empty where none does.
    pub(crate) agent: &'static str,
    /// The whole body.
    pub(crate) body: Value,
    /// The `Authorization` header.
    pub(crate) authorization: Option<String>,
}

/// What to do about it.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    /// An answer.
    Text(String),
    /// An answer, after some thinking.
    Thought(String, String),
    /// Any status, with `Retry-After` where it has one, and a body.
    Status(u16, Option<&'static str>, String),
    /// Nothing, for ever.
    Hang,
    /// The beginning of an answer, and then the end of the connection.
    CutOff(String),
    /// No JSON.
    Garbage,
    /// An answer that took its time.
    After(Duration, Box<Say>),
    /// An answer that waits until so many calls have been on their way at once.
    Together(usize, Box<Say>),
    /// Calls of tools, by name and arguments.
    Calls(Vec<(&'static str, &'static str)>),
    /// A streamed answer with a pause before each piece.
    Slow(Duration, String),
    /// A streamed answer that is whole, after which the connection stays open.
    Open(String),
}

/// The endpoint; it ends with the process.
#[derive(Clone)]
pub(crate) struct Model {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Calls that are on their way now, and the most that ever were.
    at_once: Arc<(AtomicUsize, AtomicUsize)>,
}

type Answering = Arc<dyn Fn(&Asked) -> Say + Send + Sync>;

impl Model {
    /// Answers at an address of its own.
    ///
    /// # Errors
    /// There is no port, or no thread.
    pub(crate) fn begin(say: impl Fn(&Asked) -> Say + Send + Sync + 'static) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let model = Self { address: listener.local_addr()?, asked: Arc::default(), at_once: Arc::default() };
        let (serving, say): (_, Answering) = (model.clone(), Arc::new(say));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("model".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                while let Ok((client, _)) = listener.accept().await {
                    let (model, say) = (serving.clone(), say.clone());
                    tokio::spawn(async move { model.serve(client, say).await });
                }
            });
        })?;
        Ok(model)
    }

    /// Of each agent these answers, in their order; what is asked beyond them is refused.
    ///
    /// # Errors
    /// As for [`Model::begin`].
    pub(crate) fn scripted(answers: &[(&'static str, Say)]) -> io::Result<Self> {
        let left = Mutex::new(answers.to_vec());
        Self::begin(move |asked| {
            let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
            match left.iter().position(|(agent, _)| *agent == asked.agent) {
                Some(at) => left.remove(at).1,
                None => Say::Status(400, None, format!("nothing is left to say to {}", asked.agent)),
            }
        })
    }

    /// The API's root.
    #[must_use]
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// All that was asked so far.
    #[must_use]
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who asked, in order.
    #[must_use]
    pub(crate) fn agents(&self) -> Vec<&'static str> {
        self.asked().into_iter().map(|asked| asked.agent).collect()
    }

    /// The most calls that were on their way at once.
    #[must_use]
    pub(crate) fn at_once_max(&self) -> usize {
        self.at_once.1.load(Ordering::SeqCst)
    }

    async fn serve(&self, mut client: TcpStream, say: Answering) -> Option<()> {
        let (head, body) = read(&mut client).await?;
        let body: Value = serde_json::from_slice(&body).ok()?;
        let header = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("authorization").then(|| value.trim().to_owned())
        });
        let asked = {
            let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let agent = agent_of(&body);
            let nth = all.len();
            all.push(Asked { nth, agent, body, authorization: header });
            all.last()?.clone()
        };
        let now = self.at_once.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.at_once.1.fetch_max(now, Ordering::SeqCst);
        let mut say = say(&asked);
        while let Say::Together(count, then) = say {
            while self.at_once_max() < count {
                tokio::time::sleep(LOOK_PERIOD).await;
            }
            say = *then;
        }
        let said = answer(&mut client, &asked, say).await;
        self.at_once.0.fetch_sub(1, Ordering::SeqCst);
        said.ok()
    }
}

/// Prompts begin each in their own way.
fn agent_of(body: &Value) -> &'static str {
    let first = body["messages"][1]["content"].as_str().unwrap_or_default();
    let begins = [
        ("You are the explorer", "explore"),
        ("You write the Dockerfile", "dockerfile"),
        ("You choose how the tests", "script"),
        ("You judge one iteration", "analysis"),
    ];
    begins.into_iter().find(|(begin, _)| first.starts_with(begin)).map_or("", |(_, agent)| agent)
}

async fn read(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut piece = [0; 1 << 14];
        let read = client.read(&mut piece).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if bytes.len() > REQUEST_BYTES_MAX {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = bytes.split_off(end);
    let begun = body.len();
    body.resize(length?.min(REQUEST_BYTES_MAX), 0);
    client.read_exact(&mut body[begun..]).await.ok()?;
    Some((head, body))
}

async fn answer(client: &mut TcpStream, asked: &Asked, say: Say) -> io::Result<()> {
    match say {
        Say::After(wait, say) => {
            tokio::time::sleep(wait).await;
            Box::pin(answer(client, asked, *say)).await
        }
        // Until whoever asked hangs up.
        Say::Hang => client.read(&mut [0]).await.map(|_| ()),
        Say::Together(..) => Err(io::Error::other("it waits for others within an answer")),
        Say::Garbage => send(client, 200, None, "<html>it works</html>").await,
        Say::Status(status, after, body) => send(client, status, after, &body).await,
        Say::Text(text) => tell(client, asked, &text, None, true).await,
        Say::Thought(thought, text) => tell(client, asked, &text, Some(&thought), true).await,
        Say::CutOff(text) => tell(client, asked, &text, None, false).await,
        Say::Calls(calls) if asked.body["stream"] != json!(true) => {
            let calls = calls.into_iter().map(|(name, arguments)| {
                json!({ "id": name, "type": "function", "function": { "name": name, "arguments": arguments } })
            });
            let message = json!({ "content": null, "tool_calls": calls.collect::<Vec<_>>() });
            let body = json!({ "choices": [{ "message": message, "finish_reason": "tool_calls" }] });
            send(client, 200, None, &body.to_string()).await
        }
        Say::Calls(calls) => {
            begin_stream(client).await?;
            for (index, (name, arguments)) in calls.into_iter().enumerate() {
                let call =
                    |function: Value| json!({ "tool_calls": [{ "index": index, "function": function }] });
                event(client, &call(json!({ "name": name, "arguments": "" })), None).await?;
                let (first, second) = arguments.split_at(arguments.len() / 2);
                event(client, &call(json!({ "arguments": first })), None).await?;
                event(client, &call(json!({ "arguments": second })), None).await?;
            }
            event(client, &json!({}), Some("tool_calls")).await?;
            client.shutdown().await
        }
        Say::Slow(pause, text) => {
            let pieces = [&text[..text.len() / 2], &text[text.len() / 2..]];
            begin_stream(client).await?;
            for piece in pieces {
                tokio::time::sleep(pause).await;
                event(client, &json!({ "content": piece }), None).await?;
            }
            event(client, &json!({}), Some("stop")).await?;
            client.shutdown().await
        }
        Say::Open(text) => {
            begin_stream(client).await?;
            event(client, &json!({ "content": text }), Some("stop")).await?;
            std::future::pending().await
        }
    }
}

async fn send(client: &mut TcpStream, status: u16, after: Option<&str>, body: &str) -> io::Result<()> {
    let after = after.map(|after| format!("Retry-After: {after}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{after}Connection: close\r\n\r\n",
        body.len()
    );
    client.write_all(format!("{head}{body}").as_bytes()).await?;
    client.shutdown().await
}

async fn begin_stream(client: &mut TcpStream) -> io::Result<()> {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    client.write_all(head).await
}

async fn event(client: &mut TcpStream, delta: &Value, finish: Option<&str>) -> io::Result<()> {
    let event = json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] });
    client.write_all(format!("data: {event}\n\n").as_bytes()).await
}

async fn tell(
    client: &mut TcpStream,
    asked: &Asked,
    text: &str,
    thought: Option<&str>,
    whole: bool,
) -> io::Result<()> {
    let read = asked.body["messages"].to_string().len() / 4;
    let usage = json!({ "prompt_tokens": read, "completion_tokens": text.len() / 4 + 1 });
    if asked.body["stream"] != json!(true) {
        let message = json!({ "role": "assistant", "content": text, "reasoning_content": thought });
        let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
        let body = json!({ "choices": [choice], "usage": usage }).to_string();
        let sent = if whole { body.as_str() } else { &body[..body.len() / 2] };
        return send(client, 200, None, sent).await;
    }
    begin_stream(client).await?;
    let mut deltas = Vec::new();
    deltas.extend(thought.map(|thought| json!({ "reasoning_content": thought })));
    let chars: Vec<char> = text.chars().collect();
    deltas.extend(
        chars.chunks(PIECE_CHARS).map(|piece| json!({ "content": piece.iter().collect::<String>() })),
    );
    for delta in deltas {
        event(client, &delta, None).await?;
    }
    if whole {
        let end =
            json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }], "usage": usage });
        client.write_all(format!("data: {end}\n\ndata: [DONE]\n\n").as_bytes()).await?;
    }
    client.shutdown().await
}
