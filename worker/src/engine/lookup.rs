use std::collections::HashMap;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::EngineError;
use super::connect::{Inner, failed};

/// As long as bollard waits for an answer.
const ANSWER_MAX: Duration = Duration::from_mins(2);
/// States of Podman's own, which bollard cannot read, and what Docker calls them.
const STATES: [(&str, &str); 3] =
    [("stopped", "exited"), ("configured", "created"), ("initialized", "created")];

/// A container as the engine lists it; only what is used is read.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    #[serde(rename = "Id")]
    pub(super) id: String,
    #[serde(rename = "Labels", default)]
    pub(super) labels: Option<HashMap<String, String>>,
    /// The size of its writable layer, where it was asked for.
    #[serde(rename = "SizeRw", default)]
    pub(super) size_bytes: Option<i64>,
}

/// Which containers are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Running,
    All,
    AllWithSizes,
}

impl Inner {
    /// The containers that have a label: its key, or `KEY=VALUE`.
    pub(super) async fn list_containers(
        &self,
        which: Which,
        label: &str,
    ) -> Result<Vec<Listed>, EngineError> {
        let filters = serde_json::json!({ "label": [label] }).to_string();
        let all = (which != Which::Running).to_string();
        let sizes = (which == Which::AllWithSizes).to_string();
        let asked = self.raw.get(format!("{}/containers/json", self.raw_url));
        let asked = asked.query(&[("all", all), ("size", sizes), ("filters", filters)]);
        let listed = answer("list containers", asked).await?;
        listed.map_or_else(|| Ok(Vec::new()), |listed| read("list containers", listed))
    }

    /// What a container is, by its id or name; `None` where there is none.
    pub(super) async fn inspect_container(
        &self,
        name: &str,
    ) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let asked = self.raw.get(format!("{}/containers/{name}/json", self.raw_url));
        let Some(mut found) = answer("inspect a container", asked).await? else { return Ok(None) };
        if let Some(status) = found.pointer_mut("/State/Status")
            && let Some((_, known)) = STATES.iter().find(|(state, _)| status == state)
        {
            *status = Value::from(*known);
        }
        read("inspect a container", found).map(Some)
    }
}

/// `None` where there is no such thing.
async fn answer(action: &'static str, asked: RequestBuilder) -> Result<Option<Value>, EngineError> {
    let cannot = |source: reqwest::Error| failed(action, source);
    let answer = asked.timeout(ANSWER_MAX).send().await.map_err(cannot)?;
    let status = answer.status();
    let text = answer.text().await.map_err(cannot)?;
    match status {
        StatusCode::NOT_FOUND => Ok(None),
        status if status.is_success() => {
            serde_json::from_str(&text).map(Some).map_err(|source| failed(action, source))
        }
        _ => Err(failed(action, text.trim())),
    }
}

fn read<T: serde::de::DeserializeOwned>(action: &'static str, value: Value) -> Result<T, EngineError> {
    serde_json::from_value(value).map_err(|source| failed(action, source))
}
