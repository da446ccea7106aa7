/// An issue, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssueLink {
    /// `owner/name`.
    pub repo: String,
    /// Its number there.
    pub number: u64,
}

/// The words before a reference that make it one to an issue that is closed, as GitHub takes them.
const KEYWORDS: [&str; 9] =
    ["close", "closes", "closed", "fix", "fixes", "fixed", "resolve", "resolves", "resolved"];

/// The most references that are taken from one text.
const LINKS_MAX: usize = 20;

/// The issues that a text of `repo` says it closes: `fixes #1`, `Fixes: #1`, `closes owner/name#1`, `resolves GH-1`, and
/// with an issue's URL on `host`, whose issues are asked for; elsewhere the same path is another issue. What stands in a comment of HTML is a template's example, not the author's word.
#[must_use]
pub fn closed_issues(text: &str, repo: &str, host: &str) -> Vec<IssueLink> {
    let text = without_comments(text);
    let mut links = Vec::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let word_begin = &rest[start..];
        let end = word_begin.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(word_begin.len());
        let (word, after) = word_begin.split_at(end);
        rest = after;
        if !KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word)) {
            continue;
        }
        let after = after.strip_prefix(':').unwrap_or(after);
        let target = after.trim_start_matches([' ', '\t']);
        // `fix#1` is no reference: something has to stand between.
        if target.len() == rest.len() {
            continue;
        }
        if let Some(link) = link(target, repo, host).filter(|link| !links.contains(link)) {
            links.push(link);
        }
        if links.len() >= LINKS_MAX {
            break;
        }
    }
    links
}

fn link(target: &str, repo: &str, host: &str) -> Option<IssueLink> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '#');
    let target = &target[..target.find(|c| !is_part(c)).unwrap_or(target.len())];
    if let Some(path) = target.strip_prefix("https://").or(target.strip_prefix("http://")) {
        let mut parts = path.split('/');
        let named = parts.next()?;
        if !named.strip_prefix("www.").unwrap_or(named).eq_ignore_ascii_case(host) {
            return None;
        }
        let (owner, name) = (parts.next()?, parts.next()?);
        let number = parts.next().filter(|kind| *kind == "issues").and(parts.next())?;
        return Some(IssueLink { repo: format!("{owner}/{name}"), number: number_of(number)? });
    }
    if let Some(number) = target.strip_prefix("GH-").or(target.strip_prefix("gh-")) {
        return Some(IssueLink { repo: repo.to_owned(), number: number_of(number)? });
    }
    let (named, number) = target.split_once('#')?;
    let repo = match named.split_once('/') {
        None if named.is_empty() => repo.to_owned(),
        Some((owner, name)) if !owner.is_empty() && !name.is_empty() && !name.contains('/') => {
            named.to_owned()
        }
        _ => return None,
    };
    Some(IssueLink { repo, number: number_of(number)? })
}

/// The digits that a text begins with; what follows must not go on with the word.
fn number_of(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let follows = text[end..].chars().next();
    let number = text[..end].parse().ok().filter(|number| *number > 0)?;
    (!follows.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')).then_some(number)
}

fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<!--") {
        kept.push_str(before);
        rest = after.split_once("-->").map_or("", |(_, after)| after);
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_every_form_that_closes_an_issue() {
        let check = |text: &str, expected: &[(&str, u64)]| {
            let got = closed_issues(text, "o/n", "github.com");
            let got: Vec<_> = got.iter().map(|link| (link.repo.as_str(), link.number)).collect();
            assert_eq!(got, expected, "{text}");
        };
        check("fixes #1", &[("o/n", 1)]);
        check("It FIXES: #12, and closes   #3.", &[("o/n", 12), ("o/n", 3)]);
        check("Resolved GH-7", &[("o/n", 7)]);
        check("close other/repo.py#5)", &[("other/repo.py", 5)]);
        check("Fixes https://github.com/a/b/issues/9#issuecomment-1", &[("a/b", 9)]);
        check("fixed:\thttps://www.GitHub.com/a/b/issues/9/", &[("a/b", 9)]);
        let elsewhere = closed_issues("fixed:\thttps://forge.example/a/b/issues/9/", "o/n", "forge.example");
        assert_eq!(elsewhere, [IssueLink { repo: "a/b".to_owned(), number: 9 }]);
        check("closes #1 closes #1", &[("o/n", 1)]);
        check("fixes #1, #2", &[("o/n", 1)]);
        check("<!-- fixes #1 -->\ncloses #2 <!-- and", &[("o/n", 2)]);
        check("é fixes #4", &[("o/n", 4)]);
    }

    #[test]
    fn leaves_what_closes_nothing() {
        for text in [
            "",
            "see #1",
            "prefixes #1",
            "fix_it #1",
            "fixes#1",
            "fixes # 1",
            "fixes #0",
            "fixes #1a",
            "fixes 1",
            "fixes /b#1",
            "fixes a/b/c#1",
            "fixes https://github.com/a/b/pull/9",
            "fixes https://github.com/a",
            "fixes https://bitbucket.org/pypa/setuptools/issues/12",
            "fixes https://github.com.example/a/b/issues/9",
            "fixes #99999999999999999999999",
        ] {
            assert_eq!(closed_issues(text, "o/n", "github.com"), [], "{text}");
        }
    }
}
