//! What an engine tells of the use of images: asked for with each pass, and heard in between by who goes on.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::task::JoinHandle;

use super::engine::Engine;
use crate::uses::{Anchor, Heard};

/// Events that are read at once; Docker remembers 256, other engines more.
const EVENTS_MAX: usize = 10_000;

/// Names of images that are remembered between two passes: more than that, and who listens gives up until the next one.
const NAMES_MAX: usize = 4096;

/// Hears an engine's events as they happen: it remembers the last 256 of them only.
#[derive(Debug)]
pub(crate) struct Listener {
    told: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Told {
    /// Until this event is told again, some may be missing.
    from: Option<Anchor>,
    /// The last one before which none is missing.
    last: Option<Anchor>,
    uses: BTreeMap<String, Timestamp>,
}

impl Engine {
    /// Which images were used since the anchor, or else since `since`, as far as it remembers.
    pub(crate) async fn heard(
        &self,
        anchor: Option<Anchor>,
        since: Option<Timestamp>,
        until: Timestamp,
    ) -> Heard {
        let Some(since) = anchor.map(Anchor::second).or(since.map(Timestamp::as_second)) else {
            return Heard::default();
        };
        // The anchor may have been heard this very second: the answer ends with it.
        let until = anchor.map_or(0, |anchor| anchor.second() + 1).max(until.as_second());
        let options = events().since(&since.to_string()).until(&until.to_string()).build();
        let told = self.docker.events(Some(options)).take(EVENTS_MAX);
        let Ok(Ok(told)) = tokio::time::timeout(self.timeout, told.try_collect::<Vec<_>>()).await else {
            // What it does not tell costs nothing but the age of images.
            return Heard { is_partial: true, ..Heard::default() };
        };
        // It forgets the oldest first, and all when it starts.
        let is_partial = anchor.is_some_and(|anchor| !told.iter().any(|event| anchor.is(event)))
            || told.len() >= EVENTS_MAX;
        let last = told.iter().filter_map(Anchor::of).max().or(anchor.filter(|_| !is_partial));
        Heard { uses: told.into_iter().filter_map(use_told).collect(), is_partial, last }
    }

    /// Hears what it tells from the anchor on, or else from `since` on.
    pub(crate) fn listen(&self, anchor: Option<Anchor>, since: Timestamp) -> Listener {
        let told = Arc::new(Mutex::new(Told { from: anchor, ..Told::default() }));
        let since = anchor.map_or(since.as_second(), Anchor::second);
        let options = events().since(&since.to_string()).build();
        let (docker, heard) = (self.docker.clone(), Arc::clone(&told));
        let task = tokio::spawn(async move {
            let mut events = pin!(docker.events(Some(options)));
            while let Some(Ok(event)) = events.next().await {
                if !lock(&heard).fold(event) {
                    break;
                }
            }
        });
        Listener { told, task }
    }
}

impl Listener {
    /// What was heard since it was last taken.
    pub(crate) fn take(&self) -> Heard {
        let mut told = lock(&self.told);
        let uses = std::mem::take(&mut told.uses).into_iter().collect();
        Heard { uses, last: told.last, is_partial: false }
    }

