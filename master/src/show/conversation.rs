use std::fmt::Write;

use serde_json::Value;

use crate::text::{clean, clean_line};

/// Lines shown of one text that an agent was shown; all of it stands in conversation.json.
const SHOWN_LINES: usize = 12;
/// Lines shown of an answer.
const ANSWER_LINES_SHOWN: usize = 200;

/// A conversation for people: of each question the texts that it is about by their beginnings, each answer whole, with what
/// it cost, and what each iteration came to where it did.
#[must_use]
pub fn tell_conversation(json: &str) -> String {
    let Ok(read) = serde_json::from_str::<Value>(json) else {
        return "its conversation.json cannot be read\n".to_owned();
    };
    let mut text = format!("made by {}\n", line_of(&read["brain"]));
    let list = |of: &str| read[of].as_array().map(Vec::as_slice).unwrap_or_default();
    let (exchanges, mut rounds) = (list("exchanges"), list("messages"));
    // Where no round says how many questions were asked by its end, they are told after all of those.
    let are_counted = rounds.iter().any(|round| round["asked"].is_u64());
    if exchanges.is_empty() {
        text.push_str("no model was asked\n");
    }
    for (nth, exchange) in exchanges.iter().enumerate() {
        // Rounds of rules, which ask nobody, were before all questions.
        while let Some((round, later)) = rounds.split_first()
            && are_counted
            && round["asked"].as_u64().unwrap_or_default() <= nth as u64
        {
            add_round(&mut text, round);
            rounds = later;
        }
        add_exchange(&mut text, &format!("{} of {}", nth + 1, exchanges.len()), exchange);
    }
    rounds.iter().for_each(|round| add_round(&mut text, round));
    text
}

fn add_exchange(text: &mut String, nth: &str, exchange: &Value) {
    let (agent, reply) = (line_of(&exchange["agent"]), &exchange["reply"]);
    let answer = &reply["answer"];
    let _ = writeln!(text, "\n── {nth}: {agent}{}", cost_of_answer(answer));
    for message in exchange["messages"].as_array().into_iter().flatten() {
        // The same house rules begin every dialogue, and what was answered has been shown.
        if line_of(&message["role"]) == "user" {
            add_told(text, message["content"].as_str().unwrap_or_default());
        }
    }
    if answer.is_object() {
        add(text, "said", answer["text"].as_str().unwrap_or_default(), ANSWER_LINES_SHOWN);
        return;
    }
    let kinds =
        [("refused", "it was refused"), ("too-long", "it was too long"), ("spent", "it was not asked on")];
    let known = kinds.into_iter().find(|(kind, _)| !reply[kind].is_null());
    let (none, said) =
        known.map_or((&Value::Null, "for a reason unknown here"), |(kind, said)| (&reply[kind], said));
    let (cost, seconds) = (&none["cost"], &none["seconds"]);
    let has = |value: &Value| value.as_f64().is_some_and(|number| number > 0.0);
    let has_cost = has(&cost["usage"]["read"]) || has(&cost["usage"]["written"]) || has(seconds);
    let cost = if has_cost { cost_of(cost, seconds) } else { String::new() };
    // Older results have the reason alone.
    let why = if none.is_string() { none } else { &none["why"] };
    let _ = writeln!(text, "no answer: {said}: {}{cost}", line_of(why));
}

/// The texts that a prompt is filled in with stand between `<<< name` and `>>> name`; the rest of it is the same each time.
fn add_told(text: &mut String, content: &str) {
    let mut part: Option<(&str, Vec<&str>)> = None;
    let mut is_filled_in = false;
    for line in content.lines() {
        match (&mut part, line.strip_prefix("<<< "), line.strip_prefix(">>> ")) {
            (Some((name, lines)), _, Some(end)) if end == *name => {
                add(text, &format!("told {name}"), &lines.join("\n"), SHOWN_LINES);
                part = None;
            }
            (Some((_, lines)), ..) => lines.push(line),
            (None, Some(name), _) => (part, is_filled_in) = (Some((name, Vec::new())), true),
            (None, None, _) => {}
        }
    }
    if !is_filled_in {
        add(text, "told", content, SHOWN_LINES);
    }
}

fn add_round(text: &mut String, round: &Value) {
    let feedback = [&round["text"], &round["detail"]].map(line_of).concat();
    let to = round["to"].as_str().map(|to| format!(" → {}", clean_line(to))).unwrap_or_default();
    let _ = writeln!(
        text,
        "\n══ iteration {}: {}{to}{}{feedback}",
        line_of(&round["iteration"]),
        line_of(&round["outcome"]),
        if feedback.is_empty() { "" } else { ": " },
    );
}

fn cost_of_answer(answer: &Value) -> String {
    if !answer.is_object() {
        return String::new();
    }
    let by = format!(" by {} ({})", line_of(&answer["model"]), line_of(&answer["endpoint"]));
    by + &cost_of(answer, &answer["seconds"])
}

