//! Downloads, by pip's own knowledge of the index, inside a container: the host may have no Python.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    UploadToContainerOptionsBuilder, WaitContainerOptions,
};
use futures_util::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::CorpusError;

/// The base image whose pip downloads.
pub const FETCH_IMAGE: &str = "openswe-python-3.11";

const PROGRAM: &str = include_str!("../../corpus/fetch.py");
const DIRECTORY: &str = "/corpus";
/// Of all that one container brings back; the whole corpus has about 5 MB.
const DOWNLOAD_BYTES_MAX: usize = 256 << 20;
/// Of files in a message.
const NAMED_MAX: usize = 3;
const LOG_BYTES_MAX: usize = 4 << 10;
const MEMORY_BYTES: i64 = 1 << 30;
/// For all requests of one call; the whole corpus takes about 20 seconds.
const FETCH_TIME_MAX: Duration = Duration::from_secs(15 * 60);

/// One file that is wanted of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Request {
    /// The package, as its files are called.
    pub(super) package: String,
    /// The file's name.
    pub(super) file: String,
    /// What it must be; without it the file is looked up and not downloaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<String>,
}

/// What became of a request.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Report {
    /// The file's name.
    pub(super) file: String,
    /// What the index says.
    #[serde(default)]
    pub(super) sha256: String,
    /// When it was uploaded; empty where the index does not say.
    #[serde(default)]
    pub(super) uploaded_at: String,
    /// Why it could not be had.
    pub(super) error: Option<String>,
}

/// Files by name.
pub(super) type Files = HashMap<String, Vec<u8>>;

/// Downloads by a container of [`FETCH_IMAGE`] with the host's network.
#[derive(Debug)]
pub struct Downloader {
    image: String,
    identity: String,
}

impl Downloader {
    /// `identity` names the caller on the container's label `bottega.object`.
    #[must_use]
    pub fn new(image: &str, identity: &str) -> Self {
        Self { image: image.to_owned(), identity: identity.to_owned() }
    }

    /// Runs the program on the requests; `cache` is where a person may put the files instead.
    pub(super) async fn fetch(
        &self,
        requests: &[Request],
        cache: &Path,
    ) -> Result<(Vec<Report>, Files), CorpusError> {
        let files = named(requests);
        let failed = |action: &'static str| {
            let (files, directory) = (files.clone(), cache.to_owned());
            move |source| CorpusError::Engine { action, files, directory, source: Box::new(source) }
        };
        let docker = Docker::connect_with_defaults().map_err(failed("connect to Docker"))?;
        let docker = docker.negotiate_version().await.map_err(failed("connect to Docker"))?;
        match docker.inspect_image(&self.image).await {
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                let (image, directory) = (self.image.clone(), cache.to_owned());
                return Err(CorpusError::NoImage { image, files, directory });
            }
            answer => answer.map_err(failed("inspect an image"))?,
        };
        let created =
            docker.create_container(None, self.container()).await.map_err(failed("create a container"))?;
        let outcome = tokio::select! {
            outcome = run(&docker, &created.id, requests) => outcome.map_err(failed("run a container")),
            () = tokio::time::sleep(FETCH_TIME_MAX) => Err(CorpusError::Download { why: format!("no end after {FETCH_TIME_MAX:?}"), directory: cache.to_owned() }),
            // The container has to go before this process does.
            _ = tokio::signal::ctrl_c() => Err(CorpusError::Interrupted),
        };
        let remove = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        docker.remove_container(&created.id, Some(remove)).await.map_err(failed("remove the container"))?;
        let (archive, log) = outcome?;
        read_back(&archive, &log).map_err(|why| CorpusError::Download { why, directory: cache.to_owned() })
    }

    fn container(&self) -> ContainerCreateBody {
        let program = format!(
            ". /opt/conda/etc/profile.d/conda.sh && conda activate testbed && exec python {DIRECTORY}/fetch.py {DIRECTORY}"
        );
        ContainerCreateBody {
            image: Some(self.image.clone()),
            cmd: Some(vec!["bash".into(), "-lc".into(), program]),
            labels: Some(HashMap::from([
                (queue_format::LABEL_OBJECT.to_owned(), self.identity.clone()),
                ("bottega.corpus".to_owned(), "fetch".to_owned()),
            ])),
            host_config: Some(HostConfig {
                network_mode: Some("host".into()),
                memory: Some(MEMORY_BYTES),
                cap_drop: Some(vec!["ALL".into()]),
                security_opt: Some(vec!["no-new-privileges".into()]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }
}

/// Puts the program in, waits for its end, takes the directory out as a tar archive, with what it said.
async fn run(
    docker: &Docker,
    id: &str,
    requests: &[Request],
) -> Result<(Vec<u8>, String), bollard::errors::Error> {
    let upload = UploadToContainerOptionsBuilder::default().path("/").build();
    docker.upload_to_container(id, Some(upload), bollard::body_full(packed(requests)?.into())).await?;
    docker.start_container(id, None).await?;
    // An exit status other than 0 is an error of the stream; what the program said tells more.
    let _status = docker.wait_container(id, None::<WaitContainerOptions>).next().await;
    let logs = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("40").build();
    let mut log = String::new();
    let mut lines = docker.logs(id, Some(logs));
    while let Some(line) = lines.try_next().await? {
        if let LogOutput::StdOut { message } | LogOutput::StdErr { message } = line
            && log.len() < LOG_BYTES_MAX
        {
            log.push_str(&String::from_utf8_lossy(&message));
        }
    }
    let path = DownloadFromContainerOptionsBuilder::default().path(DIRECTORY).build();
    let mut archive = Vec::new();
    let mut chunks = docker.download_from_container(id, Some(path));
    while let Some(chunk) = chunks.try_next().await? {
        if archive.len() + chunk.len() > DOWNLOAD_BYTES_MAX {
            return Err(
                std::io::Error::other(format!("more than {DOWNLOAD_BYTES_MAX} bytes came back")).into()
            );
        }
        archive.extend_from_slice(&chunk);
    }
    Ok((archive, log))
}

/// The first files of a list, and how many more.
fn named(requests: &[Request]) -> String {
    let names =
        requests.iter().take(NAMED_MAX).map(|request| request.file.as_str()).collect::<Vec<_>>().join(", ");
    match requests.len().saturating_sub(NAMED_MAX) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

fn packed(requests: &[Request]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let requests = serde_json::to_vec(requests)?;
    for (name, content) in [("fetch.py", PROGRAM.as_bytes()), ("requests.json", requests.as_slice())] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, format!("{}/{name}", &DIRECTORY[1..]), content)?;
    }
    tar.into_inner()
}

/// The report and the files of the directory that came back; the error is what the program said.
fn read_back(archive: &[u8], log: &str) -> Result<(Vec<Report>, Files), String> {
    let mut files = Files::new();
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let mut entry = entry.map_err(|error| error.to_string())?;
        let name = entry.path().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        if let (true, Some(name)) = (entry.header().entry_type().is_file(), name) {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(|error| error.to_string())?;
            files.insert(name, content);
        }
    }
    let report =
        files.remove("report.json").ok_or_else(|| format!("the program ended early: {}", log.trim()))?;
    let report: Vec<Report> = serde_json::from_slice(&report).map_err(|error| error.to_string())?;
    let errors: Vec<_> = report.iter().filter_map(|line| line.error.clone()).collect();
    if errors.is_empty() { Ok((report, files)) } else { Err(errors.join("; ")) }
}
