use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// How long a token rests after a secondary limit that does not say so itself: GitHub asks for a minute at least.
const REST_MIN: Duration = Duration::from_secs(60);

/// The longest rest: what a server says beyond it is looked at again then.
const REST_MAX: Duration = Duration::from_secs(3600);

/// Tokens, and what each of them has left.
///
/// Of those that may be used and have the fewest requests under way the one with the most left is taken, so that all run
/// out together, and nothing waits while one of them has something left.
pub(super) struct Tokens(Vec<Token>);

/// Its secret is shown nowhere: it has no `Debug`.
struct Token {
    secret: String,
    is_refused: bool,
    requests: usize,
    /// By what GitHub calls a resource: `core`, `search`, `graphql`.
    budgets: BTreeMap<String, Budget>,
    resting_until: Timestamp,
    /// Secondary limits in a row.
    rests: u32,
}

#[derive(Clone, Copy)]
struct Budget {
    remaining: u64,
    resets_at: Timestamp,
}

/// What the headers of an answer say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) resource: Option<String>,
    pub(super) remaining: Option<u64>,
    pub(super) resets_at: Option<Timestamp>,
    pub(super) retry_after: Option<Duration>,
}

/// Which token to use.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This one.
    Use(usize),
    /// None before this time.
    Wait(Timestamp),
    /// None ever: all were refused.
    None,
}

impl Tokens {
    pub(super) fn new(secrets: Vec<String>) -> Self {
        let token = |secret| Token {
            secret,
            is_refused: false,
            requests: 0,
            budgets: BTreeMap::new(),
            resting_until: Timestamp::MIN,
            rests: 0,
        };
        Self(secrets.into_iter().map(token).collect())
    }

    /// How many may be used at all.
    pub(super) fn count(&self) -> usize {
        self.usable().count()
    }

    fn usable(&self) -> impl Iterator<Item = (usize, &Token)> {
        self.0.iter().enumerate().filter(|(_, token)| !token.is_refused)
    }

    /// Its secret, for one request, at the end of which it is taken back.
    pub(super) fn lend(&mut self, index: usize) -> String {
        self.0[index].requests += 1;
        self.0[index].secret.clone()
    }

    /// A request with it is over.
    pub(super) fn take_back(&mut self, index: usize) {
        self.0[index].requests -= 1;
    }

    pub(super) fn choose(&self, resource: &str, now: Timestamp) -> Choice {
        let free = self.usable().filter(|(_, token)| token.free_at(resource) <= now);
        let best =
            free.min_by_key(|(index, token)| (token.requests, u64::MAX - token.left(resource, now), *index));
        if let Some((index, _)) = best {
            return Choice::Use(index);
        }
        self.usable().map(|(_, token)| token.free_at(resource)).min().map_or(Choice::None, Choice::Wait)
    }

    /// Notes what an answer to a token's request says.
    pub(super) fn note(&mut self, index: usize, limits: &Limits) {
        let token = &mut self.0[index];
        token.rests = 0;
        if let Limits {
            resource: Some(resource),
            remaining: Some(remaining),
            resets_at: Some(resets_at),
            ..
        } = limits
        {
            token.budgets.insert(resource.clone(), Budget { remaining: *remaining, resets_at: *resets_at });
        }
    }

    /// Notes that a request was too much, by either limit.
    pub(super) fn refuse(&mut self, index: usize, limits: &Limits, now: Timestamp) {
        let rests = self.0[index].rests;
        self.note(index, limits);
        let token = &mut self.0[index];
        let is_primary = limits.remaining == Some(0) && limits.resets_at.is_some_and(|at| at > now);
        if limits.retry_after.is_some() || !is_primary {
            token.rests = rests + 1;
            let doubled = REST_MIN.saturating_mul(1 << rests.min(6));
            let rest = limits.retry_after.unwrap_or(doubled).min(REST_MAX);
            token.resting_until = now.checked_add(rest).unwrap_or(Timestamp::MAX);
        }
    }

