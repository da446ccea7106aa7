//! Containers that an earlier process of this worker began, and that run on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, EventMessage};
use bollard::query_parameters::{EventsOptionsBuilder, LogsOptionsBuilder};
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use queue_format::LABEL_OBJECT;
use uuid::Uuid;

use super::connect::{Docker, Inner, failed};
use super::container::{Ended, LABEL_REQUEST};
use super::disk::DiskWatch;
use super::output::Output;
use super::removal::Removal;
use super::watch::Watch;
use super::{EngineError, RunOutcome, RunRequest, digest};

/// Who does one of these to a container decides what comes of it.
const FOREIGN_HANDS: [&str; 4] = ["kill", "stop", "restart", "pause"];
/// What is read at most of the output of one that has ended, in time.
const READ_MAX: Duration = Duration::from_secs(120);
/// Events of one container that are read at most; engines keep a few hundred of all.
const EVENTS_MAX: usize = 1024;

/// How long an engine may take to tell of the end of a container that it says has ended, and Podman of what ended it.
const TOLD_MAX: Duration = Duration::from_secs(10);
const STOP_TOLD_MAX: Duration = Duration::from_secs(1);

/// A container's life so far.
pub(super) struct Past {
    began_at: Timestamp,
    /// `None` while it runs.
    ended_at: Option<Timestamp>,
}

/// What an engine tells of what was done to a container.
struct Told {
    actions: Vec<String>,
    /// Whether the end came that was waited for.
    is_over: bool,
}

impl Docker {
    pub(super) async fn adopt_container(
        &self,
        request: &RunRequest,
    ) -> Result<Option<RunOutcome>, EngineError> {
        let inner = &self.inner;
        let removal = Removal::of_run(Arc::clone(inner), request);
        let Some(found) = inner.inspect_container(&request.container_name).await? else {
            // Whether it is being made is not known: the removal looks for it.
            return removal.of_all().await.map(|()| None);
        };
        let label = |key| found.config.as_ref()?.labels.as_ref()?.get(key);
        if label(LABEL_OBJECT) != Some(&request.labels.object.to_string()) {
            let stranger = format!("{} is a container of somebody else", request.container_name);
            return Err(failed("go on with a container", stranger));
        }
        let id = found.id.clone().unwrap_or_default();
        if label(LABEL_REQUEST) != Some(&digest(request)) {
            tracing::info!(container = id, "not gone on with: it was made for another request");
            return removal.of_all().await.map(|()| None);
        }
        let outcome = inner.go_on(&id, &found, request).await;
        removal.of_container(&id).await?;
        outcome
    }
}

impl Inner {
    async fn go_on(
        &self,
        id: &str,
        found: &ContainerInspectResponse,
        request: &RunRequest,
    ) -> Result<Option<RunOutcome>, EngineError> {
        // One that never began has done nothing.
        let not = |why: &str| {
            tracing::info!(container = id, "not gone on with: {why}");
            Ok(None)
        };
        let Some(past) = Past::of(found) else { return not("it never began") };
        let told = self.told_of(id, &past).await?;
        // Of its end an engine that was started again since knows nothing: then it is not known how it came.
        let is_known = past.ended_at.is_none() || (told.has("start") && told.has("die"));
        if !is_known || FOREIGN_HANDS.iter().any(|hand| told.has(hand)) {
            return not("somebody else had a hand in it, or the engine does not know any more");
        }
        let (task, token) = (&request.labels.task, request.labels.token);
        tracing::info!(%task, %token, container = id, "goes on in its container");
        // As it was made, whatever is believed of the engine now.
        let host_config = found.host_config.as_ref();
        let watches_disk = host_config.is_none_or(|config| config.storage_opt.is_none());
        let Some(ended_at) = past.ended_at else {
            let output = Output::of(Box::pin(self.kept_output(id, true)), request.log_bytes_max);
            let pid = found.state.as_ref().and_then(|state| state.pid);
            let by_date = || (self.options.now)().duration_since(past.began_at).unsigned_abs();
            let age = pid.and_then(age_of_process).unwrap_or_else(by_date);
            let now = Instant::now();
            let began = now.checked_sub(age).unwrap_or(now);
            return self.see_through(id, request, began, output, watches_disk).await.map(Some);
        };
        let took = ended_at.duration_since(past.began_at).unsigned_abs();
        // By dates alone: whether it was late, or the clock was set, only another run can tell.
        if took > request.timeout {
            return not("it took longer than it may, by dates");
        }
        let disk = DiskWatch {
            inner: self,
            object: request.labels.object,
            limit_bytes: request.limits.disk_bytes,
            base_bytes: None,
        };
        let ended = match watches_disk && disk.is_full().await {
            true => Ended::DiskFull,
            false => Ended::Itself,
        };
        let whole = Output::whole(Box::pin(self.kept_output(id, false)), request.log_bytes_max);
        let Ok(Some(output)) = tokio::time::timeout(READ_MAX, whole).await else {
            return not("its output could not be read to the end");
        };
        let watch = Watch::of_ended(self, id, request.limits.memory_bytes);
        self.gather(id, request, ended, took.as_secs_f64(), watch, output).await.map(Some)
    }

    /// From its first byte on, as far as the engine has kept it.
    fn kept_output(
        &self,
        id: &str,
        follow: bool,
    ) -> impl Stream<Item = Result<LogOutput, Error>> + Send + use<> {
        let options = LogsOptionsBuilder::new().follow(follow).stdout(true).stderr(true).build();
        self.client.logs(id, Some(options))
    }

