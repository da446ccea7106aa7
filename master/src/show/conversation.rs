use std::fmt::Write;

use serde_json::Value;

use crate::text::{clean, clean_line};

/// Lines shown of what an agent was told; all of it stands in conversation.json.
const TOLD_LINES_SHOWN: usize = 12;
/// Lines shown of an answer.
const ANSWER_LINES_SHOWN: usize = 200;

/// A conversation for people: each question by its beginning, each answer whole, with what it cost.
#[must_use]
pub fn tell_conversation(json: &str) -> String {
    let Ok(read) = serde_json::from_str::<Value>(json) else {
        return "its conversation.json cannot be read\n".to_owned();
    };
    let mut text = format!("made by {}\n", line_of(&read["brain"]));
    let exchanges = read["exchanges"].as_array().map(Vec::as_slice).unwrap_or_default();
    if exchanges.is_empty() {
        text.push_str("no model was asked\n");
    }
    for (nth, exchange) in exchanges.iter().enumerate() {
        let (agent, answer) = (line_of(&exchange["agent"]), &exchange["reply"]["answer"]);
        let _ = writeln!(text, "\n── {} of {}: {agent}{}", nth + 1, exchanges.len(), cost_of(answer));
        for message in exchange["messages"].as_array().into_iter().flatten() {
            let role = line_of(&message["role"]);
            // The same house rules begin every dialogue, and what was answered has been shown.
            if role == "user" {
                add(&mut text, "told", &message["content"], TOLD_LINES_SHOWN);
            }
        }
        match (answer.is_object(), &exchange["reply"]) {
            (true, _) => add(&mut text, "said", &answer["text"], ANSWER_LINES_SHOWN),
            (false, reply) => {
                let why = reply.get("spent").or(reply.get("too-long")).unwrap_or(&Value::Null);
                let _ = writeln!(text, "no answer: {}", line_of(why));
            }
        }
    }
    for round in read["messages"].as_array().into_iter().flatten() {
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
    text
}

fn cost_of(answer: &Value) -> String {
    if !answer.is_object() {
        return String::new();
    }
    let usage = &answer["usage"];
    let dollars = answer["micro_dollars"].as_f64().unwrap_or_default() / 1e6;
    format!(
        " by {} ({}), {} tokens read, {} written, ${dollars:.4}, {} s",
        line_of(&answer["model"]),
        line_of(&answer["endpoint"]),
        line_of(&usage["read"]),
        line_of(&usage["written"]),
        line_of(&answer["seconds"]),
    )
}

fn add(text: &mut String, label: &str, content: &Value, lines_max: usize) {
    let content = clean(content.as_str().unwrap_or_default());
    let lines: Vec<&str> = content.trim().lines().collect();
    for (nth, line) in lines.iter().take(lines_max).enumerate() {
        let _ = writeln!(text, "{:5}│ {line}", if nth == 0 { label } else { "" });
    }
    if lines.len() > lines_max {
        let _ = writeln!(text, "     │ … {} lines more", lines.len() - lines_max);
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

    #[test]
    fn a_conversation_reads_from_top_to_bottom() {
        let told: String = (0..20).map(|n| format!("line {n}\n")).collect();
        let json = serde_json::json!({
            "brain": "agents",
            "exchanges": [
                { "agent": "explore", "after": 0,
                  "messages": [{ "role": "system", "content": "house" }, { "role": "user", "content": told }],
                  "reply": { "answer": { "text": "look\u{1b}[2J", "endpoint": "one", "model": "m", "micro_dollars": 1500,
                                         "seconds": 2.5, "usage": { "read": 10, "written": 3 } } } },
                { "agent": "script", "after": 0, "messages": [{ "role": "user", "content": "choose" }],
                  "reply": { "spent": "5 answers of 5 (task_answers_max)" } },
            ],
            "messages": [{ "iteration": 1, "outcome": "build: x", "analysis": "feedback", "to": "dockerfile", "text": "mend it" }],
        });
        let told = tell_conversation(&json.to_string());
        let expected = [
            "made by agents\n\n── 1 of 2: explore by m (one), 10 tokens read, 3 written, $0.0015, 2.5 s\ntold │ line 0\n",
            "     │ line 11\n     │ … 8 lines more\nsaid │ look\n\n── 2 of 2: script\n",
            "no answer: 5 answers of 5 (task_answers_max)\n\n══ iteration 1: build: x → dockerfile: mend it\n",
        ];
        for part in expected {
            assert!(told.contains(part), "{told}");
        }
        assert!(!told.contains("house") && !told.contains('\u{1b}'), "{told}");
        assert!(tell_conversation("{\"brain\":\"rules\"}").contains("no model was asked"));
        assert!(tell_conversation("[").contains("cannot be read"));
    }
}
