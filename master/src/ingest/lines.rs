use std::io::{self, BufRead, BufReader, Read};

/// A line of input, without its line break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Its number, from 1, and its bytes.
    Text(u64, Vec<u8>),
    /// Longer than the limit; passed over.
    TooLong(u64),
}

/// Reads lines of at most `bytes_max` bytes; takes CRLF for LF, and skips a UTF-8 byte order mark.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    bytes_max: usize,
    number: u64,
}

pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl<R: Read> Lines<R> {
    /// From the beginning of `reader`.
    pub fn new(reader: R, bytes_max: usize) -> Self {
        Self { reader: BufReader::with_capacity(1 << 16, reader), bytes_max, number: 0 }
    }

    /// What has not been read as a line yet.
    pub fn into_rest(self) -> impl Read {
        self.reader
    }

    /// The number of the last line that was read.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        // Of what is cut off here, more than the limit is left without the mark and the line break.
        let limit = (BYTE_ORDER_MARK.len() + self.bytes_max + b"\r\n".len()) as u64;
        if self.reader.by_ref().take(limit).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let is_whole = bytes.pop_if(|last| *last == b'\n').is_some();
        bytes.pop_if(|last| *last == b'\r');
        if self.number == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        if bytes.len() <= self.bytes_max {
            return Ok(Some(Line::Text(self.number, bytes)));
        }
        if !is_whole {
            self.reader.skip_until(b'\n')?;
        }
        Ok(Some(Line::TooLong(self.number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8]) -> Vec<Line> {
        let mut lines = Lines::new(input, 8);
        std::iter::from_fn(|| lines.next_line().expect("readable")).collect()
    }

    #[test]
    fn reads_what_editors_and_other_systems_write() {
        let text = |n, t: &str| Line::Text(n, t.as_bytes().to_vec());
        let check = |input: &[u8], expected: &[Line]| assert_eq!(all(input), expected, "{input:?}");
        check(b"", &[]);
        check(b"a\nb\n", &[text(1, "a"), text(2, "b")]);
        check(b"a\nb", &[text(1, "a"), text(2, "b")]);
        check(b"\xef\xbb\xbfa\r\n\r\n  \nb\r\n", &[text(1, "a"), text(2, ""), text(3, "  "), text(4, "b")]);
        check(b"\xef\xbb\xbf12345678\r\nx", &[text(1, "12345678"), text(2, "x")]);
        check(b"\xef\xbb\xbf123456789\r\nx", &[Line::TooLong(1), text(2, "x")]);
        check(b"x\n12345678901234567\nx", &[text(1, "x"), Line::TooLong(2), text(3, "x")]);
        check(b"12345678\n123456789\nx\n", &[text(1, "12345678"), Line::TooLong(2), text(3, "x")]);
        check(b"123456789", &[Line::TooLong(1)]);
    }
}
