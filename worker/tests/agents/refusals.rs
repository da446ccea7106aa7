//! Endpoints that refuse: each refusal is met for what it is, and none takes other conversations along.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoints::{clock, echo, endpoint, pool, pool_with_keys, question, random};
use super::model::{Model, Say};
use worker::agents::{
    AgentsConfig, AnswerLimit, AskError, CallError, EndpointConfig, Llm, Pool, Surroundings, Used,
};

fn filtered() -> Say {
    let body = r#"{"choices":[{"message":{"content":"hm"},"finish_reason":"content_filter"}],
        "usage":{"prompt_tokens":1000,"completion_tokens":10}}"#;
    Say::Status(200, None, body.to_owned())
}

fn called() -> Say {
    let body = r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"x"}]},"finish_reason":"tool_calls"}]}"#;
    Say::Status(200, None, body.to_owned())
}

#[tokio::test]
async fn a_conversation_that_is_refused_harms_no_other_and_is_paid() {
    for refusal in [
        filtered(),
        called(),
        Say::Text(String::new()),
        Say::Status(
            400,
            None,
            r#"{"error":{"code":"content_filter","message":"the model's policy"}}"#.to_owned(),
        ),
        Say::Status(400, None, r#"{"error":{"code":"invalid_prompt"}}"#.to_owned()),
        Say::Status(422, None, "no".to_owned()),
        Say::Status(403, None, r#"{"error":{"message":"your input was flagged"}}"#.to_owned()),
    ] {
        let is_paid = matches!(&refusal, Say::Status(200, _, body) if body.contains("usage"));
        let said = refusal.clone();
        let model = Model::begin(move |asked| match echo(&asked.body).as_str() {
            "answer to hostile" => said.clone(),
            answer => Say::Text(answer.to_owned()),
        })
        .expect("a port");
        let one = EndpointConfig { dollars_per_million_read: 3.0, ..endpoint(&model, "one") };
        let only = pool(vec![one.clone()], |_| ());
        for n in 0..8 {
            let (asked, lost) = only.ask_counting(&question("hostile")).await;
            assert!(matches!(asked, Err(CallError::Unusable(_))), "{refusal:?}: {asked:?}");
            assert_eq!(lost.micro_dollars >= 3000, is_paid, "{refusal:?}: {lost:?}");
            assert_eq!(model.asked().len(), 2 * n + 1, "once is enough");
            let other = only.ask(&question("plain")).await.expect("nobody rests");
            assert_eq!(other.text, "answer to plain");
        }
        let other = Model::begin(|asked| Say::Text(echo(&asked.body))).expect("a port");
        let both = pool(vec![one, EndpointConfig { weight: 1, ..endpoint(&other, "other") }], |_| ());
        for _ in 0..4 {
            let answer = both.ask(&question("hostile")).await.expect("the other has no such filter");
            assert_eq!(answer.endpoint, "other");
        }
    }
}

#[tokio::test]
async fn too_long_for_one_is_not_too_long_for_all() {
    let small = Model::begin(|_| Say::Status(400, None, "maximum context length is 8192 tokens".to_owned()));
    let large = Model::begin(|asked| Say::Text(echo(&asked.body))).expect("a port");
    let small = endpoint(&small.expect("a port"), "small");
    let both = pool(vec![EndpointConfig { weight: 50, ..small.clone() }, endpoint(&large, "large")], |_| ());
    for _ in 0..5 {
        assert_eq!(both.ask(&question("?")).await.map(|answer| answer.endpoint).as_deref(), Ok("large"));
    }
    let in_a_stream = r#"{"error":{"code":"context_length_exceeded","message":"too much"}}"#.to_owned();
    let other = Model::begin(move |_| Say::Status(200, None, in_a_stream.clone())).expect("a port");
    let none = pool(vec![small, endpoint(&other, "other")], |_| ()).ask(&question("?")).await;
    assert!(matches!(none, Err(CallError::TooLong(_))), "{none:?}");
}

#[tokio::test]
async fn a_key_in_an_error_with_status_200_is_not_told() {
    const KEY: &str = "sk-very-secret";
    let keys = tempfile::tempdir().expect("a directory");
    std::fs::write(keys.path().join("model.key"), KEY).expect("written");
    for stream in [true, false] {
        // The key stands where what is shown of an error ends, too.
        for before in [0, 250] {
            let body =
                format!("{{\"error\":{{\"message\":\"{} key: {KEY}\",\"code\":401}}}}", "x".repeat(before));
            let model = Model::begin(move |_| Say::Status(200, None, body.clone())).expect("a port");
            let one = EndpointConfig { key: "model.key".to_owned(), stream, ..endpoint(&model, "one") };
            let few = |config: &mut AgentsConfig| config.tries_max = 1;
            let refused = pool_with_keys(vec![one], few, Some(keys.path())).ask(&question("?")).await;
            let said = format!("{refused:?}");
            assert!(refused.is_err() && said.contains("[key]") && !said.contains("sk-"), "{said}");
        }
    }
}

#[tokio::test]
async fn whoever_asks_to_wait_is_left_alone_longer_each_time() {
    for after in [Some("0"), None] {
        let model = Model::begin(move |_| Say::Status(429, after, "slow".to_owned())).expect("a port");
        let asked = pool(vec![endpoint(&model, "one")], |config| config.call_seconds_max = 4)
            .ask(&question("?"))
            .await;
        assert!(matches!(asked, Err(CallError::Unavailable { .. })), "{asked:?}");
        let calls = model.asked().len();
        assert!((2..=4).contains(&calls), "{calls} with {after:?}");
    }
}

#[tokio::test]
async fn one_without_a_key_and_one_that_is_busy_are_still_somebody() {
    let locked = Model::begin(|_| Say::Status(401, None, "who are you".to_owned())).expect("a port");
    let busy = Model::begin(|asked| match asked.nth {
        0 => Say::Status(429, Some("1"), "slow".to_owned()),
        _ => Say::Text("at last".to_owned()),
    })
    .expect("a port");
    let endpoints =
        vec![EndpointConfig { weight: 1, ..endpoint(&busy, "busy") }, endpoint(&locked, "locked")];
    let both = Arc::new(pool(endpoints, |_| ()));
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let both = both.clone();
            tokio::spawn(async move { both.ask(&question("?")).await })
        })
        .collect();
    for call in calls {
        let answer = call.await.expect("no panic");
        assert_eq!(answer.map(|answer| answer.text).as_deref(), Ok("at last"));
    }
    let alone = pool(vec![endpoint(&locked, "locked")], |_| ());
    let began = Instant::now();
    assert!(alone.ask(&question("?")).await.is_err() && alone.ask(&question("?")).await.is_err());
    assert!(began.elapsed() < Duration::from_secs(5), "a person has to mend that: nobody waits for it");
}

