//! Containers that live for one script.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::models::{ContainerConfig, ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use tokio::io::AsyncReadExt as _;

use crate::engine::images::SCRATCH;
use crate::engine::{Engine, LABEL_BASE_IMAGE};
use crate::error::BuildError;

/// How much of a file is read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// The longest line that is passed on.
const MAX_LINE_BYTES: usize = 2000;

/// How many last lines of a script are kept for an error.
const LINES_KEPT: usize = 40;

/// A script to run in a new container.
pub(crate) struct Job<'a> {
    /// The image's id.
    pub(crate) image: &'a str,
    /// What it is for, as in the label.
    pub(crate) label: &'a str,
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<String>,
    /// `host` or `none`.
    pub(crate) network: &'a str,
}

/// How a script ended, and the last lines it said.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) exit_code: i64,
    pub(crate) last_lines: Vec<String>,
}

impl Engine {
    /// Creates the container of a job; it does not run yet.
    pub(crate) async fn create(&self, job: &Job<'_>) -> Result<String, BuildError> {
        let labels = HashMap::from([(LABEL_BASE_IMAGE.to_owned(), job.label.to_owned())]);
        let name = format!("{SCRATCH}-{}", self.scratch_name());
        let body = ContainerCreateBody {
            image: Some(job.image.to_owned()),
            cmd: Some(job.command.clone()),
            env: Some(job.environment.clone()),
            labels: Some(labels),
            host_config: Some(HostConfig {
                network_mode: Some(job.network.to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let created = self.docker().create_container(Some(options), body).await;
        created.map(|created| created.id).map_err(BuildError::engine("create a container"))
    }

    /// Unpacks a tar archive into a container's root directory.
    pub(crate) async fn upload(&self, container: &str, archive: &Path) -> Result<(), BuildError> {
        let file = tokio::fs::File::open(archive).await.map_err(BuildError::io(archive))?;
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        let body = bollard::body_try_stream(chunks(file));
        let uploaded = self.docker().upload_to_container(container, Some(options), body).await;
        uploaded.map_err(BuildError::engine("copy files into a container"))
    }

    /// Starts a container, passes its lines on, and waits for its end.
    pub(crate) async fn run(
        &self,
        container: &str,
        limit: Duration,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Finished, BuildError> {
        let running = self.run_unbounded(container, on_line);
        let timed_out =
            || BuildError::TimedOut { step: "a script in a container", limit_seconds: limit.as_secs() };
        tokio::time::timeout(limit, running).await.map_err(|_| timed_out())?
    }

    async fn run_unbounded(
        &self,
        container: &str,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Finished, BuildError> {
        let started = self.docker().start_container(container, None).await;
        started.map_err(BuildError::engine("start a container"))?;
        let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).build();
        let mut output = self.docker().logs(container, Some(options));
        let mut lines = Lines::default();
        while let Some(chunk) = output.next().await {
            let chunk = chunk.map_err(BuildError::engine("read a container's output"))?;
            lines.push(&chunk.into_bytes(), on_line);
        }
        let inspected = self.docker().inspect_container(container, None).await;
        let state = inspected.map_err(BuildError::engine("inspect a container"))?.state.unwrap_or_default();
        Ok(Finished { exit_code: state.exit_code.unwrap_or(-1), last_lines: lines.finish(on_line) })
    }

    /// Makes a scratch image of a container.
    pub(crate) async fn commit(
        &self,
        container: &str,
        labels: HashMap<String, String>,
        environment: Vec<String>,
    ) -> Result<String, BuildError> {
        let options = CommitContainerOptionsBuilder::default()
            .container(container)
            .repo(SCRATCH)
            .tag(&self.scratch_name())
            .pause(false)
            .build();
        let config = ContainerConfig {
            labels: Some(labels),
            env: Some(environment),
            cmd: Some(vec!["bash".to_owned()]),
            ..ContainerConfig::default()
        };
        let committed = self.docker().commit_container(options, config).await;
        committed.map(|image| image.id).map_err(BuildError::engine("make an image of a container"))
    }

    /// Removes a container whatever it does; that it is gone already is fine.
    pub(crate) async fn remove_container(&self, container: &str) -> Result<(), BuildError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker().remove_container(container, Some(options)).await {
            Err(error) if !super::images::is_absent(&error) => {
                Err(BuildError::engine("remove a container")(error))
            }
            _ => Ok(()),
        }
    }
}

/// A reader's content, piece by piece.
pub(crate) fn chunks(
    reader: impl tokio::io::AsyncRead + Send + Unpin + 'static,
) -> impl futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static {
    futures_util::stream::try_unfold(reader, |mut reader| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        let read = reader.read_buf(&mut chunk).await?;
        Ok((read > 0).then(|| (chunk.freeze(), reader)))
    })
}

/// Cuts output into lines and keeps the last ones.
#[derive(Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
    kept: std::collections::VecDeque<String>,
}

impl Lines {
    pub(crate) fn push(&mut self, chunk: &[u8], on_line: &mut (dyn FnMut(&str) + Send)) {
        for &byte in chunk {
            if byte == b'\n' || byte == b'\r' {
                self.end_line(on_line);
            } else if self.pending.len() < MAX_LINE_BYTES {
                self.pending.push(byte);
            }
        }
    }

    pub(crate) fn finish(mut self, on_line: &mut (dyn FnMut(&str) + Send)) -> Vec<String> {
        self.end_line(on_line);
        self.kept.into()
    }

    fn end_line(&mut self, on_line: &mut (dyn FnMut(&str) + Send)) {
        let text = String::from_utf8_lossy(&self.pending);
        let line: String = text.trim_end().chars().filter(|character| !character.is_control()).collect();
        self.pending.clear();
        if line.is_empty() {
            return;
        }
        on_line(&line);
        if self.kept.len() == LINES_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_output_into_bounded_lines() {
        let check = |chunks: &[&str], expected: &[&str]| {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            for chunk in chunks {
                lines.push(chunk.as_bytes(), &mut |line| seen.push(line.to_owned()));
            }
            let kept = lines.finish(&mut |line| seen.push(line.to_owned()));
            assert_eq!(seen, expected);
            assert_eq!(kept, expected[expected.len().saturating_sub(LINES_KEPT)..]);
        };
        check(&["a\nb", "c\n\n", "d"], &["a", "bc", "d"]);
        check(&["a\u{1b}[31mred\r\n"], &["a[31mred"]);
        let long = "x".repeat(MAX_LINE_BYTES + 1);
        check(&[&long], &[&long[1..]]);
        let many: Vec<String> = (0..LINES_KEPT + 5).map(|number| number.to_string()).collect();
        check(&[&many.join("\n")], &many.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
