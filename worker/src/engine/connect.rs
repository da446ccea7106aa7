use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use base_images::{DEFAULT_ADDRESS, Lookup, Unreachable};
use bollard::models::SystemInfo;
use queue_format::{Labels, Ledger, ObjectKind};
use tokio::sync::watch;

use super::EngineError;
use super::parent::{self, SlotGroups};
use crate::topology::CpuSet;

/// How long the engine may take to tell what time it is.
const TIME_MAX: Duration = Duration::from_secs(5);

/// What an engine is connected with.
#[derive(Clone, Debug)]
pub struct DockerOptions {
    /// The value of `DOCKER_HOST`, where it is set: `unix://PATH` or `tcp://HOST:PORT`.
    pub host: Option<String>,
    /// Where every object is recorded before it is made.
    pub ledger: Ledger,
    /// The clock, for the ledger.
    pub now: fn() -> jiff::Timestamp,
    /// A build that says nothing for so long has hung.
    pub build_silence_max: Duration,
}

impl DockerOptions {
    /// The usual options.
    #[must_use]
    pub fn new(host: Option<String>, ledger: Ledger, now: fn() -> jiff::Timestamp) -> Self {
        Self { host, ledger, now, build_silence_max: Duration::from_mins(20) }
    }
}

/// What it means that an engine has no init for containers.
pub(super) const NO_INIT: &str = "orphaned processes are not reaped before a container ends";
/// How often an engine that hangs up is asked, and the pause in between.
const AGREE_TRIES_MAX: u32 = 3;
const AGREE_PAUSE: Duration = Duration::from_millis(500);

/// What an engine is, as it told when it was connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFacts {
    /// Whether it is Podman, which speaks the same API in its own way here and there.
    pub is_podman: bool,
    /// The user that runs it where that is not root: its containers' groups are below those of that user.
    pub rootless_uid: Option<u32>,
    /// Its own version.
    pub version: String,
    /// The API version spoken with it.
    pub api_version: String,
    /// 1 or 2.
    pub cgroup_version: u8,
    /// `cgroupfs`, `systemd` or `none`.
    pub cgroup_driver: String,
    /// `overlay2`, …
    pub storage_driver: String,
    /// Where it keeps its layers.
    pub root_dir: PathBuf,
    /// Whether it may be able to limit a writable layer itself; the first container shows whether it can. Else
    /// the layer is watched and the container killed at the limit.
    pub limits_disk: bool,
    /// Whether slots can have control groups, which alone limit the processes of a build.
    pub limits_build_processes: bool,
    /// Whether an init process that reaps orphans is there.
    pub has_init: bool,
    /// What does not hold on this node: a sentence each.
    pub warnings: Vec<String>,
}

/// Docker's API, or Podman's of the same kind, over its socket. Cheap to clone.
///
/// Every container and build is recorded in the node's ledger before it is made. A container's entry is forgotten
/// when its removal is confirmed; a build's stays, for its image and layers do.
#[derive(Clone, Debug)]
pub struct Docker {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) client: bollard::Docker,
    /// For answers that bollard's types cannot express, and such requests.
    pub(super) lookup: Lookup,
    pub(super) facts: EngineFacts,
    pub(super) options: DockerOptions,
    pub(super) groups: SlotGroups,
    /// Whether `storage-opt size` is still believed in.
    pub(super) limits_disk: AtomicBool,
    /// Whether its init is still believed in.
    pub(super) has_init: AtomicBool,
    /// Removals going on behind dropped futures.
    pub(super) removals: watch::Sender<Vec<CpuSet>>,
}