    /// Whether it hears nothing more: the engine went away, or there was too much.
    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Told {
    /// False once there is no room for more.
    fn fold(&mut self, event: EventMessage) -> bool {
        if self.from.is_some_and(|from| from.is(&event)) {
            self.from = None;
        }
        if self.from.is_none() {
            self.last = self.last.max(Anchor::of(&event));
        }
        if let Some((name, at)) = use_told(event) {
            let used_at = self.uses.entry(name).or_insert(at);
            *used_at = at.max(*used_at);
        }
        self.uses.len() < NAMES_MAX
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What images are used by, and nothing else: Podman tells of kinds of things too that bollard does not know, and the first
/// of these would be the last event that is heard.
fn events() -> EventsOptionsBuilder {
    EventsOptionsBuilder::new().filters(&HashMap::from([("type", vec!["container", "image"])]))
}

/// An image that a container is made of, or that somebody names.
fn use_told(event: EventMessage) -> Option<(String, Timestamp)> {
    let at = Timestamp::from_second(event.time?).ok()?;
    let actor = event.actor?;
    match event.typ? {
        EventMessageTypeEnum::IMAGE if event.action.as_deref() != Some("delete") => Some((actor.id?, at)),
        EventMessageTypeEnum::CONTAINER => Some((actor.attributes?.remove("image")?, at)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::EventActor;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::time::{Duration, Instant};

    fn event(nanoseconds: i64, image: &str) -> EventMessage {
        EventMessage {
            typ: Some(EventMessageTypeEnum::IMAGE),
            action: Some("tag".to_owned()),
            actor: Some(EventActor { id: Some(image.to_owned()), ..EventActor::default() }),
            time: Some(nanoseconds / 1_000_000_000),
            time_nano: Some(nanoseconds),
            ..EventMessage::default()
        }
    }

    #[test]
    fn what_is_heard_after_a_gap_is_no_proof_that_nothing_is_missing() {
        let anchor = Anchor::of(&event(7, ""));
        let mut told = Told { from: anchor, ..Told::default() };
        assert!(told.fold(event(8, "a")));
        assert_eq!(told.last, None, "the engine has forgotten the anchor");
        let mut told = Told { from: anchor, ..Told::default() };
        for (nanoseconds, image) in [(6, "a"), (7, "b"), (2_000_000_009, "a"), (2_000_000_008, "c")] {
            assert!(told.fold(event(nanoseconds, image)));
        }
        assert_eq!(told.last, Anchor::of(&event(2_000_000_009, "")));
        let uses = told.uses.iter().map(|(name, at)| (name.as_str(), at.as_second()));
        assert_eq!(uses.collect::<Vec<_>>(), [("a", 2), ("b", 0), ("c", 2)]);
    }

    #[test]
    fn who_hears_of_too_many_images_gives_up() {
        let mut told = Told::default();
        let heard = (0..).take_while(|nth| told.fold(event(*nth, &nth.to_string()))).count();
        assert_eq!(heard, NAMES_MAX - 1);
    }

    /// An engine that tells of a pod between two images, unless it is asked for containers and images alone.
    fn serve(socket: &Path) {
        let listener = UnixListener::bind(socket).expect("a socket");
        let told = |typ: &str, image: &str, second: u32| {
            let attributes = format!(r#"{{"image": "{image}"}}"#);
            format!(
                r#"{{"Type": "{typ}", "Action": "create", "Actor": {{"ID": "x", "Attributes": {attributes}}}, "time": {second}, "timeNano": {second}000000000}}"#
            )
        };
        let (one, pod, other) =
            (told("container", "one", 1), told("pod", "", 2), told("container", "other", 3));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
                let request = lines.next().and_then(Result::ok).unwrap_or_default();
                while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
                let is_asked = |kind: &str| request.contains(&format!("%22{kind}%22"));
                let body = match request.contains("/events") {
                    true if is_asked("type") && is_asked("container") && is_asked("image") => {
                        format!("{one}\n{other}\n")
                    }
                    true => format!("{one}\n{pod}\n{other}\n"),
                    false if request.contains("/version") => r#"{"ApiVersion": "1.41"}"#.to_owned(),
                    false => "{}".to_owned(),
                };
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
    }

    #[tokio::test]
    async fn what_the_library_does_not_know_ends_no_hearing() {
        let dir = tempfile::tempdir().expect("dir");
        let socket = dir.path().join("engine.sock");
        serve(&socket);
        let address = format!("unix://{}", socket.display());
        let engine = Engine::connect(Some(&address), Duration::from_secs(30)).await.expect("an engine");
        let at = |second| Timestamp::from_second(second).expect("a time");
        let names = |heard: Heard| heard.uses.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let heard = engine.heard(None, Some(at(0)), at(10)).await;
        assert!(!heard.is_partial);
        assert_eq!(names(heard), ["one", "other"]);
        let listener = engine.listen(None, at(0));
        let until = Instant::now() + Duration::from_secs(30);
        while !listener.is_over() {
            assert!(Instant::now() < until, "the answer has an end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(names(listener.take()), ["one", "other"]);
    }
}
