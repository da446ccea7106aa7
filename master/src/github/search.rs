use std::collections::HashSet;

use serde_json::Value;

use super::GithubError;
use super::client::Client;
use super::reader::{JSON, failed, parsed};

/// Repositories of a page of a search, and the pages that the server shows of one.
const PAGE: usize = 100;
const PAGES_MAX: usize = 10;

/// Times that a search is asked again of which the server did not look at everything.
const INCOMPLETE_MAX: u32 = 3;

/// A search whose stars are known, so that it can be asked for the rest: a server shows a thousand repositories of one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slice {
    /// The query without its stars.
    rest: String,
    stars_min: u64,
    stars_max: Option<u64>,
}

impl Slice {
    fn of(query: &str) -> Self {
        let (stars, rest): (Vec<&str>, Vec<&str>) =
            query.split_whitespace().partition(|word| word.starts_with("stars:"));
        let (stars_min, stars_max) =
            stars.last().and_then(|word| range(word.trim_start_matches("stars:"))).unwrap_or((0, None));
        Self { rest: rest.join(" "), stars_min, stars_max }
    }

    fn query(&self) -> String {
        let stars = match self.stars_max {
            None => format!("stars:>={}", self.stars_min),
            Some(max) => format!("stars:{}..{max}", self.stars_min),
        };
        format!("{} {stars}", self.rest).trim().to_owned()
    }
}

/// A range of numbers as GitHub's searches have them: `>1`, `>=1`, `<1`, `<=1`, `1..2`, `1..*`, `*..2`, `1`.
fn range(text: &str) -> Option<(u64, Option<u64>)> {
    let number = |text: &str| text.parse::<u64>().ok();
    if let Some((min, max)) = text.split_once("..") {
        let max = if max == "*" { None } else { Some(number(max)?) };
        return Some((if min == "*" { 0 } else { number(min)? }, max));
    }
    if let Some(min) = text.strip_prefix(">=") {
        return Some((number(min)?, None));
    }
    if let Some(max) = text.strip_prefix("<=") {
        return Some((0, Some(number(max)?)));
    }
    if let Some(below) = text.strip_prefix('>') {
        return Some((number(below)?.saturating_add(1), None));
    }
    if let Some(above) = text.strip_prefix('<') {
        return Some((0, Some(number(above)?.saturating_sub(1))));
    }
    number(text).map(|exactly| (exactly, Some(exactly)))
}

/// What was found of one slice.
struct Found {
    names: Vec<String>,
    /// Of the last one, which has the fewest.
    stars: u64,
    is_whole: bool,
}

/// Every repository that a search finds, the ones with the most stars first.
pub(super) async fn search(client: &Client, query: &str) -> Result<Vec<String>, GithubError> {
    let (mut slice, mut all, mut seen) = (Slice::of(query), Vec::new(), HashSet::new());
    loop {
        let Found { names, stars, is_whole } = pages(client, &slice.query()).await?;
        all.extend(names.into_iter().filter(|name| seen.insert(name.to_lowercase())));
        if is_whole {
            return Ok(all);
        }
        // Others may have as many as the last one.
        if slice.stars_max == Some(stars) {
            return Err(GithubError::TooMany { query: query.to_owned(), shown: PAGE * PAGES_MAX, stars });
        }
        slice.stars_max = Some(stars);
    }
}

async fn pages(client: &Client, query: &str) -> Result<Found, GithubError> {
    let mut found = Found { names: Vec::new(), stars: 0, is_whole: true };
    let quoted: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for page in 1..=PAGES_MAX {
        let path =
            format!("/search/repositories?q={quoted}&sort=stars&order=desc&per_page={PAGE}&page={page}");
        let body = whole_page(client, &path).await?;
        let items = body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        found.names.extend(items.iter().filter_map(|item| item["full_name"].as_str()).map(str::to_owned));
        if items.len() < PAGE {
            break;
        }
        found.stars = items.last().and_then(|item| item["stargazers_count"].as_u64()).unwrap_or(0);
        found.is_whole = body["total_count"].as_u64().is_none_or(|count| count <= found.names.len() as u64);
    }
    Ok(found)
}

async fn whole_page(client: &Client, path: &str) -> Result<Value, GithubError> {
    for _ in 0..INCOMPLETE_MAX {
        let answer = client.get(path, JSON, None).await?.map_err(|failure| failed(path, failure.why))?;
        let body = parsed(path, &answer)?;
        if body["incomplete_results"].as_bool() != Some(true) {
            return Ok(body);
        }
    }
    Err(failed(path, "the server has no time to look at everything; narrow the search".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stars_of_a_search_can_be_narrowed() {
        let check = |query: &str, min: u64, max: Option<u64>, narrowed: &str| {
            let slice = Slice::of(query);
            assert_eq!((slice.stars_min, slice.stars_max), (min, max), "{query}");
            let slice = Slice { stars_max: Some(70), ..slice };
            assert_eq!(slice.query(), narrowed, "{query}");
        };
        check("language:python", 0, None, "language:python stars:0..70");
        check("stars:>5 language:python", 6, None, "language:python stars:6..70");
        check("a stars:>=5", 5, None, "a stars:5..70");
        check("stars:<100", 0, Some(99), "stars:0..70");
        check("stars:<=100", 0, Some(100), "stars:0..70");
        check("stars:5..100", 5, Some(100), "stars:5..70");
        check("stars:*..100", 0, Some(100), "stars:0..70");
        check("stars:5..*", 5, None, "stars:5..70");
        check("stars:9", 9, Some(9), "stars:9..70");
    }
}
