use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ImageInspect;
use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::StatusCode;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::build_stream::BuildStream;
use super::connect::{Docker, Inner, failed, is_missing};
use super::disk::DiskWatch;
use super::dockerfile::DOCKERFILE_BYTES_MAX;
use super::removal::Removal;
use super::{BuildEnd, BuildOutcome, BuildRequest, EngineError, Limits, Network, context_stream, dockerfile};

/// How often an image is looked for on Podman, and the pause in between.
const INSPECTIONS_MAX: u32 = 5;
const INSPECT_AGAIN: Duration = Duration::from_millis(200);
/// The longest refusal that is read.
const REFUSAL_BYTES_MAX: usize = 1 << 16;

impl Docker {
    pub(super) async fn build_image(&self, request: &BuildRequest) -> Result<BuildOutcome, EngineError> {
        let text = read_dockerfile(&request.context_dir).await?;
        let mut stream = BuildStream::new(request.log_bytes_max);
        let instructions = match dockerfile::check(&text, &request.bases) {
            Ok(instructions) => instructions,
            Err(refused) => {
                stream.note(&refused.to_string());
                return Ok(BuildOutcome {
                    end: BuildEnd::Refused(refused),
                    log: stream.log(),
                    own_bytes: None,
                });
            }
        };
        let bases = dockerfile::bases(&instructions, &request.bases);
        for base in &bases {
            if self.inner.image_id(base).await?.is_none() {
                return Err(EngineError::NoImage((*base).to_owned()));
            }
        }
        let labelled = dockerfile::with_labels(&text, &instructions, &request.labels.to_map());
        let base_bytes = match bases.first() {
            Some(base) => self.inner.image_bytes(base).await?,
            None => None,
        };
        let end = self.build_from(request, labelled, base_bytes, &mut stream).await?;
        let all_bytes = match &end {
            BuildEnd::Built(id) => self.inner.image_bytes(id).await?,
            _ => None,
        };
        let own_bytes = all_bytes.zip(base_bytes).map(|(all, base)| all.saturating_sub(base));
        Ok(BuildOutcome { end, log: stream.log(), own_bytes })
    }

    async fn build_from(
        &self,
        request: &BuildRequest,
        text: String,
        base_bytes: Option<u64>,
        stream: &mut BuildStream,
    ) -> Result<BuildEnd, EngineError> {
        let inner = &self.inner;
        inner.record(&request.labels, request.kind()).await?;
        let mut removal = Removal::of_build(Arc::clone(inner), request);
        // A process before this one may have begun the same, and what hangs up on Podman ends nothing.
        removal.of_unlisted().await?;
        let disk = DiskWatch {
            inner,
            object: request.labels.object,
            limit_bytes: request.limits.disk_bytes,
            base_bytes,
        };
        let began_at = (inner.options.now)();
        let (mut answers, reader) = ask(inner.build_request(request, text));
        removal.hangs_up(reader);
        let talk = tokio::time::timeout(request.timeout, inner.talk(&mut answers, stream));
        let talked = tokio::select! {
            talked = talk => talked.unwrap_or_else(|_| {
                let why = format!("after {} s", request.timeout.as_secs());
                Ok(Talk::Cut { end: BuildEnd::TimedOut, why })
            }),
            () = disk.until_full() => {
                let why = format!("at its disk limit of {} bytes", request.limits.disk_bytes);
                Ok(Talk::Cut { end: BuildEnd::DiskFull, why })
            }
        };
        if let Ok(Talk::Built | Talk::Failed(_)) = &talked {
            inner.note_end(request.labels.object).await;
        }
        let end = match talked? {
            Talk::Built => {
                let id = inner.image_id(&request.image_name).await?;
                BuildEnd::Built(
                    id.ok_or_else(|| failed("build", "the image is gone right after it was built"))?,
                )
            }
            Talk::Failed(sentence) => {
                inner.steps_were_let_alone(request.labels.object, began_at, &sentence).await?;
                BuildEnd::Failed(sentence)
            }
            Talk::Cut { end, why } => {
                drop(answers);
                removal.of_all().await?;
                stream.note(&format!("[killed {why}]"));
                return Ok(end);
            }
        };
        removal.disarm();
        Ok(end)
    }
}

