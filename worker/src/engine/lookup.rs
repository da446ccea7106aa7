use base_images::{ListedContainer, LookupError, Which};
use bollard::models::ContainerInspectResponse;
use serde_json::Value;

use super::EngineError;
use super::connect::{Inner, failed};

/// States of Podman's own, which bollard cannot read, and what Docker calls them.
const STATES: [(&str, &str); 3] =
    [("stopped", "exited"), ("configured", "created"), ("initialized", "created")];

impl Inner {
    /// The containers that have a label: its key, or `KEY=VALUE`.
    pub(super) async fn list_containers(
        &self,
        which: Which,
        label: &str,
    ) -> Result<Vec<ListedContainer>, EngineError> {
        Ok(self.lookup.containers(which, Some(label)).await?)
    }

    /// What a container is, by its id or name; `None` where there is none.
    pub(super) async fn inspect_container(
        &self,
        name: &str,
    ) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let Some(mut found) = self.lookup.container(name).await? else { return Ok(None) };
        if let Some(status) = found.pointer_mut("/State/Status")
            && let Some((_, known)) = STATES.iter().find(|(state, _)| status == state)
        {
            *status = Value::from(*known);
        }
        let read = serde_json::from_value(found);
        read.map(Some).map_err(|source| failed("inspect a container", source))
    }
}

impl From<LookupError> for EngineError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NoClient(source) => failed("make an HTTP client", source),
            LookupError::Unanswered { action, source } => failed(action, source),
            LookupError::Refused { action, message } => failed(action, message),
            LookupError::Unreadable { action, source } => failed(action, source),
        }
    }
}