/// So many calls at once, of which none is answered.
async fn all_fail(pool: &Arc<Pool>, count: usize) {
    let calls: Vec<_> = (0..count)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.ask(&question("?")).await })
        })
        .collect();
    for call in calls {
        assert!(call.await.expect("no panic").is_err());
    }
}

#[tokio::test]
async fn calls_that_are_queued_do_not_go_to_one_that_rests() {
    let down = Model::begin(|_| {
        Say::After(Duration::from_millis(50), Box::new(Say::Status(500, None, "oops".to_owned())))
    });
    let down = down.expect("a port");
    let one = EndpointConfig { concurrency_max: 2, ..endpoint(&down, "down") };
    let pool = Arc::new(pool(vec![one], |config| (config.tries_max, config.call_seconds_max) = (1, 1)));
    all_fail(&pool, 60).await;
    assert!(down.asked().len() < 10, "{}", down.asked().len());
}

#[tokio::test]
async fn calls_that_were_never_made_leave_no_debt() {
    let model = Model::begin(|asked| match asked.nth {
        0..4 => Say::Hang,
        _ => Say::Text("x".to_owned()),
    })
    .expect("a port");
    let one = EndpointConfig { tokens_per_minute: 450, concurrency_max: 100, ..endpoint(&model, "one") };
    let pool = Arc::new(pool(vec![one], |config| config.call_seconds_max = 1));
    all_fail(&pool, 60).await;
    assert_eq!(model.asked().len(), 4, "a minute's worth");
    assert!(pool.ask(&question("?")).await.is_ok(), "nothing of it was used");
}

