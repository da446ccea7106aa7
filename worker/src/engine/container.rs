use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bollard::container::AttachContainerResults;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HealthConfig, HostConfig, HostConfigLogConfig,
    ResourcesUlimits,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, KillContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::build::network_mode;
use super::connect::{Docker, Inner, NO_INIT, failed, is_missing, refused, status};
use super::disk::DiskWatch;
use super::output::Output;
use super::removal::Removal;
use super::watch::Watch;
use super::{ContainerEnd, EngineError, Limits, RunOutcome, RunRequest, digest};

/// What a container was made for, for whoever would go on with it.
pub(super) const LABEL_REQUEST: &str = "bottega.request";
/// How long a killed container may take to be gone.
const KILL_MAX: Duration = Duration::from_secs(5);
/// How long Podman may take to clean up after a container that has ended, and the pause between two looks.
const CLEAN_UP_MAX: Duration = Duration::from_mins(2);
const CLEAN_UP_AGAIN: Duration = Duration::from_millis(20);
/// What the engine keeps of a container's output: so many files of such a size.
const KEPT_LOG: [(&str, &str); 2] = [("max-size", "8m"), ("max-file", "2")];
/// The status a shell gives a command that is not there.
const STATUS_NOT_FOUND: i64 = 127;
/// And one that may not be started.
const STATUS_NOT_STARTED: i64 = 126;
/// 128 + SIGKILL.
const STATUS_KILLED: i64 = 137;

impl Docker {
    pub(super) async fn run_container(&self, request: &RunRequest) -> Result<RunOutcome, EngineError> {
        let inner = &self.inner;
        inner.record(&request.labels, request.kind()).await?;
        let removal = Removal::of_run(Arc::clone(inner), request);
        let created = match inner.create(request).await {
            Ok(created) => created,
            // Its name is that of one which an earlier process has asked for, and which came late.
            Err(error) if status(&error) == Some(409) || error.to_string().contains("already in use") => {
                removal.of_all().await?;
                return Err(failed("create a container", error));
            }
            Err(error) if status(&error).is_some() => {
                removal.disarm();
                return Err(match is_missing(&error) {
                    true => EngineError::NoImage(request.image.clone()),
                    false => refused("create a container", error),
                });
            }
            // Whether it was made is not known: dropping the removal looks for it.
            Err(error) => return Err(failed("create a container", error)),
        };
        let (task, token) = (&request.labels.task, request.labels.token);
        tracing::info!(%task, %token, container = created.id, "runs in a container");
        let outcome = match inner.has_no_volumes(&created.id).await {
            Ok(()) => inner.live(&created.id, request).await,
            Err(error) => Err(error),
        };
        removal.of_container(&created.id).await?;
        let mut outcome = outcome?;
        outcome.warnings.splice(..0, created.warnings);
        Ok(outcome)
    }
}

struct Created {
    id: String,
    warnings: Vec<String>,
}

/// Why a container runs no more.
pub(super) enum Ended {
    Itself,
    TimedOut,
    DiskFull,
}

impl Inner {
    async fn create(&self, request: &RunRequest) -> Result<Created, Error> {
        let options = CreateContainerOptionsBuilder::new().name(&request.container_name).build();
        let made = loop {
            let has = |what: &AtomicBool| what.load(Ordering::Relaxed);
            let (limits_disk, has_init) = (has(&self.limits_disk), has(&self.has_init));
            let body = self.body(request, limits_disk, has_init);
            match self.client.create_container(Some(options.clone()), body).await {
                Err(error) if limits_disk && error.to_string().contains("storage-opt") => {
                    tracing::warn!(%error, "the engine cannot limit a container's disk: its writable layer is watched");
                    self.limits_disk.store(false, Ordering::Relaxed);
                }
                // Podman promises one without a look for it.
                Err(error) if has_init && error.to_string().contains("container-init binary not found") => {
                    tracing::warn!(%error, "{NO_INIT}: install catatonit");
                    self.has_init.store(false, Ordering::Relaxed);
                }
                made => break made?,
            }
        };
        Ok(Created { id: made.id, warnings: made.warnings })
    }

