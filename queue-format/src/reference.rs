//! Names of images, as every engine reads them: <https://pkg.go.dev/github.com/distribution/reference>.

/// The longest repository, with its registry, in bytes.
const REPOSITORY_BYTES_MAX: usize = 255;

/// The longest tag, in bytes.
const TAG_BYTES_MAX: usize = 128;

/// The shortest digest, in hexadecimal digits; that of SHA-256, which is the usual one, has 64.
const DIGEST_DIGITS_MIN: usize = 32;

/// Whether this is `[REGISTRY[:PORT]/]NAME[/NAME]…[:TAG][@ALGORITHM:DIGEST]`.
pub(crate) fn is_reference(text: &str) -> bool {
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    let (repository, tag) = repository_and_tag(named);
    let (registry, path) = match repository.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
        _ => (None, repository),
    };
    repository.len() <= REPOSITORY_BYTES_MAX
        && registry.is_none_or(is_registry)
        && path.split('/').all(is_name)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

/// The parts of a name without digest; a colon before a slash is that of a port.
#[must_use]
pub fn repository_and_tag(named: &str) -> (&str, Option<&str>) {
    match named.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (named, None),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(is_label)
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case words with `.`, `_`, `__` or hyphens between them.
fn is_name(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators = text.split(|c: char| c.is_ascii() && is_word(c as u8));
    let is_separator =
        |between: &str| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-');
    text.bytes().next().is_some_and(is_word)
        && text.bytes().last().is_some_and(is_word)
        && separators.into_iter().all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let is_first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= TAG_BYTES_MAX
        && text.bytes().next().is_some_and(is_first)
        && text.bytes().all(|b| is_first(b) || b == b'.' || b == b'-')
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else { return false };
    let is_word = |word: &str| {
        word.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && word.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let length = if algorithm == "sha256" { digits.len() == 64 } else { digits.len() >= DIGEST_DIGITS_MIN };
    algorithm.split(['+', '.', '-', '_']).all(is_word)
        && length
        && digits.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_reference_from_what_only_looks_like_one() {
        let digest = "0".repeat(64);
        for valid in [
            "debian",
            "debian:12",
            "a/b/c:v1.0-rc_2",
            "localhost/x",
            "localhost:5000/x",
            "registry.example:5000/a/b",
            "Registry.example/a",
            "my__image-name.x--y",
            &format!("debian@sha256:{digest}"),
            &format!("registry.example/debian:12@sha256:{digest}"),
        ] {
            assert!(is_reference(valid), "{valid}");
        }
        for invalid in [
            "",
            "-v",
            "a b",
            "Debian:12",
            "debian:",
            "debian:12:13",
            "debian:-1",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "a-",
            "x/B",
            ":5000/a",
            "a\nb",
            "registry.example:/a",
            "-x.example/a",
            "debian@sha256:12",
            "debian@",
            "debian@sha256",
            &format!("debian@sha256:{}", "0".repeat(63)),
            &format!("debian@sha256:{}", "A".repeat(64)),
            &format!("debian:{}", "x".repeat(129)),
            &"x".repeat(256),
        ] {
            assert!(!is_reference(invalid), "{invalid}");
        }
    }
}
