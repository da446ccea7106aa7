//! What GitHub's public schema says of the fields that are asked for, and a check of a query against it: fields that there
//! are, with the arguments that they take, selections where a type has fields and nowhere else, variables and fragments
//! that are declared and used.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Of each type its fields: a name, its arguments with their types, its own type. What is in capitals is a leaf's.
const TYPES: &[(&str, &[&str])] = &[
    ("Query", &["repository(owner: String! name: String! followRenames: Boolean): Repository"]),
    (
        "Repository",
        &[
            "databaseId: Int",
            "nameWithOwner: String!",
            "stargazerCount: Int!",
            "primaryLanguage: Language",
            "licenseInfo: License",
            "issue(number: Int!): Issue",
            "pullRequests(states: PullRequestState first: Int after: String orderBy: IssueOrder): PullRequestConnection",
        ],
    ),
    ("Language", &["name: String!"]),
    ("License", &["spdxId: String", "key: String!", "name: String!"]),
    ("PullRequestConnection", &["totalCount: Int!", "pageInfo: PageInfo", "nodes: PullRequest"]),
    ("PageInfo", &["hasNextPage: Boolean!", "endCursor: String"]),
    (
        "PullRequest",
        &[
            "number: Int!",
            "title: String!",
            "body: String!",
            "createdAt: DateTime!",
            "mergedAt: DateTime",
            "baseRefOid: GitObjectID!",
            "headRefOid: GitObjectID!",
            "closingIssuesReferences(first: Int after: String): IssueConnection",
            "commits(first: Int after: String): PullRequestCommitConnection",
        ],
    ),
    ("IssueConnection", &["totalCount: Int!", "pageInfo: PageInfo", "nodes: Issue"]),
    ("PullRequestCommitConnection", &["totalCount: Int!", "pageInfo: PageInfo", "nodes: PullRequestCommit"]),
    ("PullRequestCommit", &["commit: Commit"]),
    ("Commit", &["oid: GitObjectID!", "message: String!", "authoredDate: DateTime!"]),
    (
        "Issue",
        &[
            "number: Int!",
            "title: String!",
            "body: String!",
            "createdAt: DateTime!",
            "repository: Repository",
            "comments(first: Int after: String): IssueCommentConnection",
        ],
    ),
    ("IssueCommentConnection", &["totalCount: Int!", "pageInfo: PageInfo", "nodes: IssueComment"]),
    ("IssueComment", &["body: String!", "createdAt: DateTime!", "lastEditedAt: DateTime"]),
];

/// Fields of a connection take one page of at most a hundred, and must say how many.
const PAGE_MAX: u64 = 100;

/// What a word, a string or a sign of GraphQL is; commas are blanks.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = match first {
            '.' => 3,
            _ if word > 0 => word,
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        if !first.is_whitespace() && first != ',' {
            tokens.push(token.to_owned());
        }
        rest = after;
    }
    tokens
}

/// Reads a query, and looks up each name that it meets.
struct Check<'a> {
    tokens: Vec<String>,
    at: usize,
    variables: &'a Value,
    declared: BTreeMap<String, String>,
    used: BTreeSet<String>,
    spread: BTreeSet<String>,
    fragments: BTreeSet<String>,
}

type Checked<T> = Result<T, String>;

