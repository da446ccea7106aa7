use std::time::Duration;

use queue_format::Labels;
use uuid::Uuid;

use super::connect::{Docker, failed};
use super::{ContainerEnd, Engine, EngineError, Limits, Network, RunRequest};

/// What asks for a package, as a build would: pip with the image's own settings.
const ASK: &str = "python -m pip download --quiet --no-deps --no-cache-dir --retries 0 --timeout 8 \
                   --dest /tmp/probe pip 2>&1";
/// How long each network is given.
const ASK_MAX: Duration = Duration::from_secs(40);

impl Docker {
    /// Which network a build reaches the package index through: the engine's bridge, or else the host's.
    ///
    /// # Errors
    /// Neither does; the error has pip's last line for each.
    pub async fn probe_build_network(
        &self,
        base_image: &str,
        labels: &Labels,
        limits: &Limits,
    ) -> Result<Network, EngineError> {
        let mut why = Vec::new();
        for network in [Network::Bridge, Network::Host] {
            let command = ["bash", "-lc", ASK].map(str::to_owned).into();
            let labels = Labels { object: Uuid::now_v7(), ..labels.clone() };
            let request = RunRequest {
                network,
                timeout: ASK_MAX,
                ..RunRequest::new(base_image, command, labels, limits)
            };
            let outcome = match self.run(&request).await {
                Ok(outcome) => outcome,
                // A bridge that is broken says nothing about the host's own network.
                Err(error) => {
                    why.push(format!("{network:?}: {error}"));
                    continue;
                }
            };
            if outcome.end == ContainerEnd::Exited(0) {
                return Ok(network);
            }
            let last = outcome.log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no output");
            why.push(format!("{network:?}: {:?}, {}", outcome.end, last.trim()));
        }
        let advice = "check the package index and proxy settings of the host, then make the base images again; on a cluster \
                      without an index, set build_network to bridge or host";
        Err(failed("reach the package index from a container", format!("{}; {advice}", why.join("; "))))
    }
}