    fn body(&self, request: &RunRequest, limits_disk: bool, has_init: bool) -> ContainerCreateBody {
        let Limits { memory_bytes, pids_max, nofile_max, shm_bytes, disk_bytes, .. } = request.limits;
        let ulimit = |name: &str, value| ResourcesUlimits {
            name: Some(name.to_owned()),
            soft: Some(signed(value)),
            hard: Some(signed(value)),
        };
        let host_config = HostConfig {
            cpuset_cpus: Some(request.limits.cpuset_cpus.clone()),
            cpuset_mems: request.limits.cpuset_mems.clone(),
            cgroup_parent: request.limits.cgroup_parent.clone(),
            memory: Some(signed(memory_bytes)),
            memory_swap: Some(signed(memory_bytes)),
            pids_limit: Some(signed(pids_max)),
            ulimits: Some(vec![ulimit("nofile", nofile_max), ulimit("core", 0)]),
            shm_size: Some(signed(shm_bytes)),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            cap_drop: Some(vec!["ALL".to_owned()]),
            network_mode: Some(network_mode(request.network).to_owned()),
            // What it prints is read as it comes. What the engine keeps is for a worker that comes after this one.
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(KEPT_LOG.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            }),
            init: Some(has_init),
            storage_opt: limits_disk.then(|| HashMap::from([("size".to_owned(), disk_bytes.to_string())])),
            ..HostConfig::default()
        };
        let mut labels = request.labels.to_map();
        labels.insert(LABEL_REQUEST.to_owned(), digest(request));
        ContainerCreateBody {
            image: Some(request.image.clone()),
            // An image's own entry point is not part of the command; one empty word resets it.
            entrypoint: Some(vec![String::new()]),
            cmd: Some(request.command.clone()),
            user: Some(request.user.clone()),
            env: Some(request.env.clone()),
            labels: Some(labels),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            host_config: Some(host_config),
            // Podman reads an empty interval beside it as one that is too short.
            healthcheck: (!self.facts.is_podman).then(no_health_check),
            ..ContainerCreateBody::default()
        }
    }

    /// The engine makes a volume wherever an image declares one: on the host's disk, where no limit counts it.
    async fn has_no_volumes(&self, id: &str) -> Result<(), EngineError> {
        let found = self.inspect_container(id).await?;
        let volumes = found.and_then(|found| found.mounts).into_iter().flatten();
        let paths: Vec<String> = volumes.filter_map(|volume| volume.destination).collect();
        if paths.is_empty() {
            return Ok(());
        }
        let detail = format!(
            "its image declares volumes ({}), which no limit of disk counts: make one without them \
             (FROM scratch, COPY --from=IMAGE / /)",
            paths.join(", ")
        );
        Err(EngineError::Refused { action: "start a container", detail })
    }

    /// From a created container to one that has ended, and what it left.
    async fn live(&self, id: &str, request: &RunRequest) -> Result<RunOutcome, EngineError> {
        self.put_files(id, &request.user, &request.dirs_in, &request.files_in).await?;
        let output = Output::of(self.attach(id).await?.output, request.log_bytes_max);
        let began = Instant::now();
        if let Err(error) = self.client.start_container(id, None).await {
            return not_started(&error, request.command.first().map_or("", String::as_str), began);
        }
        let watches_disk = !self.limits_disk.load(Ordering::Relaxed);
        self.see_through(id, request, began, output, watches_disk).await
    }

    /// From a running container to what it left.
    pub(super) async fn see_through(
        &self,
        id: &str,
        request: &RunRequest,
        began: Instant,
        output: Output,
        watches_disk: bool,
    ) -> Result<RunOutcome, EngineError> {
        let mut watch = Watch::of_container(self, id, &request.limits).await;
        let ended = self.until_end(id, request, began, watches_disk, &mut watch).await?;
        let seconds = began.elapsed().as_secs_f64();
        if !matches!(ended, Ended::Itself) {
            self.kill(id).await?;
        }
        self.gather(id, request, ended, seconds, watch, output).await
    }

    /// What an ended container left.
    pub(super) async fn gather(
        &self,
        id: &str,
        request: &RunRequest,
        ended: Ended,
        seconds: f64,
        watch: Watch<'_>,
        output: Output,
    ) -> Result<RunOutcome, EngineError> {
        let log = output.text().await;
        if self.facts.is_podman {
            self.until_cleaned_up(id).await?;
        }
        let found = self.inspect_container(id).await?;
        let found = found.ok_or_else(|| failed("inspect a container", "somebody has removed it"))?;
        self.was_let_alone(id, &found, &ended).await?;
        let end = container_end(&ended, &found, &watch)?;
        let mut files_out = BTreeMap::new();
        for (path, bytes_max) in &request.files_out {
            if let Some(bytes) = self.get_file(id, path, *bytes_max).await? {
                files_out.insert(path.clone(), bytes);
            }
        }
        let outputs = self.get_outputs(id, &request.outputs, request.output_bytes_max).await?;
        let end = match end {
            ContainerEnd::Exited(1) if self.facts.is_podman => ContainerEnd::Exited(init_status(&log)),
            end => end,
        };
        Ok(RunOutcome {
            end,
            log,
            seconds,
            peak_memory_bytes: watch.peak_memory_bytes,
            files_out,
            outputs,
            node: watch.record(),
            warnings: watch.warnings,
        })
    }

    async fn attach(&self, id: &str) -> Result<AttachContainerResults, EngineError> {
        let options = AttachContainerOptionsBuilder::new().stream(true).stdout(true).stderr(true).build();
        let attached = self.client.attach_container(id, Some(options)).await;
        attached.map_err(|source| failed("attach to a container", source))
    }

    async fn until_end(
        &self,
        id: &str,
        request: &RunRequest,
        began: Instant,
        watches_disk: bool,
        watch: &mut Watch<'_>,
    ) -> Result<Ended, EngineError> {
        let deadline = tokio::time::Instant::from_std(began + request.timeout);
        let disk = DiskWatch {
            inner: self,
            object: request.labels.object,
            limit_bytes: request.limits.disk_bytes,
            base_bytes: None,
        };
        tokio::select! {
            biased;
            waited = self.wait(id) => waited.map(|()| Ended::Itself),
            () = tokio::time::sleep_until(deadline) => Ok(Ended::TimedOut),
            () = disk.until_full(), if watches_disk => Ok(Ended::DiskFull),
            never = watch.keep() => match never {},
        }
    }

    /// Until the container is not running.
    async fn wait(&self, id: &str) -> Result<(), EngineError> {
        loop {
            let mut answers = pin!(self.client.wait_container(id, None));
            match answers.next().await {
                Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => return Ok(()),
                // Engines that answer only at the end run into the client's own time-out: ask again.
                Some(Err(Error::RequestTimeoutError)) => {}
                Some(Err(error)) => return Err(failed("wait for a container", error)),
                None => return Err(failed("wait for a container", "the connection was closed")),
            }
        }
    }

    /// A process of its own unmounts what a container wrote as soon as that has ended: files that are asked for at that moment
    /// are missing, whole or in part.
    async fn until_cleaned_up(&self, id: &str) -> Result<(), EngineError> {
        let cleaned_up = async {
            while self.lookup.podman_state(id).await?.as_deref() == Some("stopped") {
                tokio::time::sleep(CLEAN_UP_AGAIN).await;
            }
            Ok(())
        };
        tokio::time::timeout(CLEAN_UP_MAX, cleaned_up).await.unwrap_or_else(|_| {
            Err(failed(
                "inspect a container",
                format!("Podman does not clean up after {id}, which has ended"),
            ))
        })
    }

    /// Kills by the container, never by a process id, and waits until nothing of it is left.
    async fn kill(&self, id: &str) -> Result<(), EngineError> {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        if let Err(error) = self.client.kill_container(id, Some(options)).await {
            // 409: it ended at this very moment.
            if status(&error) != Some(409) {
                return Err(failed("kill a container", error));
            }
        }
        let gone = tokio::time::timeout(KILL_MAX, self.wait(id)).await;
        gone.unwrap_or_else(|_| {
            Err(failed("kill a container", format!("{id} still runs {} s later", KILL_MAX.as_secs())))
        })
    }
}