/// Checks a query and its variables; or tells what GitHub would say of it.
pub(crate) fn check(query: &str, variables: &Value) -> Checked<()> {
    let mut check = Check {
        tokens: tokens(query),
        at: 0,
        variables,
        declared: BTreeMap::new(),
        used: BTreeSet::new(),
        spread: BTreeSet::new(),
        fragments: BTreeSet::new(),
    };
    check.expect("query")?;
    if check.is_next("(") {
        check.declarations()?;
    }
    check.selection("Query")?;
    while check.at < check.tokens.len() {
        check.expect("fragment")?;
        let name = check.next()?;
        check.fragments.insert(name);
        check.expect("on")?;
        let kind = check.next()?;
        check.selection(&kind)?;
    }
    if check.fragments != check.spread {
        return Err(format!("fragments {:?} are there and {:?} used", check.fragments, check.spread));
    }
    let (declared, used): (BTreeSet<_>, _) = (check.declared.keys().cloned().collect(), check.used);
    let given: BTreeSet<_> =
        variables.as_object().into_iter().flat_map(|given| given.keys().cloned()).collect();
    if declared != used || !given.is_subset(&declared) {
        return Err(format!("variables {declared:?} are declared, {used:?} used, {given:?} given"));
    }
    Ok(())
}

impl Check<'_> {
    fn next(&mut self) -> Checked<String> {
        let token = self.tokens.get(self.at).cloned().ok_or("it ends too early")?;
        self.at += 1;
        Ok(token)
    }

    fn is_next(&self, token: &str) -> bool {
        self.tokens.get(self.at).is_some_and(|next| next == token)
    }

    fn expect(&mut self, token: &str) -> Checked<()> {
        let next = self.next()?;
        if next == token { Ok(()) } else { Err(format!("expected {token:?}, found {next:?}")) }
    }

    /// `($name: Type!, …)`, and whether what is given is of that type.
    fn declarations(&mut self) -> Checked<()> {
        self.expect("(")?;
        while !self.is_next(")") {
            self.expect("$")?;
            let name = self.next()?;
            self.expect(":")?;
            let mut kind = self.next()?;
            if self.is_next("!") {
                kind.push_str(&self.next()?);
            }
            let given = &self.variables[&name];
            let is_fit = match kind.as_str() {
                "String!" => given.is_string(),
                "String" => given.is_string() || given.is_null(),
                "Int!" => given.is_u64(),
                _ => false,
            };
            if !is_fit {
                return Err(format!("${name} is {given}, expected {kind}"));
            }
            self.declared.insert(name, kind);
        }
        self.expect(")")
    }

    /// `{ field … }` of a type.
    fn selection(&mut self, kind: &str) -> Checked<()> {
        let fields = TYPES.iter().find(|(name, _)| *name == kind).ok_or(format!("no type {kind}"))?.1;
        self.expect("{")?;
        while !self.is_next("}") {
            let mut name = self.next()?;
            if name == "..." {
                let fragment = self.next()?;
                self.spread.insert(fragment);
                continue;
            }
            if self.is_next(":") {
                self.next()?;
                name = self.next()?;
            }
            let is_it = |field: &&&str| field.split(['(', ':']).next() == Some(name.as_str());
            let field = fields.iter().find(is_it).ok_or(format!("{kind} has no field {name}"))?;
            let (head, own) = field.rsplit_once(": ").ok_or("a field without a type")?;
            let takes = head.split_once('(').map_or("", |(_, takes)| takes.trim_end_matches(')'));
            self.arguments(kind, &name, takes)?;
            let is_object = TYPES.iter().any(|(name, _)| *name == own);
            if is_object != self.is_next("{") {
                return Err(format!("{kind}.{name} is {own}: with fields or without?"));
            }
            if is_object {
                self.selection(own)?;
            }
        }
        self.expect("}")
    }

    /// `(name: value, …)`, of those that a field takes.
    fn arguments(&mut self, kind: &str, field: &str, takes: &str) -> Checked<()> {
        let takes = tokens(takes);
        let types: BTreeMap<&str, String> = takes
            .iter()
            .enumerate()
            .filter(|(at, _)| takes.get(at + 1).is_some_and(|next| next == ":"))
            .map(|(at, name)| (name.as_str(), takes[at + 2..].iter().take(2).cloned().collect::<Vec<_>>()))
            .map(|(name, own)| {
                (name, if own.get(1).is_some_and(|sign| sign == "!") { own.concat() } else { own[0].clone() })
            })
            .collect();
        let mut given = BTreeSet::new();
        if self.is_next("(") {
            self.next()?;
            while !self.is_next(")") {
                let name = self.next()?;
                let own = types.get(name.as_str()).ok_or(format!("{kind}.{field} takes no {name}"))?;
                self.expect(":")?;
                self.value(own).map_err(|why| format!("{kind}.{field}({name}): {why}"))?;
                given.insert(name);
            }
            self.next()?;
        }
        let is_page = types.contains_key("first");
        let missing = types.iter().find(|(name, own)| {
            (own.ends_with('!') || is_page && **name == "first") && !given.contains(**name)
        });
        missing.map_or(Ok(()), |(name, _)| Err(format!("{kind}.{field} needs {name}")))
    }

    fn value(&mut self, own: &str) -> Checked<()> {
        let value = self.next()?;
        let bare = own.trim_end_matches('!');
        let is_fit = match (value.as_str(), bare) {
            ("$", _) => {
                let name = self.next()?;
                let declared = self.declared.get(&name).ok_or(format!("${name} is not declared"))?;
                let is_page = bare == "Int" && own == bare;
                let is_fit = declared == own || declared.trim_end_matches('!') == own;
                let is_small =
                    !is_page || self.variables[&name].as_u64().is_some_and(|n| (1..=PAGE_MAX).contains(&n));
                self.used.insert(name);
                is_fit && is_small
            }
            (number, "Int") => number.parse().is_ok_and(|number: u64| (1..=PAGE_MAX).contains(&number)),
            (state, "PullRequestState") => ["OPEN", "CLOSED", "MERGED"].contains(&state),
            ("{", "IssueOrder") => {
                let order: Vec<String> = (0..6).map(|_| self.next()).collect::<Checked<_>>()?;
                let fields = ["CREATED_AT", "UPDATED_AT", "COMMENTS"];
                order[..2] == ["field", ":"]
                    && fields.contains(&order[2].as_str())
                    && order[3..5] == ["direction", ":"]
                    && ["ASC", "DESC"].contains(&order[5].as_str())
                    && self.next()? == "}"
            }
            _ => false,
        };
        if is_fit { Ok(()) } else { Err(format!("{value:?} is no {own}")) }
    }
}

