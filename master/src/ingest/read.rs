use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use serde_json::Value;

use super::columns::rows_of;
use super::lines::BYTE_ORDER_MARK;
use super::unpack::{Unpacked, unpacked};
use super::{Line, Lines, Refusal};

/// The longest line that is read; a task file may be as large.
const LINE_BYTES_MAX: usize = 64 << 20;

/// The largest file that is read at once, because it is one JSON document and not one a line.
const DOCUMENT_BYTES_MAX: u64 = 256 << 20;

/// One row of the input, or why there is none.
#[derive(Debug)]
pub struct Row {
    /// `line 7`, or `row 7` in a JSON document or a Parquet file.
    pub place: String,
    /// As it was in the input; empty where it was too long to keep.
    pub raw: Vec<u8>,
    /// As JSON.
    pub value: Result<Value, Refusal>,
}

/// A row whose line may not have been read as JSON.
#[derive(Debug)]
pub(crate) struct RawRow {
    pub(crate) place: String,
    pub(crate) raw: Vec<u8>,
    /// `None`: it was not.
    value: Option<Result<Value, Refusal>>,
}

impl RawRow {
    /// The line, if it was not read.
    pub(crate) fn unread(&self) -> Option<&[u8]> {
        self.value.is_none().then_some(&self.raw)
    }

    /// Reads it.
    pub(crate) fn read(self) -> Row {
        let Self { place, raw, value } = self;
        let read = || serde_json::from_slice(&raw).map_err(|e| Refusal::whole(malformed(&e)));
        let value = value.unwrap_or_else(read);
        Row { place, raw, value }
    }
}

/// Reads rows: one a line (JSONL), or a JSON document that is one row or a list of rows.
///
/// The content decides, not the name: a document begins with `[`, or with `{` alone in its line.
pub struct Rows<'a> {
    source: Source<'a>,
}

enum Source<'a> {
    Lines { lines: Lines<Box<dyn Read + 'a>>, first: Option<Line> },
    Values { rows: Box<dyn Iterator<Item = io::Result<Value>> + 'a>, read: u64 },
    Broken(Option<RawRow>),
}

impl Rows<'static> {
    /// Of a file, which may be packed with gzip or zstd, or a Parquet file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::other("it is a directory; name the files in it"));
        }
        match unpacked(file)? {
            Unpacked::Text(input) => Self::new(input),
            Unpacked::Columns => {
                Ok(Self { source: Source::Values { rows: rows_of(File::open(path)?)?, read: 0 } })
            }
        }
    }
}

impl<'a> Rows<'a> {
    /// From the beginning of `input`.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn new(input: impl Read + 'a) -> io::Result<Self> {
        Self::of_lines(input, LINE_BYTES_MAX)
    }

    fn of_lines(input: impl Read + 'a, line_bytes_max: usize) -> io::Result<Self> {
        let mut input = BufReader::new(input);
        // All of it may be one line, and longer than a row may be.
        let begin = input.fill_buf()?;
        let mark = if begin.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        if begin[mark..].trim_ascii_start().starts_with(b"[") {
            input.consume(mark);
            return Ok(Self { source: document(Vec::new(), input)? });
        }
        let input: Box<dyn Read + 'a> = Box::new(input);
        let mut lines = Lines::new(input, line_bytes_max);
        let first = next_filled(&mut lines)?;
        let source = match first {
            Some(Line::Text(_, text)) if text == b"{" || text.starts_with(b"[") => {
                document([&text[..], b"\n"].concat(), lines.into_rest())?
            }
            first => Source::Lines { lines, first },
        };
        Ok(Self { source })
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn next_row(&mut self) -> io::Result<Option<Row>> {
        Ok(self.next_raw()?.map(RawRow::read))
    }

    /// The next row, without reading its line as JSON; `None` at the end.
    pub(crate) fn next_raw(&mut self) -> io::Result<Option<RawRow>> {
        match &mut self.source {
            Source::Lines { lines, first } => {
                let line = match first.take() {
                    Some(line) => Some(line),
                    None => next_filled(lines)?,
                };
                Ok(line.map(raw_of))
            }
            Source::Values { rows, read } => {
                let Some(value) = rows.next().transpose()? else { return Ok(None) };
                *read += 1;
                let raw = value.to_string().into_bytes();
                Ok(Some(RawRow { place: format!("row {read}"), raw, value: Some(Ok(value)) }))
            }
            Source::Broken(row) => Ok(row.take()),
        }
    }
}