impl Docker {
    /// Connects, agrees on a version, and asks what the engine can.
    ///
    /// # Errors
    /// Nothing answers there, or not as an engine does.
    pub async fn connect(options: DockerOptions) -> Result<Self, EngineError> {
        let address = options.host.clone().unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let unreachable = |source| Unreachable { address: address.clone(), source };
        let client = bollard::Docker::connect_with_host(&address).map_err(unreachable)?;
        let client = agree(client).await.map_err(unreachable)?;
        let info = client.info().await.map_err(unreachable)?;
        let components = client.version().await.map_err(unreachable)?.components.unwrap_or_default();
        let is_podman = components.iter().any(|component| component.name.starts_with("Podman"));
        let api_version = client.client_version();
        let api_version = format!("{}.{}", api_version.major_version, api_version.minor_version);
        let lookup = Lookup::new(&address, &api_version)?;
        let rootless_uid = is_rootless(&info).then(|| owner_of(&address));
        if rootless_uid.is_some() {
            let controllers = parent::mount(rootless_uid).join("cgroup.controllers");
            let missing = not_delegated(&std::fs::read_to_string(controllers).unwrap_or_default());
            if !missing.is_empty() {
                return Err(EngineError::NotDelegated { address, missing: missing.join(", ") });
            }
        }
        let facts = facts(info, api_version, is_podman, rootless_uid);
        let limits_disk = AtomicBool::new(facts.limits_disk);
        let has_init = AtomicBool::new(facts.has_init);
        let removals = watch::Sender::new(Vec::new());
        let groups = SlotGroups::new(&facts);
        let inner = Inner { client, lookup, facts, options, groups, limits_disk, has_init, removals };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Removes the control groups of slots, as far as nothing runs in them any more.
    pub fn remove_groups(&self) {
        self.inner.groups.remove();
    }

    /// What the engine is.
    #[must_use]
    pub fn facts(&self) -> &EngineFacts {
        &self.inner.facts
    }
}

impl Inner {
    /// Records an object that is about to be made.
    pub(super) async fn record(&self, labels: &Labels, kind: ObjectKind) -> Result<(), EngineError> {
        let entry = labels.entry(kind, (self.options.now)());
        let ledger = self.options.ledger.clone();
        let written = tokio::task::spawn_blocking(move || ledger.record(&entry)).await;
        Ok(written.map_err(|source| failed("write the ledger", source))??)
    }

    /// Notes that a build has come to its end; without that note its labels alone tell which images are its own.
    pub(super) async fn note_end(&self, object: uuid::Uuid) {
        let asked = tokio::time::timeout(TIME_MAX, self.client.info()).await;
        let Some(at) = asked.ok().and_then(|info| info.ok()?.system_time?.parse().ok()) else { return };
        let ledger = self.options.ledger.clone();
        let noted = tokio::task::spawn_blocking(move || ledger.end(object, at)).await;
        if let Ok(Err(error)) = noted {
            tracing::warn!(%object, %error, "the ledger does not know that a build has ended");
        }
    }

    /// Forgets an object whose removal is confirmed. An entry that stays is the janitor's to drop.
    pub(super) fn forget(&self, object: uuid::Uuid) {
        if let Err(error) = self.options.ledger.forget(object) {
            tracing::warn!(%object, %error, "the ledger still knows an object that is gone");
        }
    }
}

/// Agrees on a version. Podman's service ends when it was idle for some seconds: a request that comes just then is hung up
/// on, and the next starts it again.
async fn agree(client: bollard::Docker) -> Result<bollard::Docker, bollard::errors::Error> {
    for _ in 1..AGREE_TRIES_MAX {
        match client.clone().negotiate_version().await {
            Err(bollard::errors::Error::HyperLegacyError { err }) if !err.is_connect() => {
                tokio::time::sleep(AGREE_PAUSE).await;
            }
            agreed => return agreed,
        }
    }
    client.negotiate_version().await
}

/// The error of a request that failed.
#[expect(clippy::needless_pass_by_value, reason = "called as map_err(|source| failed(…, source))")]
pub(super) fn failed(action: &'static str, source: impl ToString) -> EngineError {
    EngineError::Failed { action, detail: source.to_string() }
}

/// As [`failed`], unless the engine finds fault with what was asked for; the node's cores are none of the asker's.
pub(super) fn refused(action: &'static str, source: bollard::errors::Error) -> EngineError {
    match source {
        bollard::errors::Error::DockerResponseServerError { message, .. }
            if message.contains("lookup init binary") =>
        {
            failed(action, format!("{message}; install catatonit, which Podman's package only recommends"))
        }
        // Podman says 500 of a name that can be none.
        bollard::errors::Error::DockerResponseServerError { status_code, message }
            if status_code == 400 && !message.contains("not available")
                || message.contains("normalizing image") =>
        {
            EngineError::Refused { action, detail: message }
        }
        source => failed(action, source),
    }
}

/// Whether an error is the engine's "no such object".
pub(super) fn is_missing(error: &bollard::errors::Error) -> bool {
    status(error) == Some(404)
}

/// The HTTP status of the engine's refusal.
pub(super) fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn is_rootless(info: &SystemInfo) -> bool {
    info.security_options
        .as_ref()
        .is_some_and(|options| options.iter().any(|option| option == "name=rootless"))
}

/// The user that runs an engine without root: its socket's owner, or this process's where there is no socket to look at.
fn owner_of(address: &str) -> u32 {
    let socket = address.strip_prefix("unix://").and_then(|path| std::fs::metadata(path).ok());
    socket.map_or_else(|| nix::unistd::geteuid().as_raw(), |socket| socket.uid())
}

/// What the systemd of an engine's user hands down no controller for: the engine takes such limits, and drops them. Podman
/// does not tell, for its `CPUSet` is about the group of its own service.
fn not_delegated(controllers: &str) -> Vec<&'static str> {
    let needed = [("cores", "cpuset"), ("memory", "memory"), ("processes", "pids")];
    let is_missing = |name: &str| !controllers.split_whitespace().any(|one| one == name);
    needed.into_iter().filter(|(_, name)| is_missing(name)).map(|(what, _)| what).collect()
}

