//! Endpoints that fail in every way they can: no call is lost, and none is given another's answer.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::model::{Asked, Model, Say};
use worker::agents::{
    AgentsConfig, CallError, ChatRequest, EndpointConfig, Llm, Message, Pool, Surroundings,
};

pub(crate) fn clock() -> Duration {
    static BEGUN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    BEGUN.elapsed()
}

/// Spread over 0 to 1, the same in each run.
pub(crate) fn random() -> f64 {
    static NTH: AtomicUsize = AtomicUsize::new(0);
    let nth = NTH.fetch_add(1, Ordering::Relaxed) as u32;
    f64::from(nth.wrapping_mul(2_654_435_769)) / f64::from(u32::MAX)
}

pub(crate) fn endpoint(model: &Model, name: &str) -> EndpointConfig {
    EndpointConfig {
        name: name.to_owned(),
        url: model.url(),
        model: "scripted".to_owned(),
        ..EndpointConfig::default()
    }
}

pub(crate) fn pool_with_keys(
    endpoints: Vec<EndpointConfig>,
    change: fn(&mut AgentsConfig),
    keys: Option<&std::path::Path>,
) -> Pool {
    let mut config = AgentsConfig { endpoints, ..AgentsConfig::default() };
    change(&mut config);
    let credentials_dir = keys.map(ToOwned::to_owned);
    Pool::new(&config, Surroundings { credentials_dir, clock, random }, None).expect("a pool")
}

pub(crate) fn pool(endpoints: Vec<EndpointConfig>, change: fn(&mut AgentsConfig)) -> Pool {
    pool_with_keys(endpoints, change, None)
}

pub(crate) fn question(text: &str) -> ChatRequest {
    ChatRequest {
        agent: "explore".to_owned(),
        messages: vec![Message::system("house".to_owned()), Message::user(text.to_owned())],
        answer_tokens_max: 100,
        tools: Vec::new(),
    }
}

pub(crate) fn echo(body: &serde_json::Value) -> String {
    format!("answer to {}", body["messages"][1]["content"].as_str().unwrap_or_default())
}

