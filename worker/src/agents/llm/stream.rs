use super::Failure;
use super::wire::Reply;

/// The longest line of a stream, in bytes.
const LINE_BYTES_MAX: usize = 4 << 20;

/// Takes server-sent events apart, as they come in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    /// JSON over several lines: some endpoints do not stream whatever they are asked.
    plain: String,
    is_done: bool,
}

impl Events {
    /// Puts what the next bytes say into the answer.
    pub(super) fn take(&mut self, bytes: &[u8], reply: &mut Reply) -> Result<(), Failure> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_done || reply.is_full() {
                break;
            }
            self.line.extend_from_slice(part);
            if self.line.len() > LINE_BYTES_MAX {
                return Err(Failure::Garbled(format!(
                    "a line of its stream is longer than {LINE_BYTES_MAX} bytes"
                )));
            }
            if part.ends_with(b"\n") {
                self.end_line(reply)?;
            }
        }
        Ok(())
    }

    /// Whether the stream said that it is over.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// The connection ended: a last line may have no end.
    pub(super) fn close(&mut self, reply: &mut Reply) -> Result<(), Failure> {
        if self.is_done {
            return Ok(());
        }
        self.end_line(reply)?;
        if self.plain.is_empty() { Ok(()) } else { reply.take(&self.plain) }
    }

    fn end_line(&mut self, reply: &mut Reply) -> Result<(), Failure> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if !self.plain.is_empty() {
            self.plain.push_str(&line);
            return match self.plain.len() > LINE_BYTES_MAX {
                true => Err(Failure::Garbled("it is larger than any answer".to_owned())),
                false => Ok(()),
            };
        }
        // Comments keep connections alive; names and ids of events tell us nothing.
        let Some(data) = line.trim().strip_prefix("data:") else {
            // An endpoint may answer with an error as plain JSON all the same.
            return match serde_json::from_str::<serde::de::IgnoredAny>(&line) {
                Ok(_) if line.starts_with('{') => reply.take(line.trim()),
                _ if line.starts_with('{') => {
                    self.plain = line.into_owned();
                    Ok(())
                }
                _ => Ok(()),
            };
        };
        match data.trim() {
            "" => Ok(()),
            "[DONE]" => {
                self.is_done = true;
                Ok(())
            }
            data => reply.take(data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"reasoning_content\":\"hm\"}}]}\n\n\
        event: x\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"grü\"}}]}\r\n\r\n\
        data:{\"choices\":[{\"delta\":{\"content\":\"ße\"},\"finish_reason\":\"stop\"}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\ndata: garbage\n";

    #[test]
    fn pieces_of_any_size_make_the_same_answer() {
        for size in 1..STREAM.len() {
            let (mut events, mut reply) = (Events::default(), Reply::default());
            for piece in STREAM.as_bytes().chunks(size) {
                events.take(piece, &mut reply).unwrap();
            }
            events.close(&mut reply).unwrap();
            assert!(events.is_done());
            reply.check().unwrap();
            assert_eq!((reply.text.as_str(), reply.reasoning.as_deref()), ("grüße", Some("hm")), "{size}");
            assert_eq!(reply.usage.map(|usage| usage.total()), Some(5));
        }
    }

    #[test]
    fn what_breaks_off_is_no_answer() {
        for end in 1..STREAM.find("\"finish").unwrap() {
            let Some(text) = STREAM.get(..end) else { continue };
            let (mut events, mut reply) = (Events::default(), Reply::default());
            let taken = events.take(text.as_bytes(), &mut reply).and_then(|()| events.close(&mut reply));
            assert!(taken.and_then(|()| reply.check()).is_err(), "{text}");
        }
        let mut events = Events::default();
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert!(events.take(&long, &mut Reply::default()).is_err());
    }

    #[test]
    fn an_answer_that_is_not_streamed_is_read_too() {
        let check = |text: &str| {
            let (mut events, mut reply) = (Events::default(), Reply::default());
            events.take(text.as_bytes(), &mut reply).unwrap();
            events.close(&mut reply).unwrap();
            assert_eq!(reply.check().map(|()| reply.text.as_str()), Ok("hi"), "{text}");
        };
        let whole =
            serde_json::json!({ "choices": [{ "message": { "content": "hi" }, "finish_reason": "stop" }] });
        check(&whole.to_string());
        check(&format!("{whole}\n"));
        check(&serde_json::to_string_pretty(&whole).unwrap());
    }

    #[test]
    fn an_error_in_the_stream_is_told() {
        let check = |text: &str, expected: &str| {
            let (mut events, mut reply) = (Events::default(), Reply::default());
            let failure = events.take(text.as_bytes(), &mut reply).unwrap_err();
            assert!(format!("{failure:?}").starts_with(expected), "{failure:?}");
        };
        check("data: {\"error\":{\"message\":\"overloaded\",\"code\":503}}\n", "Server { status: 503");
        check("{\"error\":{\"message\":\"slow\",\"code\":429}}\n", "Busy");
        check("data: {not json}\n", "Garbled");
    }
}