#[tokio::test]
async fn streams_that_are_slow_or_stay_open_are_read_to_their_end() {
    for say in
        [Say::Slow(Duration::from_millis(700), "an answer".to_owned()), Say::Open("an answer".to_owned())]
    {
        let told = say.clone();
        let model = Model::begin(move |_| told.clone()).expect("a port");
        let one = EndpointConfig { silence_seconds: 1, ..endpoint(&model, "one") };
        let answer = pool(vec![one], |config| config.tries_max = 1).ask(&question("?")).await;
        assert_eq!(answer.map(|answer| answer.text).as_deref(), Ok("an answer"), "{say:?}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let model = Model::begin(|_| Say::Text("x".repeat(1 << 20))).expect("a port");
    for stream in [true, false] {
        let one = EndpointConfig { stream, ..endpoint(&model, "one") };
        let answer = pool(vec![one], |_| ()).ask(&question("?")).await.expect("answered");
        assert_eq!((answer.text.len(), answer.is_whole), (1600, false), "sixteen bytes a token");
    }
}

#[tokio::test]
async fn a_limit_has_the_name_that_its_endpoint_knows() {
    let model = Model::begin(|_| Say::Text("x".to_owned())).expect("a port");
    for (answer_limit, name, other) in [
        (AnswerLimit::MaxTokens, "max_tokens", "max_completion_tokens"),
        (AnswerLimit::MaxCompletionTokens, "max_completion_tokens", "max_tokens"),
    ] {
        let one = EndpointConfig { answer_limit, ..endpoint(&model, "one") };
        pool(vec![one], |_| ()).ask(&question("?")).await.expect("answered");
        let body = model.asked().pop().expect("asked").body;
        assert_eq!((body[name].as_u64(), body.get(other)), (Some(100), None));
    }
}

#[tokio::test]
async fn a_reload_keeps_what_works_and_takes_up_what_changed() {
    let keys = tempfile::tempdir().expect("a directory");
    let key = |text: &str| std::fs::write(keys.path().join("model.key"), text).expect("written");
    key("sk-old");
    let model = Model::begin(|asked| match asked.authorization.as_deref() {
        Some("Bearer sk-new") => Say::Text("welcome".to_owned()),
        _ => Say::Status(401, None, "who are you".to_owned()),
    })
    .expect("a port");
    let one = EndpointConfig { key: "model.key".to_owned(), ..endpoint(&model, "one") };
    let config = AgentsConfig { endpoints: vec![one], away_seconds_max: 0, ..AgentsConfig::default() };
    let surroundings = Surroundings { credentials_dir: Some(keys.path().to_owned()), clock, random };
    let llm = Llm::new(&config, surroundings);
    assert!(llm.ask(&question("?"), |_| None).await.0.is_err());
    key("sk-new");
    assert!(llm.reread_keys().is_empty());
    let answer = llm.ask(&question("?"), |_| None).await.0.expect("it rests no more");
    assert_eq!(answer.text, "welcome");
    // A credential that is missing takes nothing away that works.
    let mut broken = config.clone();
    broken.endpoints.push(EndpointConfig { key: "other.key".to_owned(), ..endpoint(&model, "other") });
    let why = llm.reload(&broken).expect_err("there is no such key");
    assert!(why.contains("other.key"), "{why}");
    assert!(llm.ask(&question("?"), |_| None).await.0.is_ok());
    std::fs::remove_file(keys.path().join("model.key")).expect("removed");
    assert_eq!(llm.reread_keys().len(), 1);
    assert!(llm.ask(&question("?"), |_| None).await.0.is_ok(), "the key that there was stays");
}

/// One try a call, and no waiting for endpoints that are away.
fn impatient(model: &Model, away_seconds_max: u64) -> Llm {
    let one = EndpointConfig {
        dollars_per_million_read: 3.0,
        dollars_per_million_written: 15.0,
        ..endpoint(model, "one")
    };
    let config =
        AgentsConfig { endpoints: vec![one], tries_max: 1, away_seconds_max, ..AgentsConfig::default() };
    Llm::new(&config, Surroundings { credentials_dir: None, clock, random })
}

fn oops() -> Say {
    Say::Status(500, None, "oops".to_owned())
}

#[tokio::test]
async fn a_conversation_that_alone_is_never_answered_is_told_from_a_model_that_is_away() {
    let model = Model::begin(|asked| match echo(&asked.body).as_str() {
        "answer to hostile" => oops(),
        answer => Say::Text(answer.to_owned()),
    })
    .expect("a port");
    let llm = impatient(&model, 0);
    let (asked, _) = llm.ask(&question("hostile"), |_| None).await;
    assert!(matches!(asked, Err(AskError::Alone(_))), "{asked:?}");
    assert_eq!(model.asked().len(), 3, "it, another, and it once more");
    assert_eq!(llm.obstacle(), None, "others may be asked");

    let model = Model::begin(|_| oops()).expect("a port");
    let llm = impatient(&model, 0);
    let (asked, _) = llm.ask(&question("plain"), |_| None).await;
    assert!(matches!(asked, Err(AskError::Away(_))), "{asked:?}");
    assert!(llm.obstacle().is_some());
}

#[tokio::test]
async fn what_is_used_without_an_answer_is_told_and_ends_the_call() {
    let model = Model::begin(|asked| match asked.nth {
        0 | 1 => Say::CutOff("half an answer".to_owned()),
        _ => Say::Status(400, None, "maximum context length is 8192 tokens".to_owned()),
    })
    .expect("a port");
    let spent = |used: &Used| (used.cost.micro_dollars > 0).then(|| "enough".to_owned());
    let (asked, used) = impatient(&model, 3600).ask(&question("?"), spent).await;
    assert_eq!(asked, Err(AskError::Spent("enough".to_owned())), "it is looked at before a further try");
    assert!(used.cost.micro_dollars > 0 && model.asked().len() == 1, "{used:?}");

    let twice = EndpointConfig { dollars_per_million_written: 15.0, ..endpoint(&model, "one") };
    let config = AgentsConfig { endpoints: vec![twice], ..AgentsConfig::default() };
    let llm = Llm::new(&config, Surroundings { credentials_dir: None, clock, random });
    let (asked, used) = llm.ask(&question("?"), spent).await;
    assert!(matches!(asked, Err(AskError::TooLong(_))), "{asked:?}");
    assert!(used.cost.micro_dollars > 0 && used.seconds > 0.0, "{used:?}");
    assert_eq!(llm.fleet().here(), used.cost.micro_dollars);
}
