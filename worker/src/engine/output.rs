use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use futures_util::{Stream, StreamExt};
use tokio::task::JoinSet;

/// How long the last output of an ended container may take to arrive.
const LAST_OUTPUT_MAX: Duration = Duration::from_secs(2);

/// How a log ends that broke off on its way here.
const REST_IS_LOST: &str = "\n[… the engine sent no more of it …]\n";

/// What a container prints, gathered behind its back until this is dropped.
pub(super) struct Output {
    log: Arc<Mutex<HeadTail>>,
    /// Ends with whether it read all of it.
    pump: JoinSet<bool>,
}

impl Output {
    /// Of a stream of pieces; keeps `bytes_max` bytes at most.
    pub(super) fn of(
        mut pieces: impl Stream<Item = Result<LogOutput, Error>> + Send + Unpin + 'static,
        bytes_max: usize,
    ) -> Self {
        let log = Arc::new(Mutex::new(HeadTail::new(bytes_max)));
        let mut pump = JoinSet::new();
        pump.spawn({
            let log = Arc::clone(&log);
            async move {
                while let Some(piece) = pieces.next().await {
                    let Ok(piece) = piece else { return false };
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(&piece.into_bytes());
                }
                true
            }
        });
        Self { log, pump }
    }

    /// Of a stream that ends; `None` where it breaks off.
    pub(super) async fn whole(
        mut pieces: impl Stream<Item = Result<LogOutput, Error>> + Send + Unpin,
        bytes_max: usize,
    ) -> Option<Self> {
        let mut log = HeadTail::new(bytes_max);
        while let Some(piece) = pieces.next().await {
            log.push(&piece.ok()?.into_bytes());
        }
        Some(Self { log: Arc::new(Mutex::new(log)), pump: JoinSet::new() })
    }

    /// All of it, once the container has ended. Whatever is missing after a while is lost, and that is said: a container's
    /// pipes may outlive it only by a fault.
    pub(super) async fn text(mut self) -> String {
        let ended = tokio::time::timeout(LAST_OUTPUT_MAX, self.pump.join_next()).await;
        let is_whole = matches!(ended, Ok(None | Some(Ok(true))));
        let text = self.log.lock().unwrap_or_else(PoisonError::into_inner).text();
        if is_whole { text } else { text + REST_IS_LOST }
    }
}

/// Output of any length in bounded memory: its first and its last bytes, half of the limit each.
#[derive(Debug)]
pub(crate) struct HeadTail {
    half_bytes: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    seen_bytes: u64,
}

impl HeadTail {
    /// Keeps `bytes_max` bytes at most.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { half_bytes: bytes_max / 2, head: Vec::new(), tail: VecDeque::new(), seen_bytes: 0 }
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.seen_bytes += piece.len() as u64;
        let (first, rest) = piece.split_at(piece.len().min(self.half_bytes - self.head.len()));
        self.head.extend_from_slice(first);
        let rest = &rest[rest.len().saturating_sub(self.half_bytes)..];
        let excess = (self.tail.len() + rest.len()).saturating_sub(self.half_bytes);
        self.tail.drain(..excess);
        self.tail.extend(rest);
    }

    /// As text, with a line that says how much was cut where something was.
    pub(crate) fn text(&self) -> String {
        let kept = (self.head.len() + self.tail.len()) as u64;
        let mut bytes = self.head.clone();
        if self.seen_bytes > kept {
            let cut = self.seen_bytes - kept;
            bytes.extend_from_slice(format!("\n[… {cut} bytes cut here …]\n").as_bytes());
        }
        bytes.extend(&self.tail);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes_max: usize, pieces: &[&str], expected: &str) {
        let mut output = HeadTail::new(bytes_max);
        for piece in pieces {
            output.push(piece.as_bytes());
        }
        assert_eq!(output.text(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn says_where_it_broke_off() {
        use futures_util::stream::{iter, pending};
        let piece = || Ok(LogOutput::StdOut { message: "abc".into() });
        let broken = || Err(Error::RequestTimeoutError);
        assert_eq!(Output::of(iter([piece()]), 8).text().await, "abc");
        let lost = format!("abc{REST_IS_LOST}");
        assert_eq!(Output::of(iter([piece(), broken()]), 8).text().await, lost);
        assert_eq!(Output::of(iter([piece()]).chain(pending()), 8).text().await, lost);
        let whole = Output::whole(iter([piece()]), 8).await.expect("it ends");
        assert_eq!(whole.text().await, "abc");
        assert!(Output::whole(iter([piece(), broken()]), 8).await.is_none());
    }

    #[test]
    fn keeps_both_ends_and_says_what_it_cut() {
        check(8, &[], "");
        check(8, &["abc"], "abc");
        check(8, &["abcdefgh"], "abcdefgh");
        check(8, &["abcd", "ef", "gh"], "abcdefgh");
        check(8, &["abcdefghi"], "abcd\n[… 1 bytes cut here …]\nfghi");
        check(8, &["ab", "cdef", "ghij", "klmnopq"], "abcd\n[… 9 bytes cut here …]\nnopq");
        check(0, &["abc"], "\n[… 3 bytes cut here …]\n");
    }
}