/// An image's own would run beside its commands, again and again.
fn no_health_check() -> HealthConfig {
    HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }
}

/// Docker's integers are signed; what does not fit is as good as no limit.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What Podman's init means where it ends with 1 since it could not start the program; who forges its words gains
/// nothing by it.
fn init_status(log: &str) -> i64 {
    match log.strip_prefix("ERROR (catatonit:").and_then(|said| said.split_once("failed to exec pid1: ")) {
        Some((_, why)) if why.starts_with("No such file") => STATUS_NOT_FOUND,
        Some(_) => STATUS_NOT_STARTED,
        None => 1,
    }
}

/// An image without the program is the image's fault: its command ends as a shell's would.
fn not_started(error: &Error, program: &str, began: Instant) -> Result<RunOutcome, EngineError> {
    let sentence = error.to_string();
    let status = program_status(&sentence).filter(|(named, _)| *named == program);
    let (_, status) = status.ok_or_else(|| failed("start a container", error))?;
    Ok(RunOutcome {
        end: ContainerEnd::Exited(status),
        log: sentence,
        seconds: began.elapsed().as_secs_f64(),
        peak_memory_bytes: None,
        files_out: BTreeMap::new(),
        outputs: BTreeMap::new(),
        node: None,
        warnings: Vec::new(),
    })
}

