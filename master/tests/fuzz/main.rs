//! A moment of fuzzing of incoming rows: nasty texts, changed at random.

mod target;

use proptest::prelude::*;
use proptest::sample::Index;

const ROW: &str = r#"{"instance_id":"a__b-1","repo":"a/b","base_commit":"0000000000000000000000000000000000000000","problem_statement":"p","patch":"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n","test_patch":"diff --git a/test_x.py b/test_x.py\n--- a/test_x.py\n+++ b/test_x.py\n@@ -1 +1 @@\n-a\n+b\n"}"#;

/// Texts to begin with.
const CORPUS: &[&str] = &[
    ROW,
    "",
    "\n\n\r\n",
    "[",
    "[]",
    "[1, null, {}]",
    "{\n\"instance_id\": 1\n}",
    "{}{}",
    "\u{feff}{}",
    r#"{"instance_id":"../x","repo":"a/b"}"#,
    r#"{"kind":"build","instance":{}}"#,
    r#"{"kind":"build","instance":null,"format":18446744073709551616}"#,
    r#"{"fix_patch":1,"org":[],"number":-1}"#,
    r#"{"fix_patch":"","org":"a","repo":"b","number":1e99,"base":{"sha":0}}"#,
    r#"{"a":"\ud800"}"#,
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let little = proptest::collection::vec(any::<u8>(), 0..8);
    let changed = (proptest::sample::select(CORPUS), any::<Index>(), 0..5_u8, little).prop_map(
        |(text, at, how, with)| {
            let mut bytes = text.as_bytes().to_vec();
            let place = at.index(bytes.len() + 1);
            match how {
                0 => bytes.truncate(place),
                1 => drop(bytes.splice(place..place, with)),
                2 => drop(bytes.splice(place..bytes.len().min(place + with.len()), with)),
                3 => bytes.extend_from_within(..place),
                _ => bytes.extend([b"\n", text.as_bytes()].concat()),
            }
            bytes
        },
    );
    prop_oneof![4 => changed, 1 => proptest::collection::vec(any::<u8>(), 0..300)]
}

#[test]
fn rows() {
    for text in CORPUS {
        target::rows(text.as_bytes());
    }
    let config = ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(bytes in hostile())| target::rows(&bytes));
}
