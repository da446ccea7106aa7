//! A moment of fuzzing in every run of the tests: a corpus of what has been nasty elsewhere, changed at random, and
//! plain random bytes.

mod targets;

use proptest::prelude::*;
use proptest::sample::Index;

/// Texts to begin with.
const CORPUS: &[&str] = &[
    "",
    "x.a001@n1~0.r0.json",
    "x.a4294967295.r4294967295.json",
    "x.a4294967296.r0.json",
    "x.a-1.r0.json",
    "x.a001@.r0.json",
    "x.a001@n1~0@n2~0.r0.json",
    "..json",
    "../x.json",
    ".nfs0000000012345678",
    "x\u{0}.json",
    "x\u{202e}nosj.json",
    "X.a001.r0.json",
    "5-build",
    "9-a-b",
    "55-build",
    "n1~0.18446744073709551615",
    "n1~0.18446744073709551616",
    "limits.toml\nclaims_per_node = 99999999999999999999",
    "limits.toml\n[claims_per_class]\n5-build = 1\n5-build = 2",
    "claims_per_node = 8",
    "[claims_per_class]\n\"5-build\" = 0",
    "uuid = \"00000000-0000-0000-0000-000000000000\"\nformat = 1\n",
    "uuid = \"00000000-0000-0000-0000-000000000000\"\nformat = 4294967296\n",
    "uuid = \"0\"\nformat = 1\n[timing]\nbeat_seconds = 0\n",
    "uuid = \"00000000-0000-0000-0000-000000000000\"\nformat = 1\n[timing]\nbeat_seconds = 9223372036854775807\n",
    r#"{"format":1,"id":"x","kind":"build","repository":"/m","instance":{"instance_id":"x","repo":"a/b","base_commit":"0000000000000000000000000000000000000000","problem_statement":"p","patch":"d","test_patch":"d"}}"#,
    r#"{"format":1e400,"id":"x"}"#,
    r#"{"format":1,"format":2,"id":"x","id":"y"}"#,
    r#"{"id":"\ud800"}"#,
    r#"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["#,
    "x.json\n{\"format\": 1, \"id\": \"to",
    "chunk.json",
    "\u{feff}{}",
];

fn change(text: &str, at: &Index, change: u8, with: &[u8]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let place = at.index(bytes.len() + 1);
    match change {
        0 => bytes.truncate(place),
        1 => drop(bytes.splice(place..place, with.iter().copied())),
        2 => drop(bytes.splice(place..bytes.len().min(place + with.len()), with.iter().copied())),
        3 => bytes.extend_from_within(..place),
        _ => {}
    }
    bytes
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let little = || proptest::collection::vec(any::<u8>(), 0..8);
    let changed = (proptest::sample::select(CORPUS), any::<Index>(), 0..5_u8, little())
        .prop_map(|(text, at, how, with)| change(text, &at, how, &with));
    prop_oneof![3 => changed, 1 => proptest::collection::vec(any::<u8>(), 0..300)]
}

fn fuzz(cases: u32, target: fn(&[u8])) {
    for text in CORPUS {
        target(text.as_bytes());
    }
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(bytes in hostile())| target(&bytes));
}

#[test]
fn names() {
    fuzz(20_000, targets::names);
}

#[test]
fn task_files() {
    fuzz(10_000, targets::task_file);
}

#[test]
fn limits() {
    fuzz(5_000, targets::limits);
}

#[test]
fn identities() {
    fuzz(500, targets::identity);
}

#[test]
fn foreign_files() {
    for place in 0..14 {
        for text in CORPUS {
            targets::foreign_file(&[&[place], text.as_bytes()].concat());
        }
    }
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(place in 0..14_u8, bytes in hostile())| {
        targets::foreign_file(&[&[place], &*bytes].concat());
    });
}