enum Talk {
    Built,
    Failed(String),
    Cut { end: BuildEnd, why: String },
}

/// What an engine says to a build.
enum Answer {
    Status(StatusCode),
    Piece(Bytes),
    /// Nothing more, and why.
    Failed(String),
}

/// Sends a request and reads its answer to the end, also when nobody listens any more: it is hung up by aborting.
fn ask(request: reqwest::RequestBuilder) -> (mpsc::Receiver<Answer>, JoinHandle<()>) {
    let (sender, answers) = mpsc::channel(1);
    let reader = tokio::spawn(async move {
        let read = async {
            let answer = request.send().await?;
            let _ = sender.send(Answer::Status(answer.status())).await;
            let mut pieces = answer.bytes_stream();
            while let Some(piece) = pieces.next().await {
                let _ = sender.send(Answer::Piece(piece?)).await;
            }
            Ok::<(), reqwest::Error>(())
        };
        if let Err(error) = read.await {
            let _ = sender.send(Answer::Failed(error_chain(&error))).await;
        }
    });
    (answers, reader)
}

impl Inner {
    fn build_request(&self, request: &BuildRequest, text: String) -> reqwest::RequestBuilder {
        self.lookup
            .post("/build")
            .query(&self.parameters(request))
            .header("Content-Type", "application/x-tar")
            .body(reqwest::Body::wrap_stream(context_stream(
                request.context_dir.clone(),
                request.tree.clone(),
                text,
            )))
    }

    /// What is answered to its end, or to its first long silence.
    async fn talk(
        &self,
        answers: &mut mpsc::Receiver<Answer>,
        stream: &mut BuildStream,
    ) -> Result<Talk, EngineError> {
        let silence_max = self.options.build_silence_max;
        let mut status = StatusCode::OK;
        let mut refusal = Vec::new();
        loop {
            let Ok(answer) = tokio::time::timeout(silence_max, answers.recv()).await else {
                let why = format!("after {} s without output", silence_max.as_secs());
                return Ok(Talk::Cut { end: BuildEnd::TimedOut, why });
            };
            match answer {
                None => break,
                Some(Answer::Status(found)) => status = found,
                Some(Answer::Piece(piece)) if status.is_success() => stream.push(&piece),
                Some(Answer::Piece(piece)) if refusal.len() < REFUSAL_BYTES_MAX => {
                    refusal.extend_from_slice(&piece);
                }
                Some(Answer::Piece(_)) => {}
                Some(Answer::Failed(why)) => return Err(failed("build", why)),
            }
        }
        if !status.is_success() {
            return refused(status, &refusal, stream);
        }
        match stream.end() {
            Ok(true) => Ok(Talk::Built),
            Ok(false) => Err(failed("build", "it ended without a result; did the engine stop?")),
            Err(sentence) if is_of_engine(&sentence) => Err(failed("build", sentence)),
            Err(sentence) => Ok(Talk::Failed(sentence)),
        }
    }

