use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use queue_format::{BuildGate, Labels};

use super::run::Workshop;
use crate::engine::{ContainerEnd, Engine, Limits, RunRequest};
use crate::git::Git;

/// A container that does nothing takes a second at most on a node that works.
const CONTAINER_MAX: Duration = Duration::from_secs(120);
const GIT_MAX: Duration = Duration::from_secs(60);
/// Runs for long enough that its limits are read back.
const LONG_ENOUGH: [&str; 2] = ["sleep", "0.5"];
/// As much as a small build context.
const DISK_BYTES: usize = 1 << 20;

impl<E: Engine> Workshop<E> {
    /// Does what every attempt needs from the node: a disk that keeps what is written, git, and, unless it has none, a
    /// container that runs. Gives what does not hold here as it should: a sentence each.
    ///
    /// # Errors
    /// The first of them that fails, in words for people.
    pub async fn self_test(
        &self,
        labels: Labels,
        limits: &Limits,
        state_dir: &Path,
    ) -> Result<Vec<String>, String> {
        let dir = state_dir.to_owned();
        let kept = tokio::task::spawn_blocking(move || {
            write_and_read(&dir).map_err(|e| format!("cannot use {}: {e}", dir.display()))?;
            BuildGate::prepare(&dir).map(drop).map_err(|e| e.to_string())
        });
        kept.await.unwrap_or_else(|error| Err(error.to_string()))?;
        Git::new(state_dir, GIT_MAX).run(&["--version"]).await.map_err(|e| e.to_string())?;
        if !self.config.containers {
            return Ok(Vec::new());
        }
        let base = self.pythons.last().ok_or("no base image is here; make one with: bottega images build")?;
        let request = RunRequest {
            timeout: CONTAINER_MAX,
            ..RunRequest::new(&base.image(), LONG_ENOUGH.map(str::to_owned).into(), labels, limits)
        };
        match self.engine.run(&request).await {
            Ok(outcome) if outcome.end == ContainerEnd::Exited(0) => Ok(outcome.warnings),
            Ok(outcome) => Err(format!("a container that does nothing ended with {:?}", outcome.end)),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn write_and_read(dir: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(dir)?;
    let written = vec![7; DISK_BYTES];
    file.write_all(&written)?;
    file.sync_all()?;
    file.rewind()?;
    let mut read = Vec::new();
    file.read_to_end(&mut read)?;
    if read == written { Ok(()) } else { Err(io::Error::other("it does not keep what is written")) }
}
