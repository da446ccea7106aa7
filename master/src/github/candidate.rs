use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::query::{CommitText, Issue, Nodes, Pull, Repository};
use super::{IssueLink, closed_issues};

fn commits(pull: &Pull) -> impl Iterator<Item = &CommitText> {
    pull.commits.iter().flat_map(|commits| commits.nodes.iter().flatten()).map(|commit| &commit.commit)
}

/// The issues that a pull request says it closes, in its title, its body and its commits, beside those that GitHub links.
pub(super) fn links(repo: &str, host: &str, pull: &Pull, linked: &[Issue]) -> Vec<IssueLink> {
    let messages = commits(pull).map(|commit| commit.message.as_str());
    let texts = [pull.title.as_str(), pull.body.as_deref().unwrap_or_default()];
    let mut links: Vec<_> =
        texts.into_iter().chain(messages).flat_map(|text| closed_issues(text, repo, host)).collect();
    links.sort();
    links.dedup();
    let is_linked = |link: &IssueLink| {
        let is_it = |issue: &Issue| {
            issue.number == link.number && issue.repository.name_with_owner.eq_ignore_ascii_case(&link.repo)
        };
        linked.iter().any(is_it)
    };
    links.retain(|link| !is_linked(link));
    links
}

/// The row of a pull request, but for its base and its diff.
pub(super) fn row(repository: &Repository, pull: &Pull, issues: &[Issue]) -> Value {
    let repo = &repository.name_with_owner;
    let first_commit = commits(pull).map(|commit| commit.authored_date).min();
    let told = |issue: &Issue| {
        let parts = [issue.title.trim(), issue.body.as_deref().unwrap_or_default().trim()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n")
    };
    let listed: Vec<Value> = issues
        .iter()
        .map(|issue| {
            let repo = &issue.repository.name_with_owner;
            json!({
                "repo": repo, "number": issue.number, "title": issue.title, "body": issue.body,
                "created_at": issue.created_at,
            })
        })
        .collect();
    let listed_commits: Vec<Value> = commits(pull)
        .map(|commit| {
            json!({ "oid": commit.oid, "message": commit.message, "authored_at": commit.authored_date })
        })
        .collect();
    json!({
        "instance_id": format!("{}-{}", repo.replace('/', "__"), pull.number),
        "repo": repo,
        "repo_id": repository.database_id.unwrap_or(0),
        "pull_number": pull.number,
        "base_commit": "",
        "end_commit": pull.head_ref_oid,
        "created_at": pull.created_at,
        "merged_at": pull.merged_at,
        "title": pull.title,
        "problem_statement": issues.iter().map(told).collect::<Vec<_>>().join("\n\n"),
        "hints_text": hints(issues, first_commit),
        "issues": listed,
        "commits": listed_commits,
        "truncated": truncated(pull, issues),
        "patch": "",
        "test_patch": "",
        // Where GitHub knows none, there is none: the filter must not take that for not known.
        "language": repository.primary_language.as_ref().map_or("none", |language| &language.name),
        "stars": repository.stargazer_count,
        "license": repository.license_info.as_ref().and_then(|licence| licence.spdx_id.as_deref()).unwrap_or("none"),
    })
}

/// The lists of a row that have not all that there is.
fn truncated(pull: &Pull, issues: &[Issue]) -> Vec<&'static str> {
    let commits = pull.commits.as_ref().is_none_or(Nodes::is_cut);
    let linked = pull.closing_issues_references.as_ref().is_none_or(Nodes::is_cut);
    let comments = issues.iter().any(|issue| issue.comments.is_cut());
    let lists = [("commits", commits), ("issues", linked), ("comments", comments)];
    lists.into_iter().filter_map(|(list, is_cut)| is_cut.then_some(list)).collect()
}

/// Each issue once: people name one in capitals, or by the name that its repository had then.
pub(super) fn distinct(issues: &mut Vec<Issue>) {
    let mut seen = HashSet::new();
    issues.retain(|issue| seen.insert((issue.repository.name_with_owner.to_lowercase(), issue.number)));
}

/// What was said about the issues before the first commit, and not changed since; what is later may tell the fix.
fn hints(issues: &[Issue], first_commit: Option<Timestamp>) -> String {
    let comments = issues.iter().flat_map(|issue| issue.comments.nodes.iter().flatten());
    let early = comments.filter(|comment| {
        let said_at = comment.last_edited_at.unwrap_or(comment.created_at);
        first_commit.is_some_and(|first| said_at < first)
    });
    early.map(|comment| comment.body.trim()).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_lists_were_cut() {
        let issue = |comments: usize| {
            json!({
                "number": 1, "title": "t", "body": "b", "createdAt": "2024-02-01T00:00:00Z",
                "repository": {"nameWithOwner": "o/n"}, "comments": {"totalCount": comments, "nodes": []},
            })
        };
        let check = |commits: Value, issues: Value, comments: usize, expected: &[&str]| {
            let pull = json!({
                "number": 2, "title": "t", "body": null, "createdAt": "2024-03-01T00:00:00Z", "mergedAt": null,
                "baseRefOid": "b", "headRefOid": "h", "commits": commits, "closingIssuesReferences": issues,
            });
            let pull: Pull = serde_json::from_value(pull).expect("a pull request");
            let issues: Vec<Issue> = vec![serde_json::from_value(issue(comments)).expect("an issue")];
            assert_eq!(truncated(&pull, &issues), expected, "{pull:?}");
        };
        let list = |total: usize| json!({ "totalCount": total, "nodes": [null] });
        check(list(1), list(1), 0, &[]);
        check(list(51), list(1), 0, &["commits"]);
        check(list(1), list(11), 0, &["issues"]);
        check(list(1), list(1), 51, &["comments"]);
        check(Value::Null, Value::Null, 0, &["commits", "issues"]);
    }
}