#[test]
fn knows_what_github_would_refuse() {
    let tell = |query: &str, variables: Value, expected: &str| {
        let told = check(query, &variables).err().unwrap_or_default();
        assert!(told.contains(expected) && told.is_empty() == expected.is_empty(), "{query}: {told:?}");
    };
    let one = |field: &str| format!("query {{ repository(owner: $o, name: $o) {{ {field} }} }}");
    let with = |field: &str| one(field).replacen("query", "query ($o: String!)", 1);
    let given = || serde_json::json!({ "o": "x" });
    tell(&with("stargazerCount"), given(), "");
    tell(&with("a: licenseInfo { spdxId } b: licenseInfo { key }"), given(), "");
    tell(&with("starCount"), given(), "Repository has no field starCount");
    tell(&with("licenseInfo"), given(), "with fields or without");
    tell(&with("stargazerCount { name }"), given(), "with fields or without");
    tell(&with("pullRequests(first: 101) { totalCount }"), given(), "is no Int");
    tell(&with("pullRequests { totalCount }"), given(), "needs first");
    tell(&with("pullRequests(first: 1, states: DONE) { totalCount }"), given(), "is no PullRequestState");
    tell(&with("issue(id: 1) { title }"), given(), "takes no id");
    tell(&with("...Linked"), given(), "fragments");
    tell(&one("stargazerCount"), given(), "not declared");
    tell(&with("stargazerCount"), serde_json::json!({}), "expected String!");
    tell(&with("stargazerCount"), serde_json::json!({ "o": "x", "p": 1 }), "given");
    tell(with("stargazerCount").trim_end_matches(['}', ' ']), given(), "too early");
}
