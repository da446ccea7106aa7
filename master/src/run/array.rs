use std::io::{self, Read};

use crate::ingest::{Line, Lines};

/// The longest item, in bytes: it becomes part of an argument.
const ITEM_BYTES_MAX: usize = 100_000;

/// Items of one array; ids have room for more, but nobody has asked for it.
const ITEMS_MAX: u64 = 10_000_000;

/// The items of an array: the lines of a file that are not empty.
#[derive(Debug)]
pub struct Items<R> {
    lines: Lines<R>,
    items: u64,
}

/// Why the items end before the file does.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It cannot be read.
    #[error("it cannot be read beyond line {line}: {source}")]
    Read {
        /// The last that was.
        line: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A line is no item.
    #[error("line {line} {why}")]
    Line {
        /// Which.
        line: u64,
        /// What is wrong with it, and what to do.
        why: String,
    },
}

impl<R: Read> Items<R> {
    /// The lines of `input`.
    pub fn of(input: R) -> Self {
        Self { lines: Lines::new(input, ITEM_BYTES_MAX), items: 0 }
    }

    fn next_item(&mut self) -> Result<Option<String>, LineError> {
        loop {
            let next = self.lines.next_line();
            let next = next.map_err(|source| LineError::Read { line: self.lines.number(), source })?;
            let Some(next) = next else { return Ok(None) };
            let line = self.lines.number();
            let refuse = |why: String| Err(LineError::Line { line, why });
            let Line::Text(_, bytes) = next else {
                return refuse(format!(
                    "is longer than {ITEM_BYTES_MAX} bytes; put long items into files, and name those"
                ));
            };
            if bytes.contains(&0) {
                return refuse("holds a NUL character; one item a line is expected".to_owned());
            }
            let Ok(item) = String::from_utf8(bytes) else {
                return refuse("is not UTF-8; convert the file, for example with iconv".to_owned());
            };
            if item.is_empty() {
                continue;
            }
            self.items += 1;
            if self.items > ITEMS_MAX {
                return refuse(format!(
                    "is item {}, at most {ITEMS_MAX} are taken; split the file",
                    self.items
                ));
            }
            return Ok(Some(item));
        }
    }
}

impl<R: Read> Iterator for Items<R> {
    type Item = Result<String, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_item().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_item_and_what_is_none_is_named() {
        let check = |input: &[u8], expected: Result<&[&str], &str>| {
            let got: Result<Vec<String>, LineError> = Items::of(input).collect();
            match (got, expected) {
                (Ok(items), Ok(expected)) => assert_eq!(items, expected),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (got, expected) => panic!("{got:?}, expected {expected:?}"),
            }
        };
        check(b"", Ok(&[]));
        check(b"a\nb c\r\n\n\nd", Ok(&["a", "b c", "d"]));
        check(b" a \n \n", Ok(&[" a ", " "]));
        check(b"\xef\xbb\xbfa\r\n", Ok(&["a"]));
        check(&[b'x'; 100_000], Ok(&["x".repeat(100_000).as_str()]));
        check(&[b'x'; 100_001], Err("line 1 is longer"));
        check(b"a\n\xff\n", Err("line 2 is not UTF-8"));
        check(b"a\n\nb\0\n", Err("line 3 holds a NUL"));
    }
}