    /// Forgets a token that the server does not know.
    pub(super) fn remove(&mut self, index: usize) {
        self.0[index].is_refused = true;
    }
}

impl Token {
    fn free_at(&self, resource: &str) -> Timestamp {
        let used_up = self.budgets.get(resource).filter(|budget| budget.remaining == 0);
        used_up.map_or(self.resting_until, |budget| self.resting_until.max(budget.resets_at))
    }

    /// What is not known, or was filled up since, counts as full.
    fn left(&self, resource: &str, now: Timestamp) -> u64 {
        let known = self.budgets.get(resource).filter(|budget| budget.resets_at > now);
        known.map_or(u64::MAX, |budget| budget.remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn limits(remaining: u64, resets_at: i64) -> Limits {
        let resource = Some("core".to_owned());
        Limits { resource, remaining: Some(remaining), resets_at: Some(at(resets_at)), retry_after: None }
    }

    fn two() -> Tokens {
        Tokens::new(vec!["a".to_owned(), "b".to_owned()])
    }

    #[test]
    fn takes_the_one_with_the_most_left() {
        let mut tokens = two();
        assert_eq!(tokens.choose("core", at(0)), Choice::Use(0));
        tokens.note(0, &limits(10, 100));
        assert_eq!(tokens.choose("core", at(0)), Choice::Use(1));
        tokens.note(1, &limits(9, 100));
        assert_eq!(tokens.choose("core", at(0)), Choice::Use(0));
        tokens.note(0, &limits(0, 100));
        assert_eq!(tokens.choose("core", at(0)), Choice::Use(1));
        assert_eq!(tokens.choose("graphql", at(0)), Choice::Use(0), "each resource has a budget of its own");
        tokens.note(1, &limits(0, 90));
        assert_eq!(tokens.choose("core", at(0)), Choice::Wait(at(90)));
        assert_eq!(tokens.choose("core", at(90)), Choice::Use(1));
    }

    #[test]
    fn rests_as_long_as_it_is_told_and_longer_each_time_where_it_is_not() {
        let mut tokens = Tokens::new(vec!["a".to_owned()]);
        let told = Limits { retry_after: Some(Duration::from_secs(7)), ..Limits::default() };
        tokens.refuse(0, &told, at(0));
        assert_eq!(tokens.choose("core", at(6)), Choice::Wait(at(7)));
        tokens.refuse(0, &Limits::default(), at(10));
        assert_eq!(tokens.choose("core", at(10)), Choice::Wait(at(130)));
        tokens.note(0, &Limits::default());
        tokens.refuse(0, &Limits::default(), at(200));
        assert_eq!(tokens.choose("core", at(200)), Choice::Wait(at(260)));
        tokens.refuse(0, &limits(0, 500), at(300));
        assert_eq!(tokens.choose("core", at(300)), Choice::Wait(at(500)), "used up, not too fast");
    }

    #[test]
    fn a_token_that_is_refused_is_not_asked_again() {
        let mut tokens = two();
        tokens.remove(0);
        assert_eq!((tokens.choose("core", at(0)), tokens.count()), (Choice::Use(1), 1));
        assert_eq!(tokens.lend(1), "b");
        tokens.remove(1);
        tokens.take_back(1);
        assert_eq!(tokens.choose("core", at(0)), Choice::None);
    }

    #[test]
    fn the_idle_one_goes_first() {
        let mut tokens = two();
        tokens.note(1, &limits(1, 100));
        tokens.lend(0);
        assert_eq!(tokens.choose("core", at(0)), Choice::Use(1));
        tokens.lend(1);
        assert_eq!(tokens.choose("core", at(0)), Choice::Use(0));
        tokens.take_back(1);
        assert_eq!(tokens.choose("core", at(0)), Choice::Use(1));
    }
}
