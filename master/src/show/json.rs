use queue_format::State;
use serde_json::{Value, json};

use super::{Attempt, Page};

/// The version of the JSON that `show --json` prints. 1: first.
const FORMAT: u32 = 1;

impl Page {
    /// For programs; docs/status.md describes it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let places = self.places.iter().map(|place| {
            let (state, detail) = match &place.state {
                State::Pending(class) => ("pending", json!({ "class": class.to_string() })),
                State::Delayed { due_seconds, class } => {
                    ("delayed", json!({ "due_seconds": due_seconds, "class": class.to_string() }))
                }
                State::Hold => ("hold", Value::Null),
                State::Claimed(owner) => ("claimed", json!({ "owner": owner })),
                State::Done(_) => ("done", Value::Null),
                State::Failed(reason) => ("failed", json!({ "reason": reason, "meaning": reason.meaning() })),
            };
            json!({
                "state": state, "detail": detail, "path": place.path,
                "token": place.name.token, "retries": place.name.retries,
            })
        });
        let working =
            self.workers.iter().flat_map(|worker| worker.slots.iter().map(move |slot| (worker, slot)));
        json!({
            "format": FORMAT,
            "id": self.id,
            "places": places.collect::<Vec<_>>(),
            "official_token": self.official(),
            "task": self.spec.as_ref().and_then(|spec| spec.as_ref().ok()),
            "working": working.map(|(worker, slot)| json!({ "owner": worker.owner, "slot": slot })).collect::<Vec<_>>(),
            "attempts": self.attempts.iter().map(Attempt::to_json).collect::<Vec<_>>(),
            "next": self.advice(),
        })
    }
}

impl Attempt {
    fn to_json(&self) -> Value {
        json!({
            "token": self.token,
            "results": self.dir,
            "error": self.error,
            "manifest": self.manifest,
            "transitions": self.evidence.as_ref().map(|evidence| &evidence.transitions),
        })
    }
}
