//! An engine's answers as they are: Podman's hold words that bollard's types refuse, and one word spoils a whole list.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::Value;

/// As long as bollard waits for an answer.
const ANSWER_MAX: Duration = Duration::from_mins(2);

/// The first version of Podman's own API that has what is asked of it; later ones speak it.
const PODMAN_API_VERSION: &str = "4.0.0";

/// Asks an engine over its API. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lookup {
    client: reqwest::Client,
    base: String,
    podman: String,
}

/// A container as the engine lists it; only what is used is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListedContainer {
    /// Its full id.
    pub id: String,
    /// Its names, each with a slash before it.
    #[serde(default)]
    pub names: Option<Vec<String>>,
    /// Its image, as it was named.
    #[serde(default)]
    pub image: Option<String>,
    /// The full id of that.
    #[serde(default, rename = "ImageID")]
    pub image_id: Option<String>,
    /// Its labels.
    #[serde(default)]
    pub labels: Option<HashMap<String, String>>,
    /// When it was made, in seconds since 1970.
    #[serde(default)]
    pub created: Option<i64>,
    /// `running`, `exited`, … in the engine's own words.
    #[serde(default)]
    pub state: Option<String>,
    /// The size of its writable layer, where it was asked for.
    #[serde(default)]
    pub size_rw: Option<i64>,
}

/// Which containers are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that run.
    Running,
    /// All.
    All,
    /// All, with the sizes of their writable layers.
    AllWithSizes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// It was not asked at all.
    #[error("cannot make an HTTP client: {0}")]
    NoClient(reqwest::Error),
    /// Nothing came back.
    #[error("{action}: {source}")]
    Unanswered {
        /// What it was asked, as a verb.
        action: &'static str,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// It said no.
    #[error("{action}: {message}")]
    Refused {
        /// What it was asked, as a verb.
        action: &'static str,
        /// Its words.
        message: String,
    },
    /// It said something else.
    #[error("{action}: {source}")]
    Unreadable {
        /// What it was asked, as a verb.
        action: &'static str,
        /// Where it went wrong.
        source: serde_json::Error,
    },
}

impl Lookup {
    /// At an address as in `DOCKER_HOST`, in a version that the engine speaks.
    ///
    /// # Errors
    /// There can be no client.
    pub fn new(address: &str, api_version: &str) -> Result<Self, LookupError> {
        // No client can be made before, even where it is not used; whoever was first has chosen the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().no_proxy();
        let (builder, host) = match (address.strip_prefix("unix://"), address.split_once("://")) {
            (Some(path), _) => (builder.unix_socket(path), "engine"),
            (None, Some((_, host))) => (builder, host),
            (None, None) => (builder, address),
        };
        let client = builder.build().map_err(LookupError::NoClient)?;
        let [base, podman] =
            [api_version, PODMAN_API_VERSION].map(|version| format!("http://{host}/v{version}"));
        Ok(Self { client, base, podman })
    }

    /// For requests that bollard's types cannot express.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.base))
    }

    /// See [`Lookup::post`].
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    /// The containers; of those with a label alone, if one is given: its key, or `KEY=VALUE`.
    ///
    /// # Errors
    /// There is no answer, or none that can be read.
    pub async fn containers(
        &self,
        which: Which,
        label: Option<&str>,
    ) -> Result<Vec<ListedContainer>, LookupError> {
        let filters: HashMap<&str, [&str; 1]> = label.map(|label| ("label", [label])).into_iter().collect();
        let filters = serde_json::json!(filters).to_string();
        let all = (which != Which::Running).to_string();
        let sizes = (which == Which::AllWithSizes).to_string();
        let asked = self.get("/containers/json");
        let asked = asked.query(&[("all", all), ("size", sizes), ("filters", filters)]);
        Ok(answer("list containers", asked).await?.unwrap_or_default())
    }

    /// What a container is, by its id or name; `None` where there is none.
    ///
    /// # Errors
    /// There is no answer, or none that can be read.
    pub async fn container(&self, name: &str) -> Result<Option<Value>, LookupError> {
        answer("inspect a container", self.get(&format!("/containers/{name}/json"))).await
    }

    /// What Podman itself calls the state of a container: to Docker's clients one that has ended and one that has been
    /// cleaned up since are the same.
    ///
    /// # Errors
    /// There is no answer, or none that can be read.
    pub async fn podman_state(&self, name: &str) -> Result<Option<String>, LookupError> {
        let asked = self.client.get(format!("{}/containers/{name}/json", self.podman));
        let found: Option<Value> = answer("inspect a container", asked).await?;
        Ok(found.and_then(|found| Some(found.pointer("/State/Status")?.as_str()?.to_owned())))
    }
}

/// `None` where there is no such thing.
async fn answer<T: serde::de::DeserializeOwned>(
    action: &'static str,
    asked: RequestBuilder,
) -> Result<Option<T>, LookupError> {
    let unanswered = |source: reqwest::Error| LookupError::Unanswered { action, source };
    let answer = asked.timeout(ANSWER_MAX).send().await.map_err(unanswered)?;
    let status = answer.status();
    let text = answer.bytes().await.map_err(unanswered)?;
    match status {
        StatusCode::NOT_FOUND => Ok(None),
        status if status.is_success() => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| LookupError::Unreadable { action, source }),
        _ => {
            let message = String::from_utf8_lossy(&text).trim().to_owned();
            Err(LookupError::Refused { action, message })
        }
    }
}