    /// Whether nobody but the worker had a hand in a container that has ended: what somebody else did to it decides what came
    /// of it.
    ///
    /// # Errors
    /// Somebody had, or the engine does not know.
    pub(super) async fn was_let_alone(
        &self,
        id: &str,
        found: &ContainerInspectResponse,
        ended: &Ended,
    ) -> Result<(), EngineError> {
        let by_itself = matches!(ended, Ended::Itself);
        let disturbed = |detail: String| Err(EngineError::Disturbed { detail });
        let Some(past) = Past::of(found).filter(|past| past.ended_at.is_some()) else {
            let status = found.state.as_ref().and_then(|state| state.status);
            let status = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
            return if by_itself { disturbed(format!("its state is {status}")) } else { Ok(()) };
        };
        let told = self.told_of(id, &past).await?;
        // What the worker ends it kills itself; what was paused is late through no fault of its own.
        match by_itself {
            true => told.without(&FOREIGN_HANDS)?.to_its_end("tell how a container ended"),
            false => told.without(&["pause"]).map(drop),
        }
    }

    /// Whether nobody had a hand in a build that failed since a signal ended a step of it. Podman tells nothing of steps.
    ///
    /// # Errors
    /// Somebody had, or the engine does not know.
    pub(super) async fn steps_were_let_alone(
        &self,
        object: Uuid,
        began_at: Timestamp,
        sentence: &str,
    ) -> Result<(), EngineError> {
        let Some(status) = status_of_signal(sentence).filter(|_| !self.facts.is_podman) else {
            return Ok(());
        };
        let label = format!("{LABEL_OBJECT}={object}");
        let is_end = |event: &EventMessage| {
            let attributes = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
            event.action.as_deref() == Some("die")
                && attributes.and_then(|all| all.get("exitCode")).is_some_and(|code| code == status)
        };
        let told = self.told(("label", label), began_at, true, is_end).await?;
        told.without(&FOREIGN_HANDS)?.to_its_end("tell how a step of a build ended")
    }

    /// What the engine tells of a container, up to its end where that has come.
    async fn told_of(&self, id: &str, past: &Past) -> Result<Told, EngineError> {
        let is_end = |event: &EventMessage| event.action.as_deref() == Some("die");
        self.told(("container", id.to_owned()), past.began_at, past.ended_at.is_some(), is_end).await
    }

    /// What the engine tells of containers, up to an end where one has come.
    async fn told(
        &self,
        (filter, of): (&str, String),
        since: Timestamp,
        has_ended: bool,
        is_end: impl Fn(&EventMessage) -> bool,
    ) -> Result<Told, EngineError> {
        let filters = HashMap::from([(filter.to_owned(), vec![of])]);
        let options = EventsOptionsBuilder::new().since(&since.as_second().to_string()).filters(&filters);
        let options = match has_ended {
            false => options.until(&(self.options.now)().as_second().to_string()),
            true => options,
        };
        let mut told = Told { actions: Vec::new(), is_over: false };
        let mut events = std::pin::pin!(self.client.events(Some(options.build())).take(EVENTS_MAX));
        let mut pause = TOLD_MAX;
        // What is told until then is all that it knows.
        while let Ok(Some(event)) = tokio::time::timeout(pause, events.next()).await {
            let event = event.map_err(|source| failed("tell what happened to a container", source))?;
            told.is_over |= is_end(&event);
            told.actions.extend(event.action);
            if has_ended && told.is_over {
                if !self.facts.is_podman {
                    break;
                }
                // It tells of a stop once that is done.
                pause = STOP_TOLD_MAX;
            }
        }
        Ok(told)
    }
}

/// The status in an engine's sentence on a step of a build, if it is one of those that signals leave.
fn status_of_signal(sentence: &str) -> Option<&str> {
    let (_, status) = sentence.rsplit_once("returned a non-zero code: ")?;
    status.parse().is_ok_and(|code: u8| (129..=192).contains(&code)).then_some(status)
}

impl Told {
    fn has(&self, action: &str) -> bool {
        self.actions.iter().any(|told| told == action)
    }

    fn without(&self, hands: &[&str]) -> Result<&Self, EngineError> {
        match hands.iter().find(|hand| self.has(hand)) {
            Some(hand) => Err(EngineError::Disturbed { detail: format!("the engine tells of a {hand}") }),
            None => Ok(self),
        }
    }

    fn to_its_end(&self, action: &'static str) -> Result<(), EngineError> {
        if self.is_over { Ok(()) } else { Err(failed(action, "it was started again since")) }
    }
}

/// By the clock that nobody sets; `None` where the process is not on this host.
fn age_of_process(pid: i64) -> Option<Duration> {
    // The second field is the program's name in parentheses, with anything in it; the 22nd is the start in ticks.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let began: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let ticks = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    let began = Duration::from_millis(began.checked_mul(1000)?.checked_div(ticks)?);
    Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?).checked_sub(began)
}

impl Past {
    /// `None` of one that was never started, or that nobody can tell about.
    fn of(found: &ContainerInspectResponse) -> Option<Self> {
        let state = found.state.as_ref()?;
        let at = |text: &Option<String>| text.as_ref()?.parse::<Timestamp>().ok();
        let began_at = at(&state.started_at)?;
        match state.status? {
            ContainerStateStatusEnum::RUNNING => Some(Self { began_at, ended_at: None }),
            ContainerStateStatusEnum::EXITED => {
                Some(Self { began_at, ended_at: Some(at(&state.finished_at)?) })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_as_old_as_the_host_says() {
        let age = age_of_process(std::process::id().into()).unwrap();
        let uptime = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap());
        assert!(age < uptime, "{age:?}");
        assert_eq!(age_of_process(i64::MAX), None);
    }
}
