//! Bytes as JSON text, one character a byte: what is text stays readable, and nothing is lost.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// For `#[serde(with)]`.
pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&to_text(bytes))
}

/// For `#[serde(with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    to_bytes(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("characters beyond U+00FF"))
}

/// Of the values of a map.
pub(crate) mod map {
    use std::collections::BTreeMap;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{to_bytes, to_text};

    /// For `#[serde(with)]`.
    pub(crate) fn serialize<S: Serializer>(
        map: &BTreeMap<String, Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(key, bytes)| (key, to_text(bytes))))
    }

    /// For `#[serde(with)]`.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Vec<u8>>, D::Error> {
        let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
        let bytes = texts.into_iter().map(|(key, text)| Some((key, to_bytes(&text)?)));
        bytes.collect::<Option<_>>().ok_or_else(|| D::Error::custom("characters beyond U+00FF"))
    }
}

/// Of files by their names, in their order.
pub(crate) mod files {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{to_bytes, to_text};

    /// For `#[serde(with)]`.
    pub(crate) fn serialize<S: Serializer>(
        files: &[(String, Vec<u8>)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(files.iter().map(|(name, bytes)| (name, to_text(bytes))))
    }

    /// For `#[serde(with)]`.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, Vec<u8>)>, D::Error> {
        let texts = Vec::<(String, String)>::deserialize(deserializer)?;
        let bytes = texts.into_iter().map(|(name, text)| Some((name, to_bytes(&text)?)));
        bytes.collect::<Option<_>>().ok_or_else(|| D::Error::custom("characters beyond U+00FF"))
    }
}

fn to_text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn to_bytes(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(c).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(to_bytes(&to_text(&all)), Some(all));
        assert_eq!(to_text(b"plain\n"), "plain\n");
        assert_eq!(to_bytes("\u{100}"), None);
    }
}