/// What the model of the tests says that a call took, at a dollar for a million tokens of either kind: its tokens.
fn price(body: &serde_json::Value, answer: &str) -> u64 {
    (body["messages"].to_string().len() / 4 + answer.len() / 4 + 1) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_two_hundred_calls_loses_nothing() {
    const EACH: usize = 100;
    let storm = |asked: &Asked| {
        let answer = Say::Text(echo(&asked.body));
        let say = match asked.nth % 10 {
            0 => Say::Status(429, Some("0.2"), "slow down".to_owned()),
            1 => Say::Status(500, None, "oops".to_owned()),
            2 if asked.nth < 60 => Say::Hang,
            3 => Say::CutOff("answer to nobody".to_owned()),
            4 if asked.nth.is_multiple_of(3) => Say::Garbage,
            5 => Say::After(Duration::from_millis(20), Box::new(answer)),
            _ => answer,
        };
        // Nothing is said before all are on their way.
        if asked.nth < EACH { Say::Together(EACH, Box::new(say)) } else { say }
    };
    let models = [Model::begin(storm).expect("a port"), Model::begin(storm).expect("a port")];
    let endpoints = models.iter().enumerate().map(|(n, model)| EndpointConfig {
        concurrency_max: EACH as u32,
        timeout_seconds: 10,
        stream: n == 0,
        dollars_per_million_read: 1.0,
        dollars_per_million_written: 1.0,
        ..endpoint(model, &format!("storm-{n}"))
    });
    let config = AgentsConfig {
        endpoints: endpoints.collect(),
        tries_max: 60,
        call_seconds_max: 300,
        ..AgentsConfig::default()
    };
    let llm = Arc::new(Llm::new(&config, Surroundings { credentials_dir: None, clock, random }));
    let calls: Vec<_> = (0..models.len() * EACH)
        .map(|n| {
            let llm = llm.clone();
            tokio::spawn(async move { (n, llm.ask(&question(&format!("question {n}")), |_| None).await) })
        })
        .collect();
    let (mut answered, mut paid, mut least) = (HashSet::new(), 0, 0);
    for call in calls {
        let (n, (answer, used)) = call.await.expect("no panic");
        let answer = answer.unwrap_or_else(|error| panic!("{n} is lost: {error}"));
        assert_eq!(answer.text, format!("answer to question {n}"));
        assert!(answer.usage.read > 0 && answer.micro_dollars == used.cost.micro_dollars);
        paid += used.cost.micro_dollars;
        let asked = models.iter().flat_map(Model::asked).find(|asked| echo(&asked.body) == answer.text);
        least += price(&asked.expect("it was asked").body, &answer.text);
        answered.insert(n);
    }
    assert_eq!(answered.len(), models.len() * EACH);
    for model in &models {
        assert_eq!(model.at_once_max(), EACH, "as many as it may have, and no more");
    }
    assert_eq!(llm.fleet().here(), paid, "each call is paid once");
    assert!(paid > least, "answers that were cut off are paid too: {paid} {least}");
}

#[tokio::test]
async fn endpoints_are_chosen_by_weight() {
    const CALLS: usize = 400;
    async fn check(weights: &[u32], expected: &[usize]) {
        // Of this test alone, and so in order.
        static NTH: AtomicUsize = AtomicUsize::new(0);
        let even = || {
            f64::from((NTH.fetch_add(1, Ordering::Relaxed) as u32).wrapping_mul(2_654_435_769))
                / f64::from(u32::MAX)
        };
        let models: Vec<Model> =
            weights.iter().map(|_| Model::begin(|_| Say::Text("x".to_owned())).expect("a port")).collect();
        let endpoints = models.iter().zip(weights).enumerate().map(|(n, (model, weight))| EndpointConfig {
            weight: *weight,
            ..endpoint(model, &format!("one-{n}"))
        });
        let config = AgentsConfig { endpoints: endpoints.collect(), ..AgentsConfig::default() };
        let surroundings = Surroundings { credentials_dir: None, clock, random: even };
        let pool = Pool::new(&config, surroundings, None).expect("a pool");
        for _ in 0..CALLS {
            pool.ask(&question("?")).await.expect("answered");
        }
        for (model, expected) in models.iter().zip(expected) {
            let asked = model.asked().len();
            assert!(asked.abs_diff(*expected) <= 4, "{asked} of {weights:?}, expected {expected}");
        }
    }
    check(&[1, 1], &[200, 200]).await;
    check(&[3, 1], &[300, 100]).await;
    check(&[1, 0, 4], &[80, 0, 320]).await;
}

#[tokio::test]
async fn each_kind_of_failure_is_met_in_its_own_way() {
    let flaky = |first: Say| {
        Model::begin(
            move |asked| if asked.nth == 0 { first.clone() } else { Say::Text("at last".to_owned()) },
        )
        .expect("a port")
    };
    for first in [
        Say::Status(429, Some("0.1"), "slow".to_owned()),
        Say::Status(500, None, "oops".to_owned()),
        Say::Status(529, None, "overloaded".to_owned()),
        Say::CutOff("half".to_owned()),
        Say::Garbage,
        Say::Hang,
        Say::Status(200, None, "{\"error\":{\"message\":\"overloaded\",\"code\":503}}".to_owned()),
    ] {
        for stream in [true, false] {
            let model = flaky(first.clone());
            let one = EndpointConfig { stream, timeout_seconds: 1, ..endpoint(&model, "one") };
            let answer = pool(vec![one], |_| ()).ask(&question("?")).await;
            assert_eq!(answer.map(|answer| answer.text).as_deref(), Ok("at last"), "{first:?}");
            assert_eq!(model.asked().len(), 2, "{first:?}");
        }
    }
    let model = flaky(Say::Status(400, None, "maximum context length is 8192 tokens".to_owned()));
    let too_long = pool(vec![endpoint(&model, "one")], |_| ()).ask(&question("?")).await;
    assert!(matches!(too_long, Err(CallError::TooLong(_))), "{too_long:?}");
    assert_eq!(model.asked().len(), 1, "asking again is of no use");
}

#[tokio::test]
async fn one_that_is_down_is_left_alone_and_the_others_answer() {
    let down = Model::begin(|_| Say::Status(500, None, "oops".to_owned())).expect("a port");
    let up = Model::begin(|asked| Say::Text(echo(&asked.body))).expect("a port");
    let pool = pool(vec![endpoint(&down, "down"), endpoint(&up, "up")], |_| ());
    for n in 0..40 {
        let answer = pool.ask(&question(&format!("{n}"))).await.expect("answered");
        assert_eq!((answer.text, answer.endpoint.as_str()), (format!("answer to {n}"), "up"));
    }
    // Five strikes, and now and then one that looks whether it is up again.
    assert!((5..15).contains(&down.asked().len()), "{}", down.asked().len());
}

#[tokio::test]
async fn nobody_there_is_said_within_the_time_of_a_call() {
    let model = Model::begin(|_| Say::Hang).expect("a port");
    let one = EndpointConfig { timeout_seconds: 1, ..endpoint(&model, "one") };
    let asked = pool(vec![one], |config| config.call_seconds_max = 3).ask(&question("?")).await;
    let Err(CallError::Unavailable { tries, last, .. }) = asked else { panic!("{asked:?}") };
    assert!(tries > 0 && last.contains("no answer in time"), "{tries} {last}");
}

#[tokio::test]
async fn a_key_goes_to_its_endpoint_and_nowhere_else() {
    const KEY: &str = "sk-very-secret";
    let keys = tempfile::tempdir().expect("a directory");
    std::fs::write(keys.path().join("model.key"), format!("{KEY}\n")).expect("written");
    let model = Model::begin(|asked| match asked.nth {
        0 => Say::Status(401, None, format!("Incorrect API key provided: {KEY}")),
        _ => Say::Text(format!("your key is {KEY}")),
    })
    .expect("a port");
    let one = EndpointConfig { key: "model.key".to_owned(), ..endpoint(&model, "one") };
    let few = |config: &mut AgentsConfig| config.tries_max = 1;
    let pool = pool_with_keys(vec![one.clone()], few, Some(keys.path()));
    let refused = pool.ask(&question("?")).await.expect_err("it does not know the key");
    let said = format!("{refused} {refused:?}");
    assert!(said.contains("[key]") && !said.contains(KEY), "{said}");
    let pool = pool_with_keys(vec![one], few, Some(keys.path()));
    let answer = pool.ask(&question("?")).await.expect("answered");
    assert!(!format!("{answer:?}").contains(KEY), "{answer:?}");
    let sent: HashSet<_> = model.asked().into_iter().filter_map(|asked| asked.authorization).collect();
    assert_eq!(sent, [format!("Bearer {KEY}")].into());
}

#[tokio::test]
async fn paces_hold() {
    let model = Model::begin(|_| Say::Text("x".to_owned())).expect("a port");
    let one = EndpointConfig { requests_per_minute: 6, ..endpoint(&model, "one") };
    let pool = pool(vec![one], |config| config.call_seconds_max = 2);
    let mut answered = 0;
    for _ in 0..8 {
        answered += usize::from(pool.ask(&question("?")).await.is_ok());
    }
    assert_eq!((answered, model.asked().len()), (6, 6), "a minute's worth, and no more");
}

#[tokio::test]
async fn what_is_known_of_an_endpoint_outlives_a_reload() {
    let model = Model::begin(|_| Say::Text("x".to_owned())).expect("a port");
    let one = EndpointConfig { requests_per_minute: 2, ..endpoint(&model, "one") };
    let config = AgentsConfig { endpoints: vec![one], call_seconds_max: 1, ..AgentsConfig::default() };
    let surroundings = Surroundings { credentials_dir: None, clock, random };
    let first = Pool::new(&config, surroundings.clone(), None).expect("a pool");
    assert!(first.ask(&question("?")).await.is_ok() && first.ask(&question("?")).await.is_ok());
    let same = Pool::new(&config, surroundings.clone(), Some(&first)).expect("a pool");
    assert!(same.ask(&question("?")).await.is_err(), "its minute is used up");
    let mut changed = config;
    changed.endpoints[0].requests_per_minute = 3;
    let other = Pool::new(&changed, surroundings, Some(&same)).expect("a pool");
    assert!(other.ask(&question("?")).await.is_ok(), "it is another one now");
}

#[tokio::test]
async fn thoughts_go_back_to_whoever_needs_them() {
    let model = Model::begin(|_| Say::Thought("hm".to_owned(), "yes".to_owned())).expect("a port");
    for (stream, echo_reasoning) in [(true, true), (false, true), (true, false)] {
        let one = EndpointConfig { stream, echo_reasoning, ..endpoint(&model, "one") };
        let pool = pool(vec![one], |_| ());
        let answer = pool.ask(&question("?")).await.expect("answered");
        assert_eq!((answer.text.as_str(), answer.reasoning.as_deref()), ("yes", Some("hm")));
        let mut further = question("?");
        let (role, reasoning) = (worker::agents::Speaker::Assistant, answer.reasoning);
        further.messages.push(Message { role, content: answer.text, reasoning });
        pool.ask(&further).await.expect("answered");
        let asked = model.asked();
        let sent = asked.last().expect("asked").body["messages"][2].get("reasoning_content").cloned();
        assert_eq!(sent, echo_reasoning.then(|| "hm".into()));
    }
}
