use serde_json::{Value, json};

use super::MISSING_FIELD;

/// What a row is, if it is one of GitHub's events, as dumps of them have them.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    /// None.
    No(Value),
    /// One that tells of no pull request that was merged just then.
    Other,
    /// The pull request that it tells of, as a row without diff and issues.
    Merged(Value),
}

/// Reads a row of `type` and `payload`.
pub(super) fn event(row: Value) -> Event {
    let (Some(kind), Some(payload)) = (row["type"].as_str(), row.get("payload").filter(|it| it.is_object()))
    else {
        return Event::No(row);
    };
    let pull = &payload["pull_request"];
    let is_merged = pull["merged"].as_bool().unwrap_or_else(|| pull["merged_at"].is_string());
    // A newer dump tells of a merge by an action of its own.
    let is_end = matches!(payload["action"].as_str(), Some("closed" | "merged"));
    if kind != "PullRequestEvent" || !is_end || !(is_merged || payload["action"] == "merged") {
        return Event::Other;
    }
    let base = &pull["base"]["repo"];
    let repo = row["repo"]["name"].as_str().or(base["full_name"].as_str()).unwrap_or_default();
    let number = payload["number"].as_u64().or(pull["number"].as_u64()).unwrap_or(0);
    Event::Merged(json!({
        "instance_id": format!("{}-{number}", repo.replace('/', "__")),
        "repo": repo,
        "repo_id": base["id"].as_u64().or(row["repo"]["id"].as_u64()).unwrap_or(0),
        "pull_number": number,
        "base_commit": pull["base"]["sha"],
        "end_commit": pull["head"]["sha"],
        "created_at": pull["created_at"],
        "title": pull["title"],
        "problem_statement": pull["body"],
        "patch": "",
        "test_patch": "",
        // Newer dumps leave these out: then they are not known.
        "stars": base["stargazers_count"],
        "language": base["language"],
        "license": base["license"],
        MISSING_FIELD: "an event has no diff: collect its repository with bottega ingest github",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_events_the_merged_pull_requests_count() {
        let merged = json!({
            "type": "PullRequestEvent", "repo": {"id": 7, "name": "a/b"}, "payload": {
                "action": "closed", "number": 3, "pull_request": {
                    "merged": true, "title": "t", "body": "x", "created_at": "2024-05-01T12:00:00Z",
                    "base": {"sha": "1", "repo": {"stargazers_count": 9, "language": "Python", "license": null}},
                    "head": {"sha": "2"},
                },
            },
        });
        let Event::Merged(row) = event(merged.clone()) else { panic!("merged") };
        let got = [&row["instance_id"], &row["base_commit"], &row["end_commit"], &row["stars"]];
        assert_eq!(got, [&json!("a__b-3"), &json!("1"), &json!("2"), &json!(9)]);
        let with = |change: fn(&mut Value)| {
            let mut changed = merged.clone();
            change(&mut changed);
            event(changed)
        };
        assert_eq!(with(|it| it["type"] = json!("PushEvent")), Event::Other);
        assert_eq!(with(|it| it["payload"]["action"] = json!("opened")), Event::Other);
        assert_eq!(with(|it| it["payload"]["pull_request"]["merged"] = json!(false)), Event::Other);
        let row = json!({ "type": "bug", "instance_id": "x" });
        assert_eq!(event(row.clone()), Event::No(row));
    }
}