/// The next line that is not blank, without the blanks at its end.
fn next_filled<R: Read>(lines: &mut Lines<R>) -> io::Result<Option<Line>> {
    loop {
        match lines.next_line()? {
            Some(Line::Text(number, mut text)) => {
                text.truncate(text.trim_ascii_end().len());
                if !text.is_empty() {
                    return Ok(Some(Line::Text(number, text)));
                }
            }
            other => return Ok(other),
        }
    }
}

fn document<'a>(begun: Vec<u8>, rest: impl Read) -> io::Result<Source<'a>> {
    let mut bytes = begun;
    let rest = rest.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let whole = |why: String, raw| {
        let value = Some(Err(Refusal::whole(why)));
        Source::Broken(Some(RawRow { place: "document".to_owned(), raw, value }))
    };
    if rest as u64 > DOCUMENT_BYTES_MAX {
        let why =
            format!("it has more than {DOCUMENT_BYTES_MAX} bytes; write one row a line (JSONL) instead");
        return Ok(whole(why, Vec::new()));
    }
    Ok(match serde_json::from_reader(Cursor::new(&bytes)) {
        Ok(Value::Array(rows)) => Source::Values { rows: Box::new(rows.into_iter().map(Ok)), read: 0 },
        Ok(row) => Source::Values { rows: Box::new(std::iter::once(Ok(row))), read: 0 },
        Err(e) => whole(format!("malformed JSON: {e}"), bytes),
    })
}

fn raw_of(line: Line) -> RawRow {
    match line {
        Line::Text(number, raw) => RawRow { place: format!("line {number}"), raw, value: None },
        Line::TooLong(number) => {
            let why = format!("it is longer than {LINE_BYTES_MAX} bytes; the row was not kept");
            let value = Some(Err(Refusal::whole(why)));
            RawRow { place: format!("line {number}"), raw: Vec::new(), value }
        }
    }
}

/// The parser counts lines too, from the row's own beginning: only its column means something to people.
fn malformed(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("malformed JSON: {what} at column {}", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides_between_lines_and_documents() {
        let check = |input: &str, expected: &[&str]| {
            let mut rows = Rows::new(input.as_bytes()).expect("readable");
            let mut seen = Vec::new();
            while let Some(row) = rows.next_row().expect("readable") {
                let value = row.value.map_or_else(|why| why.to_string(), |value| value.to_string());
                seen.push(format!("{}: {value}", row.place));
            }
            assert_eq!(seen, expected, "{input}");
        };
        check("", &[]);
        check("{\"a\":1}\n\n{\"a\":2}\n", &["line 1: {\"a\":1}", "line 3: {\"a\":2}"]);
        check("{\n \"a\": 1\n}\n", &["row 1: {\"a\":1}"]);
        check("[{\"a\":1},\n{\"a\":2}]\n", &["row 1: {\"a\":1}", "row 2: {\"a\":2}"]);
        check("{\"a\":}\n7\n", &["line 1: malformed JSON: expected value at column 6", "line 2: 7"]);
        check("[1,\n", &["document: malformed JSON: EOF while parsing a value at line 2 column 0"]);
    }
    #[test]
    fn a_document_may_be_one_line_that_is_longer_than_a_row_may_be() {
        let mut rows = Rows::of_lines("\u{feff} [{\"a\": 123456789},7]".as_bytes(), 8).expect("readable");
        let first = rows.next_row().expect("readable").expect("a row");
        assert_eq!(first.value.expect("a row")["a"], 123_456_789);
        assert_eq!(rows.next_row().expect("readable").expect("a row").raw, b"7");
    }
}