/// Of what has tokens and a price.
fn cost_of(paid: &Value, seconds: &Value) -> String {
    let usage = &paid["usage"];
    let dollars = paid["micro_dollars"].as_f64().unwrap_or_default() / 1e6;
    format!(
        ", {} tokens read, {} written, ${dollars:.4}, {} s",
        line_of(&usage["read"]),
        line_of(&usage["written"]),
        line_of(seconds),
    )
}

/// A text under its name; nothing of one that is empty.
fn add(text: &mut String, name: &str, content: &str, lines_max: usize) {
    let content = clean(content);
    let lines: Vec<&str> = content.trim().lines().collect();
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "{}:", clean_line(name));
    for line in lines.iter().take(lines_max) {
        let _ = writeln!(text, "  │ {line}");
    }
    if lines.len() > lines_max {
        let _ = writeln!(text, "  │ … {} lines more", lines.len() - lines_max);
    }
}

fn line_of(value: &Value) -> String {
    match value {
        Value::String(text) => clean_line(text),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a worker, whose agents a scripted model answered: a build that fails, twice, and an answer that is refused.
    const OF_A_WORKER: &str = include_str!("fixtures/conversation.json");

    #[test]
    fn a_conversation_of_a_worker_reads_from_top_to_bottom() {
        let told = tell_conversation(OF_A_WORKER);
        let at = |part: &str| told.find(part).unwrap_or_else(|| panic!("{part}: {told}"));
        let in_order = [
            "made by agents\n\n── 1 of 12: explore by scripted-1 (scripted), ",
            "told issue:\n  │ add subtracts\ntold test patch:\n  │ diff --git",
            "said:\n  │ Here it is.\n  │ ```json\n",
            "── 3 of 12: dockerfile",
            "── 5 of 12: analysis",
            "told outcome:\n  │ the build failed",
            "told complaint:\n  │ the build failed, and the script has no part in it",
            "══ iteration 1: ",
            "explore: what does the last step want?",
            "── 7 of 12: explore",
            "told question:\n  │ what does the last step want?",
            "══ iteration 2: ",
            "── 12 of 12: analysis",
            "══ iteration 3: accepted",
        ];
        for (one, next) in in_order.iter().zip(&in_order[1..]) {
            assert!(at(one) < at(next), "{one} before {next}: {told}");
        }
        for of_templates in ["You are the explorer", "You help to rebuild", "{{", "<<<"] {
            assert!(!told.contains(of_templates), "{of_templates}: {told}");
        }
    }

    #[test]
    fn every_reply_is_told_and_nothing_of_it_moves_the_cursor() {
        let long: String = (0..20).map(|n| format!("line {n}\n")).collect();
        let none = |kind: &str, read: u64| {
            serde_json::json!({
                "agent": "script", "after": 0, "messages": [{ "role": "user", "content": "choose" }],
                "reply": { kind: { "why": "no", "cost": { "usage": { "read": read, "written": 0 }, "micro_dollars": 0 },
                                   "seconds": 0.0 } },
            })
        };
        let json = serde_json::json!({
            "brain": "agents",
            "exchanges": [
                { "agent": "explore", "after": 0,
                  "messages": [{ "role": "system", "content": "house" },
                               { "role": "user", "content": format!("Look.\n<<< a\n{long}>>> b\n>>> a\nSo.\n<<< e\n\n>>> e") }],
                  "reply": { "answer": { "text": "look\u{1b}[2J", "endpoint": "one", "model": "m", "micro_dollars": 1500,
                                         "seconds": 2.5, "usage": { "read": 10, "written": 3 } } } },
                none("spent", 0), none("refused", 7), none("too-long", 0), none("eaten", 0),
                // As results of earlier versions have it.
                { "agent": "script", "after": 0, "messages": [], "reply": { "spent": "dollars" } },
            ],
            "messages": [{ "iteration": 1, "outcome": "build: x", "analysis": "feedback", "to": "dockerfile", "text": "mend it" }],
        });
        let told = tell_conversation(&json.to_string());
        let expected = [
            "made by agents\n\n── 1 of 6: explore by m (one), 10 tokens read, 3 written, $0.0015, 2.5 s\ntold a:\n  │ line 0\n",
            "  │ line 11\n  │ … 9 lines more\nsaid:\n  │ look\n\n── 2 of 6: script\ntold:\n  │ choose\nno answer: it was not asked on: no\n",
            "no answer: it was refused: no, 7 tokens read, 0 written, $0.0000, 0.0 s\n",
            "no answer: it was too long: no\n",
            "no answer: for a reason unknown here: \n",
            "no answer: it was not asked on: dollars\n\n══ iteration 1: build: x → dockerfile: mend it\n",
        ];
        for part in expected {
            assert!(told.contains(part), "{part}: {told}");
        }
        for absent in ["house", "Look.", "So.", "told e", "\u{1b}"] {
            assert!(!told.contains(absent), "{absent}: {told}");
        }
        assert!(tell_conversation("{\"brain\":\"rules\"}").contains("no model was asked"));
        assert!(tell_conversation("[").contains("cannot be read"));
    }
}
