use serde::Deserialize;
use serde_json::{Value, json};

use super::IssueLink;

/// How much is asked of each pull request: less where the server gives up on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// All.
    Whole,
    /// Few comments on each issue.
    FewComments,
    /// Neither its commits nor the issues that GitHub links.
    Bare,
}

impl Depth {
    fn comments(self) -> usize {
        if self == Self::Whole { 50 } else { 5 }
    }
}

/// What is asked of an issue; the comments are for hints.
fn issue_fragment(depth: Depth) -> String {
    format!(
        "fragment Linked on Issue {{
  number title body createdAt repository {{ nameWithOwner }}
  comments(first: {}) {{ totalCount nodes {{ body createdAt lastEditedAt }} }}
}}",
        depth.comments()
    )
}

/// What a query for a page asks of each pull request, beside what the others do.
const LINKS_AND_COMMITS: &str = "closingIssuesReferences(first: 10) { totalCount nodes { ...Linked } }
        commits(first: 50) { totalCount nodes { commit { oid message authoredDate } } }";

/// The text and the variables of the query for a page of the merged pull requests of a repository, the newest first, so
/// that those before a date can be left out.
pub(super) fn page(repo: &str, first: usize, after: Option<&str>, depth: Depth) -> (String, Value) {
    let (owner, name) = repo.split_once('/').unwrap_or((repo, ""));
    let variables = json!({ "owner": owner, "name": name, "first": first, "after": after });
    let (more, fragment) = match depth {
        Depth::Bare => ("", String::new()),
        _ => (LINKS_AND_COMMITS, issue_fragment(depth)),
    };
    let text = format!(
        "query ($owner: String!, $name: String!, $first: Int!, $after: String) {{
  repository(owner: $owner, name: $name) {{
    databaseId nameWithOwner stargazerCount primaryLanguage {{ name }} licenseInfo {{ spdxId }}
    pullRequests(states: MERGED, first: $first, after: $after, orderBy: {{field: CREATED_AT, direction: DESC}}) {{
      pageInfo {{ hasNextPage endCursor }}
      nodes {{
        number title body createdAt mergedAt baseRefOid headRefOid
        {more}
      }}
    }}
  }}
}}
{fragment}"
    );
    (text, variables)
}

/// The text and the variables of the query for what is next after a place, and for nothing else of it.
pub(super) fn place(repo: &str, after: Option<&str>) -> (String, Value) {
    let (owner, name) = repo.split_once('/').unwrap_or((repo, ""));
    let variables = json!({ "owner": owner, "name": name, "after": after });
    let text = "query ($owner: String!, $name: String!, $after: String) {
  repository(owner: $owner, name: $name) {
    pullRequests(states: MERGED, first: 1, after: $after, orderBy: {field: CREATED_AT, direction: DESC}) {
      pageInfo { hasNextPage endCursor }
      nodes { number createdAt }
    }
  }
}";
    (text.to_owned(), variables)
}

/// The text and the variables of the query for issues; what there is not, or is a pull request, is null in the answer.
pub(super) fn issues(links: &[IssueLink], depth: Depth) -> (String, Value) {
    let mut variables = serde_json::Map::new();
    let (mut declared, mut asked) = (String::new(), String::new());
    for (index, link) in links.iter().enumerate() {
        let (owner, name) = link.repo.split_once('/').unwrap_or((&link.repo, ""));
        declared.push_str(&format!("$o{index}: String!, $n{index}: String!, $i{index}: Int!, "));
        asked.push_str(&format!(
            "  l{index}: repository(owner: $o{index}, name: $n{index}) {{ issue(number: $i{index}) {{ ...Linked }} }}\n"
        ));
        variables.insert(format!("o{index}"), owner.into());
        variables.insert(format!("n{index}"), name.into());
        variables.insert(format!("i{index}"), link.number.into());
    }
    (format!("query ({declared}) {{\n{asked}}}\n{}", issue_fragment(depth)), Value::Object(variables))
}

/// A list, as GraphQL wraps it; what nobody may see is null in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Nodes<T> {
    pub(super) total_count: usize,
    pub(super) nodes: Vec<Option<T>>,
}

impl<T> Nodes<T> {
    /// Whether there are more than were asked for.
    pub(super) fn is_cut(&self) -> bool {
        self.total_count > self.nodes.len()
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Repository {
    pub(super) database_id: Option<u64>,
    pub(super) name_with_owner: String,
    pub(super) stargazer_count: u64,
    pub(super) primary_language: Option<Language>,
    pub(super) license_info: Option<Licence>,
    pub(super) pull_requests: Page<Pull>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Language {
    pub(super) name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Licence {
    pub(super) spdx_id: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page<T> {
    pub(super) page_info: PageInfo,
    pub(super) nodes: Vec<Option<T>>,
}

/// A repository of which nothing else was asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Places {
    pub(super) pull_requests: Page<Place>,
}

/// What tells one pull request from others.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) created_at: jiff::Timestamp,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageInfo {
    pub(super) has_next_page: bool,
    pub(super) end_cursor: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pull {
    pub(super) number: u64,
    pub(super) title: String,
    pub(super) body: Option<String>,
    pub(super) created_at: jiff::Timestamp,
    pub(super) merged_at: Option<jiff::Timestamp>,
    pub(super) base_ref_oid: String,
    pub(super) head_ref_oid: String,
    pub(super) closing_issues_references: Option<Nodes<Issue>>,
    pub(super) commits: Option<Nodes<Commit>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Commit {
    pub(super) commit: CommitText,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CommitText {
    pub(super) oid: String,
    pub(super) message: String,
    pub(super) authored_date: jiff::Timestamp,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Issue {
    pub(super) number: u64,
    pub(super) title: String,
    pub(super) body: Option<String>,
    pub(super) created_at: jiff::Timestamp,
    pub(super) repository: Named,
    pub(super) comments: Nodes<Comment>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Named {
    pub(super) name_with_owner: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comment {
    pub(super) body: String,
    pub(super) created_at: jiff::Timestamp,
    pub(super) last_edited_at: Option<jiff::Timestamp>,
}
