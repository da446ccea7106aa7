use std::error::Error;

/// An error and its causes, `: ` between them; a cause that is in the text before it already is not said twice.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    /// Causes followed.
    const DEPTH_MAX: usize = 16;
    let mut text = error.to_string();
    let causes = std::iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
    for cause in causes.take(DEPTH_MAX).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    #[test]
    fn says_everything_once() {
        let link = |text, cause: Option<Link>| Link(text, cause.map(Box::new));
        let error = link("cannot write x: disk full", Some(link("disk full", Some(link("errno 28", None)))));
        assert_eq!(chain(&error), "cannot write x: disk full: errno 28");
        assert_eq!(chain(&link("alone", None)), "alone");
    }
}