fn facts(info: SystemInfo, api_version: String, is_podman: bool, rootless_uid: Option<u32>) -> EngineFacts {
    let storage_driver = info.driver.unwrap_or_default();
    let backing =
        info.driver_status.unwrap_or_default().into_iter().find(|row| row[0] == "Backing Filesystem");
    // https://docs.docker.com/reference/cli/docker/container/run/#storage-opt
    let limits_disk = match storage_driver.as_str() {
        "overlay2" => backing.is_some_and(|row| row.get(1).is_some_and(|name| name == "xfs")),
        other => matches!(other, "btrfs" | "zfs"),
    };
    let has_init = info.init_commit.and_then(|commit| commit.id).is_none_or(|id| id != "N/A");
    let mut warnings = info.warnings.unwrap_or_default();
    if !limits_disk {
        warnings.push(format!(
            "{storage_driver} cannot limit a container's disk here: its writable layer is watched instead"
        ));
    }
    let cgroup_version = if info.cgroup_version.is_some_and(|v| v.to_string() == "2") { 2 } else { 1 };
    let cgroup_driver = info.cgroup_driver.map(|driver| driver.to_string()).unwrap_or_default();
    let limits_build_processes = parent::is_possible(&cgroup_driver, cgroup_version, rootless_uid);
    if !limits_build_processes {
        warnings.push(
            "the number of a build's processes cannot be limited here, for slots have no control groups: run \
             bottega-worker prepare as root"
                .to_owned(),
        );
    }
    if !has_init {
        warnings.push(format!("docker-init is missing: {NO_INIT}"));
    }
    EngineFacts {
        is_podman,
        rootless_uid,
        version: info.server_version.unwrap_or_default(),
        api_version,
        cgroup_version,
        cgroup_driver,
        storage_driver,
        root_dir: info.docker_root_dir.unwrap_or_default().into(),
        limits_disk,
        limits_build_processes,
        has_init,
        warnings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_without_root_must_be_able_to_limit() {
        let check = |controllers: &str, expected: &[&str]| {
            assert_eq!(not_delegated(controllers), expected, "{controllers}");
        };
        check("cpuset cpu memory pids\n", &[]);
        // What Debian 13 gives a user by itself.
        check("cpu memory pids\n", &["cores"]);
        // cgroup v1, or no systemd.
        check("", &["cores", "memory", "processes"]);
    }

    #[test]
    fn an_engine_without_root_is_known() {
        let check = |options: &str, expected: bool| {
            let info = serde_json::from_str(&format!(r#"{{"SecurityOptions": [{options}]}}"#)).unwrap();
            assert_eq!(is_rootless(&info), expected, "{options}");
        };
        // Podman 5.4 without root, and Docker 26.
        check(r#""name=apparmor", "name=seccomp,profile=default", "name=rootless""#, true);
        check(r#""name=apparmor", "name=cgroupns""#, false);
    }
}