    /// <https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Image/operation/ImageBuild>; the classic
    /// builder, for BuildKit takes these limits and ignores them.
    fn parameters(&self, request: &BuildRequest) -> Vec<(&'static str, String)> {
        let Limits {
            cpuset_cpus,
            cpuset_mems,
            memory_bytes,
            nofile_max,
            shm_bytes,
            disk_bytes,
            cgroup_parent,
            ..
        } = &request.limits;
        // No file may be larger than all may be together: the engine writes a sparse one out in full, and is not to be
        // stopped then.
        let ulimits = [("nofile", nofile_max), ("fsize", disk_bytes), ("core", &0)].map(|(name, max)| {
            match self.facts.is_podman {
                true => serde_json::Value::from(format!("{name}={max}:{max}")),
                false => serde_json::json!({"Name": name, "Soft": max, "Hard": max}),
            }
        });
        let ulimits = serde_json::Value::from(ulimits.to_vec());
        let mut parameters = vec![
            ("version", "1".to_owned()),
            ("t", request.image_name.clone()),
            ("rm", "1".to_owned()),
            ("forcerm", "1".to_owned()),
            ("cpusetcpus", cpuset_cpus.clone()),
            ("memory", memory_bytes.to_string()),
            ("memswap", memory_bytes.to_string()),
            ("shmsize", shm_bytes.to_string()),
            ("ulimits", ulimits.to_string()),
            ("networkmode", network_mode(request.network).to_owned()),
        ];
        let group = cgroup_parent.clone().map(|group| match self.facts.is_podman {
            true => self.groups.of_podmans_builds(&group),
            false => group,
        });
        parameters.extend(group.map(|group| ("cgroupparent", group)));
        parameters.extend(cpuset_mems.clone().map(|mems| ("cpusetmems", mems)));
        parameters
    }

    /// The full id of an image, if it is there.
    pub(super) async fn image_id(&self, name: &str) -> Result<Option<String>, EngineError> {
        Ok(self.inspect(name).await?.and_then(|image| image.id))
    }

    async fn image_bytes(&self, name: &str) -> Result<Option<u64>, EngineError> {
        Ok(self.inspect(name).await?.and_then(|image| u64::try_from(image.size?).ok()))
    }

    async fn inspect(&self, name: &str) -> Result<Option<ImageInspect>, EngineError> {
        let mut found = self.client.inspect_image(name).await;
        for _ in 1..INSPECTIONS_MAX {
            // Podman fails where another image goes meanwhile.
            if !self.facts.is_podman || found.as_ref().err().is_none_or(is_missing) {
                break;
            }
            tokio::time::sleep(INSPECT_AGAIN).await;
            found = self.client.inspect_image(name).await;
        }
        match found {
            Ok(image) => Ok(Some(image)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(failed("inspect an image", error)),
        }
    }
}

/// What Podman says where something that it was about to look at has gone meanwhile; sentences of steps have their words.
fn is_of_engine(sentence: &str) -> bool {
    let is_gone = ["layer not known", "image not known", "container not known"];
    !sentence.starts_with("building at STEP") && is_gone.iter().any(|gone| sentence.contains(gone))
}

/// Of the Dockerfile's making (a syntax error, an unknown instruction), or the engine's.
fn refused(status: StatusCode, body: &[u8], stream: &mut BuildStream) -> Result<Talk, EngineError> {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    let sentence = serde_json::from_slice(body)
        .map_or_else(|_| String::from_utf8_lossy(body).into_owned(), |refusal: Refusal| refusal.message);
    if status == StatusCode::BAD_REQUEST || sentence.to_ascii_lowercase().contains("dockerfile") {
        stream.note(&sentence);
        return Ok(Talk::Failed(sentence));
    }
    Err(failed("build", sentence))
}

/// As the engine calls it.
pub(super) fn network_mode(network: Network) -> &'static str {
    match network {
        Network::None => "none",
        Network::Bridge => "bridge",
        Network::Host => "host",
    }
}

/// As far as it can be taken, and a byte more. What is no text gets a character that is refused.
async fn read_dockerfile(dir: &Path) -> Result<String, EngineError> {
    use tokio::io::AsyncReadExt;
    let path = dir.join("Dockerfile");
    let cannot =
        |source: std::io::Error| failed("read the Dockerfile", format!("{}: {source}", path.display()));
    let file = tokio::fs::File::open(&path).await.map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(DOCKERFILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await.map_err(cannot)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// reqwest's own message leaves out what the connection said.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
