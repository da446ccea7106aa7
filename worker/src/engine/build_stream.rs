use serde::Deserialize;

use super::output::HeadTail;

/// The longest line of the engine's answer that is read; a longer one is passed over.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What a classic build's answer says, taken piece by piece as it comes.
#[derive(Debug)]
pub(super) struct BuildStream {
    line: Vec<u8>,
    line_is_too_long: bool,
    log: HeadTail,
    error: Option<String>,
    is_built: bool,
}

#[derive(Deserialize)]
struct Message {
    stream: Option<String>,
    status: Option<String>,
    error: Option<String>,
    aux: Option<Aux>,
}

#[derive(Deserialize)]
struct Aux {
    #[serde(rename = "ID")]
    id: Option<String>,
}

impl BuildStream {
    pub(super) fn new(log_bytes_max: usize) -> Self {
        Self {
            line: Vec::new(),
            line_is_too_long: false,
            log: HeadTail::new(log_bytes_max),
            error: None,
            is_built: false,
        }
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            if self.line.len() + part.len() > LINE_BYTES_MAX {
                self.line_is_too_long = true;
                self.line.clear();
            }
            if !self.line_is_too_long {
                self.line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    /// Takes a sentence of our own.
    pub(super) fn note(&mut self, sentence: &str) {
        self.log.push(format!("{sentence}\n").as_bytes());
    }

    /// At the end of the answer: whether it named an image, or the sentence of the step that failed.
    pub(super) fn end(&mut self) -> Result<bool, String> {
        self.end_line();
        self.error.take().map_or(Ok(self.is_built), Err)
    }

    /// The output so far.
    pub(super) fn log(&self) -> String {
        self.log.text()
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.line_is_too_long) {
            self.note(&format!("[a line of more than {LINE_BYTES_MAX} bytes was passed over]"));
        }
        let Ok(message) = serde_json::from_slice::<Message>(&line) else { return };
        if let Some(text) = message.stream {
            self.is_built |= text.starts_with("Successfully built ");
            self.log.push(text.as_bytes());
        }
        if let Some(status) = message.status {
            self.note(&status);
        }
        if let Some(error) = message.error {
            self.note(&error);
            self.error = Some(error);
        }
        self.is_built |= message.aux.is_some_and(|aux| aux.id.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]], expected_end: &Result<bool, String>, expected_log: &str) {
        let mut stream = BuildStream::new(1 << 16);
        for piece in pieces {
            stream.push(piece);
        }
        assert_eq!(&stream.end(), expected_end);
        assert_eq!(stream.log(), expected_log);
    }

    #[test]
    fn reads_what_the_engine_says() {
        check(&[], &Ok(false), "");
        check(&[b"{\"stream\":\"a\\n\"}\r\n{\"str", b"eam\":\"b\\n\"}\r\n"], &Ok(false), "a\nb\n");
        check(&[b"{\"aux\":{\"ID\":\"sha256:1\"}}\r\n"], &Ok(true), "");
        check(&[b"{\"stream\":\"Successfully built 0123\\n\"}"], &Ok(true), "Successfully built 0123\n");
        check(
            &[b"{\"stream\":\"a\\n\"}\r\n{\"errorDetail\":{\"code\":1},\"error\":\"it returned 1\"}\r\n"],
            &Err("it returned 1".to_owned()),
            "a\nit returned 1\n",
        );
        check(&[b"no json\n{\"stream\":\"a\"}\n"], &Ok(false), "a");
    }

    #[test]
    fn an_endless_line_takes_no_memory() {
        let mut stream = BuildStream::new(1 << 10);
        for _ in 0..40 {
            stream.push(&[b'x'; LINE_BYTES_MAX / 16]);
            assert!(stream.line.len() <= LINE_BYTES_MAX);
        }
        stream.push(b"\n{\"stream\":\"after\"}\n");
        assert!(stream.log().ends_with("was passed over]\nafter"));
    }
}
