use crate::git::{Git, GitError};

/// What is read of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    /// Its whole name.
    pub(super) id: String,
    /// The name of its tree.
    pub(super) tree: String,
    /// Whether any came before it.
    pub(super) has_parents: bool,
    /// When it was made, in seconds since 1970.
    pub(super) seconds: i64,
}

/// Finds a commit; a git that cannot look is an error, not a no.
pub(super) async fn find(git: &Git, commit: &str) -> Result<Option<Commit>, GitError> {
    let asked = format!("{commit}^{{commit}}\n");
    match git.bytes(&["cat-file", "--batch"], asked.as_bytes()).await {
        Ok(printed) => Ok(parse(&String::from_utf8_lossy(&printed))),
        Err(error) if error.refusal().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

/// `<id> commit <size>` and the commit, which begins with lines of a word and its value, up to an empty line.
fn parse(printed: &str) -> Option<Commit> {
    let mut lines = printed.lines();
    let (id, _size) = lines.next()?.split_once(" commit ")?;
    let (mut tree, mut has_parents, mut seconds) = (None, false, 0);
    for line in lines.take_while(|line| !line.is_empty()) {
        match line.split_once(' ') {
            Some(("tree", name)) => tree = Some(name.to_owned()),
            Some(("parent", _)) => has_parents = true,
            // `name <address> <seconds> <zone>`
            Some(("committer", who)) => {
                seconds = who.rsplit(' ').nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(Commit { id: id.to_owned(), tree: tree?, has_parents, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_git_prints() {
        let check = |printed: &str, expected: Option<(&str, &str, bool, i64)>| {
            let found = parse(printed);
            let found = found.as_ref().map(|c| (c.id.as_str(), c.tree.as_str(), c.has_parents, c.seconds));
            assert_eq!(found, expected, "{printed}");
        };
        let first =
            "i commit 99\ntree t\nauthor a <a@x> 1 +0000\ncommitter b c <> 1700000000 +0100\n\ntree x\n";
        check(first, Some(("i", "t", false, 1_700_000_000)));
        let later = "i commit 9\ntree t\nparent p\nparent q\ncommitter b <b> -5 +0000\ngpgsig x\n y\n\n";
        check(later, Some(("i", "t", true, -5)));
        check("i commit 9\ntree t\nparent p\n", Some(("i", "t", true, 0)));
        check("i^{commit} missing\n", None);
        check("i^{commit} ambiguous\n", None);
        check("", None);
    }
}
