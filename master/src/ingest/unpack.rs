use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;

const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const PARQUET: &[u8] = b"PAR1";

/// Bytes that tell what an input is.
const MAGIC_BYTES: u64 = 4;

/// What an input holds, if it is packed, whatever it is called; else the input itself.
pub(super) fn unpacked<'a>(mut input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut begin = Vec::new();
    input.by_ref().take(MAGIC_BYTES).read_to_end(&mut begin)?;
    if begin == PARQUET {
        return Err(io::Error::other("it is Parquet, which is not read; write it as JSONL first"));
    }
    if begin == ZSTD {
        return Err(io::Error::other("it is packed with zstd, which is not read; unpack it with: zstd -dc"));
    }
    let is_gzip = begin.starts_with(GZIP);
    let whole = BufReader::with_capacity(1 << 16, Cursor::new(begin).chain(input));
    // Parts that were packed by themselves may have been put together.
    Ok(if is_gzip { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).expect("packed");
        encoder.finish().expect("packed")
    }

    fn text_of(input: &[u8]) -> io::Result<String> {
        let mut text = String::new();
        unpacked(input)?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn content_tells_how_it_is_packed() {
        let check = |input: &[u8], expected: &str| assert_eq!(text_of(input).expect("whole"), expected);
        check(b"", "");
        check(b"{}", "{}");
        check(b"{\"a\": 1}\n", "{\"a\": 1}\n");
        check(&gzip("one\n"), "one\n");
        check(&[gzip("one\n"), gzip("two\n")].concat(), "one\ntwo\n");
    }

    #[test]
    fn what_is_cut_off_or_not_understood_is_said() {
        let check = |input: &[u8], expected: &str| {
            let why = text_of(input).expect_err(expected).to_string();
            assert!(why.contains(expected), "{why}");
        };
        let whole = gzip(&"rows\n".repeat(1000));
        check(&whole[..whole.len() - 9], "");
        check(b"PAR1", "Parquet");
        check(ZSTD, "zstd");
    }
}
