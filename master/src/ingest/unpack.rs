use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;

const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const PARQUET: &[u8] = b"PAR1";

/// Bytes that tell what an input is.
const MAGIC_BYTES: u64 = 4;

/// What a file is.
pub(super) enum Unpacked<'a> {
    /// Text: the input itself, or what it holds, if it is packed with gzip or zstd.
    Text(Box<dyn Read + 'a>),
    /// A Parquet file, which is read from its end.
    Columns,
}

/// The content tells what an input is, whatever it is called.
pub(super) fn unpacked<'a>(mut input: impl Read + 'a) -> io::Result<Unpacked<'a>> {
    let mut begin = Vec::new();
    input.by_ref().take(MAGIC_BYTES).read_to_end(&mut begin)?;
    if begin == PARQUET {
        return Ok(Unpacked::Columns);
    }
    let (is_gzip, is_zstd) = (begin.starts_with(GZIP), begin == ZSTD);
    let whole = BufReader::with_capacity(1 << 16, Cursor::new(begin).chain(input));
    // Parts that were packed by themselves may have been put together: both formats allow it.
    Ok(Unpacked::Text(if is_gzip {
        Box::new(MultiGzDecoder::new(whole))
    } else if is_zstd {
        Box::new(zstd::Decoder::with_buffer(whole)?)
    } else {
        Box::new(whole)
    }))
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
        let Unpacked::Text(mut input) = unpacked(input)? else { return Ok("columns".to_owned()) };
        let mut text = String::new();
        input.read_to_string(&mut text)?;
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
        let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("packed");
        check(&zstd("one\n"), "one\n");
        check(&[zstd("one\n"), zstd("two\n")].concat(), "one\ntwo\n");
        check(b"PAR1...", "columns");
    }

    #[test]
    fn what_is_cut_off_is_no_whole_input() {
        let text = "rows\n".repeat(1000);
        let whole = [gzip(&text), zstd::encode_all(text.as_bytes(), 1).expect("packed")];
        for whole in whole {
            assert_eq!(text_of(&whole).expect("whole"), text);
            assert!(text_of(&whole[..whole.len() - 9]).is_err());
        }
    }
}
