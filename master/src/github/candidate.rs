use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::query::{CommitText, Issue, Pull, Repository};
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

/// The row of a pull request, but for its commits and its diff.
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
        "patch": "",
        "test_patch": "",
        // Where GitHub knows none, there is none: the filter must not take that for not known.
        "language": repository.primary_language.as_ref().map_or("none", |language| &language.name),
        "stars": repository.stargazer_count,
        "license": repository.license_info.as_ref().and_then(|licence| licence.spdx_id.as_deref()).unwrap_or("none"),
    })
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
