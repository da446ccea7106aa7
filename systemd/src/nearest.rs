/// The candidate that a misspelt word most likely meant; `None` where none is near.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below it, words have little more in common than some letters (Jaro-Winkler similarity, 0 to 1).
    const SIMILARITY_MIN: f64 = 0.75;
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let keys = ["grace_seconds", "period_seconds", "deletions_max", "engine"];
        let check = |word: &str, expected: Option<&str>| assert_eq!(nearest(word, keys), expected, "{word}");
        check("grace", Some("grace_seconds"));
        check("grace-seconds", Some("grace_seconds"));
        check("gracesecond", Some("grace_seconds"));
        check("peroid_seconds", Some("period_seconds"));
        check("max_deletions", Some("deletions_max"));
        check("Engine", Some("engine"));
        check("zzz", None);
        check("", None);
    }
}