/// The program that a runtime cannot start, and the status that it would have, if that is what it says: a runtime that
/// fails names files and programs of its own, often in the same words.
pub(crate) fn program_status(sentence: &str) -> Option<(&str, i64)> {
    const STATUSES: [(&str, i64); 5] = [
        ("executable file not found", STATUS_NOT_FOUND),
        ("no such file or directory", STATUS_NOT_FOUND),
        ("permission denied", STATUS_NOT_STARTED),
        ("exec format error", STATUS_NOT_STARTED),
        ("is a directory", STATUS_NOT_STARTED),
    ];
    // runc's words, those before 1.1, then crun's.
    const BEFORE: [&str; 2] = ["unable to start container process: exec: \"", "process caused: exec: \""];
    let runc = BEFORE.iter().find_map(|before| sentence.split_once(before)?.1.split_once("\": "));
    if let Some((program, why)) = runc {
        return STATUSES.iter().find(|(known, _)| why.contains(known)).map(|&(_, status)| (program, status));
    }
    let (program, why) = sentence.split_once("executable file `")?.1.split_once('`')?;
    why.starts_with(" not found").then_some((program, STATUS_NOT_FOUND))
}

/// The kernel's kill comes first: a child killed at the memory limit may be what the rest then waited for.
fn container_end(
    ended: &Ended,
    found: &ContainerInspectResponse,
    watch: &Watch<'_>,
) -> Result<ContainerEnd, EngineError> {
    let state = found.state.as_ref();
    let exit_code = state.and_then(|state| state.exit_code).unwrap_or(STATUS_KILLED);
    if watch.oom.is_foreign() {
        return Err(EngineError::ShortOfMemory);
    }
    let was_killed = exit_code == STATUS_KILLED && matches!(ended, Ended::Itself);
    // The group may vanish before its last event is read: then a kill at the limit itself tells, unless it is files'.
    let is_oom = watch.oom.is_own()
        || state.and_then(|state| state.oom_killed).unwrap_or(false)
        || (was_killed && watch.was_full());
    Ok(match ended {
        _ if is_oom => ContainerEnd::OutOfMemory,
        Ended::Itself => ContainerEnd::Exited(exit_code),
        Ended::TimedOut => ContainerEnd::TimedOut,
        Ended::DiskFull => ContainerEnd::DiskFull,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_runtime_says_of_the_program_is_its_status() {
        let check = |sentence: &str, expected: Option<i64>| {
            let sentence =
                format!("failed to create shim task: OCI runtime create failed: {sentence}: unknown");
            let status = program_status(&sentence).filter(|(program, _)| *program == "bash");
            assert_eq!(status.map(|(_, status)| status), expected, "{sentence}");
        };
        let runc = |said: &str| format!("runc create failed: unable to start container process: {said}");
        check(&runc("exec: \"bash\": executable file not found in $PATH"), Some(127));
        check(&runc("exec: \"bash\": stat bash: no such file or directory"), Some(127));
        check(&runc("exec: \"bash\": permission denied"), Some(126));
        check(
            "container_linux.go:367: starting container process caused: exec: \"bash\": permission denied",
            Some(126),
        );
        check("crun: executable file `bash` not found in $PATH: No such file or directory", Some(127));
        check(&runc("exec: \"/sbin/docker-init\": stat /sbin/docker-init: no such file or directory"), None);
        check(&runc("open /sys/fs/cgroup/cpuset/x/cpuset.mems: no such file or directory"), None);
        check("open /run/containerd/x/init.pid: no such file or directory", None);
        check("exec: \"runc\": executable file not found in $PATH", None);
        check("crun: write to `/sys/fs/cgroup/cgroup.procs`: Permission denied", None);
    }
}
